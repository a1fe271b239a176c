"""Timing compiled kernels: racing one against the best so far, and two against each other in pairs."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tvm
import tvm.s_tir
from tvm import te
from tvm.s_tir import Schedule

SAMPLES = 5  # of a candidate that may win
CLOSE_SAMPLES = 15  # of one that is as fast as the best: the time saved on others is spent here,
CLOSE_S = 0.1  # as far as there is more to learn from it
SAMPLE_S = 3e-3  # a sample is the mean over at least this long
ENOUGH_S = 0.5  # of samples of one candidate, however few they are
SLOW_S = 0.05  # of a run that what the caches hold matters little to
HOPELESS = 3.0  # times slower than the best: one run says enough
FIRST_RUN_S = 2e-3  # that a first run may take for cold caches and new pages alone
CLEARLY = 1.02  # times slower: what the clock may have drifted since the best was timed
BURSTS = 3  # of each side in a pair; their median counts
PROBES = 7

Run = Callable[[], None]


class Pair(NamedTuple):
    """Seconds of one run of each of two kernels, taken together."""

    first_s: float
    second_s: float


def seconds(run: Run, repeats: int = 1) -> float:
    """Mean seconds of ``repeats`` runs in a row."""
    started = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - started) / repeats


def race(run: Run, first_s: float, rival_s: Sequence[float]) -> tuple[float, ...]:
    """Times a kernel until it has lost to its rival, or often enough.

    It has lost when each of its samples is slower than every one of the rival's: with two against five
    this happens to equals in 1 of 21 races, with three in 1 of 56.

    Args:
        first_s: Of its first run, which was cold.
        rival_s: Samples of the best so far; empty where there is none.
    """
    rival = statistics.median(rival_s) if rival_s else math.inf
    if first_s > HOPELESS * rival + FIRST_RUN_S:
        return (first_s,)
    warm_s = seconds(run)
    if warm_s > HOPELESS * rival:
        return (warm_s,)
    repeats = max(1, math.ceil(SAMPLE_S / warm_s))
    samples = [warm_s] if repeats == 1 else []
    while _goes_on(samples, sum(samples) * repeats, rival_s):
        samples.append(seconds(run, repeats))
    return tuple(samples)


def _goes_on(samples: Sequence[float], taken_s: float, rival_s: Sequence[float]) -> bool:
    """Whether another sample is worth its time."""
    if len(samples) > 1 and rival_s and min(samples) > CLEARLY * max(rival_s):
        return False  # lost
    if len(samples) < SAMPLES:
        return taken_s < ENOUGH_S
    close = not rival_s or statistics.median(samples) < CLEARLY * max(rival_s)
    return close and len(samples) < CLOSE_SAMPLES and taken_s < CLOSE_S


def pair(first: Run, second: Run, swap: bool, flush: Run | None) -> Pair:
    """Times two kernels in turn, several times; the median of each counts.

    Args:
        swap: Begin with the second.
        flush: Empties the caches before each run; None leaves them warm.
    """
    taken: tuple[list[float], list[float]] = [], []
    sides = list(zip((first, second), taken, strict=True))
    for run, samples in (sides[::-1] if swap else sides) * BURSTS:
        samples.append(_warm(run) if flush is None else _cold(run, flush))
        if sum(map(sum, taken)) > 2 * SLOW_S and all(taken):
            break
    return Pair(statistics.median(taken[0]), statistics.median(taken[1]))


def _warm(run: Run) -> float:
    """Mean of a burst after a run that fills the caches."""
    first_s = seconds(run)
    return first_s if first_s > SLOW_S else seconds(run, math.ceil(SAMPLE_S / first_s))


def _cold(run: Run, flush: Run) -> float:
    flush()
    return seconds(run)


def probe(run: Run) -> tuple[float, ...]:
    """Samples of a fixed kernel."""
    run()
    return tuple(seconds(run) for _ in range(PROBES))


@dataclass(frozen=True)
class FixedKernel:
    """A compiled kernel of our own, and the shapes of its arguments."""

    function: Any
    shapes: tuple[tuple[int, ...], ...]

    def bound(self) -> Run:
        """With arguments that were written to, so that each page is its own."""
        arguments = [tvm.runtime.tensor(np.zeros(s, np.float32)) for s in self.shapes]
        return lambda: self.function(*arguments)


def fixed_kernels(
    build: Callable[[tvm.IRModule], Any], threads: int, cache_bytes: int
) -> tuple[FixedKernel, FixedKernel]:
    """The kernel whose time says how quiet the machine is, and the one that empties the caches.

    The first multiplies small matrices on each thread for about a millisecond. The second reads
    ``cache_bytes`` and writes as many; on all threads, since each core has caches of its own.
    """
    a = te.placeholder((threads, 64, 64), name="a")
    b = te.placeholder((threads, 64, 64), name="b")
    turn, k = te.reduce_axis((0, 24), name="turn"), te.reduce_axis((0, 64), name="k")
    c = te.compute(a.shape, lambda t, i, j: te.sum(a[t, i, k] * b[t, k, j], axis=[turn, k]), name="c")
    schedule = Schedule(te.create_prim_func([a, b, c]))
    thread, row, column, *steps = schedule.get_loops(schedule.get_sblock("c"))
    schedule.reorder(thread, steps[0], row, steps[1], column)
    schedule.vectorize(column)
    schedule.parallel(thread)
    line = te.placeholder((threads, max(1, cache_bytes // threads // 64), 16), name="line")
    more = te.compute(line.shape, lambda t, i, j: line[t, i, j] + 1.0, name="more")
    sweep = Schedule(te.create_prim_func([line, more]))
    thread, _, lane = sweep.get_loops(sweep.get_sblock("more"))
    sweep.vectorize(lane)
    sweep.parallel(thread)
    square, lines = (threads, 64, 64), tuple(int(n) for n in line.shape)
    return (
        FixedKernel(build(schedule.mod), (square, square, square)),
        FixedKernel(build(sweep.mod), (lines, lines)),
    )
