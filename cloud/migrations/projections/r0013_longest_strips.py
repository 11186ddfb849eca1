"""Add to the strips of alerts of which episode they are."""

from alembic import op
from sqlalchemy import BigInteger, Column, Float

revision = "0013"
down_revision = "0012"
kind = "expand"


def upgrade() -> None:
    """Add two columns. A program of revision 12 leaves them empty."""
    op.add_column("alert_strips", Column("episode", BigInteger))
    op.add_column("alert_strips", Column("episode_s", Float))
