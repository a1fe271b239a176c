"""What every searcher does.

A searcher proposes candidates and hears what became of them. It does not build, measure, store or count
budgets; the tuner does, in this order::

    searcher = CascadeSearcher(space, scorer, seed=0)
    searcher.update(measurements_from_earlier_runs)
    while budget:
        candidates = searcher.suggest(32)
        searcher.update([measure(c) for c in candidates])

All a searcher knows follows from its seed and the measurements it was told, in order. That is why a run that
was killed goes on as if nothing had happened: its searchers are told what the database holds.
"""

import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

import numpy as np

from search.errors import InvalidCandidate
from search.problem import Candidate, Choice, Measurement
from search.space import ENUMERABLE, Draft, Space, enumerate_drafts

TRIES = 20  # drafts drawn for a candidate, before a space counts as exhausted


class Searcher(Protocol):
    """Proposes candidates of one space."""

    def suggest(self, n: int) -> list[Candidate]:
        """Up to ``n`` candidates that were not measured yet, none twice; fewer where the space runs out."""

    def update(self, measurements: Sequence[Measurement]) -> None:
        """Takes note of measurements, failed ones included."""


class History:
    """Measurements of a space in the order told, and the generator that follows from their number."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._seed = seed
        self._barren: set[Draft] = set()  # illegal, or another text for what is measured
        self.measurements: list[Measurement] = []
        self.measured: set[tuple[Choice, ...]] = set()

    def add(self, measurements: Sequence[Measurement]) -> None:
        mine = [m for m in measurements if m.candidate.space == self._space.name]
        self.measurements += mine
        self.measured.update(m.candidate.choices for m in mine)

    @property
    def best_s(self) -> float:
        """The least latency; infinite before the first success."""
        return min((m.latency_s for m in self.measurements), default=math.inf)

    def generator(self) -> np.random.Generator:
        """The same for the same seed and number of measurements."""
        return np.random.default_rng([self._seed, len(self.measurements)])

    def fastest(self, n: int) -> list[Measurement]:
        """The ``n`` best candidates, fastest first."""
        successes = [m for m in self.measurements if m.error is None]
        return sorted(successes, key=lambda m: m.latency_s)[:n]

    def realize_new(
        self,
        drafts: Iterable[Draft],
        n: int,
        taken: set[tuple[Choice, ...]],
        origin: str = "",
    ) -> list[Candidate]:
        """Realizes drafts in order until there are ``n`` that are legal and new; adds them to ``taken``.

        Args:
            origin: What the candidates will say of where they come from.
        """
        found: list[Candidate] = []
        for draft in drafts if n > 0 else ():
            if draft in taken or draft in self.measured:
                continue
            candidate = self._realize(draft)
            if candidate and candidate.choices not in taken:
                taken.add(candidate.choices)
                found.append(replace(candidate, origin=origin) if origin else candidate)
                if len(found) == n:
                    break
        return found

    def _realize(self, draft: Draft) -> Candidate | None:
        """The draft's candidate; None where it is illegal or measured.

        It follows from the draft and the measurements alone, so that what gave nothing need not be tried
        again. What a draft leaves open is drawn anew once more is measured.
        """
        if draft in self._barren:
            return None
        count = len(self.measurements)
        rng = np.random.default_rng([self._seed, count, zlib.crc32(repr(draft).encode())])
        with suppress(InvalidCandidate):
            candidate = self._space.realize(draft, rng)
            if candidate.choices not in self.measured:
                return candidate
        if None not in draft:
            self._barren.add(draft)
        return None

    def draw_new(self, n: int, taken: set[tuple[Choice, ...]]) -> list[Candidate]:
        """``n`` candidates at random that are new; fewer where the space has run out of them."""
        return self.realize_new(self._draws(n), n, taken)

    def _draws(self, n: int) -> Iterator[Draft]:
        """Drafts at random, so many that a space counts as exhausted where they held nothing new."""
        rng = np.random.default_rng([self._seed, len(self.measurements), 1])
        count = self._space.count()
        if count is not None and count <= ENUMERABLE:
            left = [d for d in enumerate_drafts(self._space) if d not in self.measured]
            yield from (left[int(i)] for i in rng.permutation(len(left))[: TRIES * n])
        else:
            yield from (self._space.sample(rng) for _ in range(TRIES * n))
