"""Let work rows say what is live. Those that wait are backlog, and so are those of ingest workers of the version before."""

from alembic import op
from sqlalchemy import Boolean, Column, false

revision = "0007"
down_revision = "0006"
kind = "expand"


def upgrade() -> None:
    """Add a column."""
    op.add_column("work", Column("is_live", Boolean, nullable=False, server_default=false()))
