"""Model-guided search that explores where the model is unsure, in batches that are diverse.

Each suggestion of a batch is the best by an upper confidence bound of its own: score + k x spread, with k
drawn anew from an exponential distribution (as in randomised GP-UCB, Berk et al., 2020). So a batch holds
what the model is sure of beside what it knows least about; and what differs too little from another of the
batch waits for the next.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.problem import Candidate, Choice, Measurement
from search.scorer import Scorer
from search.searchers.base import History
from search.searchers.evolutionary import Judged, judge
from search.space import ENUMERABLE, Draft, Space, enumerate_drafts


@dataclass(frozen=True)
class GuidedSettings:
    """What is looked at, and how far from what is known.

    Attributes:
        drawn: Random drafts looked at.
        around: Fastest candidates whose neighbours are looked at.
        mutated: Mutations of the fastest candidates looked at.
        curiosity: Mean of the number of standard deviations added to a score.
        apart: Decisions in which drafts of a batch differ at least, as far as there are such.
    """

    drawn: int = 512
    around: int = 8
    mutated: int = 256
    curiosity: float = 0.5
    apart: int = 2


class GuidedSearcher:
    """Suggests what promises most by an optimistic guess; random search until the scorer knows something.

    Args:
        scorer: Judges complete drafts, with its uncertainty; whoever owns it fits it.
    """

    def __init__(
        self, space: Space, scorer: Scorer, seed: int = 0, settings: GuidedSettings | None = None
    ) -> None:
        self._space = space
        self._scorer = scorer
        self._settings = settings or GuidedSettings()
        self._history = History(space, seed)

    def update(self, measurements: Sequence[Measurement]) -> None:
        self._history.add(measurements)

    def suggest(self, n: int) -> list[Candidate]:
        rng, taken = self._history.generator(), set[tuple[Choice, ...]]()
        judged: dict[Draft, Judged] = {}
        known = bool(self._history.measurements)
        if known and judge(self._space, self._scorer, self._pool(rng), judged):
            new = {d: j for d, j in judged.items() if d not in self._history.measured}
            ranked = curious(new, n, self._settings.curiosity, self._settings.apart, rng)
        else:
            ranked = iter(())
        found = self._history.realize_new(ranked, n, taken)
        return found + self._history.draw_new(n - len(found), taken)

    def _pool(self, rng: np.random.Generator) -> list[Draft]:
        """Of a small space all; else what is near the fastest, and random drafts."""
        count = self._space.count()
        if count is not None and count <= ENUMERABLE:
            return list(enumerate_drafts(self._space))
        best = [m.candidate.choices for m in self._history.fastest(self._settings.around)]
        near = [d for b in best for d in self._space.neighbours(b)]
        parents = [best[int(i)] for i in rng.integers(len(best), size=self._settings.mutated)] if best else []
        mutated = [self._space.mutate(p, rng) for p in parents]
        return near + mutated + [self._space.sample(rng) for _ in range(self._settings.drawn)]


def curious(
    judged: Mapping[Draft, Judged], n: int, curiosity: float, apart: int, rng: np.random.Generator
) -> Iterator[Draft]:
    """Drafts in an order in which each is the best left by its own optimism; diverse ones first.

    Args:
        n: How many are wanted; a few more are put in this order, for some may turn out to be illegal.
    """
    drafts = list(judged)
    score, spread = (np.array([j[i] for j in judged.values()]) for i in (0, 1))
    codes = _codes(drafts)
    left, apart_of_all = np.ones(len(drafts), dtype=bool), np.ones(len(drafts), dtype=bool)
    for _ in range(2 * n):
        if not apart_of_all.any():
            break
        hopes = score + rng.exponential(curiosity) * spread
        best = int(np.argmax(np.where(apart_of_all, hopes, -np.inf)))
        left[best] = False
        yield drafts[best]
        apart_of_all &= (codes != codes[best]).sum(axis=1) >= apart
    yield from (drafts[i] for i in np.argsort(-score, kind="stable") if left[i])


def _codes(drafts: Sequence[Draft]) -> NDArray[np.int64]:
    """Drafts as rows of numbers, equal where the decisions are; shape [n, decisions of the longest]."""
    numbers: dict[Choice | None, int] = {}
    width = max(map(len, drafts), default=0)
    codes = np.full((len(drafts), width), -1, dtype=np.int64)
    for row, draft in zip(codes, drafts, strict=True):
        row[: len(draft)] = [numbers.setdefault(c, len(numbers)) for c in draft]
    return codes
