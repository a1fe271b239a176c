"""Which task gets the next trials: the one that promises most for the model's latency per second of tuning.

The promise of a task is its weight times the latency that one more trial is expected to save. Two guesses are
averaged, as in Ansor (Zheng et al., OSDI 2020, section 6.2): what its last rounds saved per trial, and what
it could still save if the trials so far were to close the gap to the speed of light of its kernel.
"""

import math
from dataclasses import dataclass, field

from search.problem import Measurement, Task

RECENT_ROUNDS = 3
HOPELESS_TRIALS = 32  # without a single success: the task is given up
FLOOR_TRIALS = 4  # that every task gets first: soon all are known, and what they teach helps each other
HEADROOM_SHARE = 0.2  # how much the second guess, an optimist, counts beside the first


@dataclass
class TaskProgress:
    """How far one task is.

    Attributes:
        floor_s: No kernel for this work can be faster on this hardware.
        best_s: After each round, the best latency so far.
        trials_after: After each round, the trials so far.
        exhausted: The space has no candidates left.
    """

    task: Task
    floor_s: float = 0.0
    trials: int = 0
    failures: int = 0
    best: Measurement | None = None
    best_s: list[float] = field(default_factory=list)
    trials_after: list[int] = field(default_factory=list)
    exhausted: bool = False

    @property
    def latency_s(self) -> float:
        return self.best.latency_s if self.best else math.inf

    def add(self, measurement: Measurement) -> None:
        """Takes note of one measurement."""
        self.trials += 1
        if measurement.error is not None:
            self.failures += 1
        elif measurement.latency_s < self.latency_s:
            self.best = measurement

    def end_round(self) -> None:
        """Takes note of where the task stands, for judging what the round brought."""
        self.best_s.append(self.latency_s)
        self.trials_after.append(self.trials)

    def promise_s(self) -> float:
        """Seconds of the model's latency that the next trial may save; infinite below the floor."""
        if self.exhausted or (self.best is None and self.trials >= HOPELESS_TRIALS):
            return -math.inf
        if self.best is None or self.trials < FLOOR_TRIALS:
            return math.inf
        return self.task.weight * (
            (1 - HEADROOM_SHARE) * self._recent_gain() + HEADROOM_SHARE * self._headroom()
        )

    def _recent_gain(self) -> float:
        """Seconds saved per trial over the last rounds."""
        now, then = len(self.best_s) - 1, max(0, len(self.best_s) - 1 - RECENT_ROUNDS)
        if now <= then or math.isinf(self.best_s[then]):
            return self.latency_s / max(self.trials, 1)
        return (self.best_s[then] - self.best_s[now]) / (self.trials_after[now] - self.trials_after[then])

    def _headroom(self) -> float:
        """Seconds per trial, were as many trials as so far to reach the floor."""
        return max(0.0, self.latency_s - self.floor_s) / max(self.trials, 1)


def next_task(tasks: list[TaskProgress], least_s: float = 0.0) -> TaskProgress | None:
    """The task that promises most; None where none has anything left.

    Args:
        least_s: Seconds of the model's latency that the next trial must promise at least.
    """
    # Of those that have not had their floor yet, the one with the fewest trials.
    best = max(tasks, key=lambda t: (t.promise_s(), -t.trials), default=None)
    return best if best is not None and best.promise_s() >= least_s else None
