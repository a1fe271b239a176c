"""Measurements in bulk: all of them out in pages, and into the database where they are not there yet."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import schema
from db.records import add_measurements, add_workloads, to_measurement
from db.rows import chunks, hardware_id, to_candidate, to_hardware
from search.problem import Conditions, Measurement, Workload, digest

M, C, W, H = schema.Measurement, schema.Candidate, schema.Workload, schema.Hardware


def page(
    session: Session, workload: str | None, after: int, size: int
) -> tuple[list[tuple[Conditions, Measurement]], int | None]:
    """Up to ``size`` measurements behind the row numbered ``after``, and the last one's number if any."""
    query = (
        select(M, C, W.hash, H)
        .join(C, C.id == M.candidate_id)
        .join(W, W.id == C.workload_id)
        .join(H, H.id == M.hardware_id)
        .where(M.id > after)
        .order_by(M.id)
        .limit(size)
    )
    if workload is not None:
        query = query.where(W.hash == workload)
    rows = session.execute(query).all()
    return [to_record(*row) for row in rows], rows[-1][0].id if rows else None


def to_record(
    row: schema.Measurement, candidate: schema.Candidate, workload: str, hardware: schema.Hardware
) -> tuple[Conditions, Measurement]:
    conditions = Conditions(to_hardware(hardware), row.target, row.threads, row.versions)
    return conditions, to_measurement(row, to_candidate(candidate, workload))


def add_missing(
    session: Session, workloads: Sequence[Workload], records: Sequence[tuple[Conditions, Measurement]]
) -> int:
    add_workloads(session, workloads)
    groups: dict[str, tuple[Conditions, list[Measurement]]] = {}
    for conditions, measurement in records:
        key = digest([*conditions.key, dict(conditions.versions)])
        groups.setdefault(key, (conditions, []))[1].append(measurement)
    return sum(_add_missing(session, conditions, some) for conditions, some in groups.values())


def _add_missing(session: Session, conditions: Conditions, measurements: Sequence[Measurement]) -> int:
    device = hardware_id(session, conditions.hardware)
    known = set[tuple[Any, ...]]()
    for some in chunks(sorted({m.candidate.hash for m in measurements})):
        query = (
            select(C.hash, M.measured_at, M.samples_s, M.error_kind)
            .join(M, M.candidate_id == C.id)
            .where(C.hash.in_(some), M.hardware_id == device)
            .where(M.target == conditions.target, M.threads == conditions.threads)
        )
        known |= {
            (hash, moment, tuple(samples), kind) for hash, moment, samples, kind in session.execute(query)
        }
    new: list[Measurement] = []
    for m in measurements:
        kind = m.error.kind.value if m.error else None
        key = (m.candidate.hash, m.measured_at, m.samples_s, kind)
        if key not in known:
            known.add(key)
            new.append(m)
    add_measurements(session, None, conditions, new)
    return len(new)
