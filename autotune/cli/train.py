"""``autotune train``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from autotune.cli import options


def train(
    model: Annotated[
        Literal["lstm", "gnn", "trees"],
        typer.Option(help="LSTM over decisions, graph network over programs, or boosted trees."),
    ],
    db: options.Database = None,
    split: Annotated[
        Literal["workload", "model", "device"],
        typer.Option(help="What kernels that are judged by have in common, and none of the others."),
    ] = "model",
    hold_out: Annotated[
        list[str],
        typer.Option(
            metavar="NETWORK", help="Network that is neither learnt from nor judged by; repeatable."
        ),
    ] = [],  # noqa: B006  (typer reads the default)
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data at most.")] = 60,
    width: Annotated[
        int | None, typer.Option(min=4, help="Of the network's state.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 2, help="Seed of weights, order and split.")] = 0,
    name: Annotated[
        str | None, typer.Option(help="Handle of the checkpoint.", show_default="the kind, with a number")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File of the checkpoint.", show_default="in the user's data folder")
    ] = None,
    search_hparams: Annotated[
        int, typer.Option(min=0, help="Trials of Optuna to choose width, layers, rates; the best is trained.")
    ] = 0,
    processes: Annotated[int, typer.Option(min=1, help="Processes that train a network together.")] = 1,
    json: options.Json = False,
) -> None:
    """Train a cost model on what the database holds, and say how good it is on what was held out.

    The same command after an interruption goes on after the last epoch.
    Example: `autotune train --model lstm`
    """
    from autotune.cli.console import console, print_json
    from autotune.cli.progress import LiveTraining
    from db.store import Store

    screen = console(json)
    with screen.status("starting"):
        from autotune.cli.models import print_checkpoint
        from autotune.learning import IN_THE_LOOP, read_groups, train_on
        from costmodels.job import Job
        from costmodels.training import TrainSettings
    with Store.open(db) as store:
        job = Job(
            model, split, seed=seed, model={"width": width} if width and model != "trees" else {},
            training=TrainSettings(epochs=epochs, seed=seed), processes=processes, hidden=tuple(hold_out),
        )  # fmt: skip
        if search_hparams:
            from costmodels.hparams import search

            with LiveTraining(screen) as live:
                job = search(read_groups(store, hold_out), job, search_hparams, store.url, live)
        with LiveTraining(screen) as live:
            checkpoint = train_on(store, job, name, out, live)
        if json:
            print_json({"name": checkpoint.name, "path": checkpoint.path, "metrics": checkpoint.metrics})
            return
        print_checkpoint(checkpoint, screen)
        if model in IN_THE_LOOP:
            screen.print(f"use it from now on: autotune models default {checkpoint.name}", soft_wrap=True)
