"""The contract of every searcher; a new one joins by its line in ``search.searchers.SEARCHERS``."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import made_up
import numpy as np
import pytest
from kernels import TARGET, copy, matmul, workload
from made_up import Ignorant, Oracle, differences, four_batches, measure, quality

from costmodels.trees import TreeCostModel
from costmodels.values import TreeValueModel
from search.problem import Candidate, Measurement
from search.scorer import Prediction, Scored
from search.searchers import SEARCHERS, Scorers
from search.searchers.annealing import AnnealingSearcher
from search.searchers.base import Searcher
from search.searchers.cascade import CascadeSearcher, CascadeSettings
from search.searchers.droplet import START, DropletSearcher
from search.searchers.guided import curious
from search.searchers.seeded import ORIGIN, SeededSearcher
from search.space import Space
from search.spaces.trace import TraceSpace

ORACLES = Scorers(Oracle(), Oracle())
Make = Callable[[Space, int], Searcher]


def learning(name: str) -> tuple[Callable[[Space, int], Searcher], Callable[[Sequence[Measurement]], None]]:
    """A searcher with tree models, and what tells them of measurements."""
    models = (TreeCostModel(), TreeValueModel())

    def learn(measured: Sequence[Measurement]) -> None:
        for model in models:
            model.add(made_up.WORK, measured)

    return lambda space, seed: SEARCHERS[name](space, Scorers(*models), seed), learn


GUIDED = ("evolutionary", "greedy", "beam", "guided", "cascade")  # whose scorer may know nothing


KINDS = [pytest.param(n, marks=pytest.mark.slow) if n == "gp" else n for n in SEARCHERS]  # gp takes a minute


@pytest.fixture(params=[*KINDS, *(f"{name}, nothing learnt" for name in GUIDED)])
def make(request: pytest.FixtureRequest) -> Make:
    name, _, ignorant = request.param.partition(",")
    scorers = Scorers(Ignorant(), Ignorant()) if ignorant else ORACLES
    return lambda space, seed: SEARCHERS[name](space, scorers, seed)


@pytest.fixture(scope="module")
def traces() -> Space:
    return TraceSpace(workload(matmul()), TARGET)


@pytest.fixture(params=["traces", "knobs", "huge", "table", "tiles"])
def space(request: pytest.FixtureRequest) -> Space:
    if request.param == "traces":
        return request.getfixturevalue("traces")  # type: ignore[no-any-return]
    made: Space = getattr(made_up, request.param)()
    return made


def test_never_twice(make: Make, space: Space) -> None:
    assert len(four_batches(make(space, 0), 5)) == 20


def test_the_same_seed_and_records_give_the_same_suggestions(make: Make) -> None:
    """Also when the records come in other portions, as they do after a restart."""
    space = made_up.knobs()
    first, records = make(space, 3), []
    for _ in range(4):
        portion = [measure(c) for c in first.suggest(6)]
        first.update(portion)
        records += portion
    resumed = make(made_up.knobs(), 3)
    resumed.update(records)
    assert resumed.suggest(6) == first.suggest(6)
    assert make(space, 4).suggest(6) != make(space, 3).suggest(6)


def test_every_point_of_a_small_space_is_found_and_then_none(make: Make) -> None:
    for made in (made_up.point, made_up.narrow, made_up.empty):
        space = made()
        searcher = make(space, 0)
        found: list[Candidate] = []
        while suggested := searcher.suggest(5):
            found += suggested
            searcher.update([measure(c) for c in suggested])
        assert {c.choices for c in found} == made_up.rows_of(space)
        assert len(found) == space.count()


def test_an_exhausted_trace_space_gives_fewer_and_then_none(make: Make) -> None:
    searcher = make(TraceSpace(workload(copy()), TARGET), 0)
    only = searcher.suggest(5)
    assert len(only) == 1
    searcher.update([measure(c) for c in only])
    assert searcher.suggest(5) == []


def test_records_of_other_spaces_are_left_alone(make: Make) -> None:
    space = made_up.knobs()
    searcher = make(space, 0)
    foreign = Candidate("w", "another-space/1", (0, 1, 2), "")
    searcher.update([Measurement(foreign, (1.0,))])
    assert searcher.suggest(2) == make(space, 0).suggest(2)


@pytest.mark.parametrize("name", SEARCHERS)
def test_goes_on_where_nine_in_ten_fail(name: str) -> None:
    make, learn = learning(name)
    space = made_up.table()
    searcher, measured = make(space, 0), list[Measurement]()
    for _ in range(6):
        portion = [measure(c, failing=0.9) for c in searcher.suggest(8)]
        searcher.update(portion)
        learn(portion)
        measured += portion
    assert len({m.candidate.choices for m in measured}) == 48
    assert any(m.error is None for m in measured)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n == "gp" else n for n in SEARCHERS if n != "random"],
)
def test_better_than_random_search(name: str) -> None:
    """On a landscape with a slope, with models fitted as it goes: the mean over seeds of the best of 72."""

    def best(searcher_name: str, seed: int) -> float:
        make, learn = learning(searcher_name)
        searcher, found = make(made_up.wide(), seed), 0.0
        for _ in range(9):
            measured = [measure(c, failing=0) for c in searcher.suggest(8)]
            searcher.update(measured)
            learn(measured)
            found = max(found, *(quality(m.candidate.choices) for m in measured))
        return found

    seeds = range(5)
    assert np.mean([best(name, s) for s in seeds]) > np.mean([best("random", s) for s in seeds])


def test_equal_history_gives_equal_suggestions_in_a_fresh_process() -> None:
    """Nothing depends on the order of sets, or on what the process did before."""
    program = (
        "import made_up; from test_searchers import *\n"
        "make, learn = learning('cascade'); s = make(made_up.table(), 7)\n"
        "for _ in range(5):\n    m = [measure(c) for c in s.suggest(8)]; s.update(m); learn(m)\n"
        "print([c.choices for c in s.suggest(8)])"
    )
    folder = str(Path(__file__).parent)
    texts = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path.cwd(),
            env={"PYTHONPATH": f"{Path.cwd()}:{folder}", "PYTHONHASHSEED": str(n), "PATH": ""},
        ).stdout
        for n in (1, 2)
    }  # fmt: skip
    assert len(texts) == 1


def test_annealing_cools_down() -> None:
    """At first it moves to what is slower; in the end only to what is faster."""
    space, moved = made_up.knobs(), list[bool]()
    searcher = AnnealingSearcher(space, seed=0)
    for _ in range(150):
        at = searcher._at
        (candidate,) = searcher.suggest(1) or (None,)
        if candidate is None:
            break
        m = measure(candidate, failing=0)
        searcher.update([m])
        if at is not None and m.latency_s > at.latency_s:
            moved.append(searcher._at is m)
    assert any(moved[: len(moved) // 2])
    assert sum(moved[len(moved) // 2 :]) < sum(moved[: len(moved) // 2])


def test_droplet_runs_downhill_to_the_bottom() -> None:
    space = made_up.knobs()
    searcher = DropletSearcher(space, seed=1)
    best = max(quality(d) for d in made_up.rows_of(space))
    measured = 0
    while measured < START + 40:
        portion = [measure(c, failing=0) for c in searcher.suggest(4)]
        searcher.update(portion)
        measured += len(portion)
        if max(quality(m.candidate.choices) for m in portion) == best:
            return
    pytest.fail("not found")


def test_a_curious_batch_is_diverse_and_optimistic() -> None:
    judged = {(n, 0, 0): (1.0, 0.0) for n in range(20)} | {(0, n, n): (0.9, 0.5) for n in range(1, 20)}
    from search.searchers.evolutionary import Judged

    picked = list(curious({d: Judged(*j) for d, j in judged.items()}, 6, 0.5, 2, np.random.default_rng(0)))
    assert len(set(picked)) == len(judged)
    first = picked[:6]
    assert all(differences(a, b) >= 2 for i, a in enumerate(first) for b in first[:i])
    assert any(d[1] for d in first)  # unsure of, and so hoped for


def test_places_go_to_the_arm_that_brings_most() -> None:
    searcher = CascadeSearcher(made_up.knobs(), Oracle(), Oracle(), seed=0)
    good, bad = (
        Candidate("w", "knobs/1", (0, 5, 1, 0), "", "near"),
        Candidate("w", "knobs/1", (1, 5, 1, 0), "", "beam"),
    )
    searcher.update(
        [Measurement(good, (1.0 - 0.01 * n,)) for n in range(16)] + [Measurement(bad, (9.0,))] * 16
    )
    arms = ["near", "beam", "explore", "random"]
    places = searcher._places(arms, 2000, np.random.default_rng(0))
    assert places["near"] > 4 * places["beam"]
    assert places["beam"] > 2000 * 0.02 * 0.5  # the floor


def test_the_first_candidates_lie_far_apart() -> None:
    def apart(name: str, seed: int) -> float:
        searcher, found = (
            SEARCHERS[name](made_up.wide(), Scorers(Ignorant(), Ignorant()), seed),
            list[Candidate](),
        )
        for _ in range(6):
            found += searcher.suggest(1)
            searcher.update([measure(found[-1])])
        return float(
            np.mean([differences(a.choices, b.choices) for i, a in enumerate(found) for b in found[:i]])
        )

    assert min(apart("cascade", s) for s in range(5)) > np.mean([apart("random", s) for s in range(5)])


def test_a_leap_ends_beyond_the_neighbours() -> None:
    space, rng = made_up.huge(), np.random.default_rng(0)
    start = space.sample(rng)
    searcher = CascadeSearcher(space, Oracle(), seed=0)
    leaps = list(searcher._leaps([start], 4, {}, rng))
    assert np.median([differences(start, leap) for leap in leaps]) >= 2
    gain = [quality(leap) - quality(start) for leap in leaps]
    assert np.mean(gain[:8]) > np.mean(gain[-8:])  # by the scorer's guess, best first


class Verifier:
    """Of realized candidates it likes those with a small third knob, which the oracle does not."""

    def score(self, workload: object, items: Sequence[Scored]) -> Prediction:
        assert all(isinstance(i, Candidate) for i in items)
        scores = np.array([-float(i.choices[2]) for i in items if isinstance(i, Candidate)])  # type: ignore[arg-type]
        return Prediction(scores, np.zeros(len(items)))


def test_a_verifier_has_the_last_word() -> None:
    def mean(verifier: Verifier | None, first: int) -> float:
        searcher = CascadeSearcher(made_up.knobs(), Oracle(), None, verifier, seed=0)
        given = CascadeSearcher(made_up.knobs(), Oracle(), seed=0).suggest(first)
        searcher.update([measure(c, failing=0) for c in given])
        return float(np.mean([c.choices[2] for c in searcher.suggest(8)]))  # type: ignore[arg-type]

    assert mean(Verifier(), 4) < mean(None, 4)
    unsure = CascadeSettings().unsure  # once so much is measured, it is not asked any more
    assert mean(None, unsure) == mean(Verifier(), unsure)


def test_seeds_come_first_and_once() -> None:
    space = made_up.knobs()
    seeds = [(0, 5, 1, 0), (0, 0, 0, 0), (1, 5, 1, 0)]  # the second is illegal
    searcher = SeededSearcher(SEARCHERS["random"](space, ORACLES, 0), space, lambda: seeds)
    first = searcher.suggest(4)
    assert [c.choices for c in first[:2]] == [seeds[0], seeds[2]]
    assert [c.origin for c in first] == [ORIGIN, ORIGIN, "", ""]
    searcher.update([measure(c) for c in first])
    assert not {c.choices for c in searcher.suggest(8)} & {c.choices for c in first}


def test_a_batch_of_64_of_a_huge_space_takes_no_thousands_of_scorings(make: Make) -> None:
    """Work, not seconds: what a batch costs does not grow with the space."""
    searcher = make(made_up.huge(), 0)
    searcher.update([measure(c) for c in searcher.suggest(16)])
    assert len(searcher.suggest(20 if "Optuna" in type(searcher).__name__ else 64)) >= 20
