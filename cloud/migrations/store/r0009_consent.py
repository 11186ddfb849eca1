"""Add consents with their texts, legal holds, and hubs that confirm an erasure."""

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, LargeBinary, Text

revision = "0009"
down_revision = "0008"
kind = "expand"


def upgrade() -> None:
    """Add four tables."""
    op.create_table(
        "erased_hubs",
        Column("subject", Text, primary_key=True),
        Column("hub", Text, primary_key=True),
        Column("at_us", BigInteger, nullable=False),
    )
    op.create_table(
        "consents",
        Column("subject", Text, primary_key=True),
        Column("number", BigInteger, primary_key=True, autoincrement=False),
        Column("purpose", Text, nullable=False),
        Column("is_given", Boolean, nullable=False),
        Column("at_us", BigInteger, nullable=False),
        Column("actor", Text, nullable=False),
        Column("text", LargeBinary),
        Column("hub", Text),
        Column("withdrawal", BigInteger),
    )
    op.create_table("consent_texts", Column("digest", LargeBinary, primary_key=True), Column("text", Text, nullable=False))
    op.create_table(
        "holds",
        Column("subject", Text, primary_key=True),
        Column("reason", Text, nullable=False),
        Column("actor", Text, nullable=False),
        Column("at_us", BigInteger, nullable=False),
    )
