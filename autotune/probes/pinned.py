"""Runs of a kernel on cores of its own choice, timed one by one."""

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import tvm
from numpy.typing import NDArray

from autotune.measure.threads import bind
from autotune.target import host_target

PROBE_S = 0.3  # of running a kernel, of which the best run counts: other load can only make a run slower

Batch = Sequence[NDArray[Any]]
Meter = Callable[[Callable[[], None]], float]
"""Makes a run and returns a figure of it, better if smaller."""


def seconds(run: Callable[[], None]) -> float:
    """The meter of time."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def samples(
    module: Any, batches: Sequence[Batch], cpus: Sequence[int], during_s: float | None = None,
    meter: Meter = seconds,
) -> list[float]:  # fmt: skip
    """What ``meter`` says of each run of a kernel on one thread for each CPU.

    It runs in a thread of its own, because TVM's thread pool belongs to a thread, whose affinity it changes.

    Args:
        module: What to compile for this machine and run.
        batches: Arrays to run on; each run takes the next batch.
        during_s: Seconds to go on for; ``PROBE_S`` if None. There is at least one run.
    """
    kernel = tvm.tirx.build(module, target=host_target(len(cpus)))["main"]
    arguments = [[tvm.runtime.tensor(array) for array in batch] for batch in batches]

    def timed() -> list[float]:
        bind(cpus)
        kernel(*arguments[0])  # starts the threads
        until = time.perf_counter() + (PROBE_S if during_s is None else during_s)
        runs = (partial(kernel, *batch) for batch in itertools.cycle(arguments))
        figures = [meter(next(runs))]
        while time.perf_counter() < until:
            figures.append(meter(next(runs)))
        return figures

    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(timed).result()
