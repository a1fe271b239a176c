"""Whole networks: tuned from nothing, then measured beside the peers in one interleaved run.

    python -m benchmarks.models --minutes 15
    python -m benchmarks.models --minutes 0      # first guesses, nothing measured
    python -m benchmarks.models --reuse          # bench the artifacts that lie in --out

Writes ``OUT/models.json``: for each model the bench's samples and ratios, the trials made, and the memory of
the tuner's process after every hundred of them.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from autotune.cli.progress import LiveProgress
from autotune.frontends import load_model
from autotune.frontends.graph import lower
from autotune.run import RunOptions, run_model
from autotune.session import open_session
from autotune.tuner import Budget, Progress

MODELS = "resnet18,mobilenet_v2,squeezenet"


class _Memory:
    """Resident memory of this process by number of trials, in megabytes."""

    def __init__(self) -> None:
        self.curve: list[tuple[int, float]] = []
        self._process = psutil.Process()

    def observe(self, progress: Progress) -> None:
        if progress.trials and (not self.curve or progress.trials >= self.curve[-1][0] + 100):
            self.curve.append((progress.trials, self._process.memory_info().rss / 1e6))


def tune(name: str, minutes: float, folder: Path, console: Console) -> dict[str, Any]:
    """Tunes a model from an empty database."""
    memory = _Memory()
    database = folder / "autotune.db"
    database.parent.mkdir(parents=True, exist_ok=True)
    for old in database.parent.glob(f"{database.name}*"):  # SQLite's log belongs to the file
        old.unlink()
    with open_session(str(database), None, None) as session, LiveProgress(console) as live:

        def observe(progress: Progress) -> None:
            live.observe(progress)
            memory.observe(progress)

        model = lower(load_model(name), session.target)
        options = RunOptions(Budget(None, minutes * 60) if minutes else Budget(trials=0))
        manifest = run_model(model, session, options, folder, observe)
    if memory.curve:
        first, last = memory.curve[0], memory.curve[-1]
        console.print(
            f"{name}: {manifest.run.trials} trials; memory {first[1]:.0f} MB after {first[0]}, "
            f"{last[1]:.0f} MB after {last[0]}"
        )
    return {"trials": manifest.run.trials, "failures": manifest.run.failures, "memory_mb": memory.curve}


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--peers", help="such as openvino,onnxruntime; default: all")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--reuse", action="store_true", help="do not tune; bench what lies in --out")
    parser.add_argument("--no-bench", action="store_true", help="only tune")
    options = parser.parse_args()
    console = Console()
    results: dict[str, Any] = {}
    names = options.models.split(",")
    for name in names:
        results[name] = (
            {} if options.reuse else tune(name, options.minutes, options.out / Path(name).stem, console)
        )
    if not options.no_bench:
        peers = options.peers.split(",") if options.peers else None
        bench(names, options.out, options.rounds, results, console, peers)
    (options.out / "models.json").write_text(json.dumps(results, indent=1))


def bench(
    names: list[str],
    out: Path,
    rounds: int,
    results: dict[str, Any],
    console: Console,
    peers: list[str] | None = None,
) -> None:
    """Measures each artifact beside its peers, all or these; prints the tables and the geometric means."""
    from autotune.bench.run import bench_model
    from autotune.bench.table import print_bench
    from autotune.hardware import usable_cores

    ratios = []
    for name in names:
        with console.status(name) as status:
            result = bench_model(
                name, out / Path(name).stem, usable_cores(), rounds, {}, None, peers, status.update
            )
        print_bench(result, console)
        results[name]["bench"] = json.loads(result.to_json())
        ratios.append(min(e.versus.ratio for e in result.entries if e.versus))
    console.print(
        f"fastest peer / ours: geometric mean {statistics.geometric_mean(ratios):.2f} "
        f"over {len(ratios)} models, worst {min(ratios):.2f}"
    )


if __name__ == "__main__":
    main()
