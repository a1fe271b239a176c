"""Does the same question get the same answer? Comparisons of two candidates, many times.

    python -m benchmarks.verdicts --times 200

Two pairs of each kernel: a candidate and another that is some 3 % slower, and a candidate and itself. That
the other is slower by so much is told by several comparisons, half a minute apart: of some pairs one is
faster while the machine has both cores to itself, the other while it has not. The same comparison is made
many times; printed are the shares of each outcome, and how many pairs it took. Writes
``benchmarks/results/verdicts.json``.
"""

import argparse
import json
import math
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from autotune.frontends.graph import lower
from autotune.frontends.tir import from_function
from autotune.hardware import usable_cores
from autotune.measure.pool import Pool
from autotune.measure.sequential import PairedTest
from autotune.target import canonical, resolve_target
from benchmarks.kernels import KERNELS
from search.errors import InvalidCandidate
from search.problem import Candidate, Workload
from search.spaces.trace import TraceSpace

DIFFERENCE = 1.03
SAMPLED = 64
LOOKS = 4  # at each pair, to know by how much it differs whatever the machine does
PAIRS = 8  # looked at
APART_S = 20.0  # seconds between looks


def ratio(pool: Pool, workload: Workload, first: Candidate, second: Candidate, seed: int) -> float:
    """How much slower the second is."""
    with pool.arena(workload) as arena:
        test = arena.compare(first, second, seed)
    if not isinstance(test, PairedTest):
        return math.inf
    return statistics.median(b / a for a, b in zip(test.first_s, test.second_s, strict=True))


def pair_of(pool: Pool, workload: Workload, console: Console) -> tuple[Candidate, Candidate, float]:
    """Two candidates whose times differ by about 3 %."""
    space, rng = TraceSpace(workload, resolve_target(None, usable_cores())), np.random.default_rng(0)
    candidates: list[Candidate] = []
    while len(candidates) < SAMPLED:
        try:
            candidates.append(space.realize(space.sample(rng), rng))
        except InvalidCandidate:
            continue
    measured = list(pool.measure(workload, candidates))
    good = sorted(
        (m for m in measured if m.error is None and len(m.samples_s) > 1), key=lambda m: m.latency_s
    )
    by_guess = sorted(
        ((a, b) for n, a in enumerate(good) for b in good[n + 1 :]),
        key=lambda pair: abs(pair[1].latency_s / pair[0].latency_s - DIFFERENCE),
    )
    if not by_guess:
        raise SystemExit(f"{workload.name}: fewer than two of {SAMPLED} candidates could be timed")
    pairs = [(a.candidate, b.candidate) for a, b in by_guess[:PAIRS]]
    seen: list[list[float]] = [[] for _ in pairs]
    for look in track(range(LOOKS), "looking for a pair", console=console, transient=True):
        for pair, ratios in zip(pairs, seen, strict=True):
            ratios.append(ratio(pool, workload, *pair, 1000 + look))
        time.sleep(APART_S)
    worst = [max(abs(r - DIFFERENCE) for r in ratios) for ratios in seen]
    best = int(np.argmin(worst))
    return *pairs[best], statistics.median(seen[best])


def repeat(
    pool: Pool, workload: Workload, first: Candidate, second: Candidate, times: int, console: Console
) -> dict[str, Any]:
    outcomes: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    pairs = []
    for seed in track(range(times), "comparing", console=console, transient=True):
        with pool.arena(workload) as arena:
            test = arena.compare(first, second, seed)
        if isinstance(test, PairedTest):
            outcomes[test.outcome.value] += 1
            verdicts[test.comparison().verdict.value] += 1
            pairs.append(test.pairs)
        else:
            outcomes[test.kind.value] += 1
    return {"outcomes": dict(outcomes), "verdicts": dict(verdicts), "pairs": statistics.mean(pairs)}


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--kernels", default=",".join(KERNELS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    console = Console()
    target = canonical(resolve_target(None, usable_cores()))
    table = Table(box=None, title=f"{options.times} comparisons each")
    for column in ("kernel", "pair", "first", "second", "undecided", "same or undecided", "mean pairs"):
        table.add_column(column, justify="right")
    results: dict[str, Any] = {}
    for name in options.kernels.split(","):
        model = lower(from_function(KERNELS[name](), name), resolve_target(None, usable_cores()))
        workload = model.tasks[0].workload
        with Pool(target, usable_cores()) as pool:
            first, second, slower = pair_of(pool, workload, console)
            for label, pair in {f"{slower - 1:.1%} apart": (first, second), "itself": (first, first)}.items():
                found = repeat(pool, workload, *pair, options.times, console)
                results[f"{name}, {label}"] = found
                table.add_row(name, label, *_cells(found))
                console.print(f"{name}, {label}: {found}", highlight=False)
    console.print(table)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "verdicts.json").write_text(json.dumps(results, indent=1))


def _cells(found: dict[str, Any]) -> list[str]:
    outcomes = found["outcomes"]
    total = sum(outcomes.values())
    first, second, undecided = (outcomes.get(o, 0) for o in ("first", "second", "undecided"))
    same = max(first, second) + undecided
    shares = [f"{n / total:.1%}" for n in (first, second, undecided, same)]
    return [*shares, f"{found['pairs']:.1f}"]


if __name__ == "__main__":
    main()
