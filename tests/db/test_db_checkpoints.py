"""Trained cost models are found by name and kind, and a kind has one default at most."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
from db_samples import checkpoint
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from db.engine import Database
from db.errors import CheckpointExists, NoSuchRecord
from db.store import Store
from db.values import CheckpointKind

LSTM, GNN, TREES = CheckpointKind


def defaults(store: Store) -> list[str]:
    return [c.name for c in store.checkpoints() if c.is_default]


def test_checkpoints_come_back_newest_first(store: Store) -> None:
    given = [checkpoint("a"), checkpoint("b", GNN), replace(checkpoint("c"), metrics={"tau": 0.1 + 0.2})]
    for each in given:
        store.add_checkpoint(each)
    assert store.checkpoints() == given[::-1]
    assert store.checkpoints(LSTM) == [given[2], given[0]]
    assert store.checkpoints(TREES) == []
    assert store.checkpoint("b") == given[1]


def test_a_name_is_given_once(store: Store) -> None:
    store.add_checkpoint(checkpoint("a", is_default=True))
    with pytest.raises(CheckpointExists, match=r"'a' already \(lstm, 2025-01-02\): give another name\.$"):
        store.add_checkpoint(checkpoint("a", GNN, is_default=True))
    assert store.checkpoints() == [checkpoint("a", is_default=True)]


def test_an_unknown_name_is_told_with_those_known(store: Store) -> None:
    with pytest.raises(NoSuchRecord, match=r"'x'\. Known are: none yet"):
        store.checkpoint("x")
    store.add_checkpoint(checkpoint("a"))
    store.add_checkpoint(checkpoint("b", is_default=True))
    for ask in (store.checkpoint, store.make_default):
        with pytest.raises(NoSuchRecord, match=r"'x'\. Known are: b, a"):
            ask("x")
    assert defaults(store) == ["b"]


def test_a_new_default_replaces_its_kinds_former_one(store: Store) -> None:
    assert store.default_checkpoint(LSTM) is None
    store.add_checkpoint(checkpoint("a", is_default=True))
    store.add_checkpoint(checkpoint("g", GNN, is_default=True))
    store.add_checkpoint(checkpoint("b"))
    assert defaults(store) == ["g", "a"]
    for _ in range(2):
        store.make_default("b")
        assert defaults(store) == ["b", "g"]
    store.add_checkpoint(checkpoint("c", is_default=True))
    assert defaults(store) == ["c", "g"]
    found = store.default_checkpoint(LSTM)
    assert found == checkpoint("c", is_default=True)


def test_of_many_at_once_one_becomes_the_default(store: Store) -> None:
    everybody = Barrier(4)

    def add(number: int) -> None:
        everybody.wait()
        store.add_checkpoint(checkpoint(f"a{number}", is_default=True))
        store.make_default(f"a{number}")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add, range(4)))
    assert len(store.checkpoints()) == 4 and len(defaults(store)) == 1


def test_the_database_itself_refuses_two_defaults(store: Store) -> None:
    for name in "ab":
        store.add_checkpoint(checkpoint(name))
    with pytest.raises(IntegrityError), Database(store.url).writing() as session:
        session.execute(text("UPDATE checkpoints SET is_default = (1 = 1)"))


def test_a_kind_can_be_left_without_a_default(store: Store) -> None:
    store.add_checkpoint(checkpoint("a", is_default=True))
    store.add_checkpoint(checkpoint("g", GNN, is_default=True))
    store.unset_default(LSTM)
    assert defaults(store) == ["g"]
