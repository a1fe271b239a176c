"""The tables. ``migrations/`` builds the same ones by hand; a test compares the two."""

import math
import zlib
from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UTCDateTime(TypeDecorator[datetime]):
    """A moment: any time zone in, UTC out. SQLite keeps no zone, so it is given UTC without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and (value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC))


class Compressed(TypeDecorator[str]):
    """Long text (a module, a trace) through zlib: JSON of schedules shrinks about tenfold."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        return None if value is None else zlib.compress(value.encode())

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str | None:
        return None if value is None else zlib.decompress(value).decode()


class Prose(TypeDecorator[str]):
    """Text from anywhere, such as a crashed compiler. NUL and lone surrogates cannot be stored: escaped."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return value and value.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


class Number(TypeDecorator[float]):
    """A float that may be NaN, which SQLite can only store as NULL."""

    impl = Double
    cache_ok = True

    def process_result_value(self, value: float | None, dialect: Dialect) -> float:
        return math.nan if value is None else value


class Base(DeclarativeBase):
    """Every table has a number for its rows, in order of insertion."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UTCDateTime,
        float: Double,
        str: Text,
        dict[str, Any]: JSON,
        list[Any]: JSON,
    }

    id: Mapped[int] = mapped_column(primary_key=True, sort_order=-1)


class UnderConditions:
    """The columns of ``search.problem.Conditions``; ``versions`` is no part of its key."""

    hardware_id: Mapped[int] = mapped_column(ForeignKey("hardware.id"))
    target: Mapped[str]
    threads: Mapped[int]
    versions: Mapped[dict[str, Any]]


class Hardware(Base):
    """Devices; ``fingerprint`` follows from the other columns but ``probes``."""

    __tablename__ = "hardware"

    fingerprint: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    cores: Mapped[int]
    features: Mapped[dict[str, Any]]
    probes: Mapped[dict[str, Any]]


class Workload(Base):
    """Kernels; ``args`` holds pairs of shape and dtype."""

    __tablename__ = "workloads"

    hash: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    args: Mapped[list[Any]]
    outputs: Mapped[int]
    flop: Mapped[float]
    reduction: Mapped[int] = mapped_column(BigInteger)
    module_json: Mapped[str] = mapped_column(Compressed)


class Model(Base):
    """What was tuned."""

    __tablename__ = "models"

    hash: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    source: Mapped[str]


class Task(Base):
    """Which kernels a model is made of."""

    __tablename__ = "tasks"
    __table_args__ = (UniqueConstraint("model_id", "name"),)

    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    workload_id: Mapped[int] = mapped_column(ForeignKey("workloads.id"), index=True)
    name: Mapped[str]
    weight: Mapped[int]


class Run(UnderConditions, Base):
    """Executions of the tuner; ``status`` is a ``db.values.RunStatus``."""

    __tablename__ = "runs"
    __table_args__ = (
        CheckConstraint("status IN ('running', 'finished', 'interrupted', 'failed')", name="status"),
        Index(None, "model_id", "hardware_id"),
    )

    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    seed: Mapped[int] = mapped_column(BigInteger)
    settings: Mapped[dict[str, Any]]
    status: Mapped[str]
    pid: Mapped[int]
    host: Mapped[str]
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    elapsed_s: Mapped[float]
    trials: Mapped[int]


class Candidate(Base):
    """Schedules of kernels, each once, however often it was measured."""

    __tablename__ = "candidates"
    __table_args__ = (UniqueConstraint("workload_id", "hash"),)

    workload_id: Mapped[int] = mapped_column(ForeignKey("workloads.id"))
    hash: Mapped[str] = mapped_column(index=True)
    space: Mapped[str]
    choices: Mapped[list[Any]]
    trace: Mapped[str] = mapped_column(Compressed)
    origin: Mapped[str] = mapped_column(server_default="")


class Measurement(UnderConditions, Base):
    """Times or an error; ``latency_s`` is the median of ``samples_s``, kept for SQL to compare."""

    __tablename__ = "measurements"
    __table_args__ = (
        CheckConstraint("(latency_s IS NULL) <> (error_kind IS NULL)", name="latency_or_error"),
        Index(None, "candidate_id", "hardware_id"),
    )

    candidate_id: Mapped[int] = mapped_column(ForeignKey("candidates.id"))
    run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"), index=True)
    samples_s: Mapped[list[Any]]
    latency_s: Mapped[float | None]
    error_kind: Mapped[str | None]
    error_text: Mapped[str | None] = mapped_column(Prose)
    build_s: Mapped[float]
    measured_at: Mapped[datetime]
    drift: Mapped[float | None]


class Verification(UnderConditions, Base):
    """What verifying candidates found; the newest counts."""

    __tablename__ = "verifications"
    __table_args__ = (Index(None, "candidate_id", "hardware_id"),)

    candidate_id: Mapped[int] = mapped_column(ForeignKey("candidates.id"))
    run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"))
    correct: Mapped[bool]
    max_error: Mapped[float] = mapped_column(Number, nullable=True)
    tolerance: Mapped[float]
    before_s: Mapped[list[Any]]
    after_s: Mapped[list[Any]]
    faster: Mapped[bool]
    p_faster: Mapped[list[Any]]
    text: Mapped[str] = mapped_column(Prose)
    created_at: Mapped[datetime]
    cache: Mapped[str] = mapped_column(server_default="warm")


class Artifact(Base):
    """Where winners were written to."""

    __tablename__ = "artifacts"

    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"), index=True)
    run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"))
    path: Mapped[str]
    manifest: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class Checkpoint(Base):
    """Trained cost models; ``kind`` is a ``db.values.CheckpointKind``, each with one default or none."""

    __tablename__ = "checkpoints"
    __table_args__ = (
        CheckConstraint("kind IN ('lstm', 'gnn', 'trees')", name="kind"),
        Index(
            None,
            "kind",
            unique=True,
            sqlite_where=text("is_default"),
            postgresql_where=text("is_default"),
        ),
    )

    name: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    path: Mapped[str]
    settings: Mapped[dict[str, Any]]
    data: Mapped[dict[str, Any]]
    metrics: Mapped[dict[str, Any]]
    encoding: Mapped[str]
    version: Mapped[str]
    created_at: Mapped[datetime]
    is_default: Mapped[bool]
