"""Schema 2. Revision 3 migrates it, and schema 1."""

revision = "0002"
down_revision = "0001"
kind = "expand"


def upgrade() -> None:
    """Change nothing: no program makes this schema any more."""
