"""Our kernels beside the fastest that the vendors have for the same layers, over several models.

    python -m benchmarks.vendor --models squeezenet,bert_base
    python -m benchmarks.vendor --db autotune.db     # the best that was measured there; else first guesses
    python -m benchmarks.vendor --db layers.db --trials 64   # each layer is tuned on its own before

What ``autotune bench MODEL --kernels`` does for each. Writes ``benchmarks/results/vendor.json``.
"""

import argparse
import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from autotune.bench.kernels import bench_kernels
from autotune.bench.layers import layers_of, source_of
from autotune.bench.result import KernelEntry
from autotune.bench.table import print_kernels
from autotune.cli.progress import LiveProgress
from autotune.frontends import load_model
from autotune.frontends.graph import lower
from autotune.hardware import usable_cores
from autotune.measure.pool import Pool
from autotune.session import open_session
from autotune.tuner import Budget, Progress, Tuner
from autotune.winners import verify_winners, winner_of
from db.values import RunSpec, RunStatus
from search.spaces import SPACES, first_guess

MODELS = "resnet50,mobilenet_v2,squeezenet,inception_v1,bert_base"
CLOSE = 0.97
WIDTH = 110  # of the table, columns


def tune(name: str, db: str | None, trials: int, console: Console) -> None:
    """Tunes the layers of a model that are not in the database with as many trials, each on its own."""
    with open_session(db, None, None) as session, LiveProgress(console) as live:
        store, conditions = session.store, session.conditions
        layers = layers_of(load_model(name))
        with Pool(conditions.target, conditions.threads) as pool:
            for number, layer in enumerate(layers, start=1):
                model = lower(source_of(layer, layer.numbers()), session.target)
                tasks = tuple(t for t in model.tasks if t.workload.flop)
                known = store.history([t.workload.hash for t in tasks], conditions, list(SPACES))
                budget = Budget(max(0, trials - sum(1 for _ in known)))
                if not budget.trials and all(winner_of(t.workload, store, conditions) for t in tasks):
                    continue
                store.add_model(model.hash, model.name, model.source.source, model.tasks)
                run = store.start_run(RunSpec(model.hash, conditions, 0, {"trials": budget.trials}))

                def observe(progress: Progress, said: str = f"layer {number} of {len(layers)}") -> None:
                    live.observe(replace(progress, doing=f"{said}: {progress.doing}"))

                Tuner(model, tasks, session.target, conditions, store, budget, observe).run(run, pool)
                guess = partial(first_guess, target=session.target)
                verify_winners(tasks, store, conditions, pool, run.id, guess=guess)
                store.end_run(run.id, RunStatus.FINISHED)


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--db", help="take the best measured candidates from this database")
    parser.add_argument("--trials", type=int, default=0, help="of each layer alone; those in --db count")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    console = Console()
    console.width = max(console.width, WIDTH)
    found: list[KernelEntry] = []
    missed: list[str] = []
    options.out.mkdir(parents=True, exist_ok=True)
    for model in options.models.split(","):
        if options.trials:
            tune(model, options.db, options.trials, console)
        with console.status(model) as status:
            asked = bench_kernels(model, None, None, options.db, usable_cores(), options.rounds)
            for left, kernel in asked:
                if isinstance(kernel, str):
                    missed.append(f"{model}, {kernel}")
                else:
                    found.append(kernel)
                status.update(f"{model}: {left} layers left")
                (options.out / "vendor.json").write_text(json.dumps([asdict(k) for k in found]))
    print_kernels(found, missed, console)
    console.print(f"{sum(k.ratio < CLOSE for k in found)} below {CLOSE}", highlight=False)


if __name__ == "__main__":
    main()
