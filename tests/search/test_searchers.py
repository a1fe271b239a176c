"""The contract of every searcher; a new one joins by a line in ``SEARCHERS``."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from kernels import TARGET, copy, matmul, workload
from numpy.typing import NDArray

from search.problem import Candidate, ErrorKind, MeasureError, Measurement, Workload
from search.searchers.base import Searcher
from search.searchers.evolutionary import EvolutionarySearcher
from search.searchers.random import RandomSearcher
from search.space import Draft, Space
from search.spaces.trace import TraceSpace


def quality(draft: Draft) -> float:
    """A made-up landscape with a slope: big innermost tiles are good."""
    return float(sum(np.log2(c[-1]) for c in draft if isinstance(c, tuple)))


class Oracle:
    def score(self, workload: Workload, drafts: Sequence[Draft]) -> NDArray[np.float64]:
        return np.array([quality(d) for d in drafts])


class Ignorant:
    def score(self, workload: Workload, drafts: Sequence[Draft]) -> None:
        return None


SEARCHERS: dict[str, Callable[[Space, int], Searcher]] = {
    "random": RandomSearcher,
    "evolutionary": lambda space, seed: EvolutionarySearcher(space, Oracle(), seed),
    "evolutionary, nothing learnt": lambda space, seed: EvolutionarySearcher(space, Ignorant(), seed),
}


@pytest.fixture(params=SEARCHERS)
def make(request: pytest.FixtureRequest) -> Callable[[Space, int], Searcher]:
    return SEARCHERS[request.param]


@pytest.fixture(scope="module")
def space() -> Space:
    return TraceSpace(workload(matmul()), TARGET)


def measure(candidate: Candidate) -> Measurement:
    if int(candidate.hash, 16) % 7 == 0:
        return Measurement(candidate, error=MeasureError(ErrorKind.CRASH, "made up"))
    return Measurement(candidate, (2.0 ** -quality(candidate.choices),))


def test_never_twice(make: Callable[[Space, int], Searcher], space: Space) -> None:
    searcher, seen = make(space, 0), set()
    for _ in range(4):
        suggested = searcher.suggest(10)
        assert len(suggested) == 10
        assert not seen & {c.hash for c in suggested}
        seen |= {c.hash for c in suggested}
        searcher.update([measure(c) for c in suggested])
    assert len(seen) == 40


def test_the_same_seed_and_records_give_the_same_suggestions(
    make: Callable[[Space, int], Searcher], space: Space
) -> None:
    """Also when the records come in other portions, as they do after a restart."""
    first, records = make(space, 3), []
    for _ in range(3):
        portion = [measure(c) for c in first.suggest(6)]
        first.update(portion)
        records += portion
    resumed = make(space, 3)
    resumed.update(records)
    assert resumed.suggest(6) == first.suggest(6)
    assert make(space, 4).suggest(6) != make(space, 3).suggest(6)


def test_an_exhausted_space_gives_fewer_and_then_none(make: Callable[[Space, int], Searcher]) -> None:
    searcher = make(TraceSpace(workload(copy()), TARGET), 0)
    only = searcher.suggest(5)
    assert len(only) == 1
    searcher.update([measure(c) for c in only])
    assert searcher.suggest(5) == []


def test_records_of_other_spaces_are_left_alone(make: Callable[[Space, int], Searcher], space: Space) -> None:
    searcher = make(space, 0)
    foreign = Candidate("w", "another-space/1", (0, 1, 2), "")
    searcher.update([Measurement(foreign, (1.0,))])
    assert searcher.suggest(2) == make(space, 0).suggest(2)


def test_evolution_under_an_oracle_beats_random_search(space: Space) -> None:
    def best(searcher: Searcher) -> float:
        for _ in range(4):
            searcher.update([measure(c) for c in searcher.suggest(8)])
        return max(quality(c.choices) for c in searcher.suggest(8))

    evolved = [best(EvolutionarySearcher(space, Oracle(), seed)) for seed in range(5)]
    drawn = [best(RandomSearcher(space, seed)) for seed in range(5)]
    assert np.mean(evolved) > np.mean(drawn) + 2
