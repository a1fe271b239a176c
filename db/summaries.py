"""What the command line shows: counts over the tables."""

from collections.abc import Mapping

from sqlalchemy import and_, func, select, text
from sqlalchemy.orm import Session

from db import schema
from db.errors import NoSuchRecord
from db.migrate import VERSION_TABLE
from db.rows import by_prefix, to_hardware, to_workload
from db.runs import to_run
from db.values import (
    Coverage,
    RunDetail,
    RunStatus,
    RunSummary,
    Stats,
    TaskProgress,
    WorkloadDetail,
)
from search.problem import ErrorKind

C, H, M, R, T, W = (
    schema.Candidate,
    schema.Hardware,
    schema.Measurement,
    schema.Run,
    schema.Task,
    schema.Workload,
)
_MEASURED, _FAILED, _FASTEST_S = func.count(M.id), func.count(M.error_kind), func.min(M.latency_s)
_OF_RUN = M.run_id == R.id


def stats(session: Session) -> Stats:
    tables = schema.Base.metadata.sorted_tables
    sqlite = session.get_bind().dialect.name == "sqlite"
    size = (
        "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        if sqlite
        else "SELECT pg_database_size(current_database())"
    )
    return Stats(
        revision=session.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one(),
        size_bytes=session.execute(text(size)).scalar_one(),
        rows={t.name: session.execute(select(func.count()).select_from(t)).scalar_one() for t in tables},
        failures=_failures(session),
        hardware=tuple(to_hardware(row) for row in session.scalars(select(H).order_by(H.id))),
    )


def _failures(session: Session, run_id: int | None = None) -> Mapping[ErrorKind, int]:
    query = select(M.error_kind, func.count()).where(M.error_kind.is_not(None)).group_by(M.error_kind)
    if run_id is not None:
        query = query.where(M.run_id == run_id)
    return {ErrorKind(kind): count for kind, count in session.execute(query.order_by(M.error_kind)) if kind}


def runs(session: Session, limit: int) -> list[RunSummary]:
    query = (
        select(
            R,
            schema.Model.name,
            H.name,
            select(_MEASURED).where(_OF_RUN).scalar_subquery(),
            select(_FAILED).where(_OF_RUN).scalar_subquery(),
        )
        .join(schema.Model, schema.Model.id == R.model_id)
        .join(H, H.id == R.hardware_id)
        .order_by(R.id.desc())
        .limit(limit)
    )
    return [
        RunSummary(
            row.id,
            model,
            hardware,
            row.target,
            row.threads,
            row.seed,
            RunStatus(row.status),
            row.started_at,
            row.heartbeat_at,
            row.elapsed_s,
            row.trials,
            measured,
            failed,
        )
        for row, model, hardware, measured, failed in session.execute(query)
    ]


def run(session: Session, run_id: int) -> RunDetail:
    row = session.get(R, run_id)
    if row is None:
        raise NoSuchRecord(f"The database holds no run {run_id}.")
    query = (
        select(T.name, W.hash, T.weight, _MEASURED, _FASTEST_S)
        .join(W, W.id == T.workload_id)
        .outerjoin(C, C.workload_id == W.id)
        .outerjoin(M, and_(M.candidate_id == C.id, M.run_id == run_id))
        .where(T.model_id == row.model_id)
        .group_by(T.id, W.hash)
        .order_by(T.id)
    )
    tasks = tuple(TaskProgress(*columns) for columns in session.execute(query))
    model = session.get_one(schema.Model, row.model_id).name
    return RunDetail(to_run(session, row), model, tasks, _failures(session, run_id))


def workload(session: Session, prefix: str) -> WorkloadDetail:
    row = by_prefix(session, W, prefix)
    tasks = (
        select(schema.Model.name, T.name)
        .join(T, T.model_id == schema.Model.id)
        .where(T.workload_id == row.id)
        .order_by(T.id)
    )
    coverage = (
        select(H.name, M.target, M.threads, _MEASURED, _FAILED, _FASTEST_S)
        .join(C, C.id == M.candidate_id)
        .join(H, H.id == M.hardware_id)
        .where(C.workload_id == row.id)
        .group_by(H.id, M.target, M.threads)
        .order_by(H.id, M.target, M.threads)
    )
    return WorkloadDetail(
        to_workload(row),
        tuple((model, task) for model, task in session.execute(tasks)),
        tuple(Coverage(*columns) for columns in session.execute(coverage)),
    )
