"""Marks: up to where the clinic holds a lane of an epoch without gaps, and the chain value there."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Executable, SelectBase, Table, and_, func, select, union_all

from cloud.row_sets import RowInsert, RowQuery
from cloud.store import tables
from sync.chain import extend_chain, start_chain
from sync.message_rows import Mark
from sync.wire import Lane

_PAGE: Final = 500
"""How many numbers after a mark are read at once, while it advances."""


class MarkedSequence(NamedTuple):
    """A lane of an epoch of a hub: its blocks are numbered without gaps."""

    hub: str
    lane: Lane
    epoch: int


class _Dropped(NamedTuple):
    first: int
    last: int
    chain: bytes


_MARKS: Final = tables.marks.c
_KEY: Final = MarkedSequence._fields
_COLUMNS: Final = (*_KEY, "seq", "chain")
_LOCK: Final = RowInsert(
    tables.marks,
    _COLUMNS,
    lambda new: new.on_conflict_do_update(index_elements=list(_KEY), set_={"seq": _MARKS.seq}).returning(
        *(_MARKS[name] for name in _COLUMNS)
    ),
)
_MOVE: Final = RowInsert(
    tables.marks,
    _COLUMNS,
    lambda new: new.on_conflict_do_update(
        index_elements=list(_KEY), set_={"seq": new.excluded.seq, "chain": new.excluded.chain}
    ),
)


def _is_of_mark(table: Table) -> ColumnElement[bool]:
    """Whether a row is of the mark's sequence."""
    return and_(*(table.c[name] == _MARKS[name] for name in _KEY))


def _is_next(table: Table) -> ColumnElement[bool]:
    """Whether a row is of the mark's sequence, and of a number on the page after it."""
    return and_(_is_of_mark(table), table.c.seq > _MARKS.seq, table.c.seq <= _MARKS.seq + _PAGE)


def _dropped_query(are_wanted: ColumnElement[bool]) -> Executable:
    dropped = tables.dropped
    query = select(*(dropped.c[name] for name in (*_KEY, *_Dropped._fields)))
    query = query.join_from(tables.marks, dropped, and_(_is_of_mark(dropped), dropped.c.last > _MARKS.seq))
    return query.where(are_wanted).order_by(dropped.c.first, dropped.c.last)


def _digests_query(are_wanted: ColumnElement[bool]) -> Executable:
    """The digests after each mark: of the stored block, or of the first one in quarantine with its number."""
    quarantine = tables.quarantine
    position = [quarantine.c[name] for name in (*_KEY, "seq")]
    first = select(func.min(quarantine.c.id)).join_from(tables.marks, quarantine, _is_next(quarantine))
    first = first.where(are_wanted).group_by(*position)
    aside: SelectBase = select(*position, quarantine.c.digest).where(quarantine.c.id.in_(first))
    blocks = tables.blocks
    stored = select(*(blocks.c[name] for name in (*_KEY, "seq", "digest"))).join_from(tables.marks, blocks, _is_next(blocks))
    return union_all(aside, stored.where(are_wanted))


_OF_MARK: Final = [_MARKS[name] for name in _KEY]
_DROPPED: Final = RowQuery(_OF_MARK, _dropped_query)
_DIGESTS: Final = RowQuery(_OF_MARK, _digests_query)


def advance_marks(
    connection: Connection, sequences: Mapping[MarkedSequence, Mapping[int, bytes]]
) -> dict[MarkedSequence, Mark]:
    """Move the marks of sequences to the end of what is held without gaps, and return them.

    `sequences` gives the digests, by number, of some blocks that are stored: they need not be read again.

    It runs in a transaction after the commit and first locks the marks' rows. Otherwise two ingests could each compute a mark
    before the other's rows are visible, and the mark would stay below those rows. They lock in the same order.
    """
    wanted = sorted(sequences)
    first = [(*sequence, 0, start_chain(*sequence)) for sequence in wanted]
    marks = {MarkedSequence(*row[:3]): Mark(*row[1:]) for row in _LOCK.execute(connection, first)}
    _move(connection, marks, {key: _find_end(marks[key], sequences[key], ()) for key in wanted})
    moving = wanted
    while moving:
        moving = _advance_a_page(connection, marks, moving)
    return marks


def _advance_a_page(
    connection: Connection, marks: dict[MarkedSequence, Mark], sequences: Sequence[MarkedSequence]
) -> list[MarkedSequence]:
    """Move marks by a page or more; returns the sequences that may go on."""
    digests = defaultdict[MarkedSequence, dict[int, bytes]](dict)
    for *key, seq, digest in _DIGESTS.execute(connection, sequences):
        digests[MarkedSequence(*key)][seq] = digest  # the stored block comes after the one in quarantine
    dropped = defaultdict[MarkedSequence, list[_Dropped]](list)
    for row in _DROPPED.execute(connection, sequences):
        dropped[MarkedSequence(*row[:3])].append(_Dropped(*row[3:]))
    moved = _move(connection, marks, {key: _find_end(marks[key], digests[key], dropped[key]) for key in sequences})
    return [key for key, n in moved.items() if n >= _PAGE]


def _move(
    connection: Connection, marks: dict[MarkedSequence, Mark], ends: Mapping[MarkedSequence, Mark]
) -> dict[MarkedSequence, int]:
    """Move marks to these ends; returns by how many numbers those that moved did."""
    moved = {key: end.seq - marks[key].seq for key, end in ends.items() if end.seq > marks[key].seq}
    _MOVE.execute(connection, [(key.hub, *ends[key]) for key in moved])
    marks.update(ends)
    return moved


def _find_end(mark: Mark, digests: Mapping[int, bytes], dropped: Sequence[_Dropped]) -> Mark:
    """Return the mark at the end of the gap-free sequence, as far as these digests and ranges dropped by the hub tell."""
    seq, chain = mark.seq, mark.chain
    while True:
        before = seq
        for first, last, value in dropped:
            if first <= seq + 1 <= last:
                seq, chain = last, value
        stop = min((found.first for found in dropped if found.first > seq), default=None)
        while seq + 1 != stop and (digest := digests.get(seq + 1)) is not None:
            seq, chain = seq + 1, extend_chain(chain, digest)
        if seq == before:
            return mark._replace(seq=seq, chain=chain)
