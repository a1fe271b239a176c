"""``autotune run``."""

from typing import Annotated

import typer

from autotune.cli import options
from autotune.cli.options import check_batch, parse_shapes


def run(
    model: options.Model,
    trials: Annotated[
        int | None,
        typer.Option(help="Candidates to measure at most; 0 takes first guesses.", show_default=False),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Minutes to tune at most.", show_default="10, without --trials")
    ] = None,
    threads: options.Threads = None,
    target: options.Target = None,
    db: options.Database = None,
    out: options.Out = None,
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    tasks: Annotated[str, typer.Option(metavar="PATTERN", help="Tune only tasks whose name matches.")] = "*",
    searcher: Annotated[
        str | None,
        typer.Option(
            help="Who chooses the candidates; `autotune replay` compares them.", show_default="cascade"
        ),
    ] = None,
    gain: Annotated[
        float | None,
        typer.Option(
            help="Share of the model's latency that 32 trials must promise, else it ends.",
            show_default="0.0005",
        ),
    ] = None,
    pretrained: Annotated[
        bool, typer.Option(help="Let trained cost models (see `autotune models`) take part.")
    ] = True,
    input: options.Inputs = [],  # noqa: B006  (typer reads the default)
    batch: options.Batch = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be tuned; write and measure nothing.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Tune a model, verify the winners, write a compiled model and a report.

    Every measurement goes into the database at once; the same command after an interruption goes on where
    it stopped, and a later run starts from what is known. Example: `autotune run net.onnx --minutes 5`
    """
    from contextlib import ExitStack
    from pathlib import Path

    from autotune.api import DEFAULT_FOLDER, DEFAULT_GAIN, check_searcher, make_budget
    from autotune.cli.console import console, lowering, show_result
    from autotune.cli.progress import LiveProgress
    from autotune.frontends.graph import lower
    from autotune.run import RunOptions, run_model, select_tasks
    from autotune.session import open_session
    from search.searchers import DEFAULT

    budget = make_budget(trials, minutes, DEFAULT_GAIN if gain is None else gain)
    run_options = RunOptions(budget, seed, tasks, check_searcher(searcher or DEFAULT), pretrained)
    shapes = parse_shapes(input)
    screen = console(json)
    if dry_run:
        from autotune.cli.tasks import print_tasks

        lowered = lowering(model, shapes, check_batch(batch), target, threads, screen)
        chosen = select_tasks(lowered, tasks)
        print_tasks(lowered, chosen, json)
        return
    with screen.status(f"importing {model}"):
        from autotune.frontends import load_model

        source = load_model(model, shapes, check_batch(batch))
    with ExitStack() as stack:
        with screen.status("probing this machine"):
            session = stack.enter_context(open_session(db, target, threads))
        with screen.status(f"importing {model}"):
            lowered = lower(source, session.target)
        folder = out or Path(DEFAULT_FOLDER / lowered.name)
        flop = sum(t.workload.flop * t.weight for t in lowered.tasks)
        screen.print(
            f"[bold]{lowered.name}[/]: {len(lowered.tasks)} tasks, {flop / 1e9:.2f} GFLOP; "
            f"{session.conditions.threads} threads; records in {session.store}"
        )
        with LiveProgress(screen) as live:
            manifest = run_model(lowered, session, run_options, folder, live.observe)
    show_result(manifest, folder, screen, json)
