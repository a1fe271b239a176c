"""``autotune collect``."""

from typing import Annotated

import typer

from autotune.cli import options


def collect(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Model files or examples whose kernels are measured.",
            show_default="examples to learn from",
        ),
    ] = None,
    neighbours: Annotated[
        int, typer.Option(min=0, help="Made-up networks of shapes near to the usual, after the others.")
    ] = 16,
    trials: Annotated[int, typer.Option(min=1, help="Measurements of each kernel.")] = 100,
    minutes: Annotated[
        float | None, typer.Option(help="Minutes to measure at most.", show_default="until all is done")
    ] = None,
    threads: options.Threads = None,
    target: options.Target = None,
    db: options.Database = None,
    guided: Annotated[
        bool,
        typer.Option("--guided", help="Measure where beams of the default LSTM end, to train it anew."),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search and of the made-up networks.")] = 0,
) -> None:
    """Measure candidates of many kernels, good and bad ones, for cost models to learn from.

    Every measurement goes into the database at once; the same command after an interruption goes on where
    it stopped. Example: `autotune collect --minutes 30`
    """
    from autotune.api import check_minutes
    from autotune.cli.console import console
    from autotune.errors import BadInput
    from autotune.frontends import find_model

    check_minutes(minutes)
    for model in models or []:
        find_model(model)
    screen = console(False)
    with screen.status("starting; this machine is probed first"):
        from autotune.catalogue import TRAINING, networks
        from autotune.cli.progress import LiveCollection
        from autotune.collect import Collector
        from autotune.learning import learned_models
        from autotune.session import open_session
    with open_session(db, target, threads) as session, LiveCollection(screen) as live:
        seconds = None if minutes is None else minutes * 60
        trained = learned_models(session.store, session.conditions).trained if guided else None
        if guided and (trained is None or trained.lstm is None):
            raise BadInput("--guided: there is no trained LSTM; `autotune train --model lstm` makes one")
        collector = Collector(session, trials, seconds, seed, live.observe, trained)
        collected = collector.run(networks(models or TRAINING, neighbours, seed))
        failed = sum(collected.failures.values())
        screen.print(
            f"{collected.measured} measurements, {failed} failed; {collected.workloads} kernels with "
            f"{collected.records} of {collected.wanted} wanted, in {session.store}"
        )
