"""Add the commands to hubs."""

from alembic import op
from sqlalchemy import BigInteger, Column, LargeBinary, Text

revision = "0006"
down_revision = "0005"
kind = "expand"


def upgrade() -> None:
    """Add a table."""
    op.create_table(
        "commands",
        Column("hub", Text, primary_key=True),
        Column("number", BigInteger, primary_key=True, autoincrement=False),
        Column("kind", Text, nullable=False),
        Column("subject", Text),
        Column("issued_s", BigInteger, nullable=False),
        Column("expires_s", BigInteger, nullable=False),
        Column("payload", LargeBinary, nullable=False),
        Column("author", Text, nullable=False),
        Column("state", Text, nullable=False),
        Column("answered_us", BigInteger),
    )
    op.create_index("commands_by_state", "commands", ["state", "hub", "number"])
