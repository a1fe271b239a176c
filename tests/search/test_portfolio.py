"""Several spaces for one budget: who brings most gets most, and nobody nothing."""

import itertools
from collections import Counter
from collections.abc import Sequence

import made_up
import numpy as np
from made_up import four_batches, measure

from search.problem import Candidate, ErrorKind, MeasureError, Measurement
from search.searchers.base import Searcher
from search.searchers.evolutionary import EvolutionarySearcher
from search.searchers.portfolio import FLOOR, MEMORY, PortfolioSearcher
from search.searchers.random import RandomSearcher
from search.space import Space


def portfolio(*spaces: Space, seed: int = 0) -> PortfolioSearcher:
    return PortfolioSearcher({s.name: RandomSearcher(s, seed) for s in spaces}, seed)


def names(candidates: Sequence[Candidate]) -> Counter[str]:
    return Counter(c.space for c in candidates)


def told(searcher: Searcher, winner: str, rounds: int = 4) -> None:
    """Lets it measure; in one space each is faster than all before, in the others none works."""
    latency_s = 1.0
    for _ in range(rounds):
        measured = []
        for c in searcher.suggest(16):
            latency_s *= 0.99
            fails = MeasureError(ErrorKind.CRASH, "made up")
            measured.append(
                Measurement(c, (latency_s,)) if c.space == winner else Measurement(c, error=fails)
            )
        searcher.update(measured)


def test_the_first_batch_is_the_first_spaces_and_the_next_is_shared() -> None:
    searcher = portfolio(made_up.wide(), made_up.huge())
    first = searcher.suggest(8)
    assert names(first) == {"wide/1": 8}
    searcher.update([measure(c, failing=0) for c in first])
    assert min(names(searcher.suggest(400)).values()) > 400 * FLOOR * 0.5


def test_who_brings_most_gets_most_and_the_others_keep_a_little() -> None:
    for winner, loser in itertools.permutations(("wide/1", "huge/1")):
        searcher = portfolio(made_up.wide(), made_up.huge())
        told(searcher, winner)
        found = names(searcher.suggest(1000))
        assert found[winner] > 3 * found[loser]
        assert found[loser] > 1000 * FLOOR * 0.5


def test_credit_is_lost_when_another_space_brings_more() -> None:
    searcher = portfolio(made_up.wide(), made_up.huge())
    told(searcher, "wide/1")
    candidates = RandomSearcher(made_up.huge(), 5).suggest(MEMORY)
    old = RandomSearcher(made_up.wide(), 5).suggest(MEMORY)
    searcher.update([Measurement(c, (1.0,)) for c in old])
    searcher.update([Measurement(c, (1e-3 / (n + 1),)) for n, c in enumerate(candidates)])
    found = names(searcher.suggest(400))
    assert found["huge/1"] > 3 * found["wide/1"]


def test_where_a_space_runs_out_the_others_fill_up() -> None:
    assert len(four_batches(portfolio(made_up.point(), made_up.narrow(), made_up.huge()), 10)) == 40


def test_every_point_of_small_spaces_is_found_once_and_then_none() -> None:
    spaces = (made_up.point(), made_up.narrow(), made_up.empty(), made_up.table())
    searcher, found = portfolio(*spaces), list[Candidate]()
    while suggested := searcher.suggest(7):
        found += suggested
        searcher.update([measure(c) for c in suggested])
    assert len(found) == len(set(found)) == sum(s.count() or 0 for s in spaces)


def test_the_same_seed_and_records_give_the_same_suggestions() -> None:
    """Also when the records come at once, as they do after a restart."""

    def make(seed: int) -> PortfolioSearcher:
        spaces = (made_up.knobs(), made_up.wide(), made_up.tiles())
        oracle = made_up.Oracle()
        return PortfolioSearcher({s.name: EvolutionarySearcher(s, oracle, seed) for s in spaces}, seed)

    first, records = make(3), list[Measurement]()
    for _ in range(5):
        portion = [measure(c) for c in first.suggest(6)]
        first.update(portion)
        records += portion
    resumed = make(3)
    resumed.update(records)
    assert resumed.suggest(12) == first.suggest(12)
    assert make(4).suggest(12) != make(3).suggest(12)


def test_each_space_alone_would_have_been_searched_in_the_same_way() -> None:
    """A searcher is told of its own measurements and is none the worse for the others."""
    both, alone = portfolio(made_up.knobs(), made_up.wide()), RandomSearcher(made_up.knobs(), 0)
    measured = [measure(c) for c in both.suggest(12)]
    both.update(measured)
    alone.update([m for m in measured if m.candidate.space == "knobs/1"])
    mine = [c for c in both.suggest(12) if c.space == "knobs/1"]
    assert mine == alone.suggest(len(mine))


def test_records_of_other_spaces_are_left_alone() -> None:
    searcher = portfolio(made_up.knobs(), made_up.wide())
    searcher.update([Measurement(Candidate("w", "another-space/1", (0, 1), ""), (1e-9,))] * 3)
    assert searcher.suggest(8) == portfolio(made_up.knobs(), made_up.wide()).suggest(8)


def test_the_better_of_two_spaces_gets_most_of_a_search() -> None:
    """On landscapes with a slope, where one space's best is far above the other's."""
    searcher, found = portfolio(made_up.knobs(), made_up.huge()), Counter[str]()
    for _ in range(12):
        measured = [measure(c, failing=0) for c in searcher.suggest(16)]
        searcher.update(measured)
        found += names([m.candidate for m in measured])
    assert found["huge/1"] > found["knobs/1"]
    assert np.isfinite(min(m.latency_s for m in measured))
