"""``autotune models``: cost models that were trained."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autotune.cli import options

if TYPE_CHECKING:
    from rich.console import Console

    from db.values import Checkpoint

app = typer.Typer(no_args_is_help=True, help="Look after trained cost models.")

_Name = Annotated[
    str,
    typer.Argument(help="Of a checkpoint; or a file, or pretrained-lstm and the like.", show_default=False),
]
_Networks = Annotated[list[str], typer.Option(help="Judge by the kernels of this network alone; repeatable.")]
_SHOWN = {
    "top@1": "top-1",
    "top@5": "top-5",
    "pairwise": "pairwise",
    "tau": "tau",
    "median_error": "median error",
    "failed@1": "top-1 fails",
}
"""Metrics in tables, with their headings."""


@app.command("list")
def list_checkpoints(db: options.Database = None, json: options.Json = False) -> None:
    """List the checkpoints that a database knows, newest first."""
    from dataclasses import asdict

    from rich.table import Table

    from autotune.cli.console import console, print_json
    from db.store import Store

    with Store.open(db) as store:
        found = store.checkpoints()
    if json:
        print_json([asdict(c) for c in found])
        return
    if not found:
        console().print(
            "no checkpoints yet: `autotune train` makes one; those that come with autotune are used"
        )
        return
    table = Table("name", "kind", "learnt from", *_SHOWN.values(), "made")
    for c in found:
        made = f"{c.created_at:%Y-%m-%d %H:%M}"
        learnt = f"{c.data.get('measurements', '?')} of {c.data.get('workloads', '?')} kernels"
        star = " (default)" if c.is_default else ""
        table.add_row(c.name + star, c.kind.value, learnt, *_figures(c.metrics), made)
    console().print(table)


@app.command()
def show(name: _Name, db: options.Database = None, json: options.Json = False) -> None:
    """Show all that is known of a checkpoint."""
    from dataclasses import asdict

    from autotune.cli.console import console, print_json
    from autotune.learning import find_checkpoint
    from costmodels.checkpoint import read_about
    from db.store import Store

    with Store.open(db) as store:
        about = read_about(find_checkpoint(store, name))
    if json:
        print_json(asdict(about))
        return
    screen = console()
    for key, value in asdict(about).items():
        if isinstance(value, dict):
            screen.print(f"[bold]{key}[/]")
            for inner, figure in value.items():
                shown = f"{figure:.4g}" if isinstance(figure, float) else figure
                screen.print(f"  {inner}: {shown}", soft_wrap=True)
        else:
            screen.print(f"[bold]{key}[/]: {value}", soft_wrap=True)


@app.command("eval")
def evaluate(
    name: _Name,
    db: options.Database = None,
    network: _Networks = [],  # noqa: B006  (typer reads the default)
    json: options.Json = False,
) -> None:
    """Judge a checkpoint by what a database holds. Mind what it was trained on: see `models show`."""
    _compare([name], db, network, json)


@app.command()
def compare(
    names: Annotated[list[str], typer.Argument(help="Of checkpoints, or files.", show_default=False)],
    db: options.Database = None,
    network: _Networks = [],  # noqa: B006  (typer reads the default)
    json: options.Json = False,
) -> None:
    """Judge several checkpoints by the same measurements."""
    _compare(names, db, network, json)


def _compare(names: list[str], db: str | None, networks: list[str], json: bool) -> None:
    from rich.table import Table

    from autotune.cli.console import console, print_json
    from db.store import Store

    screen = console(json)
    with Store.open(db) as store, screen.status("reading measurements") as status:
        from autotune.errors import BadInput
        from autotune.learning import find_checkpoint, read_groups
        from costmodels.checkpoint import load
        from costmodels.job import encoded_or_none
        from costmodels.metrics import ScoredTask, summary
        from costmodels.network import scored

        found = {name: load(find_checkpoint(store, name))[0] for name in names}
        judged: dict[str, list[ScoredTask]] = {name: [] for name in names}
        groups = (g for g in read_groups(store) if not networks or g.networks & set(networks))
        for number, group in enumerate(groups, start=1):
            status.update(f"kernel {number}: {group.workload.name}")
            for name, model in found.items():
                if (encoded := encoded_or_none(model.encode, group)) is not None:
                    judged[name].append(scored(model.predict(encoded), encoded))
        if not judged[names[0]]:
            raise BadInput(
                f"--network {', '.join(networks)}: the database has no measurements of its kernels"
            )
    rows = {name: summary(tasks) for name, tasks in judged.items()}
    if json:
        print_json(rows)
        return
    table = Table("checkpoint", *_SHOWN.values(), title=f"{len(judged[names[0]])} kernels")
    for name, metrics in rows.items():
        table.add_row(name, *_figures(metrics))
    screen.print(table)


@app.command()
def default(
    name: Annotated[str, typer.Argument(help="Of a checkpoint.", show_default=False)],
    db: options.Database = None,
) -> None:
    """Make a checkpoint the one that `autotune run` uses, of its kind; pretrained-lstm is the shipped one."""
    from autotune.learning import make_default
    from db.store import Store

    with Store.open(db) as store:
        kind = make_default(store, name)
    typer.echo(f"{name} is the {kind} model from now on")


def print_checkpoint(checkpoint: "Checkpoint", screen: "Console") -> None:
    """What a training job ends with."""
    figures = ", ".join(
        f"{h} {f}" for h, f in zip(_SHOWN.values(), _figures(checkpoint.metrics), strict=True)
    )
    held_out = ", ".join(checkpoint.data.get("held_out", [])) or "kernels of no network"
    screen.print(
        f"[bold]{checkpoint.name}[/]: {figures}\njudged by {held_out}\n{checkpoint.path}", soft_wrap=True
    )


def _figures(metrics: Mapping[str, Any]) -> list[str]:
    found = (metrics.get(key) for key in _SHOWN)
    return ["-" if f is None else f"{f:.3f}" for f in found]
