"""Coordinate descent from a good start (Droplet Search, Canesche et al., TACO 2024).

A drop runs downhill: it looks at all candidates one step away and moves to the best. Here the state is the
history alone. The next suggestions are the neighbours of the fastest candidate that are not measured yet;
once all of them are, those of the second fastest, and so on.
"""

from collections.abc import Iterator, Sequence

from search.problem import Candidate, Choice, Measurement
from search.searchers.base import History
from search.space import Draft, Space

START = 16  # random candidates, of which the fastest is the start


class DropletSearcher:
    """Measures the neighbours of the best; random ones first, and once no neighbours are left."""

    def __init__(self, space: Space, seed: int = 0) -> None:
        self._space = space
        self._history = History(space, seed)

    def update(self, measurements: Sequence[Measurement]) -> None:
        self._history.add(measurements)

    def suggest(self, n: int) -> list[Candidate]:
        taken = set[tuple[Choice, ...]]()
        found: list[Candidate] = []
        if len(self._history.measurements) >= START:
            found = self._history.realize_new(self._downhill(), n, taken)
        return found + self._history.draw_new(n - len(found), taken)

    def _downhill(self) -> Iterator[Draft]:
        for m in self._history.fastest(len(self._history.measurements)):
            yield from self._space.neighbours(m.candidate.choices)
