"""The time of a kernel alone against its share in the running artifact, in each state of the caches.

    python -m benchmarks.models --no-bench --minutes 4 --out OUT
    python -m benchmarks.share --out OUT

For each artifact in OUT and each of its tuned kernels: the time of one call inside the running model (the
virtual machine tells when each call begins and ends), and that of the kernel alone as winners are timed, in
each state of the caches. The model runs before and after each such timing; where its two times differ, the
machine's speed changed meanwhile, and all three are taken again. The median of REPEATS counts. Prints the
median over the kernels of the error. Writes ``OUT/share.json``.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import track
from rich.table import Table

from search.problem import BACK_TO_BACK, COLD, Cache

REPEATS = 2
TRIES = 6  # to find the machine at one speed before and after
STEADY = 0.1  # that the kernel's times before and after may differ by, as a share of their mean
RUNS = 8  # of the model, each time
IDLE = "vm.builtin.null_value"  # takes what being told of a call costs: not a kernel's share


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

    def share(self, names: Sequence[str]) -> float:
        """Median seconds of a call, mean over some functions; NaN where compiling did away with them."""
        assert self._process.stdin and self._process.stdout
        print(file=self._process.stdin, flush=True)
        found: dict[str, float] = json.loads(self._process.stdout.readline())
        return statistics.mean([found[n] for n in names if n in found] or [math.nan])


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
            taken[name].append(time.perf_counter() - began)
        return 0

    machine.set_instrument(instrument)
    for _ in sys.stdin:
        machine["main"](*tensors)
        taken.clear()
        for _ in range(RUNS):
            machine["main"](*tensors)
        median_s = {name: statistics.median(s) for name, s in taken.items()}
        print(json.dumps({name: s - median_s.get(IDLE, 0.0) for name, s in median_s.items()}), flush=True)


def compare(name: str, folder: Path, console: Console) -> dict[str, dict[str, list[float]]]:
    """Pairs of the seconds alone over those inside, and the latter, by state of the caches and task."""
    from autotune.frontends import load_model
    from autotune.frontends.graph import lower
    from autotune.measure.pool import Pool
    from autotune.measure.sequential import PairedTest
    from autotune.session import open_session
    from autotune.winners import between, winner_of

    found: dict[str, dict[str, list[float]]] = {c.value: {} for c in Cache}
    with open_session(str(folder / "autotune.db"), None, None, probe=False) as session:
        model = lower(load_model(name), session.target)
        threads = session.conditions.threads
        with Pool(session.conditions.target, threads) as pool, Inside(folder, threads) as inside:
            for task in track(model.tasks, f"timing kernels of {name}", console=console, transient=True):
                won = winner_of(task.workload, session.store, session.conditions)
                names = [n for n, hash_ in model.functions.items() if hash_ == task.workload.hash]
                if won is None or math.isnan(inside.share(names)):
                    continue
                for state in (BACK_TO_BACK, COLD, between(task, model.moved_bytes)):
                    steady, unsteady = list[list[float]](), list[list[float]]()
                    for repeat in range(TRIES):
                        before_s = inside.share(names)
                        with pool.arena(task.workload) as arena:
                            test = arena.compare(won[0].candidate, won[0].candidate, repeat, state)
                        after_s = inside.share(names)
                        if isinstance(test, PairedTest):
                            inside_s, same = (before_s + after_s) / 2, abs(before_s - after_s)
                            found_s = [statistics.median(test.first_s) / inside_s, inside_s]
                            (steady if same < STEADY * inside_s else unsteady).append(found_s)
                        if len(steady) == REPEATS:
                            break
                    if taken := list(zip(*(steady or unsteady), strict=True)):
                        found[state.cache.value][task.name] = [statistics.median(x) for x in taken]
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
    for column in ("model", "kernels", "inside ms", *(t for c in Cache for t in (f"{c}: error", "all"))):
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
