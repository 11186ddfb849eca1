"""Marks: up to where the clinic holds a lane of an epoch without gaps, and the chain value there."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    SelectBase,
    Table,
    and_,
    bindparam,
    literal,
    select,
    union_all,
    update,
)

from cloud.store import tables
from cloud.store.tables import insert
from sync.chain import extend_chain, start_chain
from sync.message_rows import Mark
from sync.wire import Lane

_PAGE: Final = 500
"""Blocks whose digests are read at once while a mark advances."""


class _Sequence(NamedTuple):
    hub: str
    lane: Lane
    epoch: int


def _is_in_sequence(table: Table) -> ColumnElement[bool]:
    """Whether a row is of the sequence whose fields are the parameters."""
    return and_(*(table.c[name] == bindparam(f"of_{name}") for name in _Sequence._fields))


def _parameters(sequence: _Sequence, **others: Any) -> dict[str, Any]:
    return {f"of_{name}": value for name, value in sequence._asdict().items()} | others


def _page_of_digests(table: Table, order: ColumnElement[int]) -> SelectBase:
    """The query for the digests after `after`, the lowest numbers first."""
    query = select(table.c.seq, order.label("order"), table.c.digest).where(
        _is_in_sequence(table), table.c.seq > bindparam("after")
    )
    return select(query.order_by(table.c.seq, order).limit(_PAGE).subquery())


# Built once: to build a query takes longer than to run it.
_DROPPED: Final = (
    select(tables.dropped.c.first, tables.dropped.c.last, tables.dropped.c.chain)
    .where(_is_in_sequence(tables.dropped), tables.dropped.c.last > bindparam("after"))
    .order_by(tables.dropped.c.first, tables.dropped.c.last)
)
_DIGESTS: Final[Executable] = union_all(
    _page_of_digests(tables.blocks, literal(0)), _page_of_digests(tables.quarantine, tables.quarantine.c.id)
)
_UPDATE_MARK: Final = (
    update(tables.marks).where(_is_in_sequence(tables.marks)).values(seq=bindparam("end"), chain=bindparam("end_chain"))
)


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
    row = connection.execute(lock.returning(marks.c.seq, marks.c.chain)).one()
    end = _end_of_sequence(connection, sequence, Mark(sequence.lane, sequence.epoch, row.seq, row.chain))
    if end.seq > row.seq:
        connection.execute(_UPDATE_MARK, _parameters(sequence, end=end.seq, end_chain=end.chain))
    return end


def _end_of_sequence(connection: Connection, sequence: _Sequence, mark: Mark) -> Mark:
    """Return the mark at the end of the gap-free sequence: over blocks stored, set aside, or dropped by the hub."""
    dropped = connection.execute(_DROPPED, _parameters(sequence, after=mark.seq)).all()
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
    rows = connection.execute(_DIGESTS, _parameters(sequence, after=seq)).all()
    return {row.seq: row.digest for row in sorted(rows, key=lambda row: row.order, reverse=True)}
