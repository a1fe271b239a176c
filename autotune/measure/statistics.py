"""Is one program faster than another? Answers from paired times, with their uncertainty.

The comparison is that of Bouthillier et al., Accounting for Variance in Machine Learning Benchmarks (MLSys
2021), section 5: estimate P(A > B), the probability that a run of A beats a paired run of B, with a bootstrap
interval, and ask of it to be more than chance (significant) and more than gamma = 0.75 (meaningful). By
Noether's formula (their appendix C) 29 pairs suffice for error rates of 5 % at that gamma; where fewer do,
``autotune.measure.sequential`` tells.
"""

import math
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
RESAMPLES = 2000  # enough for two digits of an interval's ends
PAIRS = 29  # suffice for a verdict, see above
FEWEST_PAIRS = 6  # that can show a difference: the interval of 6 wins in 6 begins at 0.54, of 5 in 5 at 0.48
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
    samples: ArrayLike, statistic: Statistic = np.median, confidence: float = CONFIDENCE, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of independent samples, in their unit."""
    values = np.asarray(samples, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(values.size, size=(RESAMPLES, values.size))
    tail = (1 - confidence) / 2
    low, high = np.quantile(statistic(values[drawn], axis=-1), [tail, 1 - tail])
    return float(low), float(high)


def speed_ratio(ours_s: ArrayLike, theirs_s: ArrayLike, seed: int = 0) -> tuple[float, float, float]:
    """Median over pairs of their time over ours (over 1: we are faster), with its 95 % bootstrap interval.

    The two of a pair were taken in the same round. Where a machine runs at one speed now and at half of it a
    minute later, a pair's quotient stays; that of two medians is one of unlike halves.

    Raises:
        ValueError: A time is not positive, or there are not as many of both.
    """
    ours, theirs = _paired(ours_s, theirs_s)
    if min(ours.min(), theirs.min()) <= 0:
        raise ValueError("expected positive times")
    ratios = theirs / ours
    return float(np.median(ratios)), *bootstrap_interval(ratios, seed=seed)


def wins(ours_s: ArrayLike, theirs_s: ArrayLike, tie: float = 0.0) -> Floats:
    """Of each pair: 1 where ours took less time, 0 where theirs did, 1/2 where they tie.

    Args:
        tie: Share of the lesser time by which two that tie may differ.
    """
    ours, theirs = _paired(ours_s, theirs_s)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        tied = (ours == theirs) | (np.abs(ours - theirs) <= tie * np.minimum(ours, theirs))
    return np.where(tied, 0.5, ours < theirs)


def probability_faster(ours_s: ArrayLike, theirs_s: ArrayLike, seed: int = 0) -> tuple[float, float, float]:
    """P(a run of ours takes less time than the paired run of theirs) with its 95 % bootstrap interval.

    Args:
        seed: Without effect, for the interval is exact.

    Returns:
        Estimate, lower end, upper end.
    """
    won = wins(ours_s, theirs_s)
    return float(won.mean()), *share_interval(float(won.sum()), won.size)


def share_interval(won: float, pairs: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Percentile bootstrap interval of the share of pairs won, exactly: what endless resampling would give.

    The wins among n resampled pairs are binomial, so its ends are quantiles of Binomial(n, won / n): the
    ideal bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993). A tie is half a win for
    each; an odd one counts against whichever side an end speaks for, so ties never help. However few the
    pairs are, resampling a clean sweep shows no spread: so no interval says more than the exact one of a
    sweep (Clopper and Pearson 1934), which begins at 0.54 with 6 pairs, at 0.88 with 29.
    """
    low, low_of_losses = (_low_end(math.floor(w), pairs, confidence) for w in (won, pairs - won))
    return low, 1 - low_of_losses


def binomial(count: int, p: float) -> Floats:
    """Probabilities of 0, 1, ... ``count`` wins, each of probability 0 < ``p`` < 1."""
    k = np.arange(count)
    logs = np.append(0.0, np.cumsum(np.log((count - k) / (k + 1) * p / (1 - p))))
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum())


def verdict(low: float, high: float) -> Verdict:
    """What an interval of P(ours faster) shows.

    To ask whether theirs is faster, pass ``1 - high, 1 - low``.
    """
    if low <= CHANCE:
        return Verdict.NOT_SIGNIFICANT
    return Verdict.SIGNIFICANT if high <= MEANINGFUL else Verdict.MEANINGFUL


def _low_end(won: int, pairs: int, confidence: float) -> float:
    tail = (1 - confidence) / 2
    sweep = float(tail ** (1 / pairs))
    if won in (0, pairs):
        return sweep if won else 0.0
    quantile = np.searchsorted(np.cumsum(binomial(pairs, won / pairs)), tail)
    return min(int(quantile) / pairs, sweep)


def _paired(ours_s: ArrayLike, theirs_s: ArrayLike) -> tuple[Floats, Floats]:
    ours, theirs = (np.atleast_1d(np.asarray(s, dtype=np.float64)) for s in (ours_s, theirs_s))
    if ours.shape != theirs.shape or not ours.size:
        raise ValueError(f"expected as many samples of both, at least one, not {ours.size} and {theirs.size}")
    if np.isnan(ours).any() or np.isnan(theirs).any():
        raise ValueError("expected seconds, not NaN")
    return ours, theirs
