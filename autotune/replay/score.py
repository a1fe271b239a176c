"""How good a search was: best so far over time, beside random search and the optimum.

The P score and its budget are those of the autotuning methodology (doi 10.1016/j.future.2024.05.021):
P_t = (S(t) - S_random(t)) / (S_optimum - S_random(t)), averaged over equidistant times; 0 is random search, 1
the optimum at once. Random search is not run but computed: after M of N candidates, the best is the one of
rank round(M (N + 1) / (M + 1)), the slowest having rank 1. The budget ends where that is within 5 % of the
way from the optimum to the median.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.replay.recording import Recording

TIMES = 50  # equidistant moments within the budget
CUTOFF = 0.95


class Step(NamedTuple):
    """One candidate of a search.

    Attributes:
        at_s: Recorded seconds spent when it was known.
        latency_s: Infinite for a failure.
    """

    at_s: float
    latency_s: float


def random_best(recording: Recording, draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Latency that random search has reached after so many draws, in seconds, shape as ``draws``."""
    slowest_first = recording.latencies_s
    n = len(slowest_first)
    valid = draws * n / len(recording.outcomes)  # of the draws, those that run
    rank = np.round(valid * (n + 1) / (valid + 1)).astype(int)
    return np.asarray(slowest_first[np.clip(rank, 1, n) - 1])


def budget_s(recording: Recording) -> float:
    """Recorded seconds at which the comparison ends."""
    slowest_first = recording.latencies_s
    best, middle = slowest_first[-1], np.median(slowest_first)
    draws = np.arange(1, len(recording.outcomes) + 1, dtype=np.float64)
    reached = random_best(recording, draws) <= best + (middle - best) * (1 - CUTOFF)
    return float(draws[int(np.argmax(reached))] * recording.mean_cost_s)


def times(recording: Recording) -> NDArray[np.float64]:
    """The moments that count, in recorded seconds, shape [TIMES]."""
    return np.linspace(0, budget_s(recording), TIMES + 1)[1:]


def best_so_far(recording: Recording, steps: Sequence[Step]) -> NDArray[np.float64]:
    """At each of ``times``, in seconds, shape [TIMES]; before the first success, the slowest of the space."""
    reached = np.full(TIMES, recording.latencies_s[0])
    moments = times(recording)
    for step in steps:
        late = moments >= step.at_s
        reached[late] = np.minimum(reached[late], step.latency_s)
    return reached


def p_score(recording: Recording, reached: NDArray[np.float64]) -> float:
    """Of one search's, or the mean search's, best so far, shape [TIMES]."""
    baseline = random_best(recording, times(recording) / recording.mean_cost_s)
    gap = baseline - recording.latencies_s[-1]
    open_ = gap > 0  # where random search has found the optimum, nothing can be compared
    return float(np.mean((baseline - reached)[open_] / gap[open_])) if open_.any() else 0.0
