"""Random search: the measure of all other searchers."""

from collections.abc import Sequence

from search.problem import Candidate, Measurement
from search.searchers.base import History
from search.space import Space


class RandomSearcher:
    """Draws candidates independently of each other, leaving out those measured already."""

    def __init__(self, space: Space, seed: int = 0) -> None:
        self._history = History(space, seed)

    def suggest(self, n: int) -> list[Candidate]:
        return self._history.draw_new(n, set())

    def update(self, measurements: Sequence[Measurement]) -> None:
        self._history.add(measurements)
