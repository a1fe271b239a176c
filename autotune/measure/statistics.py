"""Is one program faster than another? Answers from paired times, with their uncertainty.

The comparison is that of Bouthillier et al., Accounting for Variance in Machine Learning Benchmarks (MLSys
2021), section 5: estimate P(A > B), the probability that a run of A beats a paired run of B, with a bootstrap
interval, and ask of it to be more than chance (significant) and more than gamma = 0.75 (meaningful). By
Noether's formula (their appendix C) 29 pairs suffice for error rates of 5 % at that gamma.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 2000  # enough for two digits of an interval's ends
PAIRS = 29  # suffice for a verdict, see above
CHANCE = 0.5
MEANINGFUL = 0.75  # the paper's gamma

Floats = NDArray[np.float64]
Statistic = Callable[..., Any]
"""A function of an array along ``axis``, such as ``np.median``."""


class Verdict(StrEnum):
    """What a comparison shows."""

    NOT_SIGNIFICANT = "not significant"
    SIGNIFICANT = "significant"
    MEANINGFUL = "meaningful"


def bootstrap_interval(
    samples: Sequence[float], statistic: Statistic = np.median, confidence: float = CONFIDENCE, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of independent samples, in their unit."""
    values = np.asarray(samples, dtype=np.float64)
    return _percentiles(statistic(values[_resampled(values.size, seed)], axis=-1), confidence)


def speed_ratio(
    ours_s: Sequence[float], theirs_s: Sequence[float], seed: int = 0
) -> tuple[float, float, float]:
    """Their median time over ours (over 1: we are faster) with its 95 % bootstrap interval over the pairs."""
    ours, theirs = _paired(ours_s, theirs_s)
    picked = _resampled(ours.size, seed)
    ratios = np.median(theirs[picked], axis=-1) / np.median(ours[picked], axis=-1)
    return float(np.median(theirs) / np.median(ours)), *_percentiles(ratios, CONFIDENCE)


def probability_faster(
    ours_s: Sequence[float], theirs_s: Sequence[float], seed: int = 0
) -> tuple[float, float, float]:
    """P(a run of ours takes less time than the paired run of theirs) with its 95 % bootstrap interval.

    Ties count half. Where one side wins every pair, resampling shows no spread however few the pairs are, so
    that end of the interval is the exact one of Clopper and Pearson (1934): 0.54 with 6 pairs, 0.88 with 29.

    Returns:
        Estimate, lower end, upper end.
    """
    ours, theirs = _paired(ours_s, theirs_s)
    wins = np.where(ours == theirs, 0.5, ours < theirs)
    low, high = bootstrap_interval(wins.tolist(), np.mean, seed=seed)
    exact = ((1 - CONFIDENCE) / 2) ** (1 / wins.size)
    if wins.min() == 1:
        low = exact
    if wins.max() == 0:
        high = 1 - exact
    return float(wins.mean()), low, high


def verdict(low: float, high: float) -> Verdict:
    """What an interval of P(ours faster) shows.

    To ask whether theirs is faster, pass ``1 - high, 1 - low``.
    """
    if low <= CHANCE:
        return Verdict.NOT_SIGNIFICANT
    return Verdict.SIGNIFICANT if high <= MEANINGFUL else Verdict.MEANINGFUL


def _paired(ours_s: Sequence[float], theirs_s: Sequence[float]) -> tuple[Floats, Floats]:
    ours, theirs = (np.asarray(s, dtype=np.float64) for s in (ours_s, theirs_s))
    if ours.shape != theirs.shape or not ours.size:
        raise ValueError(f"expected as many samples of both, at least one, not {ours.size} and {theirs.size}")
    return ours, theirs


def _resampled(size: int, seed: int) -> NDArray[np.int64]:
    """Indices drawn with replacement, [resamples, size]."""
    return np.random.default_rng(seed).integers(size, size=(RESAMPLES, size))


def _percentiles(values: Any, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
