"""The statements by which the store commits one message, within its transaction."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, cast

from sqlalchemy import Connection, Table, select, update

from cloud import store_tables as tables
from cloud.databases import insert_into
from cloud.store_tables import CONFLICT
from cloud.stored_blocks import RejectedBlock, StoreCounts
from config.terminal import escape_controls
from sync.seal import BlockHeader
from sync.wire import BlockId, WrappedKey


def insert(connection: Connection, table: Table) -> Any:
    return insert_into(table, connection.dialect.name)


def insert_keys(connection: Connection, hub: str, keys: Iterable[WrappedKey], received_us: int) -> tuple[int, list[bytes], int]:
    """Store wrapped keys; returns how many are new, the ids of conflicting ones, and how many of these are new."""
    n_new, conflicting, n_new_conflicts = 0, list[bytes](), 0
    for key in sorted(keys):
        values = {"hub": hub, "id": key.id, "wrapped": key.wrapped}
        if connection.execute(insert(connection, tables.keys).values(values).on_conflict_do_nothing()).rowcount:
            n_new += 1
            continue
        row = (tables.keys.c.hub == hub) & (tables.keys.c.id == key.id)
        if connection.execute(select(tables.keys.c.wrapped).where(row)).scalar_one() != key.wrapped:
            conflicting.append(key.id)
            aside = values | {"digest": hashlib.sha256(key.wrapped).digest(), "received_us": received_us}
            statement = insert(connection, tables.rejected_keys).values(aside).on_conflict_do_nothing()
            n_new_conflicts += connection.execute(statement).rowcount
    return n_new, conflicting, n_new_conflicts


def with_key(connection: Connection, hub: str, blocks: Iterable[tuple[BlockHeader, bytes]]) -> list[tuple[BlockHeader, bytes]]:
    """Return the blocks whose data key is stored, in the order of their sequences: two ingests then cannot wait in a ring."""
    arrived = list(blocks)
    ids = {header.key for header, _ in arrived}
    keys = tables.keys.c
    held = set(connection.scalars(select(keys.id).where(keys.hub == hub, keys.id.in_(ids))))
    return sorted((pair for pair in arrived if pair[0].key in held), key=lambda pair: _position(pair[0]))


def _position(header: BlockHeader) -> BlockId:
    return BlockId(header.lane, header.epoch, header.seq)


def insert_blocks(
    connection: Connection, hub: str, storable: Sequence[tuple[BlockHeader, bytes]], received_us: int
) -> dict[BlockId, bytes]:
    """Store the blocks whose position is free, each with its work row; returns them."""
    first = {_position(header): (header, block) for header, block in reversed(storable)}
    if not first:
        return {}
    rows = [
        {"hub": hub, **position._asdict(), "key": header.key, "block": block, "received_us": received_us}
        for position, (header, block) in reversed(first.items())
    ]
    blocks = tables.blocks
    statement = insert(connection, blocks).on_conflict_do_nothing().returning(blocks.c.lane, blocks.c.epoch, blocks.c.seq)
    new = [BlockId(*row) for row in connection.execute(statement, rows)]
    if new:
        work = [
            {"hub": hub, **id_._asdict(), "is_alert": id_.lane == tables.ALERT_LANE, "received_us": received_us} for id_ in new
        ]
        connection.execute(tables.work.insert().returning(tables.work.c.seq), work)  # RETURNING: one statement for all rows
    return {id_: first[id_][1] for id_ in new}


def compare_with_stored(
    connection: Connection,
    hub: str,
    storable: Sequence[tuple[BlockHeader, bytes]],
    new: dict[BlockId, bytes],
    received_us: int,
) -> tuple[list[BlockId], list[BlockId], int]:
    """Return the positions held, those of conflicting blocks, and how many of these are new; puts these in quarantine."""
    held, conflicts, n_new_conflicts = list[BlockId](), list[BlockId](), 0
    for header, block in storable:
        position = _position(header)
        stored = new[position] if position in new else _stored_bytes(connection, hub, position)
        if stored == block:
            held.append(position)
        else:
            conflicts.append(position)
            n_new_conflicts += insert_rejected(connection, RejectedBlock(hub, CONFLICT, block, position), received_us)
    return held, conflicts, n_new_conflicts


def _stored_bytes(connection: Connection, hub: str, position: BlockId) -> bytes:
    blocks = tables.blocks.c
    row = [blocks.hub == hub, *(blocks[name] == value for name, value in position._asdict().items())]
    return cast("bytes", connection.execute(select(blocks.block).where(*row)).scalar_one())


def insert_rejected(connection: Connection, rejected: RejectedBlock, received_us: int) -> int:
    """Put a block in quarantine; returns 1, or 0 if it is there already."""
    values = {
        "hub": rejected.hub,
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
