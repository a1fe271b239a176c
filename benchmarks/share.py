"""A kernel's recorded latency against its share in the running artifact, with caches warm and cold.

    python -m benchmarks.models --no-bench --minutes 4 --out OUT
    python -m benchmarks.share --out OUT

For each artifact in OUT and each of its tuned kernels: the time of one call inside the running model (the
virtual machine tells when each call begins and ends), and that of the kernel alone as the tuner measures it,
in both states of the caches. Prints the median over the kernels of the error of each. Writes
``OUT/share.json``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

RUNS = 40
SHORT_S = 2e-6  # of the callback itself: not a kernel's share


def inside(folder: Path) -> dict[str, float]:
    """Median seconds of one call of each function of an artifact, in a process of its own."""
    from autotune.manifest import Manifest

    threads = str(Manifest.read(folder).threads)
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.share", "--inside", str(folder)],
        env={**os.environ, "TVM_NUM_THREADS": threads}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return found


def _inside(folder: Path) -> None:
    import numpy as np
    import tvm
    from tvm import relax

    from autotune.frontends.model import random_inputs
    from autotune.manifest import Manifest
    from search.problem import TensorSpec

    manifest = Manifest.read(folder)
    library = tvm.runtime.load_module(str(folder / manifest.library))
    machine = relax.VirtualMachine(library, tvm.cpu())

    class Input:
        def __init__(self, spec: TensorSpec) -> None:
            self.spec = spec

    inputs = random_inputs([Input(TensorSpec(i.shape, i.dtype)) for i in manifest.model.inputs])  # type: ignore[misc]
    tensors = [tvm.runtime.tensor(np.ascontiguousarray(a)) for a in inputs]
    for _ in range(5):
        machine["main"](*tensors)
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
    for _ in range(RUNS):
        machine["main"](*tensors)
    print(json.dumps({name: statistics.median(s) - SHORT_S for name, s in taken.items()}))


def alone(name: str, folder: Path, console: Console) -> dict[str, dict[str, float]]:
    """Median seconds of the winner of each tuned task, by state of the caches and hash of the workload."""
    from autotune.frontends import load_model
    from autotune.frontends.graph import lower
    from autotune.measure.pool import Pool
    from autotune.measure.sequential import PairedTest
    from autotune.session import open_session
    from autotune.winners import winner_of
    from search.problem import Cache

    found: dict[str, dict[str, float]] = {c.value: {} for c in Cache}
    with open_session(str(folder / "autotune.db"), None, None) as session:
        model = lower(load_model(name), session.target)
        with Pool(session.conditions.target, session.conditions.threads) as pool:
            for task in track(model.tasks, f"timing kernels of {name}", console=console, transient=True):
                if (won := winner_of(task, session.store, session.conditions)) is None:
                    continue
                candidate = won[0].candidate
                for cache in Cache:
                    test = pool.compare(task.workload, candidate, candidate, 0, cache)
                    if isinstance(test, PairedTest):
                        found[cache.value][task.workload.hash] = statistics.median(test.first_s)
    return found | {"functions": dict(model.functions)}  # type: ignore[dict-item]


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--models", default="resnet18,mobilenet_v2,squeezenet")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        _inside(options.inside)
        return
    console = Console()
    table = Table(box=None, title="a kernel alone against its share in the model")
    for column in ("model", "kernels", "inside ms", "warm: error", "sum ms", "cold: error", "sum ms"):
        table.add_column(column, justify="right")
    results: dict[str, Any] = {}
    for name in options.models.split(","):
        folder = options.out / name
        results[name] = _compare(name, folder, console)
        table.add_row(name, *_row(results[name]))
    console.print(table)
    (options.out / "share.json").write_text(json.dumps(results, indent=1))


def _compare(name: str, folder: Path, console: Console) -> dict[str, Any]:
    times = alone(name, folder, console)
    functions: dict[str, str] = times.pop("functions")  # type: ignore[assignment]
    calls: dict[str, list[float]] = defaultdict(list)
    for function, seconds in inside(folder).items():
        if function in functions:
            calls[functions[function]].append(seconds)
    share = {h: statistics.mean(s) for h, s in calls.items() if all(h in t for t in times.values())}
    return {"inside": share, **{c: {h: t[h] for h in share} for c, t in times.items()}}


def _row(found: dict[str, Any]) -> list[str]:
    inside_s = found["inside"]
    cells = [str(len(inside_s)), f"{sum(inside_s.values()) * 1e3:.2f}"]
    for cache in ("warm", "cold"):
        errors = [abs(found[cache][h] / s - 1) for h, s in inside_s.items()]
        quartiles = statistics.quantiles(errors, n=4)
        cells.append(f"{statistics.median(errors):.1%} ({quartiles[0]:.0%}-{quartiles[2]:.0%})")
        cells.append(f"{sum(found[cache].values()) * 1e3:.2f}")
    return cells


if __name__ == "__main__":
    main()
