"""Who wins, given what checks and comparisons say; these are scripted, the store is real."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import db_samples as samples
import pytest

from autotune.measure.pool import Pool
from autotune.measure.protocol import Done
from autotune.measure.sequential import PairedTest
from autotune.winners import between, verify_winners, winner_of
from db.store import Store
from search.problem import BACK_TO_BACK, Between, Cache, Candidate, ErrorKind, MeasureError, Task

PLAIN_S = 1.0
TASK = Task("only", samples.workload(0), 1)


class Referee:
    """In place of a pool and its arena: knows how fast each candidate truly is, and which are wrong."""

    def __init__(self, true_s: Mapping[str, float], wrong: tuple[str, ...] = ()) -> None:
        self.true_s = true_s
        self.wrong = wrong
        self.compared: list[tuple[str, str]] = []
        self.checked: list[str] = []

    @contextmanager
    def arena(self, workload: Any) -> Iterator["Referee"]:
        yield self

    def check(self, candidate: Candidate, seed: int) -> Done | MeasureError:
        self.checked.append(candidate.hash)
        if candidate.hash not in self.true_s:
            return MeasureError(ErrorKind.CRASH, "killed by SIGKILL")
        return Done(max_error=1.0 if candidate.hash in self.wrong else 1e-7, tolerance=1e-5)

    def compare(
        self, first: Candidate | None, second: Candidate | None, seed: int, between: Between
    ) -> PairedTest:
        times = [self.true_s[c.hash] if c else PLAIN_S for c in (first, second)]
        self.compared.append((first.hash if first else "", second.hash if second else ""))
        test = PairedTest()
        while not test.decided:
            flip = test.pairs % 2 * 2 - 1  # what differs by less than 1 % is won in turn
            test.add(times[0] * (1 + 0.005 * flip), times[1])
        return test


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(str(tmp_path / "test.db"), create=True) as store:
        store.start_run(samples.add_model(store, [TASK.workload]))
        yield store


def measure(store: Store, *latencies: float) -> list[Candidate]:
    found = [samples.candidate(n) for n in range(len(latencies))]
    store.add_measurements(
        None, samples.HERE, [samples.timed(c, s) for c, s in zip(found, latencies, strict=True)]
    )
    return found


def contest(store: Store, referee: Referee) -> str | None:
    verify_winners([TASK], store, samples.HERE, cast(Pool, referee), 1)
    won = winner_of(TASK.workload, store, samples.HERE)
    return won and won[0].candidate.hash


def test_close_ones_are_compared_and_the_faster_wins(store: Store) -> None:
    a, b, c, far = (x.hash for x in measure(store, 0.100, 0.101, 0.102, 0.2))
    referee = Referee({a: 0.100, b: 0.090, c: 0.100, far: 0.01})
    assert contest(store, referee) == b
    assert (far, a) not in referee.compared  # its time lies too far from the best's
    assert referee.checked == [b]


def test_what_would_be_taken_without_measuring_has_to_be_beaten(store: Store) -> None:
    lucky, _, guess = measure(store, 0.08, 0.1, 0.1)
    referee = Referee({lucky.hash: 0.12, guess.hash: 0.1})
    verify_winners([TASK], store, samples.HERE, cast(Pool, referee), 1, guess=lambda workload: guess)
    won = winner_of(TASK.workload, store, samples.HERE)
    assert won and won[0].candidate == guess
    assert referee.compared == [(lucky.hash, guess.hash), (guess.hash, "")]


def test_a_guess_that_is_wrong_stands_in_nobodys_way(store: Store) -> None:
    best, guess = measure(store, 0.08, 0.1)
    referee = Referee({best.hash: 0.12, guess.hash: 0.1}, wrong=(guess.hash,))
    verify_winners([TASK], store, samples.HERE, cast(Pool, referee), 1, guess=lambda workload: guess)
    assert referee.checked == [guess.hash, best.hash]
    won = winner_of(TASK.workload, store, samples.HERE)
    assert won and won[0].candidate == best


def test_a_guess_that_was_not_measured_is_no_rival(store: Store) -> None:
    (best,) = measure(store, 0.08)
    referee = Referee({best.hash: 0.08})
    other = samples.candidate(9)
    verify_winners([TASK], store, samples.HERE, cast(Pool, referee), 1, guess=lambda workload: other)
    assert referee.compared == [(best.hash, "")]


def test_close_ones_of_kernels_that_take_no_time_are_not_compared(store: Store) -> None:
    a, b = (x.hash for x in measure(store, 0.100, 0.101))
    slow = samples.candidate(5, samples.workload(1))
    store.start_run(samples.add_model(store, [TASK.workload, samples.workload(1)]))
    store.add_measurements(None, samples.HERE, [samples.timed(slow, 100.0)])
    referee = Referee({a: 0.1, b: 0.05, slow.hash: 0.1})
    tasks = [TASK, Task("slow", samples.workload(1), 1)]
    told: list[tuple[int, int]] = []

    def observe(done: int, of: int, doing: str) -> None:
        told.append((done, of))

    verify_winners(tasks, store, samples.HERE, cast(Pool, referee), 1, observe=observe)
    assert (b, a) not in referee.compared
    assert sorted(set(told)) == [(0, 2), (1, 2)] and told == sorted(told)
    told.clear()
    verify_winners(tasks, store, samples.HERE, cast(Pool, referee), 1, observe=observe)
    assert set(told) <= {(0, 1)}  # the slow one's winner stands and is the best


def test_equals_change_nothing(store: Store) -> None:
    a, b = (x.hash for x in measure(store, 0.100, 0.101))
    assert contest(store, Referee({a: 0.1, b: 0.1})) == a


def test_a_winner_stays_until_it_is_beaten(store: Store) -> None:
    (a,) = measure(store, 0.1)
    assert contest(store, Referee({a.hash: 0.1})) == a.hash
    lucky = samples.candidate(7)
    store.add_measurements(None, samples.HERE, [samples.timed(lucky, 0.05)])
    referee = Referee({a.hash: 0.1, lucky.hash: 0.1})
    assert contest(store, referee) == a.hash
    assert referee.checked == []
    assert contest(store, Referee({a.hash: 0.1, lucky.hash: 0.05})) == lucky.hash


def test_nothing_is_done_twice(store: Store) -> None:
    (a,) = measure(store, 0.1)
    contest(store, Referee({a.hash: 0.1}))
    referee = Referee({a.hash: 0.1})
    assert contest(store, referee) == a.hash
    assert referee.checked == referee.compared == []


def test_the_next_one_where_the_best_is_wrong(store: Store) -> None:
    a, b = (x.hash for x in measure(store, 0.1, 0.3))
    assert contest(store, Referee({a: 0.1, b: 0.3}, wrong=(a,))) == b
    assert set(store.wrong(TASK.workload.hash, samples.HERE.target)) == {a}


def test_what_was_found_wrong_elsewhere_wins_no_more(store: Store) -> None:
    a, b = measure(store, 0.1, 0.3)
    referee = Referee({a.hash: 0.1, b.hash: 0.3})
    assert contest(store, referee) == a.hash
    away = replace(samples.HERE, hardware=replace(samples.HARDWARE, name="other"))
    store.add_measurements(None, away, [samples.failed(a, ErrorKind.OUT_OF_BOUNDS)])
    assert winner_of(TASK.workload, store, samples.HERE) is None
    assert contest(store, referee) == b.hash


def test_a_process_that_died_proves_nothing(store: Store) -> None:
    _, b = measure(store, 0.1, 0.3)
    assert contest(store, Referee({b.hash: 0.3})) == b.hash
    assert store.wrong(TASK.workload.hash, samples.HERE.target) == {}


def test_slower_than_plain_loops_is_no_winner(store: Store) -> None:
    (a,) = measure(store, 0.1)
    assert contest(store, Referee({a.hash: 2 * PLAIN_S})) is None
    (proof,) = store.verifications(TASK.workload.hash, samples.HERE)
    assert proof.correct and not proof.faster


def test_a_kernel_is_judged_as_its_model_leaves_the_caches() -> None:
    task = replace(TASK, passed=(2, 0))
    assert between(task, 1 << 24) == Between(Cache.MODEL, 1 << 24, (2, 0))
    assert between(task, 0) == BACK_TO_BACK
