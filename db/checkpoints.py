"""Cost models that were trained: where they lie, what they learnt from, how good they are."""

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from db import schema
from db.errors import CheckpointExists, NoSuchRecord
from db.values import Checkpoint, CheckpointKind

C = schema.Checkpoint
_COLUMNS = ("name", "path", "settings", "data", "metrics", "encoding", "version", "created_at", "is_default")
_WRITING = 0x636B7074  # key of the advisory lock: "ckpt"


def add(session: Session, checkpoint: Checkpoint) -> None:
    _one_writer(session)
    if known := session.scalar(select(C).where(C.name == checkpoint.name)):
        raise CheckpointExists(
            f"There is a checkpoint {known.name!r} already ({known.kind}, {known.created_at:%Y-%m-%d}): "
            "give another name."
        )
    if checkpoint.is_default:
        _unset_default(session, checkpoint.kind)
    row = {column: getattr(checkpoint, column) for column in _COLUMNS}
    row |= {json: dict(row[json]) for json in ("settings", "data", "metrics")}
    session.add(C(**row, kind=checkpoint.kind.value))


def newest(session: Session, kind: CheckpointKind | None) -> list[Checkpoint]:
    query = select(C).order_by(C.id.desc())
    if kind is not None:
        query = query.where(C.kind == kind)
    return [_to_checkpoint(row) for row in session.scalars(query)]


def by_name(session: Session, name: str) -> Checkpoint:
    return _to_checkpoint(_row(session, name))


def default(session: Session, kind: CheckpointKind) -> Checkpoint | None:
    row = session.scalar(select(C).where(C.kind == kind, C.is_default))
    return _to_checkpoint(row) if row else None


def make_default(session: Session, name: str) -> None:
    _one_writer(session)
    row = _row(session, name)
    _unset_default(session, row.kind)
    row.is_default = True


def unset_default(session: Session, kind: CheckpointKind) -> None:
    _one_writer(session)
    _unset_default(session, kind.value)


def _one_writer(session: Session) -> None:
    """Of defaults, until the transaction ends; SQLite never has more."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(_WRITING)))


def _unset_default(session: Session, kind: str) -> None:
    session.execute(update(C).where(C.kind == kind, C.is_default).values(is_default=False))


def _row(session: Session, name: str) -> schema.Checkpoint:
    row = session.scalar(select(C).where(C.name == name))
    if row is None:
        known = session.scalars(select(C.name).order_by(C.id.desc())).all()
        raise NoSuchRecord(f"There is no checkpoint {name!r}. Known are: {', '.join(known) or 'none yet'}.")
    return row


def _to_checkpoint(row: schema.Checkpoint) -> Checkpoint:
    return Checkpoint(kind=CheckpointKind(row.kind), **{column: getattr(row, column) for column in _COLUMNS})
