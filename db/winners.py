"""The fastest candidates, the proof that they are right, and the artifacts made of them."""

import heapq
import statistics
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import CompoundSelect, select
from sqlalchemy.orm import Session

from db import schema
from db.records import add_candidates
from db.rows import chunks, conditions_row, known_id, recorded, to_candidate
from db.values import Artifact
from search.problem import Cache, Candidate, Conditions, ErrorKind, Measurement, Verification


def best(session: Session, workload: str, conditions: Conditions, n: int) -> list[Measurement]:
    M = schema.Measurement
    samples: dict[int, list[float]] = defaultdict(list)
    newest: dict[int, tuple[float, datetime]] = {}
    timed = (
        select(M.candidate_id, M.samples_s, M.build_s, M.measured_at)
        .where(recorded(workload, conditions, M), M.latency_s.is_not(None))
        .where(M.candidate_id.not_in(_wrong_ids(conditions.target)))
        .order_by(M.id)
    )
    for id, samples_s, build_s, measured_at in session.execute(timed):
        samples[id] += samples_s
        newest[id] = build_s, measured_at
    fastest = heapq.nsmallest(n, samples, key=lambda id: (statistics.median(samples[id]), id))
    candidates = {
        row.id: to_candidate(row, workload)
        for some in chunks(fastest)
        for row in session.scalars(select(schema.Candidate).where(schema.Candidate.id.in_(some)))
    }
    return [Measurement(candidates[id], tuple(samples[id]), None, *newest[id]) for id in fastest]


def wrong(session: Session, workload: str, target: str) -> dict[str, Candidate]:
    W, C = schema.Workload, schema.Candidate
    of_workload = select(C).join(W, W.id == C.workload_id).where(W.hash == workload)
    rows = session.scalars(of_workload.where(C.id.in_(_wrong_ids(target)))).all()
    return {row.hash: to_candidate(row, workload) for row in rows}


def _wrong_ids(target: str) -> CompoundSelect[int]:
    """SQL for: the candidates that a check found wrong on this target, before timing or when verified."""
    V, M = schema.Verification, schema.Measurement
    kinds = (ErrorKind.WRONG_OUTPUT, ErrorKind.OUT_OF_BOUNDS)
    disproved = select(V.candidate_id).where(V.target == target, V.correct.is_(False))
    refused = select(M.candidate_id).where(M.target == target, M.error_kind.in_(kinds))
    return disproved.union(refused)


def add_verification(
    session: Session, run_id: int | None, conditions: Conditions, verification: Verification
) -> None:
    v = verification
    session.add(
        schema.Verification(
            **conditions_row(session, conditions),
            candidate_id=add_candidates(session, [v.candidate])[v.candidate.hash],
            run_id=run_id,
            correct=v.correct,
            max_error=v.max_error,
            tolerance=v.tolerance,
            before_s=v.before_s,
            after_s=v.after_s,
            faster=v.faster,
            p_faster=v.p_faster,
            text=v.text,
            cache=v.cache.value,
            created_at=datetime.now(UTC),
        )
    )


def verifications(session: Session, workload: str, conditions: Conditions) -> list[Verification]:
    V, C = schema.Verification, schema.Candidate
    query = select(V, C).where(recorded(workload, conditions, V)).order_by(V.id.desc())
    return [_to_verification(row, candidate, workload) for row, candidate in session.execute(query)]


def _to_verification(row: schema.Verification, candidate: schema.Candidate, workload: str) -> Verification:
    low, middle, high = row.p_faster
    return Verification(
        to_candidate(candidate, workload),
        row.correct,
        row.max_error,
        row.tolerance,
        tuple(row.before_s),
        tuple(row.after_s),
        row.faster,
        (low, middle, high),
        row.text,
        Cache(row.cache),
    )


def add_artifact(
    session: Session, model: str, run_id: int | None, path: str, manifest: Mapping[str, Any]
) -> None:
    session.add(
        schema.Artifact(
            model_id=known_id(session, schema.Model, model),
            run_id=run_id,
            path=path,
            manifest=dict(manifest),
            created_at=datetime.now(UTC),
        )
    )


def artifacts(session: Session, model: str | None) -> list[Artifact]:
    A, M = schema.Artifact, schema.Model
    query = select(A, M.hash).join(M, M.id == A.model_id).order_by(A.id.desc())
    if model is not None:
        query = query.where(M.hash == model)
    return [Artifact(hash, a.run_id, a.path, a.manifest, a.created_at) for a, hash in session.execute(query)]
