"""The first revision. Older projections are emptied."""

revision = "0009"
down_revision = None
kind = "expand"


def upgrade() -> None:
    """Change nothing: a new database has these tables."""
