"""Tests of the sequential comparison: its error rates, exactly and by simulation."""

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from autotune.measure.sequential import (
    CONFIDENCE_AT_LOOK,
    FUTILE,
    LOOKS,
    Comparison,
    Outcome,
    PairedTest,
    chance_of_first,
)
from autotune.measure.statistics import CHANCE, PAIRS, Verdict, binomial, share_interval

Floats = NDArray[np.float64]
SPANS = tuple(np.diff((0, *LOOKS)).tolist())  # pairs between looks
NEEDED = {8: 8, 14: 12, 20: 16, 26: 20, 29: 21}  # wins that decide
EXACT_ERROR = 0.0402  # of the rule with its stop for futility, see test_error_and_power_exactly
TESTS = 20_000  # simulated: a rate of 4 % has a standard error of 0.14 %

series = st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=PAIRS, max_size=PAIRS)


def calls(pairs: int, won: float) -> int:
    """1: the first is called faster, -1: the second."""
    low, high = share_interval(won, pairs, CONFIDENCE_AT_LOOK)
    return int(low > CHANCE) - int(high < CHANCE)


@cache
def table(pairs: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """At a look, by twice the wins: what is called, and whether the test ends."""
    halves = np.arange(2 * pairs + 1) / 2
    called = np.array([calls(pairs, won) for won in halves])
    futile = [chance_of_first(0.75, pairs, int(max(won, pairs - won))) < FUTILE for won in halves]
    return called, (called != 0) | np.array(futile)


def ends(share: float) -> Iterator[tuple[int, int, float]]:
    """How tests end, tie-free and each pair won with this probability: pairs, wins, probability."""
    walk = np.ones(1)
    for pairs, more in zip(LOOKS, SPANS, strict=True):
        walk = np.convolve(walk, binomial(more, share))
        over = table(pairs)[1][::2]
        yield from ((pairs, int(w), float(walk[w])) for w in np.flatnonzero(over))
        walk = np.where(over, 0.0, walk)
    assert not walk.any()


def power(share: float) -> tuple[float, float, float]:
    """Exactly: P(first called), P(second called), mean pairs."""
    found = [(calls(n, w), n, p) for n, w, p in ends(share)]
    first, second = (sum(p for c, _, p in found if c == side) for side in (1, -1))
    return first, second, sum(n * p for _, n, p in found)


def simulate(first_s: Floats, second_s: Floats) -> tuple[float, float, float]:
    """The same, of series of pairs, [tests, pairs]."""
    halves = np.cumsum(2 * (first_s < second_s) + (first_s == second_s), axis=1)
    called, pairs = np.zeros(len(halves), dtype=int), np.zeros(len(halves), dtype=int)
    for look in LOOKS:
        now = halves[:, look - 1]
        over = (pairs == 0) & table(look)[1][now]
        called[over], pairs[over] = table(look)[0][now[over]], look
    return float(np.mean(called == 1)), float(np.mean(called == -1)), float(pairs.mean())


def run(first_s: list[float], second_s: list[float]) -> PairedTest:
    test = PairedTest()
    test.add(first_s, second_s)
    return test


def test_what_another_build_of_the_same_program_would_differ_by_decides_nothing() -> None:
    assert run([1.0] * PAIRS, [1.009] * PAIRS).outcome is Outcome.UNDECIDED
    assert run([1.0] * 8, [1.02] * 8).outcome is Outcome.FIRST


# The rule, exactly.


def test_wins_needed() -> None:
    assert {n: next(w for w in range(n + 1) if calls(n, w) > 0) for n in LOOKS} == NEEDED


def test_error_and_power_exactly() -> None:
    assert power(0.5) == pytest.approx((EXACT_ERROR / 2, EXACT_ERROR / 2, 20.1), rel=1e-2)
    assert power(0.75) == pytest.approx((0.729, 0.0, 20.758), abs=1e-3)
    assert power(0.9) == pytest.approx((0.998, 0.0, 12.574), abs=1e-3)
    assert power(1 - 1e-9) == pytest.approx((1.0, 0.0, 8.0))


def test_error_is_below_5_percent_whoever_ignores_the_stop_for_futility() -> None:
    assert 2 * chance_of_first(CHANCE) == pytest.approx(0.0409, abs=1e-4)


def test_futility_costs_little_power() -> None:
    for share in np.arange(0.5, 1, 0.01):
        assert 0 <= chance_of_first(share) - power(share)[0] < 0.0065
    assert chance_of_first(0.75) - power(0.75)[0] == pytest.approx(0.006, abs=5e-4)


def test_last_interval_covers_and_no_narrower_one_would() -> None:
    def coverage(share: float, confidence: float) -> float:
        held = 0.0
        for pairs, won, chance in ends(share):
            low, high = share_interval(won, pairs, confidence)
            held += chance * (low <= share <= high)
        return held

    shares = np.arange(0.005, 1, 0.005)
    assert min(coverage(s, CONFIDENCE_AT_LOOK) for s in shares) >= 0.95
    assert {
        n: next(w for w in range(n + 1) if share_interval(w, n, 0.98)[0] > CHANCE) for n in LOOKS
    } == NEEDED
    assert min(coverage(s, 0.98) for s in shares) < 0.95  # the same rule


def test_no_pattern_of_ties_raises_the_error() -> None:
    """Given how many pairs tie before each look, the others are fair coins still."""

    def error(look: int, walk: Floats, tied: int) -> float:
        """The worst case from here on; ``walk``: of wins in the pairs that do not tie."""
        if look == len(LOOKS):
            return 0.0
        worst = 0.0
        for ties in range(SPANS[look] + 1):
            now = np.convolve(walk, binomial(SPANS[look] - ties, CHANCE))
            called = table(LOOKS[look])[0][2 * np.arange(now.size) + tied + ties] != 0
            later = error(look + 1, np.where(called, 0.0, now), tied + ties)
            worst = max(worst, now[called].sum() + later)
        return worst

    assert error(0, np.ones(1), 0) == pytest.approx(2 * chance_of_first(CHANCE))


# The rule, by simulation.


def drift(rng: np.random.Generator) -> Floats:
    """Of the machine, shared by the runs of a pair: slow steps of 5 %, correlated 0.95 from pair to pair."""
    steps = rng.normal(0, 0.05, (TESTS, PAIRS))
    for n in range(1, PAIRS):
        steps[:, n] += 0.95 * steps[:, n - 1]
    return np.exp(steps)


@pytest.mark.parametrize("noise", ["normal", "drift", "heavy tails", "two modes", "ties"])
def test_identical_programs_are_called_different_in_at_most_5_percent(noise: str) -> None:
    rng = np.random.default_rng(0)
    shape = (2, TESTS, PAIRS)
    times = {
        "normal": lambda: rng.normal(1, 0.01, shape),
        "drift": lambda: drift(rng) * rng.normal(1, 0.01, shape),
        "heavy tails": lambda: rng.pareto(0.5, shape),  # neither mean nor variance
        "two modes": lambda: drift(rng) * rng.choice([1.0, 1.3], shape) * rng.normal(1, 1e-3, shape),
        "ties": lambda: np.round(rng.normal(1, 0.01, shape), 2),
    }[noise]()
    first, second, pairs = simulate(times[0], times[1])
    assert first + second <= 0.05
    assert pairs < 24
    if noise != "ties":
        assert (first + second, pairs) == pytest.approx((EXACT_ERROR, 20.1), abs=0.006, rel=0.01)


@pytest.mark.parametrize(
    ("sigmas", "found", "pairs"),
    [(3.0, 1.0, 8.7), (2.0, 0.999, 11.6), (1.0, 0.77, 20.3), (0.5, 0.25, 21.8), (0.25, 0.09, 20.6)],
)
def test_differences_are_found(sigmas: float, found: float, pairs: float) -> None:
    """A difference of so many times the noise of one run: 3 % at 1 % comes first."""
    rng = np.random.default_rng(1)
    shared = drift(rng)
    first_s, second_s = (shared * rng.normal(mean, 0.01, shared.shape) for mean in (1, 1 + 0.01 * sigmas))
    exact = power(0.5 * (1 + math.erf(sigmas / 2)))  # P(first faster) of two normal times
    simulated = simulate(first_s, second_s)
    assert simulated == pytest.approx(exact, abs=0.015, rel=0.01)
    assert (exact[0], exact[2]) == pytest.approx((found, pairs), abs=0.01, rel=0.01)


# The class.


@given(series, series)
@example([1.0] * PAIRS, [2.0] * PAIRS)
@settings(max_examples=100, deadline=None)
def test_class_follows_the_rule(first_s: list[float], second_s: list[float]) -> None:
    test = run(first_s, second_s)
    first, second, pairs = simulate(np.array([first_s]), np.array([second_s]))
    assert test.decided
    assert test.pairs == pairs
    assert (test.first_s, test.second_s) == (first_s[: test.pairs], second_s[: test.pairs])
    assert test.outcome is (Outcome.FIRST if first else Outcome.SECOND if second else Outcome.UNDECIDED)


@given(series, series)
@settings(max_examples=100, deadline=None)
def test_outcome_interval_and_verdict_agree(first_s: list[float], second_s: list[float]) -> None:
    test = run(first_s, second_s)
    shown = test.comparison()
    assert shown.pairs == test.pairs
    assert 0 <= shown.low <= shown.p_faster <= shown.high <= 1
    assert (test.outcome is Outcome.FIRST) == (shown.low > CHANCE)
    assert (test.outcome is Outcome.SECOND) == (shown.high < CHANCE)
    assert (test.outcome is Outcome.UNDECIDED) == (shown.verdict is Verdict.NOT_SIGNIFICANT)


@given(series, series)
@settings(max_examples=100, deadline=None)
def test_swapping_the_programs_swaps_the_answer(first_s: list[float], second_s: list[float]) -> None:
    forth, back = run(first_s, second_s), run(second_s, first_s)
    swapped = {Outcome.FIRST: Outcome.SECOND, Outcome.SECOND: Outcome.FIRST}
    ours, theirs = forth.comparison(), back.comparison()
    assert forth.pairs == back.pairs
    assert back.outcome is swapped.get(forth.outcome, Outcome.UNDECIDED)
    assert back.outcome is theirs.outcome
    assert ours.verdict is theirs.verdict
    assert (theirs.p_faster, theirs.low, theirs.high) == pytest.approx(
        (1 - ours.p_faster, 1 - ours.high, 1 - ours.low)
    )


@given(series, series, series)
@settings(max_examples=100, deadline=None)
def test_faster_runs_never_turn_the_answer_round(
    first_s: list[float], second_s: list[float], factors: list[float]
) -> None:
    before = run(first_s, second_s)
    after = run([t / f for t, f in zip(first_s, factors, strict=True)], second_s)
    assert before.outcome is not Outcome.FIRST or after.outcome is not Outcome.SECOND


@given(series, series, st.lists(st.integers(1, 9), min_size=PAIRS, max_size=PAIRS))
@settings(max_examples=50, deadline=None)
def test_portions_make_no_difference(first_s: list[float], second_s: list[float], sizes: list[int]) -> None:
    test, taken = PairedTest(), 0
    for size in sizes:
        chunk = slice(taken, taken := taken + size)
        if first_s[chunk]:
            test.add(first_s[chunk], second_s[chunk])
    whole = run(first_s, second_s)
    assert (test.pairs, test.comparison()) == (whole.pairs, whole.comparison())


def test_a_clear_difference_takes_one_look() -> None:
    test = PairedTest()
    for n in range(8):
        assert test.outcome is Outcome.UNDECIDED
        with pytest.raises(ValueError, match=f"{n} pairs show nothing"):
            test.comparison()
        assert not test.decided
        assert test.next_pairs == 8 - n
        test.add(1.0, 1.03)
    assert (test.decided, test.outcome, test.next_pairs) == (True, Outcome.FIRST, 0)
    low = (0.5 - CONFIDENCE_AT_LOOK / 2) ** (1 / 8)
    assert test.comparison() == Comparison(8, 1.0, pytest.approx(low), 1.0)


def test_equal_programs_take_few_looks() -> None:
    test, looks = PairedTest(), []
    while not test.decided:
        looks.append(test.next_pairs)
        test.add([1.0] * looks[-1], [1.0] * looks[-1])
    assert looks == [8, 6]
    assert test.outcome is Outcome.UNDECIDED


def test_wrong_times_are_refused() -> None:
    with pytest.raises(ValueError, match="as many samples of both"):
        PairedTest().add([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="not NaN"):
        PairedTest().add(math.nan, 1.0)
