"""Add the beats that hubs send with their classes."""

from alembic import op
from sqlalchemy import BigInteger, Column, LargeBinary, String

from cloud.databases import BIG

revision = "0011"
down_revision = "0010"
kind = "expand"


def upgrade() -> None:
    """Add a table."""
    op.create_table(
        "beats",
        Column("id", BIG, primary_key=True),
        Column("subject", String, nullable=False),
        Column("hub", String, nullable=False),
        Column("sensor", String, nullable=False),
        Column("kind", String, nullable=False),
        Column("from_us", BigInteger, nullable=False),
        Column("to_us", BigInteger, nullable=False),
        Column("beats_ms", LargeBinary, nullable=False),
        Column("classes", LargeBinary, nullable=False),
    )
    op.create_index("beats_by_time", "beats", ["subject", "hub", "sensor", "from_us"])
