"""When a process is killed, and how much is done at a time."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from search.problem import Workload


@dataclass(frozen=True)
class Limits:
    """Seconds and bytes; the two that matter most follow from what is known of a kernel.

    Seconds in which other processes had the core of the one that is waited for do not count.

    Attributes:
        prepare_s: Plain loops, which make the reference output, can be very slow.
        build_s: At most; once eight builds of a kernel are known, less: see ``build_limit_s``.
        run_s: At most; for a first run where there is a best candidate, less: see ``first_run_s``.
        memory: Bytes that a process may allocate; by default, 40 % of the machine's memory.
        batch: Candidates a builder compiles before they run.
        homes: Bytes of arguments of the workloads that are kept ready.
    """

    start_s: float = 120.0
    prepare_s: float = 300.0
    build_s: float = 15.0
    least_build_s: float = 0.3
    build_times: float = 3.0
    run_s: float = 10.0
    least_run_s: float = 0.03
    run_times: float = 40.0
    check_s: float = 300.0
    memory: int = int(0.4 * psutil.virtual_memory().total)
    batch: int = 16
    homes: int = 1 << 29

    def build_limit_s(self, built_s: Sequence[float]) -> float:
        """Seconds for a build, given those of earlier ones: some times what nineteen of twenty took."""
        if len(built_s) < 8:
            return self.build_s
        usual_s = statistics.quantiles(built_s, n=20, method="inclusive")[-1]
        return min(self.build_s, max(self.least_build_s, self.build_times * usual_s))

    def first_run_s(self, workload: Workload, rival_s: Sequence[float]) -> float:
        """Seconds for running a candidate once: one that takes ``run_times`` the best's cannot win."""
        if not rival_s:
            return self.run_s
        best_s = statistics.median(rival_s)
        return min(self.run_s, self.least_run_s + self.run_times * best_s + 4e-9 * workload.bytes)
