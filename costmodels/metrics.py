"""How good a cost model is: the field's metrics, over measured candidates of several tasks.

Of task t and candidate i: L_ti is the measured latency, L*_t the least of them, y_ti = L*_t / L_ti the label
(0 of what failed), s_ti the score. Every metric takes tasks, so that of one task is ``metric([task])``.

What is the same in all of them:

- A score of NaN is worse than any other. Of equal scores the slowest candidate comes first, so that a model
  which tells nothing apart gains nothing by luck, and the order of candidates does not matter.
- Left out are tasks with less than two candidates, which any model orders rightly, and those of which all
  failed, which none does; from ``pairwise_accuracy`` and ``kendall_tau`` also those whose latencies are all
  the same. Where no task is left, a metric is NaN.
- Where k is more than a task has candidates, all of them are taken.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

KS = (1, 5, 10)
LEVELS = (0.5, 0.8, 0.95)


@dataclass(frozen=True, eq=False)
class ScoredTask:
    """A task's candidates, measured and judged; all arrays have shape [n].

    Attributes:
        scores: Higher is better, in any unit; NaN where the model says nothing.
        latencies_s: Measured seconds; infinity where the candidate failed.
        weight: How often the task occurs in its network.
        predicted_s: Predicted seconds, from models that predict times.
        spread: Of ln(predicted_s): scale of a Laplace distribution around it, which is the error expected on
            average; a standard deviation over sqrt(2).
    """

    scores: NDArray[np.float64]
    latencies_s: NDArray[np.float64]
    weight: float = 1.0
    predicted_s: NDArray[np.float64] | None = None
    spread: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        columns = (self.scores, self.latencies_s, self.predicted_s, self.spread)
        shapes = {c.shape for c in columns if c is not None}
        if len(shapes) != 1 or self.scores.ndim != 1:
            raise ValueError(f"a task's arrays must have one shape [n], got {sorted(shapes)}")
        if not (self.latencies_s > 0).all():
            raise ValueError("latencies must be positive; those of failures are infinite")

    @property
    def counts(self) -> bool:
        """Whether there is anything to choose and anything that ran."""
        return len(self.scores) > 1 and bool(np.isfinite(self.latencies_s).any())

    @property
    def best_s(self) -> float:
        return float(self.latencies_s.min())

    @property
    def filled(self) -> NDArray[np.float64]:
        """Scores with the worst instead of NaN."""
        return np.where(np.isnan(self.scores), -np.inf, self.scores)

    @property
    def ranked_s(self) -> NDArray[np.float64]:
        """Latencies in predicted order, the most promising first."""
        return self.latencies_s[np.lexsort((-self.latencies_s, -self.filled))]

    def chosen_s(self, k: int) -> float:
        """The least latency of the k most promising; infinity where all of them failed."""
        return float(self.ranked_s[:k].min())


def top_k(tasks: Iterable[ScoredTask], k: int) -> float:
    """sum_t w_t L*_t / sum_t w_t min_{i <= k} L_ti: the network's best time over its time as predicted.

    TenSet (Zheng et al., NeurIPS 2021), TLP (Zhai et al., ASPLOS 2023). 0 as soon as all k of a task failed.
    """
    counted = _counted(tasks)
    best_s = sum(t.weight * t.best_s for t in counted)
    return best_s / sum(t.weight * t.chosen_s(k) for t in counted) if best_s else math.nan


def peak_at_k(tasks: Iterable[ScoredTask], k: int) -> float:
    """Mean over i <= k of the running best label in predicted order; mean over tasks (TenSet)."""
    return _mean((t.best_s / np.minimum.accumulate(t.ranked_s[:k])).mean() for t in _counted(tasks))


def pairwise_accuracy(tasks: Iterable[ScoredTask]) -> float:
    """Share of pairs with different labels whose scores differ likewise; mean over tasks.

    Equal scores are wrong. Failures are worse than all else, and equal to each other.
    """
    return _mean(_rightly_ordered(t) for t in _counted(tasks) if _differ(t))


def _rightly_ordered(task: ScoredTask) -> float:
    right = pairs = 0
    for score, latency_s in zip(task.filled, task.latencies_s, strict=True):
        slower = task.filled[task.latencies_s > latency_s]
        right += int((slower < score).sum())
        pairs += len(slower)
    return right / pairs


def kendall_tau(tasks: Iterable[ScoredTask]) -> float:
    """Kendall's tau-b of scores and labels; mean over tasks. Scores that are all equal have 0."""
    counted = [t for t in _counted(tasks) if _differ(t)]
    each = (kendalltau(t.filled, -t.latencies_s).statistic for t in counted)
    return _mean(0.0 if np.isnan(tau) else tau for tau in each)


def slowdown_at_k(tasks: Iterable[ScoredTask], k: int) -> float:
    """min_{i <= k} L_ti / L*_t - 1; mean over tasks (TpuGraphs: Phothilimthana et al., NeurIPS 2023).

    Infinite as soon as all k of a task failed.
    """
    return _mean(t.chosen_s(k) / t.best_s - 1.0 for t in _counted(tasks))


def failed_at_k(tasks: Iterable[ScoredTask], k: int) -> float:
    """Share of tasks of which the k most promising all failed."""
    return _mean(float(np.isinf(t.chosen_s(k))) for t in _counted(tasks))


def median_error(tasks: Iterable[ScoredTask]) -> float:
    """Median of |predicted / measured - 1| over the successes of all tasks; NaN is infinitely wrong."""
    errors = np.abs(_predictions(tasks)[0] - 1.0)
    return float(np.median(np.where(np.isnan(errors), np.inf, errors))) if len(errors) else math.nan


def calibration(tasks: Iterable[ScoredTask], levels: Sequence[float] = LEVELS) -> dict[float, float]:
    """Of each level p, the share of successes within the central interval that should hold that share.

    The interval is that of a Laplace distribution of ln(latency) around the prediction: its standardized
    residual |ln(measured) - ln(predicted)| / spread has the quantile function -ln(1 - p). Not a normal one:
    errors of cost models and of timing have heavy tails, and absolute errors of logarithms, which models are
    trained on, are what a Laplace distribution makes likely. A prediction of NaN is outside.
    """
    ratios, spread = _predictions(t for t in tasks if t.spread is not None)
    residuals = np.abs(np.log(ratios)) / spread
    return {p: float(np.mean(residuals <= -math.log1p(-p))) if len(ratios) else math.nan for p in levels}


def _predictions(tasks: Iterable[ScoredTask]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Predicted over measured, and spreads (NaN where there are none), of all successes: shape [n] each."""
    ratios, spreads = [np.empty(0)], [np.empty(0)]
    for t in tasks:
        if t.predicted_s is not None:
            ran = np.isfinite(t.latencies_s)
            ratios.append(t.predicted_s[ran] / t.latencies_s[ran])
            spreads.append(np.full(ran.sum(), np.nan) if t.spread is None else t.spread[ran])
    return np.concatenate(ratios), np.concatenate(spreads)


def summary(tasks: Sequence[ScoredTask]) -> dict[str, float]:
    """All of them by name, finite numbers only, as JSON takes them: what is NaN is left out.

    ``top@k`` and ``slowdown@k`` are of the tasks where one of the k ran, so that a single failure does not
    hide all else; ``failed@k`` is the share of the others. ``tasks`` says how many counted.
    """
    found: dict[str, float] = {"tasks": len(_counted(tasks))}
    for k in KS:
        ran = [t for t in _counted(tasks) if np.isfinite(t.chosen_s(k))]
        found |= {f"top@{k}": top_k(ran, k), f"peak@{k}": peak_at_k(tasks, k)}
        found |= {f"slowdown@{k}": slowdown_at_k(ran, k), f"failed@{k}": failed_at_k(tasks, k)}
    found |= {"pairwise": pairwise_accuracy(tasks), "tau": kendall_tau(tasks)}
    found |= {"median_error": median_error(tasks)}
    found |= {f"within@{p:.0%}": share for p, share in calibration(tasks).items()}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _counted(tasks: Iterable[ScoredTask]) -> list[ScoredTask]:
    return [t for t in tasks if t.counts]


def _differ(task: ScoredTask) -> bool:
    return bool((task.latencies_s != task.best_s).any())


def _mean(values: Iterable[float]) -> float:
    """NaN of nothing."""
    found = [*values]
    return float(np.mean(found)) if found else math.nan
