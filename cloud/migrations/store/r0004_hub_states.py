"""Add the states of hubs and the alarms about them."""

from alembic import op
from sqlalchemy import BigInteger, Column, LargeBinary, Text, text

from cloud.databases import BIG

revision = "0004"
down_revision = "0003"
kind = "expand"


def upgrade() -> None:
    """Add two tables."""
    op.create_table(
        "hub_states",
        Column("hub", Text, primary_key=True),
        Column("subject", Text),
        Column("since_us", BigInteger, nullable=False),
        Column("heard_us", BigInteger),
        Column("status_us", BigInteger),
        Column("status", LargeBinary),
        Column("epoch", BigInteger),
        Column("seq", BigInteger),
        Column("revision", BigInteger, nullable=False),
        Column("outdated_us", BigInteger),
    )
    op.create_table(
        "hub_alarms",
        Column("id", BIG, primary_key=True),
        Column("hub", Text, nullable=False),
        Column("kind", Text, nullable=False),
        Column("since_us", BigInteger, nullable=False),
        Column("raised_us", BigInteger, nullable=False),
        Column("ended_us", BigInteger),
        sqlite_autoincrement=True,
    )
    is_ongoing = text("ended_us IS NULL")
    op.create_index(
        "hub_alarms_ongoing",
        "hub_alarms",
        ["hub", "kind"],
        unique=True,
        sqlite_where=is_ongoing,
        postgresql_where=is_ongoing,
    )
