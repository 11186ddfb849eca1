"""The statements by which the store commits the blocks and keys of one message, within its transaction."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, cast

from sqlalchemy import Connection, Executable, Table, bindparam, select, update

from cloud.store import tables
from cloud.store.stored_blocks import NewBlock, RejectedBlock, StoreCounts
from cloud.store.tables import CONFLICT, insert
from config.terminal import escape_controls
from sync.cbor import encode_cbor
from sync.data_keys import KeyStatement, WrappedKey
from sync.errors import TransientError
from sync.message_rows import Dropped
from sync.wire import BlockId, Lane

_RECEIPT_LANES: Final = frozenset({"alert", "vital"})
"""Lanes whose blocks the hub keeps until the opener's receipt: one that comes again is opened again, for another receipt."""


def _usable_keys_query() -> Executable:
    """The query for (id, subject) of those of `keys` that have a statement and a wrapped key."""
    keys, wraps = tables.statements.c, tables.wrapped_keys.c
    is_wrapped = select(wraps.id).where(wraps.hub == keys.hub, wraps.id == keys.id).exists()
    is_wanted = keys.hub == bindparam("of_hub"), keys.id.in_(bindparam("keys", expanding=True))
    return select(keys.id, keys.subject).where(*is_wanted, is_wrapped)


_USABLE_KEYS: Final = _usable_keys_query()  # built once: to build a query takes longer than to run it


class StoredKeys(NamedTuple):
    """What became of a message's statements, or of its wrapped keys. `held` identifies those that the store holds now.

    `conflicting` are the ids of those that were kept aside, because others have their place; `n_new_aside` of these are new.
    """

    n_new: int
    held: list[Any]
    conflicting: list[bytes]
    n_new_aside: int


def insert_statements(connection: Connection, hub: str, statements: Iterable[KeyStatement], received_us: int) -> StoredKeys:
    """Store the statements of new data keys. Another signature of the same statement changes nothing."""
    arrived = sorted(set(statements))
    if not arrived:
        return StoredKeys(0, [], [], 0)
    table = tables.statements
    n_new = _insert_new(connection, table, [{"hub": hub, **statement._asdict()} for statement in arrived])
    columns = table.c.id, table.c.commitment, table.c.subject, table.c.day
    ids = [statement.id for statement in arrived]
    rows = connection.execute(select(*columns).where(table.c.hub == hub, table.c.id.in_(ids)))
    stored = {row.id: tuple(row) for row in rows}
    held = [statement.id for statement in arrived if stored[statement.id] == statement[:-1]]
    others = {statement.id: encode_cbor(list(statement)) for statement in arrived if stored[statement.id] != statement[:-1]}
    return StoredKeys(n_new, held, list(others), _keep_aside(connection, hub, others.items(), received_us))


def insert_wrapped_keys(connection: Connection, hub: str, wraps: Iterable[WrappedKey], received_us: int) -> StoredKeys:
    """Store the new wrapped keys whose data key has a statement."""
    arrived = sorted(set(wraps))
    if not arrived:
        return StoredKeys(0, [], [], 0)
    statements, table = tables.statements.c, tables.wrapped_keys
    ids = [wrap.id for wrap in arrived]
    known = set(connection.scalars(select(statements.id).where(statements.hub == hub, statements.id.in_(ids))))
    arrived = [wrap for wrap in arrived if wrap.id in known]
    n_new = _insert_new(connection, table, [{"hub": hub, **wrap._asdict()} for wrap in arrived])
    rows = connection.execute(select(table).where(table.c.hub == hub, table.c.id.in_(ids)))
    stored = {(row.id, row.recipient): row.wrapped for row in rows}
    held = [wrap[:2] for wrap in arrived if stored[wrap[:2]] == wrap.wrapped]
    others = [(wrap.id, wrap.wrapped) for wrap in arrived if stored[wrap[:2]] != wrap.wrapped]
    return StoredKeys(n_new, held, [id_ for id_, _ in others], _keep_aside(connection, hub, others, received_us))


def _insert_new(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> int:
    """Insert the rows whose key is free; returns their number."""
    if not rows:
        return 0
    statement = insert(connection, table).on_conflict_do_nothing().returning(table.c.id)
    return len(connection.execute(statement, rows).all())


def _keep_aside(connection: Connection, hub: str, keys: Iterable[tuple[bytes, bytes]], received_us: int) -> int:
    n_new = 0
    for id_, data in keys:
        values = {"hub": hub, "id": id_, "digest": hashlib.sha256(data).digest(), "bytes": data, "received_us": received_us}
        n_new += connection.execute(insert(connection, tables.rejected_keys).values(values).on_conflict_do_nothing()).rowcount
    return n_new


def insert_dropped(connection: Connection, hub: str, ranges: Iterable[Dropped]) -> int:
    """Store ranges of blocks that the hub deleted; returns how many are new or longer than before."""
    table, n_new = tables.dropped, 0
    for dropped in sorted(set(ranges)):
        statement = insert(connection, table).values(hub=hub, **dropped._asdict())
        longer = {"last": statement.excluded.last, "chain": statement.excluded.chain}
        key = ["hub", "lane", "epoch", "first"]
        statement = statement.on_conflict_do_update(
            index_elements=key, set_=longer, where=table.c.last < statement.excluded.last
        )
        n_new += connection.execute(statement).rowcount
    return n_new


def with_key(connection: Connection, hub: str, blocks: Iterable[NewBlock]) -> list[NewBlock]:
    """Return the blocks whose statement and a wrapped key are stored, and whose subject is the statement's.

    They are in the order of their sequences: two ingests then cannot wait in a ring.
    """
    arrived = list(blocks)
    if not arrived:
        return []
    parameters = {"of_hub": hub, "keys": list({block.key for block in arrived})}
    held = {tuple(row) for row in connection.execute(_USABLE_KEYS, parameters)}
    return sorted((block for block in arrived if (block.key, block.subject) in held), key=lambda block: block.position)


def insert_blocks(connection: Connection, hub: str, storable: Sequence[NewBlock], received_us: int) -> dict[BlockId, NewBlock]:
    """Store the blocks whose position is free, each with its work row; returns them."""
    first = {block.position: block for block in reversed(storable)}
    if not first:
        return {}
    rows = [
        {
            "hub": hub,
            **block.position._asdict(),
            "subject": block.subject,
            "key": block.key,
            "digest": block.digest,
            "block": block.bytes,
            "received_us": received_us,
        }
        for block in reversed(first.values())
    ]
    blocks = tables.blocks
    statement = insert(connection, blocks).on_conflict_do_nothing().returning(blocks.c.lane, blocks.c.epoch, blocks.c.seq)
    new = [BlockId(*row) for row in connection.execute(statement, rows)]
    _insert_work(connection, hub, new, received_us)
    return {id_: first[id_] for id_ in new}


def _insert_work(connection: Connection, hub: str, ids: Sequence[BlockId], received_us: int) -> int:
    """Make blocks work that are not; returns how many were not."""
    if not ids:
        return 0
    rows = [{"hub": hub, **id_._asdict(), "is_alert": id_.lane == tables.ALERT_LANE, "received_us": received_us} for id_ in ids]
    statement = insert(connection, tables.work).on_conflict_do_nothing().returning(tables.work.c.seq)
    return len(connection.execute(statement, rows).all())  # RETURNING: one statement for all rows


class ComparedBlocks(NamedTuple):
    """The blocks of a message that the store holds, and the others: another block has their position.

    `n_new_conflicts` of these are new in quarantine; `n_reopened` of the held ones became work again.
    """

    held: list[NewBlock]
    conflicts: list[NewBlock]
    n_new_conflicts: int
    n_reopened: int


def compare_with_stored(
    connection: Connection, hub: str, storable: Sequence[NewBlock], new: dict[BlockId, NewBlock], received_us: int
) -> ComparedBlocks:
    """Compare blocks with those that have their positions, and put the conflicting ones in quarantine.

    A block that came again becomes work again if the hub waits for its receipt.
    """
    digests = {id_: block.digest for id_, block in new.items()}
    digests |= _stored_digests(connection, hub, {block.position for block in storable} - new.keys())
    held = [block for block in storable if digests[block.position] == block.digest]
    conflicts = [block for block in storable if digests[block.position] != block.digest]
    n_new = sum(insert_rejected(connection, _as_conflict(hub, block), received_us) for block in conflicts)
    again = {block.position for block in held if block.position.lane in _RECEIPT_LANES} - new.keys()
    return ComparedBlocks(held, conflicts, n_new, _insert_work(connection, hub, sorted(again), received_us))


def _stored_digests(connection: Connection, hub: str, ids: Iterable[BlockId]) -> dict[BlockId, bytes]:
    """Return the digests of the stored blocks with these ids; there may be some of other ids."""
    wanted = set(ids)
    if not wanted:
        return {}
    blocks = tables.blocks.c
    lanes, epochs, seqs = (set(column) for column in zip(*wanted, strict=True))
    query = select(blocks.lane, blocks.epoch, blocks.seq, blocks.digest)
    query = query.where(blocks.hub == hub, blocks.epoch.in_(epochs), blocks.lane.in_(lanes), blocks.seq.in_(seqs))
    return {BlockId(cast("Lane", lane), epoch, seq): digest for lane, epoch, seq, digest in connection.execute(query)}


def _as_conflict(hub: str, block: NewBlock) -> RejectedBlock:
    return RejectedBlock(hub, CONFLICT, block.bytes, block.position, block.subject)


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


def count_commit(connection: Connection, counts: StoreCounts) -> None:
    """Count a commit and what it added. The row is locked from here to the commit: call it last."""
    state = tables.state.c
    added = {name: state[name] + value for name, value in counts._asdict().items() if value}
    connection.execute(update(tables.state).values({"commits": state.commits + 1} | added))


def check_not_erased(connection: Connection, subjects: set[str]) -> None:
    """Raise TransientError if one of these subjects was erased while this message was handled. Call it after `count_commit`.

    `count_commit` waits for an erasure under way, and an erasure begins with `count_commit`: none can be missed.
    """
    query = select(tables.erased.c.subject).where(tables.erased.c.subject.in_(subjects)).limit(1)
    if subjects and connection.execute(query).first():
        raise TransientError("a subject of this message was erased just now")
