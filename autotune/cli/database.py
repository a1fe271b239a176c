"""``autotune db``."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from autotune.cli import exchange, options

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(no_args_is_help=True, help="Look after the database of measurements.")
app.command("import")(exchange.import_records)
app.command("export")(exchange.export_records)


@app.command()
def create(db: options.Database = None) -> None:
    """Make a new, empty database. `autotune run` makes the default one by itself."""
    from db.engine import resolve_url, shown
    from db.migrate import create as make

    make(db)
    typer.echo(f"created {shown(resolve_url(db))}")


@app.command()
def migrate(db: options.Database = None) -> None:
    """Bring a database of an older autotune to this version; an SQLite file is copied first."""
    from db.engine import resolve_url, shown
    from db.migrate import migrate as upgrade

    backup = upgrade(db)
    typer.echo(
        f"migrated {shown(resolve_url(db))}" + (f"; the old file is kept as {backup}" if backup else "")
    )


@app.command()
def version(db: options.Database = None) -> None:
    """Show the revision of a database and the one that this autotune needs."""
    from db.migrate import version as revisions

    found, needed = revisions(db)
    typer.echo(f"database: {found or 'none'}\nautotune: {needed}")


@app.command()
def stats(db: options.Database = None, json: options.Json = False) -> None:
    """Show what a database holds."""
    from dataclasses import asdict

    from autotune.cli.console import console, print_json
    from db.store import Store

    with Store.open(db) as store:
        found = store.stats()
        if json:
            print_json(asdict(found))
            return
        table = _table(f"{store}, revision {found.revision}", "table", "rows")
        for name, count in found.rows.items():
            table.add_row(name, str(count))
        screen = console()
        screen.print(table)
        if found.size_bytes is not None:
            screen.print(f"size: {found.size_bytes / 1e6:.1f} MB")
        screen.print("failures: " + (", ".join(f"{n} {k}" for k, n in found.failures.items()) or "none"))
        hardware = (f"{h.name}, {h.cores} cores" for h in found.hardware)
        screen.print("hardware: " + ("; ".join(hardware) or "none"))


@app.command()
def runs(
    db: options.Database = None,
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1, max=1_000_000)] = 20,
    json: options.Json = False,
) -> None:
    """List runs, newest first."""
    from dataclasses import asdict

    from autotune.cli.console import console, print_json
    from db.store import Store

    with Store.open(db) as store:
        found = store.runs(limit)
    if json:
        print_json([asdict(r) for r in found])
        return
    table = _table(f"{len(found)} runs", "run", "model", "status", "started", "trials", "failed", "minutes")
    for r in found:
        started = r.started_at.strftime("%Y-%m-%d %H:%M")
        table.add_row(
            str(r.id), r.model, r.status, started, str(r.trials), str(r.failed), f"{r.elapsed_s / 60:.1f}"
        )
    console().print(table)


@app.command()
def show(
    what: Annotated[
        str, typer.Argument(help="Number of a run, or the start of a workload's or candidate's hash.")
    ],
    db: options.Database = None,
    json: options.Json = False,
) -> None:
    """Show one run, workload or candidate in full."""
    from db.store import Store

    with Store.open(db) as store:
        if what.isdecimal() and len(what) < 8:
            _show_run(store.show_run(int(what)), json)
        else:
            _show_hash(store, what, json)


def _show_run(detail: Any, as_json: bool) -> None:
    from dataclasses import asdict

    from autotune.cli.console import console, print_json
    from autotune.report.numbers import latency

    if as_json:
        print_json(asdict(detail))
        return
    run = detail.run
    screen = console()
    screen.print(
        f"run {run.id} of {detail.model}: {run.status}, {run.trials} trials in {run.elapsed_s / 60:.1f} min, "
        f"seed {run.spec.seed}, {run.spec.conditions.threads} threads on {run.spec.conditions.hardware.name}"
    )
    table = _table("", "task", "workload", "times", "measured", "fastest")
    for t in detail.tasks:
        fastest = latency(t.fastest_s) if t.fastest_s is not None else "-"
        table.add_row(t.name, t.workload[:12], str(t.weight), str(t.measured), fastest)
    screen.print(table)
    screen.print("failures: " + (", ".join(f"{n} {k}" for k, n in detail.failures.items()) or "none"))


def _show_hash(store: Any, what: str, as_json: bool) -> None:
    from dataclasses import asdict

    from autotune.cli.console import console, print_json
    from autotune.report.numbers import latency
    from db.errors import NoSuchRecord

    try:
        detail = store.show_workload(what)
    except NoSuchRecord:
        candidate = store.candidate(what)
        print_json(asdict(candidate) | {"hash": candidate.hash})
        return
    if as_json:
        print_json(asdict(detail))
        return
    work = detail.workload
    screen = console()
    screen.print(f"workload {work.hash}\n{work.name}: {work.flop / 1e6:.2f} MFLOP")
    screen.print(" ".join(f"{a.dtype}[{','.join(map(str, a.shape))}]" for a in work.args))
    screen.print("in " + (", ".join(f"{m} ({t})" for m, t in detail.tasks) or "no model"))
    table = _table("", "hardware", "threads", "measured", "failed", "fastest")
    for c in detail.coverage:
        fastest = latency(c.fastest_s) if c.fastest_s is not None else "-"
        table.add_row(c.hardware, str(c.threads), str(c.measured), str(c.failed), fastest)
    screen.print(table)


def _table(title: str, *columns: str) -> "Table":
    from rich.table import Table

    table = Table(title=title or None)
    for name in columns:
        table.add_column(name)
    return table
