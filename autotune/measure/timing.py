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
HOPELESS = 3.0  # times slower than the best: the best of a few runs says enough
SECOND_LOOKS = 2
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
    if warm_s < SAMPLE_S:  # short enough that an interrupt could make it look hopeless
        warm_s = min(warm_s, *(seconds(run) for _ in range(SECOND_LOOKS)))
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


def pair(first: Run, second: Run, swap: bool, before: Run | None) -> Pair:
    """Times two kernels in turn, several times unless once is clear; the median of each counts.

    Args:
        swap: Begin with the second.
        before: Puts the caches into the state wanted before each run; None leaves them warm.
    """
    taken: tuple[list[float], list[float]] = [], []
    sides = list(zip((first, second), taken, strict=True))
    for run, samples in (sides[::-1] if swap else sides) * BURSTS:
        samples.append(_warm(run) if before is None else _after(before, run))
        if all(taken) and (sum(map(sum, taken)) > 2 * SLOW_S or _is_clear(*taken)):
            break
    return Pair(statistics.median(taken[0]), statistics.median(taken[1]))


def _is_clear(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether the median of more would say the same."""
    return max(first) * HOPELESS < min(second) or max(second) * HOPELESS < min(first)


def _warm(run: Run) -> float:
    """Mean of a burst after a run that fills the caches."""
    first_s = seconds(run)
    return first_s if first_s > SLOW_S else seconds(run, math.ceil(SAMPLE_S / first_s))


def _after(before: Run, run: Run) -> float:
    before()
    return seconds(run)


def probe(run: Run) -> tuple[float, ...]:
    """Samples of a fixed kernel."""
    run()
    return tuple(seconds(run) for _ in range(PROBES))


SLAB = 1 << 20  # bytes that a sweep reads at a time
_LINE = 16  # numbers of 32 bits in a line of a cache


@dataclass(frozen=True)
class FixedKernels:
    """Compiled kernels of our own.

    Attributes:
        probe: Multiplies small matrices on each thread for about a millisecond: how quiet is the machine?
        read: Reads a slab of memory on all threads, which drives other data out of their caches.
        same: Writes lines of a tensor of any size, on all threads, each with what it holds.
        mask: What ``same`` changes in a line: nothing.
        cache_bytes: Of all caches together.
    """

    probe: Any
    read: Any
    same: Any
    mask: Any
    threads: int
    cache_bytes: int

    def probing(self) -> Run:
        """With arguments that were written to, so that each page is its own."""
        square = (self.threads, 64, 64)
        arguments = [_zeros(square) for _ in range(3)]
        return lambda: self.probe(*arguments)

    def sweeping(self, size: int) -> Run:
        """Reads ``size`` bytes, at most twice what the caches hold."""
        slabs = [
            _zeros((self.threads, SLAB // 4 // self.threads // _LINE, _LINE))
            for _ in range(-(-min(size, 2 * self.cache_bytes) // SLAB))
        ]
        result = _zeros((self.threads, _LINE))

        def run() -> None:
            for slab in slabs:
                self.read(slab, result)

        return run

    def touch(self, lines: Any) -> None:
        """Writes a tensor of int32, shape [n, 16], leaving its values."""
        self.same(lines, self.mask, lines)


def _zeros(shape: tuple[int, ...]) -> Any:
    return tvm.runtime.tensor(np.zeros(shape, np.float32))


def fixed_kernels(build: Callable[[tvm.IRModule], Any], threads: int, cache_bytes: int) -> FixedKernels:
    """Compiles them."""
    a = te.placeholder((threads, 64, 64), name="a")
    b = te.placeholder((threads, 64, 64), name="b")
    turn, k = te.reduce_axis((0, 24), name="turn"), te.reduce_axis((0, 64), name="k")
    c = te.compute(a.shape, lambda t, i, j: te.sum(a[t, i, k] * b[t, k, j], axis=[turn, k]), name="c")
    probe = Schedule(te.create_prim_func([a, b, c]))
    thread, row, column, *steps = probe.get_loops(probe.get_sblock("c"))
    probe.reorder(thread, steps[0], row, steps[1], column)
    probe.vectorize(column)
    probe.parallel(thread)

    slab = te.placeholder((threads, SLAB // 4 // threads // _LINE, _LINE), name="slab")
    line = te.reduce_axis((0, slab.shape[1]), name="line")
    total = te.compute((threads, _LINE), lambda t, lane: te.sum(slab[t, line, lane], axis=line), name="total")
    read = Schedule(te.create_prim_func([slab, total]))
    thread, lane, step = read.get_loops(read.get_sblock("total"))
    read.reorder(thread, step, lane)
    read.vectorize(lane)
    read.parallel(thread)

    lines = te.placeholder((te.var("n", "int64"), _LINE), "int32", name="lines")
    mask = te.placeholder((_LINE,), "int32", name="mask")
    same = te.compute(lines.shape, lambda i, lane: lines[i, lane] ^ mask[lane], name="same")
    touch = Schedule(te.create_prim_func([lines, mask, same]))
    step, lane = touch.get_loops(touch.get_sblock("same"))
    touch.vectorize(lane)
    touch.parallel(step)
    nothing = tvm.runtime.tensor(np.zeros(_LINE, np.int32))
    return FixedKernels(build(probe.mod), build(read.mod), build(touch.mod), nothing, threads, cache_bytes)
