"""Tests of comparisons of times."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.measure.statistics import (
    FEWEST_PAIRS,
    Verdict,
    binomial,
    bootstrap_interval,
    probability_faster,
    share_interval,
    speed_ratio,
    verdict,
    wins,
)

times = st.floats(1e-6, 1e3)
samples = st.lists(times, min_size=1, max_size=40)
pairs = st.lists(st.tuples(times, times), min_size=1, max_size=40).map(lambda p: tuple(zip(*p, strict=True)))


@given(samples)
@settings(max_examples=50, deadline=None)
def test_interval_of_the_median_lies_within_the_samples(values: list[float]) -> None:
    low, high = bootstrap_interval(values)
    assert min(values) <= low <= high <= max(values)


@given(pairs)
@settings(max_examples=50, deadline=None)
def test_probability_is_that_of_the_pairs(drawn: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
    ours, theirs = drawn
    estimate, low, high = probability_faster(ours, theirs)
    assert estimate == pytest.approx(np.mean([0.5 if o == t else o < t for o, t in zip(*drawn, strict=True)]))
    assert 0 <= low <= estimate + 1e-12
    assert estimate - 1e-12 <= high <= 1


@given(pairs)
@settings(max_examples=50, deadline=None)
def test_probability_of_the_other_side_is_the_complement(
    drawn: tuple[tuple[float, ...], tuple[float, ...]],
) -> None:
    ours, theirs = drawn
    forth, back = probability_faster(ours, theirs), probability_faster(theirs, ours)
    assert back == pytest.approx((1 - forth[0], 1 - forth[2], 1 - forth[1]))


@given(pairs, st.floats(0.01, 100))
@settings(max_examples=50, deadline=None)
def test_ratio_scales(drawn: tuple[tuple[float, ...], tuple[float, ...]], factor: float) -> None:
    ours, theirs = drawn
    ratio, low, high = speed_ratio(ours, theirs)
    assert low <= high
    assert ratio == pytest.approx(np.median(np.divide(theirs, ours)))
    scaled = speed_ratio(ours, [factor * t for t in theirs])
    assert scaled == pytest.approx((factor * ratio, factor * low, factor * high))


def test_ratio_on_a_machine_that_changes_its_speed() -> None:
    ours = [2.0] * 10 + [1.0] * 10
    theirs = [2.4] * 11 + [1.2] * 9  # it changed while a pair was taken
    assert speed_ratio(ours, theirs) == pytest.approx((1.2, 1.2, 1.2))


@given(st.floats(0, 1), st.floats(0, 1))
def test_verdict(a: float, b: float) -> None:
    low, high = sorted((a, b))
    expected = Verdict.MEANINGFUL if high > 0.75 else Verdict.SIGNIFICANT
    assert verdict(low, high) is (Verdict.NOT_SIGNIFICANT if low <= 0.5 else expected)


def test_ends_of_the_interval_by_hand() -> None:
    # 29 pairs, 20 of them won: the mean of 29 draws has a standard error of sqrt(p (1-p) / 29) = 0.086.
    ours, theirs = [1.0] * 29, [2.0] * 20 + [0.5] * 9
    estimate, low, high = probability_faster(ours, theirs)
    assert estimate == pytest.approx(20 / 29)
    assert low == pytest.approx(20 / 29 - 1.96 * 0.086, abs=0.03)
    assert high == pytest.approx(20 / 29 + 1.96 * 0.086, abs=0.03)


@pytest.mark.parametrize(("count", "low"), [(5, 0.478), (6, 0.541), (29, 0.881)])
def test_a_clean_sweep_needs_six_pairs(count: int, low: float) -> None:
    assert probability_faster([1.0] * count, [2.0] * count) == pytest.approx((1.0, low, 1.0), abs=1e-3)
    assert probability_faster([2.0] * count, [1.0] * count) == pytest.approx((0.0, 0.0, 1 - low), abs=1e-3)


def test_fewest_pairs() -> None:
    assert share_interval(FEWEST_PAIRS, FEWEST_PAIRS)[0] > 0.5
    assert share_interval(FEWEST_PAIRS - 1, FEWEST_PAIRS - 1)[0] <= 0.5


def test_ties_count_half() -> None:
    assert wins([1.0, 1.0, 2.0], [2.0, 1.0, 1.0]).tolist() == [1.0, 0.5, 0.0]
    assert wins([math.inf, math.inf, 0.0], [math.inf, 1.0, 0.0], 0.01).tolist() == [0.5, 0.0, 0.5]
    assert wins([1.0, 1.0], [1.009, 0.98], 0.01).tolist() == [0.5, 0.0]
    assert probability_faster([1.0] * 8, [1.0] * 8) == (0.5, *share_interval(4, 8))


def test_an_odd_tie_widens_the_interval() -> None:
    assert share_interval(5.5, 8) == (share_interval(5, 8)[0], share_interval(6, 8)[1])


@pytest.mark.parametrize("p", [0.01, 0.5, 0.75])
@pytest.mark.parametrize("count", [1, 6, 29])
def test_binomial(count: int, p: float) -> None:
    expected = [math.comb(count, k) * p**k * (1 - p) ** (count - k) for k in range(count + 1)]
    assert binomial(count, p).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize(("won", "count"), [(3, 7), (20, 29), (15, 16), (300, 1000)])
def test_interval_is_what_resampling_gives(won: int, count: int, confidence: float) -> None:
    resampled = bootstrap_interval([1.0] * won + [0.0] * (count - won), np.mean, confidence, seed=2)
    step = max(1 / count, 5e-3)  # 2000 resamples place a quantile of a lattice to the next point, or so
    low, high = share_interval(won, count, confidence)
    sweep = ((1 - confidence) / 2) ** (1 / count)
    assert low == pytest.approx(min(resampled[0], sweep), abs=step + 1e-9)
    assert high == pytest.approx(max(resampled[1], 1 - sweep), abs=step + 1e-9)


@given(st.integers(1, 60), st.data())
@settings(max_examples=50, deadline=None)
def test_interval_grows_with_the_wins_and_the_confidence(count: int, data: st.DataObject) -> None:
    fewer, more = sorted(data.draw(st.tuples(*[st.integers(0, 2 * count)] * 2)))
    ends = np.array([share_interval(w / 2, count) for w in (fewer, more)])
    assert (ends[0] <= ends[1]).all()
    wide = share_interval(more / 2, count, 0.99)
    assert wide[0] <= ends[1, 0] <= ends[1, 1] <= wide[1]


def test_equal_programs_are_seldom_called_different() -> None:
    rng = np.random.default_rng(0)
    wrong = sum(
        probability_faster(rng.random(29).tolist(), rng.random(29).tolist())[1] > 0.5 for _ in range(200)
    )
    assert wrong <= 12  # 2.5 % expected, a little more for the bootstrap


def test_interval_is_reproducible_and_covers() -> None:
    rng = np.random.default_rng(1)
    drawn = [rng.exponential(1.0, 29).tolist() for _ in range(200)]
    assert bootstrap_interval(drawn[0]) == bootstrap_interval(drawn[0])
    hits = sum(low <= np.log(2) <= high for low, high in map(bootstrap_interval, drawn))
    assert hits >= 180  # of 200, at 95 %


def test_unpaired_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="as many samples of both"):
        probability_faster([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="at least one"):
        speed_ratio([], [])
    with pytest.raises(ValueError, match="positive"):
        speed_ratio([1.0, 0.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="not NaN"):
        wins([1.0, math.nan], [1.0, 2.0])
