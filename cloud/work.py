"""The opener's side of the store: work rows, one for each block that is not projected yet, and losses of either database.

    ingest:  block + work row, one transaction of the store
    opener:  take work rows (locked) ──▶ project, one transaction of the projections ──▶ delete the work rows

A crash between the last two steps leaves the work rows, and projecting their blocks again changes nothing. Several openers may
run: PostgreSQL gives no row to two of them. SQLite has no such lock, so there only the process that locks the folder may open.

The store and the projections each carry what they last knew of the other (`StoreState`, `Source`). One that was lost, or
restored from a backup, is noticed by that, and all blocks become work again.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from sqlalchemy import Connection, Select, select, tuple_, update

from cloud.projections import Source
from cloud.row_sets import RowQuery
from cloud.store import tables
from cloud.store.stored_blocks import StoredBlock, StoredBlockId, as_stored_blocks
from sync.wire import STORE_ID_BYTES

_ID: Final = tuple(tables.work.c[name] for name in StoredBlockId._fields)
_WORK: Final = tables.work.c


def _next_work(*, is_alert: bool, is_live: bool) -> Select[Any]:
    """Build the query of the work that came first.

    An index has its order, and the blocks are read afterwards: it reads no more rows than its limit, however many wait.
    """
    query = select(*_ID).where(_WORK.is_alert.is_(is_alert), _WORK.is_live.is_(is_live))
    return query.order_by(_WORK.received_us, _WORK.epoch, _WORK.seq).with_for_update(skip_locked=True)


_NEXT_WORK: Final = (
    _next_work(is_alert=True, is_live=False),
    _next_work(is_alert=False, is_live=True),
    _next_work(is_alert=False, is_live=False),
)
"""Most urgent first."""
_BLOCKS: Final = RowQuery(
    [tables.blocks.c[name] for name in StoredBlockId._fields], lambda are_wanted: select(tables.blocks).where(are_wanted)
)


@dataclass(frozen=True, slots=True)
class StoreState:
    """What the store says of itself: its random id and fence, its commits so far, its number of blocks.

    `projections_id` and `batches`: the projections for which work rows were deleted, and their number of batches by then.
    """

    store_id: bytes
    fence: int
    commits: int
    stored: int
    projections_id: bytes | None
    batches: int


class Mismatch(Enum):
    """Why store and projections do not belong together; the value is the line to log, None for a first start."""

    NEW_PROJECTIONS = None
    LOST_PROJECTIONS = "the projections were lost or restored from a backup: they are rebuilt from the {stored} stored blocks"
    LOST_STORE = (
        "the clinic's store was lost or restored from a backup (the projections know a store with {seen} commits, this one has "
        "{commits}): it has a new id now, and the projections are rebuilt from its {stored} blocks"
    )
    NEW_STORE = (
        "the clinic's store was lost or restored from a backup (the projections know a store with {seen} commits, this one has "
        "{commits}): the projections are rebuilt from its {stored} blocks"
    )


def find_mismatch(source: Source, state: StoreState) -> Mismatch | None:
    """Return why the projections cannot go on with this store; None if they can."""
    if source.store_id is None:
        return Mismatch.NEW_PROJECTIONS if state.projections_id in {None, source.id} else Mismatch.LOST_PROJECTIONS
    if source.store_id != state.store_id and state.projections_id is None:
        return Mismatch.NEW_STORE  # a new one, or ingest has noticed a loss and given it a new id
    if source.store_id != state.store_id or state.commits < source.commits:
        return Mismatch.LOST_STORE
    if source.id != state.projections_id or source.batches < state.batches:
        return Mismatch.LOST_PROJECTIONS
    return None


def read_state(connection: Connection, *, lock: bool = False) -> StoreState:
    """Return the store's state as of now; with `lock`, after the transactions that are changing it."""
    query = select(*(tables.state.c[name] for name in StoreState.__slots__))
    return StoreState(*connection.execute(query.with_for_update() if lock else query).one())


def take_blocks(connection: Connection, limit: int) -> list[StoredBlock]:
    """Return up to `limit` blocks that are work; locks their work rows on PostgreSQL.

    They are alerts if there are any, otherwise live blocks, otherwise those of a backlog. Of these the ones that came first are
    taken first. They are returned in the order of (epoch, seq) of each hub and lane.
    """
    for query in _NEXT_WORK:
        ids = connection.execute(query.limit(limit)).all()
        if ids:
            return sorted(as_stored_blocks(_BLOCKS.execute(connection, ids)), key=lambda block: (block.hub, block.position))
    return []


def delete_work(connection: Connection, blocks: Sequence[StoredBlock], source: Source) -> None:
    """Delete the work rows of blocks that are projected; `source` is what the projections committed with them.

    If ingest has given the store a new id meanwhile, the projections are not noted: they are emptied next.
    """
    connection.execute(tables.work.delete().where(tuple_(*_ID).in_([block.id for block in blocks])))
    noted = update(tables.state).where(tables.state.c.store_id == source.store_id)
    connection.execute(noted.values(projections_id=source.id, batches=source.batches))


def begin_again(connection: Connection, state: StoreState, mismatch: Mismatch) -> Source:
    """Make every block work again, for empty projections; returns what they carry from now on.

    A lost store gets a new id and a higher fence.
    """
    if mismatch is Mismatch.LOST_STORE:
        tables.begin_new_store(connection, state.fence + 1)
    else:
        tables.add_all_work(connection)
    source = Source(secrets.token_bytes(STORE_ID_BYTES), 0, read_state(connection).store_id, state.commits)
    connection.execute(update(tables.state).values(projections_id=source.id, batches=0))
    return source
