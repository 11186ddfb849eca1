"""Counts the commits of the store. Each ends with it, because the one row that counts is locked from here to the commit."""

from sqlalchemy import Connection, select, update

from cloud.store import tables
from cloud.store.stored_blocks import StoreCounts
from sync.errors import TransientError


def count_commit(connection: Connection, counts: StoreCounts) -> None:
    """Count a commit and what it added. The row is locked from here to the commit: call it last."""
    state = tables.state.c
    added = {name: state[name] + value for name, value in counts._asdict().items() if value}
    connection.execute(update(tables.state).values({"commits": state.commits + 1} | added))


def check_not_erased(connection: Connection, subjects: set[str]) -> None:
    """Raise TransientError if one of these subjects was erased while a message was handled. Call it after `count_commit`.

    `count_commit` waits for an erasure under way, and an erasure begins with `count_commit`: none can be missed.
    """
    query = select(tables.erased.c.subject).where(tables.erased.c.subject.in_(subjects)).limit(1)
    if subjects and connection.execute(query).first():
        raise TransientError("a subject of this message was erased just now")
