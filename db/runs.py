"""Runs: started, heard of, ended, and resumed when their process is gone."""

import os
import socket
from datetime import UTC, datetime, timedelta

import psutil
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db import schema
from db.errors import NoSuchRecord
from db.rows import conditions_row, known_id, to_hardware, under
from db.values import Run, RunSpec, RunStatus
from search.problem import Conditions

SILENCE = timedelta(minutes=2)
"""A run on another host that has not been heard of for so long is taken for dead."""
LONG_SILENCE = timedelta(minutes=15)
"""So is one on this host, although a process has its number: that may be another one by now."""


def start(session: Session, spec: RunSpec) -> Run:
    now = datetime.now(UTC)
    conditions = conditions_row(session, spec.conditions)
    if probes := spec.conditions.hardware.probes:
        session.get_one(schema.Hardware, conditions["hardware_id"]).probes = dict(probes)
    row = schema.Run(
        **conditions,
        model_id=known_id(session, schema.Model, spec.model),
        seed=spec.seed,
        settings=dict(spec.settings),
        status=RunStatus.RUNNING.value,
        pid=os.getpid(),
        host=socket.gethostname(),
        started_at=now,
        heartbeat_at=now,
        elapsed_s=0.0,
        trials=0,
    )
    session.add(row)
    session.flush()
    return to_run(session, row)


def resumable(session: Session, spec: RunSpec) -> Run | None:
    query = (
        select(schema.Run)
        .join(schema.Model, schema.Model.id == schema.Run.model_id)
        .where(schema.Model.hash == spec.model, schema.Run.seed == spec.seed)
        .where(under(spec.conditions, schema.Run))
        .order_by(schema.Run.id.desc())
    )
    left = (to_run(session, row) for row in session.scalars(query) if _is_left(row))
    return next(left, None)


def resume(session: Session, run_id: int) -> Run:
    row = session.get(schema.Run, run_id, with_for_update=True)
    if row is None or not _is_left(row):
        state = f"it is {row.status} (process {row.pid} on {row.host})" if row else "there is none"
        raise NoSuchRecord(f"Run {run_id} cannot be resumed: {state}.")
    row.status = RunStatus.RUNNING.value
    row.pid, row.host = os.getpid(), socket.gethostname()
    row.heartbeat_at, row.finished_at = datetime.now(UTC), None
    return to_run(session, row)


def beat(session: Session, run_id: int, elapsed_s: float, trials: int) -> None:
    _update(session, run_id, heartbeat_at=datetime.now(UTC), elapsed_s=elapsed_s, trials=trials)


def end(session: Session, run_id: int, status: RunStatus) -> None:
    now = datetime.now(UTC)
    _update(session, run_id, status=status.value, heartbeat_at=now, finished_at=now)


def _update(session: Session, run_id: int, **columns: object) -> None:
    query = update(schema.Run).where(schema.Run.id == run_id).values(columns).returning(schema.Run.id)
    if session.scalars(query).first() is None:
        raise NoSuchRecord(f"The database holds no run {run_id}.")


def _is_left(row: schema.Run) -> bool:
    """Nobody works on the run, and it is not done: it said so, or its process is gone without a word."""
    if row.status != RunStatus.RUNNING:
        return row.status == RunStatus.INTERRUPTED
    silence = datetime.now(UTC) - row.heartbeat_at
    if row.host != socket.gethostname():
        return silence > SILENCE
    return not _is_alive(row.pid) or silence > LONG_SILENCE


def _is_alive(pid: int) -> bool:
    """Whether there is such a process; one that has ended and waits for its parent to notice is none."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # somebody else's
        return True


def to_run(session: Session, row: schema.Run) -> Run:
    model = session.get_one(schema.Model, row.model_id)
    hardware = to_hardware(session.get_one(schema.Hardware, row.hardware_id))
    conditions = Conditions(hardware, row.target, row.threads, row.versions)
    return Run(
        row.id,
        RunSpec(model.hash, conditions, row.seed, row.settings),
        RunStatus(row.status),
        row.pid,
        row.host,
        row.started_at,
        row.heartbeat_at,
        row.finished_at,
        row.elapsed_s,
        row.trials,
    )
