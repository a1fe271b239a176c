"""Which runs can be resumed, and by whom."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Barrier

import psutil
import pytest
from db_samples import HARDWARE, HERE, add_model
from sqlalchemy import update

from db import schema
from db.errors import NoSuchRecord
from db.store import Store
from db.values import RunSpec, RunStatus


@pytest.fixture
def spec(store: Store) -> RunSpec:
    return add_model(store)


def rewrite(store: Store, run_id: int, **columns: object) -> None:
    """Makes a run look as another process, host or time left it."""
    with store._database.writing() as session:
        session.execute(update(schema.Run).where(schema.Run.id == run_id).values(columns))


def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def ago(**duration: float) -> datetime:
    return datetime.now(UTC) - timedelta(**duration)


def test_a_run_is_what_was_asked_for(store: Store, spec: RunSpec) -> None:
    run = store.start_run(spec)
    assert run.spec == spec and run.spec.settings == {"trials": 64}
    assert run.spec.conditions.versions == HERE.versions
    assert (run.status, run.trials, run.elapsed_s, run.finished_at) == (RunStatus.RUNNING, 0, 0.0, None)
    assert run.started_at.tzinfo is UTC
    store.beat(run.id, 1.5, 12)
    store.end_run(run.id, RunStatus.FAILED)
    ended = store.show_run(run.id).run
    assert (ended.status, ended.trials, ended.elapsed_s) == (RunStatus.FAILED, 12, 1.5)
    assert ended.finished_at and ended.finished_at >= run.started_at


def test_unknown_model_or_run(store: Store, spec: RunSpec) -> None:
    with pytest.raises(NoSuchRecord, match="models"):
        store.start_run(replace(spec, model="ff"))
    for act in (
        lambda: store.beat(9, 0.0, 0),
        lambda: store.end_run(9, RunStatus.FAILED),
        lambda: store.resume_run(9),
    ):
        with pytest.raises(NoSuchRecord, match="9"):
            act()


def test_a_living_run_is_left_alone(store: Store, spec: RunSpec) -> None:
    run = store.start_run(spec)
    assert store.resumable_run(spec) is None
    rewrite(store, run.id, host="elsewhere", pid=dead_pid())  # whose processes cannot be seen from here
    assert store.resumable_run(spec) is None
    with pytest.raises(NoSuchRecord, match=r"running \(process \d+ on elsewhere\)"):
        store.resume_run(run.id)


@pytest.mark.parametrize("status", [RunStatus.FINISHED, RunStatus.FAILED])
def test_a_run_that_ended_stays_ended(store: Store, spec: RunSpec, status: RunStatus) -> None:
    run = store.start_run(spec)
    store.end_run(run.id, status)
    rewrite(store, run.id, pid=dead_pid(), heartbeat_at=ago(days=1))
    assert store.resumable_run(spec) is None
    with pytest.raises(NoSuchRecord, match=status):
        store.resume_run(run.id)


@pytest.mark.parametrize("left", ["dead", "silent", "silent elsewhere", "interrupted"])
def test_a_run_that_was_left_is_resumed_once(store: Store, spec: RunSpec, left: str) -> None:
    run = store.start_run(spec)
    store.beat(run.id, 3.0, 5)
    if left == "interrupted":
        store.end_run(run.id, RunStatus.INTERRUPTED)
    else:
        rewrite(
            store,
            run.id,
            pid=dead_pid() if left == "dead" else run.pid,
            host="elsewhere" if "elsewhere" in left else run.host,
            heartbeat_at=ago(seconds={"silent": 901, "silent elsewhere": 121}.get(left, 100)),
        )
    found = store.resumable_run(spec)
    assert found and (found.id, found.trials, found.elapsed_s) == (run.id, 5, 3.0)
    resumed = store.resume_run(run.id)
    assert (resumed.status, resumed.pid, resumed.host) == (RunStatus.RUNNING, run.pid, run.host)
    assert resumed.finished_at is None and resumed.heartbeat_at > ago(seconds=60)
    assert store.resumable_run(spec) is None
    with pytest.raises(NoSuchRecord):
        store.resume_run(run.id)


def test_a_zombie_is_dead(store: Store, spec: RunSpec) -> None:
    run = store.start_run(spec)
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.read() == b""  # it ends, and nobody reaps it
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        rewrite(store, run.id, pid=process.pid)
        assert store.resume_run(run.id).id == run.id


def test_of_many_who_resume_one_succeeds(store: Store, spec: RunSpec) -> None:
    everybody = Barrier(4)

    def resume(run_id: int) -> bool:
        everybody.wait()
        with suppress(NoSuchRecord):
            return store.resume_run(run_id).id == run_id
        return False

    with ThreadPoolExecutor(4) as threads:
        for _ in range(5):
            run = store.start_run(spec)
            store.end_run(run.id, RunStatus.INTERRUPTED)
            assert sorted(threads.map(resume, [run.id] * 4)) == [False, False, False, True]


def test_the_newest_run_of_the_same_kind_is_resumed(store: Store, spec: RunSpec) -> None:
    for _ in range(2):
        newest = store.start_run(spec)
        store.end_run(newest.id, RunStatus.INTERRUPTED)
    for other in (
        replace(spec, seed=8),
        replace(spec, model=add_model(store, hash="cd" * 32).model),
        replace(spec, conditions=replace(HERE, threads=1)),
        replace(spec, conditions=replace(HERE, target='{"kind":"c"}')),
        replace(spec, conditions=replace(HERE, hardware=replace(HARDWARE, name="Other"))),
    ):
        assert store.resumable_run(other) is None
        store.end_run(store.start_run(other).id, RunStatus.INTERRUPTED)
    same = replace(spec, settings={}, conditions=replace(HERE, versions={}))
    found = store.resumable_run(same)
    assert found and found.id == newest.id
