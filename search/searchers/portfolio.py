"""Several spaces of one kernel, each with a searcher of its own, for one budget.

A template holds few schedules, most of them good; TVM's rules hold almost all, few of them good. Which of
them pays depends on the kernel. The first batch is the first space's, the template's where there is one. Then
the places of a batch go to each by what it brought: how often its latest candidates were the best so far.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from search.problem import Candidate, Measurement
from search.searchers.base import Searcher

MEMORY = 48  # latest candidates that a space's credit follows from
TRUST = 8  # candidates that its share of successes is averaged with, half a success among them
FLOOR = 0.1  # least share of a space: what is best may be found late


class PortfolioSearcher:
    """Shares each batch out among searchers.

    Args:
        searchers: By the name of their space, the one to begin with first.
    """

    def __init__(self, searchers: Mapping[str, Searcher], seed: int) -> None:
        self._searchers = dict(searchers)
        self._seed = seed
        self._best_s = math.inf
        self._measured = 0
        self._successes: dict[str, list[bool]] = defaultdict(list)

    def update(self, measurements: Sequence[Measurement]) -> None:
        for m in measurements:
            if m.candidate.space in self._searchers:
                self._measured += 1
                self._successes[m.candidate.space].append(m.latency_s < self._best_s)
                self._best_s = min(self._best_s, m.latency_s)
        for searcher in self._searchers.values():
            searcher.update(measurements)

    def suggest(self, n: int) -> list[Candidate]:
        found: list[Candidate] = []
        left = dict(zip(self._searchers, self._places(n), strict=True))
        for name, searcher in self._searchers.items():
            found += searcher.suggest(left[name]) if left[name] else []
        if len(found) < n:  # a space ran out: those that did not fill up
            taken = {(c.space, c.choices) for c in found}
            for searcher in self._searchers.values():
                more = searcher.suggest(n)
                found += [c for c in more if (c.space, c.choices) not in taken][: n - len(found)]
        return found

    def _places(self, n: int) -> list[int]:
        """How many candidates each may propose: in proportion to credit, above the floor."""
        if not self._measured:
            return [n, *[0] * (len(self._searchers) - 1)]
        credit = np.array([self._credit(name) for name in self._searchers])
        share = FLOOR + (1 - FLOOR * len(credit)) * credit / credit.sum()
        rng = np.random.default_rng([self._seed, self._measured])
        drawn = rng.choice(len(credit), n, p=share / share.sum())
        return [int(k) for k in np.bincount(drawn, minlength=len(credit))]

    def _credit(self, name: str) -> float:
        latest = self._successes[name][-MEMORY:]
        return (sum(latest) + 0.5) / (len(latest) + TRUST)
