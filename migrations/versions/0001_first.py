"""The first schema."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.sql.schema import SchemaItem

revision = "0001"
down_revision = None

MOMENT = sa.DateTime(timezone=True)
CONDITIONS = {"hardware_id": sa.Integer, "target": sa.Text, "threads": sa.Integer, "versions": sa.JSON}
INDICES = {  # table: columns of each index
    "tasks": ["workload_id"],
    "runs": ["model_id, hardware_id"],
    "candidates": ["hash"],
    "measurements": ["candidate_id, hardware_id", "run_id"],
    "verifications": ["candidate_id, hardware_id"],
    "artifacts": ["model_id"],
}


def upgrade() -> None:
    table(
        "hardware",
        {
            "fingerprint": sa.Text,
            "name": sa.Text,
            "cores": sa.Integer,
            "features": sa.JSON,
            "probes": sa.JSON,
        },
        unique("hardware", "fingerprint"),
    )
    table(
        "workloads",
        {
            "hash": sa.Text,
            "name": sa.Text,
            "args": sa.JSON,
            "outputs": sa.Integer,
            "flop": sa.Double,
            "reduction": sa.BigInteger,
            "module_json": sa.LargeBinary,
        },
        unique("workloads", "hash"),
    )
    table("models", {"hash": sa.Text, "name": sa.Text, "source": sa.Text}, unique("models", "hash"))
    table(
        "tasks",
        {"model_id": sa.Integer, "workload_id": sa.Integer, "name": sa.Text, "weight": sa.Integer},
        refers("tasks", "model_id", "models"),
        refers("tasks", "workload_id", "workloads"),
        unique("tasks", "model_id", "name"),
    )
    table(
        "runs",
        CONDITIONS
        | {
            "model_id": sa.Integer,
            "seed": sa.BigInteger,
            "settings": sa.JSON,
            "status": sa.Text,
            "pid": sa.Integer,
            "host": sa.Text,
            "started_at": MOMENT,
            "heartbeat_at": MOMENT,
            "finished_at?": MOMENT,
            "elapsed_s": sa.Double,
            "trials": sa.Integer,
        },
        refers("runs", "model_id", "models"),
        refers("runs", "hardware_id", "hardware"),
        sa.CheckConstraint(
            "status IN ('running', 'finished', 'interrupted', 'failed')", name=op.f("ck_runs_status")
        ),
    )
    table(
        "candidates",
        {
            "workload_id": sa.Integer,
            "hash": sa.Text,
            "space": sa.Text,
            "choices": sa.JSON,
            "trace": sa.LargeBinary,
        },
        refers("candidates", "workload_id", "workloads"),
        unique("candidates", "workload_id", "hash"),
    )
    table(
        "measurements",
        CONDITIONS
        | {
            "candidate_id": sa.Integer,
            "run_id?": sa.Integer,
            "samples_s": sa.JSON,
            "latency_s?": sa.Double,
            "error_kind?": sa.Text,
            "error_text?": sa.Text,
            "build_s": sa.Double,
            "measured_at": MOMENT,
        },
        refers("measurements", "candidate_id", "candidates"),
        refers("measurements", "hardware_id", "hardware"),
        refers("measurements", "run_id", "runs"),
        sa.CheckConstraint(
            "(latency_s IS NULL) <> (error_kind IS NULL)", name=op.f("ck_measurements_latency_or_error")
        ),
    )
    table(
        "verifications",
        CONDITIONS
        | {
            "candidate_id": sa.Integer,
            "run_id?": sa.Integer,
            "correct": sa.Boolean,
            "max_error?": sa.Double,  # NULL is how SQLite keeps NaN
            "tolerance": sa.Double,
            "before_s": sa.JSON,
            "after_s": sa.JSON,
            "faster": sa.Boolean,
            "p_faster": sa.JSON,
            "text": sa.Text,
            "created_at": MOMENT,
        },
        refers("verifications", "candidate_id", "candidates"),
        refers("verifications", "hardware_id", "hardware"),
        refers("verifications", "run_id", "runs"),
    )
    table(
        "artifacts",
        {
            "model_id": sa.Integer,
            "run_id?": sa.Integer,
            "path": sa.Text,
            "manifest": sa.JSON,
            "created_at": MOMENT,
        },
        refers("artifacts", "model_id", "models"),
        refers("artifacts", "run_id", "runs"),
    )
    for name, indices in INDICES.items():
        for columns in (index.split(", ") for index in indices):
            op.create_index(op.f("_".join(["ix", name, *columns])), name, columns)


def downgrade() -> None:
    for name in (
        "artifacts",
        "verifications",
        "measurements",
        "candidates",
        "runs",
        "tasks",
        "models",
        "workloads",
        "hardware",
    ):
        op.drop_table(name)


def table(name: str, columns: Mapping[str, Any], *constraints: SchemaItem) -> None:
    """Types by column; every column is NOT NULL but those whose name ends in ``?``."""
    op.create_table(
        name,
        sa.Column("id", sa.Integer, nullable=False),
        *(sa.Column(c.rstrip("?"), type_, nullable=c.endswith("?")) for c, type_ in columns.items()),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{name}")),
        *constraints,
    )


def refers(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=op.f(f"fk_{table}_{column}"))


def unique(table: str, *columns: str) -> sa.UniqueConstraint:
    return sa.UniqueConstraint(*columns, name=op.f("_".join(["uq", table, *columns])))
