"""Random search: the measure of all other searchers."""

from collections.abc import Sequence

from search.problem import Candidate, Choice, Measurement
from search.searchers.base import History
from search.space import Space

_TRIES = 20  # drafts a candidate, before a space counts as exhausted


class RandomSearcher:
    """Draws candidates independently of each other, leaving out those measured already."""

    def __init__(self, space: Space, seed: int = 0) -> None:
        self._space = space
        self._history = History(space, seed)

    def suggest(self, n: int) -> list[Candidate]:
        rng = self._history.generator()
        taken: set[tuple[Choice, ...]] = set()
        found: list[Candidate] = []
        for _ in range(_TRIES):
            drafts = [self._space.sample(rng) for _ in range(n - len(found))]
            found += self._history.realize_new(drafts, n - len(found), taken, rng)
        return found

    def update(self, measurements: Sequence[Measurement]) -> None:
        self._history.add(measurements)
