"""Metrics against numbers worked by hand, and what holds for any scores."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodels.metrics import (
    ScoredTask,
    calibration,
    failed_at_k,
    kendall_tau,
    median_error,
    pairwise_accuracy,
    peak_at_k,
    slowdown_at_k,
    summary,
    top_k,
)

INF, NAN = math.inf, math.nan
latencies = st.lists(st.sampled_from([1e-6, 2e-6, 3e-6, 0.5, 1.0, 7.0, INF]), min_size=2, max_size=12).filter(
    lambda found: min(found) < max(found)
)
scores = st.sampled_from([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0, NAN])


def task(scores: list[float], latencies_s: list[float], weight: float = 1.0) -> ScoredTask:
    return ScoredTask(np.array(scores, dtype=float), np.array(latencies_s, dtype=float), weight)


@st.composite
def scored(draw: st.DrawFn) -> ScoredTask:
    latencies_s = draw(latencies)
    some = draw(st.lists(scores, min_size=len(latencies_s), max_size=len(latencies_s)))
    return task(some, latencies_s, draw(st.sampled_from([1.0, 2.0, 5.0])))


many = st.lists(scored(), min_size=1, max_size=4)


# By hand: latencies 4, 1, 2, a failure; predicted order is the third, the failure, the first, the second.
HAND = task([2.0, 1.0, 4.0, 3.0], [4.0, 1.0, 2.0, INF], weight=3.0)
# Predicted order is right but for a tie of the two slowest.
TIED = task([5.0, 0.0, 0.0], [1.0, 2.0, 4.0])


def test_top_k_by_hand() -> None:
    assert top_k([HAND], 1) == 1 / 2
    assert top_k([HAND], 4) == 1
    assert top_k([HAND, TIED], 1) == (3 * 1 + 1) / (3 * 2 + 1)


def test_peak_by_hand() -> None:
    assert peak_at_k([HAND], 1) == 0.5
    assert peak_at_k([HAND], 3) == 0.5
    assert peak_at_k([HAND], 4) == peak_at_k([HAND], 9) == (0.5 + 0.5 + 0.5 + 1) / 4
    assert peak_at_k([HAND, TIED], 1) == 0.75


def test_pairwise_by_hand() -> None:
    # 6 pairs, of which right are 4 > none; 1 > none; 2 > 4, 2 > failure: those the third wins, and none else.
    assert pairwise_accuracy([HAND]) == 2 / 6
    assert pairwise_accuracy([TIED]) == 2 / 3
    assert pairwise_accuracy([HAND, TIED]) == (2 / 6 + 2 / 3) / 2
    assert pairwise_accuracy([task([2.0, 1.0, 1.0], [1.0, INF, INF])]) == 1  # equal labels are no pair


def test_tau_by_hand() -> None:
    assert kendall_tau([HAND]) == pytest.approx((2 - 4) / 6)
    assert kendall_tau([TIED]) == pytest.approx(2 / math.sqrt(3 * 2))  # tau-b: 2 of 3 pairs not tied in x
    assert kendall_tau([task([1.0, 1.0], [1.0, 2.0])]) == 0


def test_slowdown_by_hand() -> None:
    assert slowdown_at_k([HAND], 1) == 1
    assert slowdown_at_k([HAND, TIED], 1) == 0.5
    assert slowdown_at_k([task([0.0, 0.0, 1.0], [1.0, 3.0, 4.0])], 2) == 2  # of a tie the slowest comes first


def test_nothing_that_ran_is_infinitely_slow() -> None:
    bad = task([2.0, 1.0], [INF, 1.0])
    assert (top_k([bad, TIED], 1), slowdown_at_k([bad, TIED], 1), failed_at_k([bad, TIED], 1)) == (
        0,
        INF,
        0.5,
    )
    found = summary([bad, TIED])
    assert (found["top@1"], found["slowdown@1"], found["failed@1"]) == (1, 0, 0.5)
    assert (found["top@5"], found["failed@5"], found["peak@1"]) == (1, 0, 0.5)


def test_error_by_hand() -> None:
    first = replace(task([0, 0, 0], [1, 2, INF]), predicted_s=np.array([1.5, 2.0, 9.0]))
    second = replace(task([0], [4]), predicted_s=np.array([3.0]))
    assert median_error([first, second, TIED]) == 0.25  # of 0.5, 0, 0.25
    assert median_error([replace(first, predicted_s=np.array([NAN, NAN, 1.0]))]) == INF
    assert math.isnan(median_error([TIED]))


def test_calibration_by_hand() -> None:
    e = math.e  # residuals 0, 1, 2, 4 in spreads; intervals of 0.69, 1.61 and 3.00
    given = ScoredTask(
        np.zeros(5),
        np.array([1, e, 1, e**2, INF]),
        predicted_s=np.array([1, 1, e, 1, 1.0]),
        spread=np.array([1, 1, 0.5, 0.5, 1.0]),
    )
    assert calibration([given]) == {0.5: 1 / 4, 0.8: 2 / 4, 0.95: 3 / 4}


def test_calibration_of_a_laplace_distribution() -> None:
    rng = np.random.default_rng(0)
    spread = rng.uniform(0.1, 2, 20_000)
    latencies_s = np.exp(rng.laplace(-7, spread))
    given = ScoredTask(spread, latencies_s, predicted_s=np.full(20_000, math.exp(-7)), spread=spread)
    for level, share in calibration([given]).items():
        assert share == pytest.approx(level, abs=0.02)  # five standard errors


@given(many, st.integers(1, 9))
def test_perfect_scores(tasks: list[ScoredTask], k: int) -> None:
    perfect = [replace(t, scores=-t.latencies_s) for t in tasks]
    assert top_k(perfect, k) == peak_at_k(perfect, k) == pairwise_accuracy(perfect) == 1
    assert kendall_tau(perfect) == pytest.approx(1)
    assert slowdown_at_k(perfect, k) == failed_at_k(perfect, k) == 0


@given(many)
def test_reversed_scores(tasks: list[ScoredTask]) -> None:
    worst = [replace(t, scores=t.latencies_s) for t in tasks]
    assert pairwise_accuracy(worst) == 0
    assert kendall_tau(worst) == pytest.approx(-1)
    assert slowdown_at_k(worst, 1) == pytest.approx(
        np.mean([t.latencies_s.max() / t.latencies_s.min() - 1 for t in tasks])
    )


@given(many)
def test_scores_that_say_nothing_gain_nothing(tasks: list[ScoredTask]) -> None:
    for score in (0.0, NAN):
        blank = [replace(t, scores=np.full(t.scores.shape, score)) for t in tasks]
        assert pairwise_accuracy(blank) == kendall_tau(blank) == 0
        assert slowdown_at_k(blank, 1) == slowdown_at_k([replace(t, scores=t.latencies_s) for t in tasks], 1)


@pytest.mark.parametrize("change", [np.exp, np.cbrt, lambda s: 3 * s - 7], ids=["exp", "cbrt", "line"])
@given(tasks=many)
def test_only_the_order_of_scores_matters(
    change: Callable[[np.ndarray], np.ndarray], tasks: list[ScoredTask]
) -> None:
    assert summary([replace(t, scores=change(t.scores)) for t in tasks]) == summary(tasks)


@given(many, st.randoms(use_true_random=False))
def test_the_order_of_candidates_does_not_matter(tasks: list[ScoredTask], random: object) -> None:
    shuffled = []
    for t in tasks:
        order = list(range(len(t.scores)))
        random.shuffle(order)  # type: ignore[attr-defined]
        shuffled.append(replace(t, scores=t.scores[order], latencies_s=t.latencies_s[order]))
    assert summary(shuffled) == pytest.approx(summary(tasks))


@given(many)
def test_nan_is_worse_than_any_score(tasks: list[ScoredTask]) -> None:
    low = [replace(t, scores=np.nan_to_num(t.scores, nan=-1e9)) for t in tasks]
    assert summary(low) == summary(tasks)


@given(many)
def test_tasks_that_tell_nothing_are_left_out(tasks: list[ScoredTask]) -> None:
    extra = [task([1.0], [2.0]), task([1.0, 2.0], [INF, INF]), task([], [])]
    assert summary([*tasks, *extra]) == summary(tasks)
    assert summary(tasks)["tasks"] == len(tasks)
    assert summary(extra) == {"tasks": 0}


def test_equal_latencies_have_no_order() -> None:
    same = task([1.0, 2.0], [3.0, 3.0])
    assert math.isnan(pairwise_accuracy([same])) and math.isnan(kendall_tau([same]))
    assert pairwise_accuracy([same, TIED]) == 2 / 3
    assert top_k([same], 1) == 1


@pytest.mark.parametrize("scores, latencies_s", [([1.0], [1.0, 2.0]), ([1.0], [NAN]), ([1.0], [0.0])])
def test_what_is_no_task(scores: list[float], latencies_s: list[float]) -> None:
    with pytest.raises(ValueError, match="must"):
        task(scores, latencies_s)
