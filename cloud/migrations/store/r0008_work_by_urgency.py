"""Add the index by which the opener finds its next work. Openers of the version before use `work_by_arrival`."""

from cloud.migrations.operations import add_index

revision = "0008"
down_revision = "0007"
kind = "expand"


def upgrade() -> None:
    """Add an index."""
    add_index("work_by_urgency", "work", ["is_alert", "is_live", "received_us", "epoch", "seq"])
