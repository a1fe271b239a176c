"""Candidates tuned a minute (chosen, built, checked, run, stored), against TVM's MetaSchedule, in turn.

    python -m benchmarks.throughput --trials 64 --repeats 3
    python -m benchmarks.throughput --stock      # MetaSchedule as users have it, but for its mended import

Without ``--stock`` it is also spared importing torch in each of its processes, and times a candidate no
longer than we do.

Both start from nothing each time, with all cores, and their wall time counts from the first to the last
step, worker processes included. Writes ``benchmarks/results/throughput.json``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from autotune.frontends.graph import lower
from autotune.frontends.tir import from_function
from autotune.hardware import usable_cores
from autotune.measure.pool import Pool
from autotune.session import open_session
from autotune.target import canonical, resolve_target
from autotune.tuner import Budget, Tuner
from benchmarks.kernels import KERNELS
from db.values import RunSpec


def ours(kernel: str, trials: int) -> dict[str, Any]:
    """Tunes a kernel with an empty database."""
    with tempfile.TemporaryDirectory() as folder, open_session(f"{folder}/db", None, None) as session:
        model = lower(from_function(KERNELS[kernel](), kernel), session.target)
        store, conditions = session.store, session.conditions
        started = time.perf_counter()
        store.add_model(model.hash, model.name, "benchmark", model.tasks)
        run = store.start_run(RunSpec(model.hash, conditions, 1, {}))
        tuner = Tuner(model, model.tasks, session.target, conditions, store, Budget(trials))
        with Pool(conditions.target, conditions.threads) as pool:
            progress = tuner.run(run, pool)
        seconds = time.perf_counter() - started
        flop = model.tasks[0].workload.flop
        failed = sum(progress.failures.values())
    return {
        "trials": progress.trials, "seconds": seconds, "measured": progress.trials - failed,
        "best_s": progress.latency_s, "flop": flop,
    }  # fmt: skip


def metaschedule(kernel: str, trials: int, stock: bool) -> dict[str, Any]:
    """Tunes a kernel with TVM's own tuner."""
    target = canonical(resolve_target(None, usable_cores()))
    with tempfile.TemporaryDirectory() as folder:
        if not stock:
            (Path(folder) / "torch.py").write_text("raise ImportError\n")
        env = {**os.environ, "PYTHONPATH": f"{folder}:{os.getcwd()}", "TVM_NUM_THREADS": str(usable_cores())}
        command = [sys.executable, "-m", "benchmarks.metaschedule", kernel, str(trials), target]
        command += ["stock"] if stock else []
        result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"MetaSchedule failed:\n{result.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--stock", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    console = Console()
    table = Table(box=None, title=f"candidates a minute, {options.trials} trials, {options.repeats} repeats")
    for column in ("kernel", "autotune", "MetaSchedule", "ratio", "best GFLOP/s", "MetaSchedule's"):
        table.add_column(column, justify="right")
    results: dict[str, Any] = {}
    for kernel in KERNELS:
        pairs = []
        for repeat in range(options.repeats):
            console.print(f"{kernel}, repeat {repeat + 1} of {options.repeats}")
            pairs.append((ours(kernel, options.trials), metaschedule(kernel, options.trials, options.stock)))
        results[kernel] = pairs
        table.add_row(kernel, *_row(pairs))
    console.print(table)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "throughput.json").write_text(json.dumps(results, indent=1))


def _row(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[str]:
    def span(values: list[float], digits: int = 0) -> str:
        middle = sorted(values)[len(values) // 2]
        return f"{middle:.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"

    us = [60 * a["measured"] / a["seconds"] for a, _ in pairs]
    peer = [60 * b["measured"] / b["seconds"] for _, b in pairs]
    flop = pairs[0][0]["flop"]
    ratios = [a / b for a, b in zip(us, peer, strict=True)]
    rates = [[flop / side["best_s"] / 1e9 for side in pair] for pair in pairs]
    return [span(us), span(peer), span(ratios, 1), span([r[0] for r in rates]), span([r[1] for r in rates])]


if __name__ == "__main__":
    main()
