"""Is one program faster than another, told from as few pairs of times as can tell?

The pairs that the first program wins are a random walk. If the programs are equal it is a fair one, whatever
the distribution of times and whatever disturbs both runs of a pair alike (the sign test); the order within
pairs must alternate or be drawn. Times within 1 % tie, which is half a win for each: two builds of one
program differ by as much, pair after pair, for their code lies elsewhere. The walk is looked at after 8, 14,
20, 26 and 29 pairs, each time through the bootstrap interval of P(first faster), wide enough to make up for
looking five times: these are the repeated confidence intervals of Jennison and Turnbull (JRSS B 51, 1989), at
one level for all looks as by Pocock (Biometrika 64, 1977; his constant for five looks and 5 % is 98.4 %). The
test ends as soon as the interval excludes chance, so outcome, interval and verdict are one answer.

Exactly, by the recursion of Armitage et al. (JRSS A 132, 1969): equal programs are called different in 4.0 %
of tests, in at most 4.1 % whichever pairs tie, and the last interval holds P(first faster), whatever it is,
in at least 95 %. A program that wins 75 % of the pairs is found out with probability 0.73, after 21 pairs on
average, one that wins 90 % with 0.998 after 13, one that wins all after 8.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import numpy as np
from numpy.typing import ArrayLike

from autotune.measure.statistics import (
    CHANCE,
    MEANINGFUL,
    PAIRS,
    Verdict,
    binomial,
    share_interval,
    verdict,
    wins,
)

LOOKS = (8, 14, 20, 26, PAIRS)
CONFIDENCE_AT_LOOK = 0.985  # the least, to half a percent, that leaves the whole test 95 %
TIE = 0.01  # share of a time: by as much differ two builds of one program, for their code lies elsewhere
FUTILE = 0.1  # costs 0.6 % of the power at 75 %, and spares equal programs 8 of 29 pairs


class Outcome(StrEnum):
    """Which program is faster."""

    FIRST = "first"
    SECOND = "second"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Comparison:
    """What a look shows: P(first faster) with the interval that decides, at ``CONFIDENCE_AT_LOOK``."""

    pairs: int
    p_faster: float
    low: float
    high: float

    @property
    def outcome(self) -> Outcome:
        if self.low > CHANCE:
            return Outcome.FIRST
        return Outcome.SECOND if self.high < CHANCE else Outcome.UNDECIDED

    @property
    def verdict(self) -> Verdict:
        """On the faster of the two being faster."""
        if self.outcome is Outcome.SECOND:
            return verdict(1 - self.high, 1 - self.low)
        return verdict(self.low, self.high)


class PairedTest:
    """Takes pairs of times until they decide.

        test = PairedTest()
        while not test.decided:
            test.add(*time_pairs(test.next_pairs))
        print(test.outcome)

    A caller who runs out of time just stops: the last look's answer stands.

    Attributes:
        first_s: Times that count so far, paired with ``second_s``.
        decided: The outcome is final, if only because more pairs could hardly change it.
    """

    def __init__(self) -> None:
        self.first_s: list[float] = []
        self.second_s: list[float] = []
        self.decided = False
        self._won = 0.0
        self._seen: Comparison | None = None

    def add(self, first_s: ArrayLike, second_s: ArrayLike) -> None:
        """Takes the seconds of one pair, or arrays of pairs in the order in which they were timed.

        Pairs after the one that decides do not count, so it makes no difference in what portions they come.

        Raises:
            ValueError: Not as many times of both, none, or NaN.
        """
        won = wins(first_s, second_s, TIE).tolist()
        for first, second, win in zip(*np.atleast_1d(first_s, second_s), won, strict=True):
            if self.decided:
                return
            self.first_s.append(float(first))
            self.second_s.append(float(second))
            self._won += win
            if self.pairs in LOOKS:
                self._look()

    @property
    def pairs(self) -> int:
        """How many count so far."""
        return len(self.first_s)

    @property
    def next_pairs(self) -> int:
        """How many pairs to take before the next look; 0 once decided."""
        return 0 if self.decided else next(n for n in LOOKS if n > self.pairs) - self.pairs

    @property
    def outcome(self) -> Outcome:
        """Undecided before the first look, too."""
        return self._seen.outcome if self._seen else Outcome.UNDECIDED

    def comparison(self) -> Comparison:
        """What the last look showed.

        Raises:
            ValueError: There was none yet.
        """
        if self._seen is None:
            raise ValueError(f"{self.pairs} pairs show nothing; the first look is after {LOOKS[0]}")
        return self._seen

    def _look(self) -> None:
        interval = share_interval(self._won, self.pairs, CONFIDENCE_AT_LOOK)
        self._seen = Comparison(self.pairs, self._won / self.pairs, *interval)
        lead = int(max(self._won, self.pairs - self._won))
        self.decided = (
            self.outcome is not Outcome.UNDECIDED or chance_of_first(MEANINGFUL, self.pairs, lead) < FUTILE
        )


@cache
def chance_of_first(share: float, pairs: int = 0, won: int = 0) -> float:
    """P(a later look calls the first program faster), given its wins so far, if it wins this share of pairs.

    Exact, but for the stop for futility, which can only lower it. By this chance that stop is decided
    (stochastic curtailment: Lan, Simon and Halperin, Sequential Analysis 1, 1982).
    """
    look = next((n for n in LOOKS if n > pairs), None)
    if look is None:
        return 0.0
    chances: list[float] = binomial(look - pairs, share).tolist()
    return sum(p * _chance_at_look(share, look, total) for total, p in enumerate(chances, start=won))


@cache
def _chance_at_look(share: float, pairs: int, won: int) -> float:
    low, high = share_interval(won, pairs, CONFIDENCE_AT_LOOK)
    if low > CHANCE or high < CHANCE:
        return float(low > CHANCE)
    return chance_of_first(share, pairs, won)
