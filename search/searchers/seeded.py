"""A searcher that is given its first suggestions, such as the best schedules of a similar workload."""

from collections.abc import Callable, Sequence

from search.problem import Candidate, Measurement
from search.searchers.base import History, Searcher
from search.space import Draft, Space

ORIGIN = "seed"


class SeededSearcher:
    """Suggests given drafts first, as far as they are legal here and not measured, then what ``inner`` does.

    Args:
        drafts: Asked until something is measured, for what is known of others grows meanwhile: drafts of this
            space (``Space.adapt`` makes them of another's), the most promising first.
    """

    def __init__(
        self, inner: Searcher, space: Space, drafts: Callable[[], Sequence[Draft]], seed: int = 0
    ) -> None:
        self._inner = inner
        self._drafts = drafts
        self._history = History(space, seed)

    def update(self, measurements: Sequence[Measurement]) -> None:
        self._history.add(measurements)
        self._inner.update(measurements)

    def suggest(self, n: int) -> list[Candidate]:
        drafts = self._drafts() if not self._history.measurements else ()
        seeds = self._history.realize_new(drafts, n, set(), ORIGIN)
        given = {c.choices for c in seeds}
        rest = self._inner.suggest(n - len(seeds)) if len(seeds) < n else []
        return seeds + [c for c in rest if c.choices not in given]
