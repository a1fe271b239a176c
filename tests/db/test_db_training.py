"""What cost models learn from comes whole, workload after workload, a page at a time."""

from dataclasses import replace
from itertools import groupby

import pytest
from db_samples import HERE, add_model, candidate, failed, timed, workload

from db import store as store_module
from db.errors import NoSuchRecord
from db.store import Store
from db.values import TrainingRow
from search.problem import Task


@pytest.fixture(params=[1, 2, 500])
def paged(request: pytest.FixtureRequest, store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(store_module, "_PAGE", request.param)
    return store


def test_rows_of_a_workload_come_together(paged: Store) -> None:
    given = [
        (replace(HERE, threads=1 + n % 2), timed(candidate(n, of=workload(n * 5 % 3)), 1.0 + n))
        for n in range(12)
    ]
    given.append((HERE, failed(candidate(0, of=workload(0)))))
    for number in (2, 0, 1):
        paged.add_workload(workload(number))
    for conditions, measurement in given:
        paged.add_measurements(None, conditions, [measurement])

    rows = list(paged.training_rows())
    assert [hash for hash, _ in groupby(rows, lambda row: row.workload)] == [
        workload(number).hash for number in (2, 0, 1)
    ]
    order = {workload(number).hash: place for place, number in enumerate((2, 0, 1))}
    wanted = sorted(given, key=lambda pair: order[pair[1].candidate.workload])
    assert rows == [TrainingRow(*pair) for pair in wanted]
    assert [row.candidate.trace for row in rows] == [m.candidate.trace for _, m in wanted]
    assert rows[0].conditions.versions == HERE.versions


def test_rows_of_some_spaces(paged: Store) -> None:
    assert list(paged.training_rows()) == []
    for number in range(2):
        paged.add_workload(workload(number))
    for space in ("a", "b", "c"):
        for number in range(2):
            paged.add_measurements(None, HERE, [timed(candidate(of=workload(number), space=space), 1.0)])
    found = [row.candidate.space for row in paged.training_rows(["c", "a"])]
    assert found == ["a", "c", "a", "c"]
    assert list(paged.training_rows([])) == []


def test_what_is_added_meanwhile(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_PAGE", 2)
    for number in range(2):
        store.add_workload(workload(number))
        store.add_measurements(None, HERE, [timed(candidate(n, of=workload(number)), 1.0) for n in range(2)])
    rows = store.training_rows()
    seen = [next(rows) for _ in range(3)]
    for number in range(2):
        store.add_measurements(None, HERE, [timed(candidate(9, of=workload(number)), 1.0)])
    seen += rows
    assert [row.workload for row in seen] == [workload(n).hash for n in (0, 0, 1, 1, 1)]


def test_the_models_of_each_workload(store: Store) -> None:
    add_model(store, [workload(0), workload(1)])
    store.add_model("cd" * 32, "other", "", [Task("x", workload(1), 1), Task("y", workload(1), 2)])
    store.add_workload(workload(2))
    assert store.networks() == {
        workload(0).hash: frozenset(["tiny"]),
        workload(1).hash: frozenset(["tiny", "other"]),
        workload(2).hash: frozenset(),
    }


def test_workloads_in_the_order_asked_for(store: Store) -> None:
    many = [workload(n) for n in range(5)]
    for each in many:
        store.add_workload(each)
    asked = [many[3], many[0], many[3]]
    assert list(store.workloads([w.hash for w in asked])) == asked
    assert list(store.workloads([])) == []
    with pytest.raises(NoSuchRecord, match="no row of hash none"):
        list(store.workloads([many[0].hash, "none"]))
