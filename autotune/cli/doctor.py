"""``autotune doctor``."""

from typing import TYPE_CHECKING

from autotune.cli import options

if TYPE_CHECKING:
    from autotune.doctor import Finding


def doctor(json: options.Json = False) -> None:
    """Look for what would spoil measurements on this machine, and say what to do about it.

    Example: `autotune doctor`
    """
    from dataclasses import asdict

    from autotune.cli.console import console, print_json
    from autotune.doctor import examine

    screen = console(json)
    with screen.status("looking") as status:
        findings = list(examine(tell=lambda what: status.update(f"looking at {what}")))
    if json:
        print_json([asdict(f) for f in findings])
    else:
        _print(findings)


def _print(findings: "list[Finding]") -> None:
    from rich.markup import escape
    from rich.table import Table

    from autotune.cli.console import console
    from autotune.doctor import State

    styles = {State.OK: "green", State.WARNING: "yellow", State.UNKNOWN: "dim"}
    table = Table("", "state", "found", title="What would spoil measurements here")
    for f in findings:
        table.add_row(f.name, f"[{styles[f.state]}]{f.state}[/]", escape(f.found))
    screen = console()
    screen.print(table)
    for f in findings:  # below the table, which would break commands into lines
        if f.advice:
            screen.print(f"{f.name}: {escape(f.advice)}", soft_wrap=True)
