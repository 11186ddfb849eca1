"""Add the site's audit log."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, Text

revision = "0005"
down_revision = "0004"
kind = "expand"


def upgrade() -> None:
    """Add four tables."""
    op.create_table(
        "audit_rows",
        Column("number", BigInteger, primary_key=True, autoincrement=False),
        Column("at_us", BigInteger, nullable=False),
        Column("subject", Text),
        Column("row", LargeBinary, nullable=False),
    )
    op.create_index("audit_rows_by_subject", "audit_rows", ["subject", "number"])
    op.create_table(
        "audit_log",
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("number", BigInteger, nullable=False),
        Column("head", LargeBinary, nullable=False),
        Column("signed", LargeBinary),
        Column("cut", LargeBinary),
    )
    op.create_table(
        "audit_hubs",
        Column("hub", Text, primary_key=True),
        Column("key", LargeBinary, nullable=False),
        Column("key_signature", LargeBinary, nullable=False),
        Column("head", LargeBinary, nullable=False),
        Column("seen", LargeBinary),
        Column("received_us", BigInteger, nullable=False),
        Column("forked_us", BigInteger),
    )
    op.create_table(
        "audit_refusals",
        Column("hub", Text, primary_key=True),
        Column("reason", Text, primary_key=True),
        Column("hour", BigInteger, primary_key=True, autoincrement=False),
        Column("n", BigInteger, nullable=False),
    )
