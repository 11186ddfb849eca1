"""Add the strips of alerts by the part of the episode that they show."""

from alembic import op
from sqlalchemy import BigInteger, Column, Float, LargeBinary, String

revision = "0012"
down_revision = "0011"
kind = "expand"


def upgrade() -> None:
    """Add a table. The latest strip of an alert stays in its row, too."""
    op.create_table(
        "alert_strips",
        Column("subject", String, primary_key=True),
        Column("hub", String, primary_key=True),
        Column("id", String, primary_key=True),
        Column("part", String, primary_key=True),
        Column("epoch", BigInteger, nullable=False),
        Column("seq", BigInteger, nullable=False),
        Column("start_us", BigInteger, nullable=False),
        Column("rate_hz", Float, nullable=False),
        Column("scale", Float, nullable=False),
        Column("samples", LargeBinary, nullable=False),
        Column("beats_us", String, nullable=False),
        Column("labels", String, nullable=False),
        Column("mark_from_us", BigInteger),
        Column("mark_to_us", BigInteger),
    )
