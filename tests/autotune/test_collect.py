"""Collecting: all spaces, good and bad, nothing twice, and nothing lost."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotune.catalogue import BRANCHES, neighbour, networks
from autotune.collect import IDLE_SHARE, MIX, Collected, Collector
from autotune.frontends import load_model
from autotune.frontends.graph import lower
from autotune.learning import free_name, read_groups
from autotune.session import Session, open_session
from autotune.target import host_target
from costmodels.data import TooLittleData

TRIALS = 4


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with open_session(str(tmp_path / "a.db"), None, None, probe=False) as opened:
        yield opened


def test_every_kernel_gets_its_trials_from_all_of_its_spaces(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("costmodels.data.BUSY_DRIFT", math.inf)  # whatever else the machine is doing
    collected = Collector(session, TRIALS).run([load_model("mlp")])
    assert collected.measured == collected.records == collected.wanted
    tasks = lower(load_model("mlp"), session.target).tasks
    for task in tasks:
        found = session.store.measurements(task.workload.hash, session.conditions)
        assert len(found) >= (TRIALS if task.workload.flop else TRIALS * IDLE_SHARE)
        assert len({m.candidate.space for m in found}) == 2 or not task.workload.flop
    groups = list(read_groups(session.store))
    assert groups
    assert all(g.networks == {"mlp"} for g in groups)
    with pytest.raises(TooLittleData):
        list(read_groups(session.store, ["mlp"]))
    again = Collector(session, TRIALS).run([load_model("mlp")])
    assert again.measured == 0
    assert again.records == again.wanted


@pytest.mark.slow
def test_an_interruption_loses_nothing_and_the_rest_comes_later(session: Session) -> None:
    def interrupt(collected: Collected) -> None:
        if collected.measured == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Collector(session, TRIALS, observe=interrupt).run([load_model("mlp")])
    assert session.store.stats().rows["measurements"] == 5
    assert [r.status for r in session.store.runs()] == ["interrupted"]
    collected = Collector(session, TRIALS).run([load_model("mlp")])
    assert collected.records == collected.wanted == collected.measured + 5


@pytest.mark.slow
def test_time_is_kept(session: Session) -> None:
    collected = Collector(session, 10_000, seconds=3.0).run(networks(["mlp"], 1))
    assert 0 < collected.measured < 10_000
    assert collected.elapsed_s < 30


def test_made_up_networks_are_the_same_each_time_and_different_from_each_other() -> None:
    first, again, other = (lower(neighbour(0, n), host_target(2)) for n in (0, 0, 1))
    assert first.hash == again.hash
    assert first.hash != other.hash
    assert len([t for t in first.tasks if t.workload.flop]) >= BRANCHES // 2


def test_the_mix_holds_chance_and_search() -> None:
    assert {"random", "evolutionary", "cascade"} <= set(MIX)


def test_checkpoints_are_numbered(session: Session) -> None:
    assert free_name(session.store, "lstm") == "lstm-1"
