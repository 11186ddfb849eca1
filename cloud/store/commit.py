"""The transaction by which the store commits the blocks and keys of a group of messages.

A statement is about all messages of the group, so that the number of statements does not depend on the number of messages.
What rarely comes is the exception: dropped ranges and rejected blocks take a statement each.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, select

from cloud.row_sets import RowInsert, RowQuery
from cloud.store import tables
from cloud.store.commit_counts import check_not_erased, count_commit
from cloud.store.commit_keys import StoredKeys, insert_statements, insert_wrapped_keys
from cloud.store.erasure import note_erased_sequences
from cloud.store.hubs import NotedEpoch, note_epochs
from cloud.store.stored_blocks import CheckedMessage, CommitResult, NewBlock, RejectedBlock, StoreCounts
from cloud.store.tables import CONFLICT, insert
from config.terminal import escape_controls
from sync.message_rows import Dropped
from sync.wire import MAX_COUNT

HubBlock = tuple[str, NewBlock]
"""A hub and a block of it."""
Place = tuple[str, str, int, int]
"""Hub, lane, epoch and number of a block."""
_PLACE: Final = ("hub", "lane", "epoch", "seq")
_RECEIPT_LANES: Final = frozenset({"alert", "vital"})
"""Lanes whose blocks the hub keeps until the opener's receipt: one that comes again is opened again, for another receipt."""
_BLOCKS, _KEYS, _WRAPS = tables.blocks.c, tables.statements.c, tables.wrapped_keys.c
_INSERT_BLOCKS: Final = RowInsert(
    tables.blocks,
    (*_PLACE, "subject", "key", "digest", "block", "received_us"),
    lambda new: new.on_conflict_do_nothing().returning(_BLOCKS.digest),
)
LIVE_NUMBERS: Final = 16
"""Blocks before the end of a lane that are live when they arrive. While somebody watches, a hub stores one a second: those of
the time for which a message may be under way before it is sent again. Of a backlog they are the newest part."""
_WORK: Final = (*_PLACE, "is_alert", "received_us", "is_live")
_INSERT_WORK: Final = RowInsert(tables.work, _WORK, lambda new: new.on_conflict_do_nothing())
_INSERT_WORK_AGAIN: Final = RowInsert(
    tables.work,
    _WORK,
    lambda new: new.on_conflict_do_nothing().returning(*(tables.work.c[name] for name in _PLACE)),
)
_DIGESTS: Final = RowQuery(
    [_BLOCKS[name] for name in _PLACE],
    lambda are_wanted: select(*(_BLOCKS[name] for name in _PLACE), _BLOCKS.digest).where(are_wanted),
)
_USABLE_KEYS: Final = RowQuery(
    (_KEYS.hub, _KEYS.id),
    lambda are_wanted: select(_KEYS.hub, _KEYS.id, _KEYS.subject).where(
        are_wanted, select(_WRAPS.id).where(_WRAPS.hub == _KEYS.hub, _WRAPS.id == _KEYS.id).exists()
    ),
)


def commit_messages(connection: Connection, messages: Sequence[CheckedMessage], received_us: int) -> list[CommitResult]:
    """Store what is new in messages, and a work row for each new block; returns the outcome of each message.

    Raises:
        TransientError: a subject was erased meanwhile; nothing may be committed.
    """
    statements = [(message.hub, statement) for message in messages for statement in message.statements]
    keys = insert_statements(connection, statements, received_us)
    wraps = insert_wrapped_keys(connection, [(m.hub, wrap) for m in messages for wrap in m.signed.envelope.wraps], received_us)
    n_dropped = insert_dropped(connection, {(m.hub, dropped) for m in messages for dropped in m.signed.envelope.dropped})
    blocks = _commit_blocks(connection, messages, received_us)
    n_rejected = sum(insert_rejected(connection, block, received_us) for m in messages for block in m.rejected)
    note_erased_sequences(connection, {(m.hub, *block.position[:2]) for m in messages for block in m.refused})
    epochs = note_epochs(connection, [message.signed for message in messages], received_us)
    n_conflicts = sum(found.n_new_conflicts for found in blocks)
    counts = StoreCounts(
        stored=sum(found.n_new for found in blocks),
        quarantined=n_conflicts + n_rejected,
        conflicts=n_conflicts,
        key_conflicts=len(keys.new_aside) + len(wraps.new_aside),
        copied_hubs=sum(noted.is_newly_copied for noted in epochs),
    )
    if any(counts) or keys.n_new or wraps.n_new or n_dropped or any(noted.is_new for noted in epochs):
        count_commit(connection, counts)
        subjects = {block.subject for found in blocks for block in found.held}
        check_not_erased(connection, subjects | {statement.subject for _, statement in statements})
    return [_result(*found, keys, wraps) for found in zip(messages, blocks, epochs, strict=True)]


class CommittedBlocks(NamedTuple):
    """What became of the blocks of one message whose data key is stored: the store holds them, or another has their place.

    `n_new` were stored now, `n_reopened` became work again, and `n_new_conflicts` are new in quarantine.
    """

    held: list[NewBlock]
    conflicts: list[NewBlock]
    n_new: int
    n_reopened: int
    n_new_conflicts: int


def _result(
    message: CheckedMessage, blocks: CommittedBlocks, epoch: NotedEpoch, keys: StoredKeys, wraps: StoredKeys
) -> CommitResult:
    statements = [(message.hub, statement) for statement in sorted(set(message.statements))]
    wrapped = [(message.hub, wrap) for wrap in sorted(set(message.signed.envelope.wraps))]
    aside = [key for key in statements if key in keys.aside] + [key for key in wrapped if key in wraps.aside]
    return CommitResult(
        blocks.n_new,
        blocks.n_reopened,
        tuple(blocks.held),
        tuple(blocks.conflicts),
        tuple(key[1].id for key in statements if key in keys.held),
        tuple(key[1][:2] for key in wrapped if key in wraps.held),
        tuple(key[1].id for key in aside),
        blocks.n_new_conflicts + sum(key in keys.new_aside or key in wraps.new_aside for key in aside),
        epoch.is_newly_copied,
    )


def _commit_blocks(connection: Connection, messages: Sequence[CheckedMessage], received_us: int) -> list[CommittedBlocks]:
    """Store the blocks whose place is free, put the conflicting ones in quarantine; returns the outcome of each message.

    A block that came again becomes work again if the hub waits for its receipt.
    """
    storable = with_key(connection, [[(message.hub, block) for block in message.blocks] for message in messages])
    ordered = sorted((block for of_message in storable for block in of_message), key=_place)
    live = {place for message in messages for place in _live_places(message)}
    new = insert_blocks(connection, ordered, received_us, live)
    first = {_place(block): block[1].digest for block in reversed(ordered)}
    digests = {place: first[place] for place in new}
    digests |= {(*row[:4],): row.digest for row in _DIGESTS.execute(connection, [p for p in first if p not in new])}
    again = {_place(block) for block in ordered if digests[_place(block)] == block[1].digest} - new
    work = _work_rows(sorted(place for place in again if place[1] in _RECEIPT_LANES), received_us)
    reopened = {tuple(row) for row in _INSERT_WORK_AGAIN.execute(connection, work)}
    return [_compare(connection, blocks, digests, new, reopened, received_us) for blocks in storable]


def _compare(
    connection: Connection,
    blocks: list[HubBlock],
    digests: dict[Place, bytes],
    new: set[Place],
    reopened: set[Place],
    received_us: int,
) -> CommittedBlocks:
    """Return what became of a message's blocks, given the stored digests. Takes from `new` and `reopened` what is its own."""
    held, conflicts, n_conflicts, places = list[NewBlock](), list[NewBlock](), 0, set[Place]()
    for hub, block in blocks:
        place = _place((hub, block))
        if digests[place] == block.digest:
            held.append(block)
            places.add(place)
        else:
            conflicts.append(block)
            rejected = RejectedBlock(hub, CONFLICT, block.bytes, block.position, block.subject)
            n_conflicts += insert_rejected(connection, rejected, received_us)
    own_new, own_reopened = places & new, places & reopened
    new -= own_new
    reopened -= own_reopened
    return CommittedBlocks(held, conflicts, len(own_new), len(own_reopened), n_conflicts)


def insert_dropped(connection: Connection, ranges: Iterable[tuple[str, Dropped]]) -> int:
    """Store ranges of blocks that hubs deleted; returns how many are new or longer than before."""
    table, n_new = tables.dropped, 0
    for hub, dropped in sorted(set(ranges)):
        statement = insert(connection, table).values(hub=hub, **dropped._asdict())
        longer = {"last": statement.excluded.last, "chain": statement.excluded.chain}
        key = ["hub", "lane", "epoch", "first"]
        statement = statement.on_conflict_do_update(
            index_elements=key, set_=longer, where=table.c.last < statement.excluded.last
        )
        n_new += connection.execute(statement).rowcount
    return n_new


def with_key(connection: Connection, messages: Sequence[Sequence[HubBlock]]) -> list[list[HubBlock]]:
    """Return each message's blocks whose statement and a wrapped key are stored, and whose subject is the statement's."""
    keys = {(hub, block.key) for blocks in messages for hub, block in blocks}
    usable = {tuple(row) for row in _USABLE_KEYS.execute(connection, keys)}
    return [sorted((b for b in blocks if (b[0], b[1].key, b[1].subject) in usable), key=_place) for blocks in messages]


def _live_places(message: CheckedMessage) -> Iterator[Place]:
    """The places of the blocks that are among the newest of their lane, as their hub says."""
    envelope = message.signed.envelope
    ends = {(head.lane, envelope.epoch): head.seq for head in envelope.heads}
    for block in message.blocks:
        lane, epoch, seq = block.position
        if seq > ends.get((lane, epoch), MAX_COUNT) - LIVE_NUMBERS:
            yield message.hub, lane, epoch, seq


def insert_blocks(
    connection: Connection, storable: Sequence[HubBlock], received_us: int, live: AbstractSet[Place] = frozenset()
) -> set[Place]:
    """Store the blocks whose place is free, each with its work row; returns their places.

    Give them in the order of their places: two ingests then cannot wait in a ring.
    """
    rows = [
        (*_place((hub, block)), block.subject, block.key, block.digest, block.bytes, received_us) for hub, block in storable
    ]
    places = {block.digest: _place((hub, block)) for hub, block in storable}
    new = [places[row.digest] for row in _INSERT_BLOCKS.execute(connection, rows)]
    _INSERT_WORK.execute(connection, _work_rows(new, received_us, live))
    return set(new)


def _work_rows(places: Iterable[Place], received_us: int, live: AbstractSet[Place] = frozenset()) -> list[Sequence[Any]]:
    alert = tables.ALERT_LANE
    return [(*place, place[1] == alert, received_us, place in live and place[1] != alert) for place in places]


def insert_rejected(connection: Connection, rejected: RejectedBlock, received_us: int) -> int:
    """Put a block in quarantine; returns 1, or 0 if it is there already."""
    values = {
        "hub": rejected.hub,
        "subject": rejected.subject,
        "reason": escape_controls(rejected.reason),  # PostgreSQL stores no NUL in a text
        "digest": hashlib.sha256(rejected.bytes).digest(),
        "bytes": rejected.bytes,
        "received_us": received_us,
        **(rejected.position._asdict() if rejected.position else {}),
    }
    statement = insert(connection, tables.quarantine).values(values).on_conflict_do_nothing()
    return int(connection.execute(statement).rowcount)


def _place(block: HubBlock) -> Place:
    lane, epoch, seq = block[1].position
    return (block[0], lane, epoch, seq)
