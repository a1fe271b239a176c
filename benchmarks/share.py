"""A kernel's recorded latency against its share in the running artifact, with caches warm and cold.

    python -m benchmarks.models --no-bench --minutes 4 --out OUT
    python -m benchmarks.share --out OUT

For each artifact in OUT and each of its tuned kernels: the time of one call inside the running model (the
virtual machine tells when each call begins and ends), and that of the kernel alone as winners are timed, in
both states of the caches. The model runs before and after each such timing, so that a machine whose speed
changes from second to second does so for both; the median of REPEATS counts. Prints the median over the
kernels of the error. Writes ``OUT/share.json``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import track
from rich.table import Table

from search.problem import Cache

REPEATS = 2
RUNS = 8  # of the model, each time
CALLBACK_S = 2e-6  # what being told costs: not a kernel's share


class Inside:
    """A running artifact, in a process of its own, that tells how long its kernels take."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.share", "--inside", str(folder)],
            env={**os.environ, "TVM_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def seconds(self) -> dict[str, float]:
        """Median seconds of one call of each function."""
        assert self._process.stdin and self._process.stdout
        print(file=self._process.stdin, flush=True)
        found: dict[str, float] = json.loads(self._process.stdout.readline())
        return found


def serve(folder: Path) -> None:
    """What the process of ``Inside`` does: for each line, some runs."""
    import numpy as np
    import tvm
    from tvm import relax

    from autotune.manifest import Manifest

    manifest = Manifest.read(folder)
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(folder / manifest.library)), tvm.cpu())
    rng = np.random.default_rng(0)
    tensors = [
        tvm.runtime.tensor(rng.standard_normal(i.shape).astype(i.dtype)) for i in manifest.model.inputs
    ]
    taken: dict[str, list[float]] = defaultdict(list)
    began = 0.0

    def instrument(function: Any, name: str, before: bool, result: Any, *args: Any) -> int:
        nonlocal began
        if before:
            began = time.perf_counter()
        else:
            taken[name].append(time.perf_counter() - began - CALLBACK_S)
        return 0

    machine.set_instrument(instrument)
    for _ in sys.stdin:
        machine["main"](*tensors)
        taken.clear()
        for _ in range(RUNS):
            machine["main"](*tensors)
        print(json.dumps({name: statistics.median(s) for name, s in taken.items()}), flush=True)


def share_of(seconds: Mapping[str, float], functions: Mapping[str, str], workload: str) -> float:
    """Mean over the functions that are this workload."""
    return statistics.mean(s for name, s in seconds.items() if functions.get(name) == workload)


def compare(name: str, folder: Path, console: Console) -> dict[str, dict[str, list[float]]]:
    """Pairs of the seconds alone over those inside, and the latter, by state of the caches and task."""
    from autotune.frontends import load_model
    from autotune.frontends.graph import lower
    from autotune.measure.pool import Pool
    from autotune.measure.sequential import PairedTest
    from autotune.session import open_session
    from autotune.winners import winner_of

    found: dict[str, dict[str, list[float]]] = {c.value: {} for c in Cache}
    with open_session(str(folder / "autotune.db"), None, None, probe=False) as session:
        model = lower(load_model(name), session.target)
        threads = session.conditions.threads
        with Pool(session.conditions.target, threads) as pool, Inside(folder, threads) as inside:
            for task in track(model.tasks, f"timing kernels of {name}", console=console, transient=True):
                if (won := winner_of(task, session.store, session.conditions)) is None:
                    continue
                hash_ = task.workload.hash
                for cache in Cache:
                    ratios = []
                    for repeat in range(REPEATS):
                        around = [share_of(inside.seconds(), model.functions, hash_)]
                        test = pool.compare(task.workload, won[0].candidate, won[0].candidate, repeat, cache)
                        around.append(share_of(inside.seconds(), model.functions, hash_))
                        if isinstance(test, PairedTest):
                            ratios.append(statistics.median(test.first_s) / statistics.mean(around))
                    found[cache.value][task.name] = [statistics.median(ratios), statistics.mean(around)]
    return found


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--models", default="resnet18,mobilenet_v2,squeezenet")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        serve(options.inside)
        return
    console = Console()
    table = Table(box=None, title="a kernel alone against its share in the model")
    for column in ("model", "kernels", "inside ms", "warm: error", "all", "cold: error", "all"):
        table.add_column(column, justify="right")
    results: dict[str, Any] = {}
    for name in options.models.split(","):
        results[name] = compare(name, options.out / name, console)
        (options.out / "share.json").write_text(json.dumps(results, indent=1))
        if len(results[name][Cache.WARM]) < 2:
            parser.error(f"{options.out / name}: its database holds no winners of {name} for this machine")
        table.add_row(name, *row(results[name]))
    console.print(table)


def row(found: dict[str, dict[str, list[float]]]) -> list[str]:
    """Median error with quartiles, and the sum of all alone over the sum of all inside, for each state."""
    cells = []
    for cache in Cache:
        tasks = list(found[cache.value].values())
        errors = [abs(ratio - 1) for ratio, _ in tasks]
        low, middle, high = statistics.quantiles(errors, n=4)
        total = sum(s for _, s in tasks)
        if not cells:
            cells += [str(len(tasks)), f"{total * 1e3:.2f}"]
        cells += [f"{middle:.1%} ({low:.0%}-{high:.0%})", f"{sum(r * s for r, s in tasks) / total:.2f}"]
    return cells


if __name__ == "__main__":
    main()
