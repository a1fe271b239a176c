"""When a process is killed, and how much is done at a time."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from search.problem import Workload


@dataclass(frozen=True)
class Limits:
    """Seconds and bytes; the two that matter most follow from what is known of a kernel.

    Attributes:
        prepare_s: Plain loops, which make the reference output, can be very slow.
        build_s: At most; once eight builds of a kernel are known, ``build_times`` their median will do.
        run_s: At most; where there is a best candidate, less: see ``run_limit_s``.
        memory: Bytes that a process may allocate; by default, 40 % of the machine's memory.
        batch: Candidates a builder compiles before they run.
        homes: Bytes of arguments of the workloads that are kept ready.
    """

    start_s: float = 120.0
    prepare_s: float = 300.0
    build_s: float = 15.0
    least_build_s: float = 1.0
    build_times: float = 6.0
    run_s: float = 10.0
    least_run_s: float = 0.25
    check_s: float = 300.0
    memory: int = int(0.4 * psutil.virtual_memory().total)
    batch: int = 16
    homes: int = 1 << 29

    def build_limit_s(self, built_s: Sequence[float]) -> float:
        """Seconds for a build, given those of earlier ones."""
        if len(built_s) < 8:
            return self.build_s
        return min(self.build_s, max(self.least_build_s, self.build_times * statistics.median(built_s)))

    def run_limit_s(self, workload: Workload, rival_s: Sequence[float]) -> float:
        """Seconds for checking and timing a candidate: one that takes 40 times the best's cannot win."""
        if not rival_s:
            return self.run_s
        return min(self.run_s, self.least_run_s + 40 * statistics.median(rival_s) + 4e-9 * workload.bytes)
