"""Models, workloads, candidates and measurements, inside a session of the store's."""

from collections.abc import Sequence

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from db import schema
from db.rows import (
    by_prefix,
    conditions_row,
    insert_missing,
    known_id,
    known_ids,
    recorded,
    to_candidate,
    to_hardware,
    to_workload,
    under,
    workload_row,
)
from search.problem import (
    Candidate,
    Conditions,
    ErrorKind,
    MeasureError,
    Measurement,
    Task,
    Workload,
)


def add_workloads(session: Session, workloads: Sequence[Workload]) -> None:
    rows = {w.hash: workload_row(w) for w in workloads}
    insert_missing(session, schema.Workload, [rows[h] for h in sorted(rows)])


def add_model(session: Session, hash: str, name: str, source: str, tasks: Sequence[Task]) -> None:
    """Adds the model, or brings its name, source and tasks up to date."""
    add_workloads(session, [t.workload for t in tasks])
    insert_missing(session, schema.Model, [{"hash": hash, "name": name, "source": source}])
    # The update locks the row, so that two processes cannot replace the tasks at once.
    session.execute(update(schema.Model).where(schema.Model.hash == hash).values(name=name, source=source))
    model = known_id(session, schema.Model, hash)
    session.execute(delete(schema.Task).where(schema.Task.model_id == model))
    workloads = known_ids(session, schema.Workload, [t.workload.hash for t in tasks])
    session.add_all(
        schema.Task(model_id=model, workload_id=workloads[t.workload.hash], name=t.name, weight=t.weight)
        for t in tasks
    )


def add_candidates(session: Session, candidates: Sequence[Candidate]) -> dict[str, int]:
    """Adds those that are new, and gives the ids of all by hash."""
    workloads = known_ids(session, schema.Workload, [c.workload for c in candidates])
    rows = {
        c.hash: {
            "workload_id": workloads[c.workload],
            "hash": c.hash,
            "space": c.space,
            "choices": c.choices,
            "trace": c.trace,
            "origin": c.origin,
        }
        for c in candidates
    }
    insert_missing(session, schema.Candidate, [rows[h] for h in sorted(rows)])
    return known_ids(session, schema.Candidate, rows)


def add_measurements(
    session: Session, run_id: int | None, conditions: Conditions, measurements: Sequence[Measurement]
) -> None:
    candidates = add_candidates(session, [m.candidate for m in measurements])
    shared = conditions_row(session, conditions) | {"run_id": run_id}
    rows = [
        shared
        | {
            "candidate_id": candidates[m.candidate.hash],
            "samples_s": m.samples_s,
            "latency_s": None if m.error else m.latency_s,
            "error_kind": m.error.kind.value if m.error else None,
            "error_text": m.error.text if m.error else None,
            "build_s": m.build_s,
            "measured_at": m.measured_at,
            "drift": m.drift,
        }
        for m in measurements
    ]
    if rows:
        session.execute(insert(schema.Measurement), rows)


def measurements(
    session: Session, workload: str, conditions: Conditions, space: str | None
) -> list[Measurement]:
    M, C = schema.Measurement, schema.Candidate
    query = select(M, C).where(recorded(workload, conditions, M)).order_by(M.id)
    if space is not None:
        query = query.where(C.space == space)
    return [to_measurement(m, to_candidate(c, workload)) for m, c in session.execute(query)]


def page(
    session: Session,
    workloads: Sequence[str],
    conditions: Conditions,
    spaces: Sequence[str],
    after: int,
    size: int,
) -> tuple[list[tuple[int | None, Measurement]], int | None]:
    """Up to ``size`` behind the row numbered ``after``, with their runs, and the last one's number if any."""
    M, C, W = schema.Measurement, schema.Candidate, schema.Workload
    query = (
        select(M, C, W.hash)
        .join(C, C.id == M.candidate_id)
        .join(W, W.id == C.workload_id)
        .where(under(conditions, M), W.hash.in_(workloads), C.space.in_(spaces), M.id > after)
        .order_by(M.id)
        .limit(size)
    )
    rows = session.execute(query).all()
    found = [(m.run_id, to_measurement(m, to_candidate(c, hash))) for m, c, hash in rows]
    return found, rows[-1][0].id if rows else None


def conditions(session: Session, workload: str) -> list[Conditions]:
    M, C, W = schema.Measurement, schema.Candidate, schema.Workload
    key = M.hardware_id, M.target, M.threads
    query = (
        select(*key)
        .join(C, C.id == M.candidate_id)
        .join(W, W.id == C.workload_id)
        .where(W.hash == workload)
        .group_by(*key)
        .order_by(func.count().desc(), *key)
    )
    return [
        Conditions(to_hardware(session.get_one(schema.Hardware, id)), target, threads)
        for id, target, threads in session.execute(query)
    ]


def fastest(
    session: Session, space: str, target: str | None, but: int | None
) -> list[tuple[Workload, Candidate]]:
    M, C, W = schema.Measurement, schema.Candidate, schema.Workload
    place = func.row_number().over(partition_by=C.workload_id, order_by=(M.latency_s, M.id)).label("place")
    timed = (
        select(C.id, place).join(C, C.id == M.candidate_id).where(C.space == space, M.latency_s.is_not(None))
    )
    if target is not None:
        timed = timed.where(M.target == target)
    if but is not None:
        timed = timed.where(M.run_id.is_distinct_from(but))
    ranked = timed.subquery()
    query = (
        select(W, C)
        .join(C, C.workload_id == W.id)
        .join(ranked, ranked.c.id == C.id)
        .where(ranked.c.place == 1)
        .order_by(W.id)
    )
    return [(to_workload(w), to_candidate(c, w.hash)) for w, c in session.execute(query)]


def to_measurement(row: schema.Measurement, candidate: Candidate) -> Measurement:
    error = MeasureError(ErrorKind(row.error_kind), row.error_text or "") if row.error_kind else None
    return Measurement(candidate, tuple(row.samples_s), error, row.build_s, row.measured_at, row.drift)


def workload(session: Session, hash: str) -> Workload:
    return to_workload(by_prefix(session, schema.Workload, hash))


def candidate(session: Session, hash: str) -> Candidate:
    row = by_prefix(session, schema.Candidate, hash)
    return to_candidate(row, session.get_one(schema.Workload, row.workload_id).hash)


def probes(session: Session, fingerprint: str) -> dict[str, float]:
    where = schema.Hardware.fingerprint == fingerprint
    return session.scalars(select(schema.Hardware.probes).where(where)).one_or_none() or {}
