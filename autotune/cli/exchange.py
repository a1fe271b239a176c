"""``autotune db import`` and ``autotune db export``."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autotune.cli import options
from db.exchange.formats import Format

if TYPE_CHECKING:
    from rich.console import Console

    from db.exchange.items import Tally

_QUIET_S = 2.0
_PLAIN_EVERY_S = 10.0


def import_records(
    path: Annotated[
        Path, typer.Argument(help="File, or the folder of a MetaSchedule database.", show_default=False)
    ],
    format: Annotated[
        Format | None, typer.Option(help="Its format.", show_default="seen from its contents")
    ] = None,
    db: options.Database = None,
    json: options.Json = False,
) -> None:
    """Add measurements that other tools, or another autotune, recorded; what is there already stays as it is.

    Example: `autotune db import convolution_milo_A4000.json.gz`
    """
    from dataclasses import asdict

    from autotune.cli.console import console, print_json
    from db.exchange.formats import guess
    from db.exchange.importing import add, read
    from db.store import Store

    screen = console(json)
    format = format or guess(path)
    items = read(path, format)  # before there is a database: a file of no use makes none
    with Store.open(db, create=True) as store, _pace(screen, f"importing {path.name}") as observe:
        done = add(store, items, observe)
    if json:
        print_json(asdict(done) | {"format": format, "database": str(store)})
        return
    known = f"; {done.known:,} were there already" if done.known else ""
    _say(screen, f"{done.added:,} measurements imported into {store} ({format}){known}")
    _show_skipped(screen, done)


def export_records(
    path: Annotated[
        Path,
        typer.Argument(
            help="File that is not there yet, packed where it ends in .gz; for MetaSchedule a folder.",
            show_default=False,
        ),
    ],
    format: Annotated[Format, typer.Option(help="All but traces can be written.")] = Format.PORTABLE,
    workload: Annotated[
        str | None,
        typer.Option(metavar="HASH", help="One workload, by the start of its hash.", show_default="all"),
    ] = None,
    db: options.Database = None,
    json: options.Json = False,
) -> None:
    """Write measurements for another autotune, or for other tools.

    Example: `autotune db export records.jsonl.gz`
    """
    from dataclasses import asdict

    from autotune.cli.console import console, print_json
    from autotune.errors import BadInput
    from db.exchange.exporting import write
    from db.exchange.formats import METASCHEDULE_FILES
    from db.store import Store

    if format is Format.TRACES:
        raise BadInput("--format traces: such files are only read; take portable")
    files = [path / name for name in METASCHEDULE_FILES] if format is Format.METASCHEDULE else [path]
    if there := [f for f in files if f.exists()]:
        raise BadInput(f"{there[0]} exists already; give another name, or remove it")
    screen = console(json)
    with Store.open(db) as store, _pace(screen, f"exporting to {path.name}") as observe:
        chosen = store.workload(workload).hash if workload else None
        done = write(store, path, format, chosen, observe)
    if json:
        print_json(asdict(done) | {"format": format, "path": str(path)})
        return
    _say(screen, f"{done.written:,} measurements exported to {path} ({format})")
    _show_skipped(screen, done)


def _show_skipped(screen: "Console", done: "Tally") -> None:
    """The first of what was left out, and how many more there are."""
    from db.exchange.items import SHOWN

    if not done.skipped:
        return
    _say(screen, f"{done.skipped:,} skipped:")
    for reason in done.reasons:
        _say(screen, f"  {reason}")
    if len(done.reasons) == SHOWN and done.skipped > SHOWN:
        _say(screen, f"  and {done.skipped - SHOWN:,} more")


def _say(screen: "Console", text: str) -> None:
    screen.print(text, markup=False, soft_wrap=True)


@contextmanager
def _pace(screen: "Console", doing: str) -> "Iterator[Callable[[int], None]]":
    """Says how many records were seen and how fast, once that takes longer than two seconds."""
    from rich.text import Text

    started = last = time.monotonic()
    status = screen.status("")

    def observe(count: int) -> None:
        nonlocal last
        now = time.monotonic()
        every = 0.25 if screen.is_terminal else _PLAIN_EVERY_S
        if now - started < _QUIET_S or now - last < every:
            return
        last = now
        text = f"{doing}: {count:,} records, {count / (now - started):,.0f}/s"
        if screen.is_terminal:
            status.update(Text(text))
            status.start()
        else:
            _say(screen, text)

    try:
        yield observe
    finally:
        status.stop()
