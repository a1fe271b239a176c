"""Between rows and values: what the store's functions share."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from db import schema
from db.errors import NoSuchRecord
from search.problem import Candidate, Conditions, Hardware, TensorSpec, Workload

_CHUNK = 1000  # rows named in one statement: the backends limit a statement's parameters, SQLite at 32,766
T = TypeVar("T")
Hashed = TypeVar("Hashed", schema.Model, schema.Workload, schema.Candidate)
Recorded = type[schema.Measurement] | type[schema.Verification]


def insert_missing(session: Session, table: type[schema.Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Inserts the rows that no unique constraint knows yet, waiting for others who insert the same.

    Give many rows in an order of their own, such as by hash: two writers that wait for each other's rows
    would otherwise deadlock on PostgreSQL.
    """
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    if rows:
        session.execute(insert(table).on_conflict_do_nothing(), rows)


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[i : i + _CHUNK] for i in range(0, len(items), _CHUNK))


def known_ids(session: Session, table: type[Hashed], hashes: Iterable[str]) -> dict[str, int]:
    """Ids by hash.

    Raises:
        NoSuchRecord: One of them is not there.
    """
    wanted = sorted(set(hashes))
    found: dict[str, int] = {}
    for some in chunks(wanted):
        rows = session.execute(select(table.hash, table.id).where(table.hash.in_(some)))
        found |= {row.hash: row.id for row in rows}
    if missing := [h for h in wanted if h not in found]:
        raise NoSuchRecord(f"The table {table.__tablename__} has no row of hash {missing[0]}.")
    return found


def known_id(session: Session, table: type[Hashed], hash: str) -> int:
    return known_ids(session, table, [hash])[hash]


def by_prefix(session: Session, table: type[Hashed], prefix: str) -> Hashed:
    """The one row whose hash, in hexadecimal digits, starts so."""
    low = prefix.lower()
    rows = session.scalars(select(table).where(table.hash.between(low, low + "g")).limit(2)).all()
    if len(rows) != 1:
        found = "Several rows have" if rows else "No row has"
        raise NoSuchRecord(f"{found} a hash that starts with {prefix!r} in the table {table.__tablename__}.")
    return rows[0]


def hardware_id(session: Session, hardware: Hardware) -> int:
    """The id of this device's row, made where the device is new."""
    row = {
        "fingerprint": hardware.fingerprint,
        "name": hardware.name,
        "cores": hardware.cores,
        "features": dict(hardware.features),
        "probes": dict(hardware.probes),
    }
    insert_missing(session, schema.Hardware, [row])
    where = schema.Hardware.fingerprint == hardware.fingerprint
    return session.scalars(select(schema.Hardware.id).where(where)).one()


def conditions_row(session: Session, conditions: Conditions) -> dict[str, Any]:
    """The columns of ``schema.UnderConditions``."""
    return {
        "hardware_id": hardware_id(session, conditions.hardware),
        "target": conditions.target,
        "threads": conditions.threads,
        "versions": dict(conditions.versions),
    }


def under(conditions: Conditions, table: type[schema.UnderConditions]) -> ColumnElement[bool]:
    """SQL for: the row holds for exactly these conditions."""
    fingerprint = conditions.hardware.fingerprint
    device = select(schema.Hardware.id).where(schema.Hardware.fingerprint == fingerprint).scalar_subquery()
    return and_(
        table.hardware_id == device, table.target == conditions.target, table.threads == conditions.threads
    )


def recorded(workload: str, conditions: Conditions, table: Recorded) -> ColumnElement[bool]:
    """SQL for: the row is of this workload's, joined with its candidate, and holds under the conditions."""
    return and_(
        table.candidate_id == schema.Candidate.id,
        schema.Candidate.workload_id == schema.Workload.id,
        schema.Workload.hash == workload,
        under(conditions, table),
    )


def workload_row(workload: Workload) -> dict[str, Any]:
    args = [[list(a.shape), a.dtype] for a in workload.args]
    columns = ("hash", "name", "outputs", "flop", "reduction", "module_json")
    return {c: getattr(workload, c) for c in columns} | {"args": args}


def to_workload(row: schema.Workload) -> Workload:
    args = tuple(TensorSpec(tuple(shape), dtype) for shape, dtype in row.args)
    return Workload(row.hash, row.name, args, row.outputs, row.flop, row.reduction, row.module_json)


def to_candidate(row: schema.Candidate, workload: str) -> Candidate:
    choices = tuple(tuple(c) if isinstance(c, list) else c for c in row.choices)
    return Candidate(workload, row.space, choices, row.trace, row.origin)


def to_hardware(row: schema.Hardware) -> Hardware:
    return Hardware(row.name, row.cores, row.features, row.probes)
