"""A list of recorded configurations as a space: what lies in it is legal, and nothing else."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import groupby

import numpy as np

from search.errors import InvalidCandidate
from search.problem import Candidate, Choice, Workload
from search.space import Draft
from search.spaces.counted import CountedSpace

SPACE_NAME = "table/1"


class TableSpace(CountedSpace):
    """Every row is a candidate; no row begins with another.

    Args:
        rows: Sequences of decisions; those of one place may be numbers or tiles, but not both.
        names: Of the decisions.
        name: Of the space; that of the space which the rows were recorded from, where there is one.
    """

    def __init__(
        self,
        workload: Workload,
        rows: Sequence[tuple[Choice, ...]],
        names: Sequence[str] = (),
        name: str = SPACE_NAME,
    ) -> None:
        super().__init__(workload, name)
        self._rows = sorted(set(rows), key=_order)
        self._keys = [_order(row) for row in self._rows]
        self._names = tuple(names)
        self.branches = lru_cache(maxsize=1 << 16)(self._branches)  # type: ignore[method-assign]

    @property
    def rows(self) -> Sequence[tuple[Choice, ...]]:
        """All candidates, in order."""
        return self._rows

    def _branches(self, prefix: tuple[Choice, ...]) -> Mapping[Choice, int]:
        place, key = len(prefix), _order(prefix)
        start = bisect_left(self._keys, key)
        end = bisect_left(self._keys, (*key, _LAST), lo=start)
        behind = (row[place] for row in self._rows[start:end] if len(row) > place)
        return {choice: len(list(some)) for choice, some in groupby(behind)}

    def decision_name(self, place: int) -> str:
        return self._names[place] if place < len(self._names) else f"decision{place}"

    def realize(self, draft: Draft, rng: np.random.Generator) -> Candidate:
        if not self.holds(draft):
            raise InvalidCandidate(f"{draft} was not recorded")
        return Candidate(self.workload.hash, self.name, draft, "")  # type: ignore[arg-type]


_LAST = (2,)  # sorts after every choice


def _order(row: tuple[Choice, ...]) -> tuple[tuple[int, ...], ...]:
    """A key by which numbers and tiles can be sorted together."""
    return tuple((1, *c) if isinstance(c, tuple) else (0, c) for c in row)
