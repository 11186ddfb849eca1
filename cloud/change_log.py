"""The change log of the projections: the opener writes it, the live feed of any process follows it.

    opener:  rows + their entries under the batch's number, one transaction ──▶ hint
    feed:    entries after its position ──▶ rows ──▶ viewers

A batch gets its number under the lock of `projections.lock_source`, which is held until its transaction ends. Batches thus
become visible in the order of their numbers, and a reader that has seen one has seen all before it. A number that the database
hands out by itself would not do: on PostgreSQL a lower one may be committed later.
"""

from typing import Final, NamedTuple

from sqlalchemy import bindparam, select
from sqlalchemy.engine import Connection

from cloud import tables
from cloud.changes import MAX_LIVE, BatchChanges, Change, is_backlog
from cloud.scope import Scope

KEPT_BATCHES: Final = 1000
"""Batches in the log. A batch takes some 30 ms at least, so they last half a minute, longer than a database may make a reader
wait (10 s). Readers and writers of the same tables must agree on it: to change it, raise `first` and `newest` of
`projections_database.SCHEMA`."""
_MAX_ENTRIES: Final = sum(MAX_LIVE.values())
"""Entries that a reader takes at once: more are a backlog."""


class LogPosition(NamedTuple):
    """The end of what a reader has seen: the id of the projections, which are new after a rebuild, and a batch."""

    projections_id: bytes
    batch: int


def write_changes(connection: Connection, batch: int, changes: BatchChanges) -> None:
    """Log what a batch changed, and delete the entries of batches that are no longer kept. The caller has locked `source`."""
    rows = [{"batch": batch, "n": n, **change._asdict()} for n, change in enumerate(changes)]
    if rows:
        connection.execute(_INSERT, rows)
    connection.execute(_DELETE_OLD, {"last_deleted": batch - KEPT_BATCHES})


def read_end(connection: Connection) -> LogPosition:
    """Return the end of the log."""
    return LogPosition(*connection.execute(select(tables.source.c.id, tables.source.c.batches)).one())


def read_changes(connection: Connection, scope: Scope, after: LogPosition | None) -> tuple[LogPosition, list[Change] | None]:
    """Return the end of the log, and the changes since `after` in the scope, each once.

    Instead of the changes returns None if the viewers have to fetch what they show: if the changes are a backlog, if the log
    no longer has all of them, or if `after` is None. The connection must see one moment (`databases.snapshot`).
    """
    end = read_end(connection)
    if after is None or after.projections_id != end.projections_id or not end.batch - KEPT_BATCHES <= after.batch <= end.batch:
        return end, None
    if after == end:
        return end, []
    log = tables.changes.c
    query = select(*(log[name] for name in Change._fields)).where(log.batch > after.batch, scope.allows(log.subject))
    rows = connection.execute(query.order_by(log.batch, log.n).limit(_MAX_ENTRIES + 1)).all()
    changes = list(dict.fromkeys(Change(*row) for row in rows))
    return end, None if len(rows) > _MAX_ENTRIES or is_backlog(changes) else changes


_INSERT: Final = tables.changes.insert()
_DELETE_OLD: Final = tables.changes.delete().where(tables.changes.c.batch <= bindparam("last_deleted"))
