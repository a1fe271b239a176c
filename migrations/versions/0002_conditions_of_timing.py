"""Measurements tell how noisy the machine was, verifications what the caches held."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("measurements", sa.Column("drift", sa.Double, nullable=True))
    op.add_column("verifications", sa.Column("cache", sa.Text, nullable=False, server_default="warm"))


def downgrade() -> None:
    op.drop_column("verifications", "cache")
    op.drop_column("measurements", "drift")
