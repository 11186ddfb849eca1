"""Add the requests of readers to end an alert."""

from alembic import op
from sqlalchemy import BigInteger, Column, String

revision = "0010"
down_revision = "0009"
kind = "expand"


def upgrade() -> None:
    """Add a table."""
    op.create_table(
        "alert_requests",
        Column("id", String, primary_key=True),
        Column("subject", String, nullable=False),
        Column("hub", String, nullable=False),
        Column("alert", String, nullable=False),
        Column("kind", String, nullable=False),
        Column("reader", String, nullable=False),
        Column("role", String, nullable=False),
        Column("asked_us", BigInteger, nullable=False),
        Column("state", String, nullable=False),
        Column("refusal", String),
    )
    op.create_index("alert_requests_by_subject", "alert_requests", ["subject", "asked_us"])
    op.create_index("alert_requests_by_state", "alert_requests", ["state", "asked_us"])
