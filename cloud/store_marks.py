"""Marks: up to where the clinic holds a lane of an epoch without gaps, and the chain value there."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Table, literal, select, union_all, update

from cloud import store_tables as tables
from cloud.store_tables import insert
from sync.chain import extend_chain, start_chain
from sync.message_rows import Mark
from sync.wire import Lane

_PAGE: Final = 500
"""Blocks whose digests are read at once while a mark advances."""


class _Sequence(NamedTuple):
    hub: str
    lane: Lane
    epoch: int

    def rows_of(self, table: Table) -> list[Any]:
        """The conditions for the rows of this sequence."""
        return [table.c[name] == value for name, value in self._asdict().items()]


def advance_marks(connection: Connection, hub: str, sequences: Iterable[tuple[Lane, int]]) -> list[Mark]:
    """Move the marks of (lane, epoch) to the end of their gap-free sequences and return them.

    It runs in a transaction after the commit and first locks each mark's row. Otherwise two ingests could each compute the
    mark before the other's rows are visible, and the mark would stay below those rows. They lock in the same order.
    """
    return [_advance(connection, _Sequence(hub, lane, epoch)) for lane, epoch in sorted(set(sequences))]


def _advance(connection: Connection, sequence: _Sequence) -> Mark:
    marks = tables.marks
    first = {"seq": 0, "chain": start_chain(*sequence)}
    lock = insert(connection, marks).values(**sequence._asdict(), **first)
    lock = lock.on_conflict_do_update(index_elements=list(sequence._fields), set_={"seq": marks.c.seq})
    seq, value = connection.execute(lock.returning(marks.c.seq, marks.c.chain)).one()
    end = _end_of_sequence(connection, sequence, Mark(sequence.lane, sequence.epoch, seq, value))
    if end.seq > seq:
        connection.execute(update(marks).where(*sequence.rows_of(marks)).values(seq=end.seq, chain=end.chain))
    return end


def _end_of_sequence(connection: Connection, sequence: _Sequence, mark: Mark) -> Mark:
    """Return the mark at the end of the gap-free sequence: over blocks stored, set aside, or dropped by the hub."""
    table = tables.dropped
    query = select(table.c.first, table.c.last, table.c.chain).where(*sequence.rows_of(table), table.c.last > mark.seq)
    dropped = connection.execute(query.order_by(table.c.first, table.c.last)).all()
    while True:
        for first, last, value in dropped:
            if first <= mark.seq + 1 <= last:
                mark = mark._replace(seq=last, chain=value)
        stop = min((row.first for row in dropped if row.first > mark.seq), default=None)
        before, mark = mark.seq, _pass_blocks(connection, sequence, mark, stop)
        if mark.seq - before < _PAGE and mark.seq + 1 != stop:
            return mark


def _pass_blocks(connection: Connection, sequence: _Sequence, mark: Mark, stop: int | None) -> Mark:
    """Move a mark over consecutive blocks, at most a page, and none from `stop` on."""
    digests = _digests_after(connection, sequence, mark.seq)
    seq, value = mark.seq, mark.chain
    while seq - mark.seq < _PAGE and seq + 1 != stop and (digest := digests.get(seq + 1)) is not None:
        seq, value = seq + 1, extend_chain(value, digest)
    return mark._replace(seq=seq, chain=value)


def _digests_after(connection: Connection, sequence: _Sequence, seq: int) -> dict[int, bytes]:
    """Return a page of digests by their number: of the stored block, else of the first one in quarantine."""
    parts = [
        select(table.c.seq, order.label("order"), table.c.digest)
        .where(*sequence.rows_of(table), table.c.seq > seq)
        .order_by(table.c.seq, order)
        .limit(_PAGE)
        .subquery()
        for table, order in ((tables.blocks, literal(0)), (tables.quarantine, tables.quarantine.c.id))
    ]
    rows = connection.execute(union_all(*(select(part) for part in parts))).all()
    return {row.seq: row.digest for row in sorted(rows, key=lambda row: row.order, reverse=True)}
