"""What cost models are trained on: every measurement, workload after workload, and where workloads occur."""

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from db import schema
from db.errors import NoSuchRecord
from db.rows import to_workload
from db.stream import to_record
from db.values import TrainingRow
from search.problem import Workload

M, C, W, H, T = schema.Measurement, schema.Candidate, schema.Workload, schema.Hardware, schema.Task

Place = tuple[int, int]
"""Ids of a workload and of a measurement of it: the order of ``page``."""
START: Place = (0, 0)


def page(
    session: Session, spaces: Sequence[str] | None, after: Place, size: int
) -> tuple[list[TrainingRow], Place | None]:
    """Up to ``size`` measurements behind a place, and the last one's place if any."""
    places = (
        select(M.id)
        .join(C, C.id == M.candidate_id)
        .where(C.workload_id >= after[0])  # what an index can find; the next line says it all
        .where(tuple_(C.workload_id, M.id) > after)
        .order_by(C.workload_id, M.id)
        .limit(size)
    )
    if spaces is not None:
        places = places.where(C.space.in_(spaces))
    query = (
        select(M, C, W.hash, H)
        .join(C, C.id == M.candidate_id)
        .join(W, W.id == C.workload_id)
        .join(H, H.id == M.hardware_id)
        .where(M.id.in_(places))  # not in one query: SQLite would carry all columns through its sorting
        .order_by(C.workload_id, M.id)
    )
    rows = session.execute(query).all()
    last = (rows[-1][1].workload_id, rows[-1][0].id) if rows else None
    return [TrainingRow(*to_record(*row)) for row in rows], last


def networks(session: Session) -> dict[str, frozenset[str]]:
    names = defaultdict[str, set[str]](set, {hash: set() for hash in session.scalars(select(W.hash))})
    model = schema.Model
    query = select(W.hash, model.name).join(T, T.workload_id == W.id).join(model, model.id == T.model_id)
    for hash, name in session.execute(query):
        names[hash].add(name)
    return {hash: frozenset(some) for hash, some in names.items()}


def workloads(session: Session, hashes: Sequence[str]) -> list[Workload]:
    found = {row.hash: row for row in session.scalars(select(W).where(W.hash.in_(hashes)))}
    if missing := [h for h in hashes if h not in found]:
        raise NoSuchRecord(f"The table workloads has no row of hash {missing[0]}.")
    return [to_workload(found[h]) for h in hashes]
