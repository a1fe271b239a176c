"""A thousand candidates of which a third misbehave, in every way there is, beside as many that do not.

    python -m benchmarks.faults --candidates 1000

Clean and faulty hundreds take turns, each in a pool of its own, so that both see the same machine and neither
learns from the other. While faulty ones are measured, a
process of the pool is killed from outside now and then. Printed: whether each row is right, how fast the good
ones went through, and the longest wait between two rows. A row may also say that time was over if the same
candidate, without a fault, came near the limit or ran into it. Writes ``benchmarks/results/faults.json``.
"""

import argparse
import itertools
import json
import os
import random
import statistics
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table

from autotune.frontends.graph import lower
from autotune.frontends.tir import from_function
from autotune.hardware import usable_cores
from autotune.measure.limits import Limits
from autotune.measure.pool import Pool
from autotune.target import canonical, resolve_target
from benchmarks.kernels import KERNELS
from search.errors import InvalidCandidate
from search.problem import Candidate, ErrorKind, Measurement, Workload
from search.spaces.trace import TraceSpace

FAULTY_WORKER = Path("tests/autotune").resolve()  # its folder, for the processes of the pool
CHUNK = 100
KILL_EVERY_S = 5.0
NEAR = 0.5  # of a limit: the machine runs at speeds that far apart
EXPECTED = {
    "run-crash": "crash",
    "run-loop": "run_timeout",
    "run-deaf_loop": "run_timeout",
    "run-hog": "out_of_memory",
    "run-after": "out_of_bounds",
    "run-before": "out_of_bounds",
    "run-into_input": "out_of_bounds",
    "run-killed": "crash",
    "run-nan": "wrong_output",
    "run-wrong": "wrong_output",
    "run-silent": "wrong_output",
    "run-throw": "run_error",
    "build-throw": "build_error",
    "build-loop": "build_timeout",
    "build-crash": "crash",
    "build-abort": "out_of_memory",
}


class Killer(threading.Thread):
    """Kills a process of the pool from outside now and then, never the root: that one is the machine's."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self._root = root
        self._over = threading.Event()
        self._random = random.Random(0)
        self.kills = 0

    def run(self) -> None:
        while not self._over.wait(KILL_EVERY_S):
            try:
                self._random.choice(psutil.Process(self._root).children(recursive=True)).kill()
                self.kills += 1
            except (psutil.Error, IndexError):
                continue

    def stop(self) -> None:
        self._over.set()
        self.join()


def sample(workload: Workload, count: int) -> list[Candidate]:
    space, rng = TraceSpace(workload, resolve_target(None, usable_cores())), np.random.default_rng(0)
    found: list[Candidate] = []
    while len(found) < count:
        try:
            found.append(space.realize(space.sample(rng), rng))
        except InvalidCandidate:
            continue
    return found


def measured(
    pool: Pool, workload: Workload, candidates: list[Candidate], rival_s: tuple[float, ...]
) -> tuple[list[Measurement], float, float]:
    """Rows, seconds, and the longest wait for a row."""
    rows, waits = [], []
    started = last = time.perf_counter()
    for row in pool.measure(workload, candidates, rival_s):
        rows.append(row)
        now = time.perf_counter()
        waits.append(now - last)
        last = now
    return rows, time.perf_counter() - started, max(waits)


def slow(rows: list[Measurement], rival_s: tuple[float, ...]) -> dict[str, set[str]]:
    """The limits that candidates without faults came near or ran into, by their traces."""
    limits = Limits()
    build_s = NEAR * limits.build_limit_s([m.build_s for m in rows if m.build_s])
    run_s = NEAR * limits.run_times * statistics.median(rival_s)
    found: dict[str, set[str]] = {}
    for row in rows:
        kind = row.error.kind if row.error else None
        near = found[row.candidate.trace] = set()
        if kind is ErrorKind.BUILD_TIMEOUT or row.build_s > build_s:
            near.add("build_timeout")
        if kind is ErrorKind.RUN_TIMEOUT or (kind is None and row.latency_s > run_s):
            near.add("run_timeout")
    return found


def memory_mb(pool: Pool) -> float:
    """Resident memory of this process, the root and its homes, between rounds."""
    root = psutil.Process(pool.family.root.pid)
    return sum(p.memory_info().rss for p in (psutil.Process(), root, *root.children())) / 1e6


def campaign(kernel: str, count: int, console: Console) -> dict[str, Any]:
    target = resolve_target(None, usable_cores())
    workload = lower(from_function(KERNELS[kernel](), kernel), target).tasks[0].workload
    candidates = sample(workload, count)
    faults = itertools.cycle(EXPECTED)
    found: dict[str, Any] = {
        "clean": [0, 0.0],
        "faulty": [0, 0.0],
        "wrong": [],
        "kinds": Counter(),
        "wait_s": 0.0,
        "memory_mb": [],
    }
    with (
        Pool(canonical(target), usable_cores()) as quiet,
        Pool(canonical(target), usable_cores(), worker_module="faulty_worker") as pool,
    ):
        for each in (pool, quiet):
            rows, _, _ = measured(each, workload, candidates[:32], ())  # what a tuner knows after a round
        rival_s = min(rows, key=lambda m: m.latency_s).samples_s
        killed = 0
        for start in track(range(0, count, CHUNK), "measuring", console=console, transient=True):
            chunk = candidates[start : start + CHUNK]
            rows, seconds, _ = measured(quiet, workload, chunk, rival_s)
            found["clean"][0] += sum(m.error is None for m in rows)
            found["clean"][1] += seconds
            near = slow(rows, rival_s)
            bad = {n: next(faults) for n in range(0, len(chunk), 3)}
            given = [
                replace(c, trace=f"{c.trace}#fault:{bad[n]}") if n in bad else c for n, c in enumerate(chunk)
            ]
            killer = Killer(pool.family.root.pid)
            killer.start()
            rows, seconds, wait_s = measured(pool, workload, given, rival_s)
            killer.stop()
            killed += killer.kills
            found["faulty"][0] += sum(m.error is None for m in rows)
            found["faulty"][1] += seconds
            found["wait_s"] = max(found["wait_s"], wait_s)
            results = {m.candidate.trace: m for m in rows}
            found["memory_mb"].append(memory_mb(pool))
            assert len(results) == len(rows) == len(given), "a row is missing or came twice"
            for n, (candidate, sound) in enumerate(zip(given, chunk, strict=True)):
                error = results[candidate.trace].error
                kind = error.kind.value if error else "ok"
                found["kinds"][kind] += 1
                if kind not in {EXPECTED.get(bad.get(n, ""), "ok"), *near[sound.trace]}:
                    found["wrong"].append((bad.get(n, "none"), kind, error.text if error else ""))
    return found | {"kills": killed}


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--candidates", type=int, default=1000)
    parser.add_argument("--kernel", choices=list(KERNELS), default="matmul")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = str(FAULTY_WORKER)
    console = Console()
    found = campaign(options.kernel, options.candidates, console)
    rates = {
        side: 60 * count / seconds for side, (count, seconds) in ((s, found[s]) for s in ("clean", "faulty"))
    }
    table = Table(
        box=None,
        title=f"{options.kernel}: {options.candidates} candidates, a third misbehave",
        show_header=False,
    )
    table.add_row("good ones a minute, clean", f"{rates['clean']:.0f}")
    table.add_row(
        "good ones a minute, faulty", f"{rates['faulty']:.0f} ({rates['faulty'] / rates['clean']:.0%})"
    )
    memory = found["memory_mb"]
    table.add_row("memory after the first and the last hundred", f"{memory[0]:.0f} and {memory[-1]:.0f} MB")
    table.add_row("longest wait for a row", f"{found['wait_s']:.1f} s")
    table.add_row("processes killed from outside", str(found["kills"]))
    table.add_row("rows of another kind than expected", str(len(found["wrong"])))
    console.print(table)
    console.print(dict(found["kinds"]))
    for fault, kind, text in found["wrong"]:
        console.print(f"  {fault}: {kind}: {text}", highlight=False)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "faults.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
