"""Candidates tell which part of a searcher proposed them: so a resumed search knows what each brought."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("candidates", sa.Column("origin", sa.Text, nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("candidates", "origin")
