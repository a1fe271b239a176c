"""Simulated annealing (Kirkpatrick et al., Science 1983), with a batch of moves from the state at a time."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from search.problem import Candidate, Choice, Measurement
from search.searchers.base import TRIES, History
from search.space import Draft, Space


@dataclass(frozen=True)
class AnnealingSettings:
    """How the chain cools.

    Attributes:
        temperature: At the start, in natural logarithms of latency: at 0.5, what is e^0.5 = 1.65 times slower
            is accepted with probability 1/e.
        cooling: Factor on the temperature with each measurement.
        start: Random candidates before the chain begins, at the best of them.
    """

    temperature: float = 0.5
    cooling: float = 0.98
    start: int = 8


class AnnealingSearcher:
    """Moves from candidate to candidate; to a slower one with a probability that falls as it cools."""

    def __init__(self, space: Space, seed: int = 0, settings: AnnealingSettings | None = None) -> None:
        self._space = space
        self._seed = seed
        self._settings = settings or AnnealingSettings()
        self._history = History(space, seed)
        self._at: Measurement | None = None

    def update(self, measurements: Sequence[Measurement]) -> None:
        for m in measurements:
            before = len(self._history.measurements)
            self._history.add([m])
            if m.error is None and len(self._history.measurements) > before and self._accepts(m, before):
                self._at = m

    def _accepts(self, m: Measurement, place: int) -> bool:
        """Follows from the place in the history alone, so that a resumed chain takes the same way."""
        if self._at is None or m.latency_s < self._at.latency_s:
            return True
        if place < self._settings.start:
            return False
        temperature = self._settings.temperature * self._settings.cooling**place
        chance = math.exp(-math.log(m.latency_s / self._at.latency_s) / max(temperature, 1e-9))
        return bool(np.random.default_rng([self._seed, place]).random() < chance)

    def suggest(self, n: int) -> list[Candidate]:
        rng, taken = self._history.generator(), set[tuple[Choice, ...]]()
        found: list[Candidate] = []
        if self._at is not None and len(self._history.measurements) >= self._settings.start:
            found = self._history.realize_new(self._moves(self._at.candidate.choices, n, rng), n, taken)
        return found + self._history.draw_new(n - len(found), taken)

    def _moves(self, start: Draft, n: int, rng: np.random.Generator) -> Iterator[Draft]:
        """One mutation away at first; farther away the more of those near are measured already."""
        for turn in range(TRIES * n):
            draft = start
            for _ in range(1 + turn // (4 * n)):
                draft = self._space.mutate(draft, rng)
            yield draft
