"""Version 3: webhooks of jobs, and the secrets with which they are signed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds columns of jobs, which are empty, and a table."""
    op.add_column("jobs", sa.Column("webhook", sa.JSON(), nullable=True))
    op.add_column("jobs", sa.Column("webhook_tries", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("webhook_due", sa.DateTime(), nullable=True))
    op.create_index("ix_jobs_webhook_due", "jobs", ["webhook_due"])
    op.create_table(
        "webhook_secrets",
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("secret", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("user", name="pk_webhook_secrets"),
    )
