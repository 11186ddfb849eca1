"""Schema 1. Revision 3 migrates it."""

revision = "0001"
down_revision = None
kind = "expand"


def upgrade() -> None:
    """Change nothing: no program makes this schema any more."""
