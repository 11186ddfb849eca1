"""Makes room in the outbox: deletes what the clinic has answered, then what may be lost, and lists what was lost.

`docs/protocol.md`, "The hub", gives the order. Call the functions in a transaction.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Final

from sync.message_rows import Dropped
from sync.outbox.block_tables import Answer, BlockRow, BlockSequence, BlockTables
from sync.outbox.database import OutboxDatabase
from sync.wire import Lane

STEP_BLOCKS: Final = 64
"""Blocks that one transaction deletes to make room, so that an alert does not wait for it: some 10 ms on an SD card."""
DROPPED_LIMIT: Final = 20
"""Ranges of deleted blocks that one envelope lists. They take at most 100 bytes each of the 3,000 that it has for them."""
BLOCK_OVERHEAD_BYTES: Final = 8 * 1024
"""Space of a block in the database beyond its plaintext: header and tag (under 500 bytes), its row, and partly filled pages,
which a buffer of an older version has of 4 KiB."""
_ANSWERED_LANES: Final[tuple[Lane, ...]] = ("archive", "wave", "vital")
"""The lanes whose answered blocks may go. Alerts stay until retention."""
_LOSSY_LANES: Final[tuple[Lane, ...]] = ("archive", "wave")
"""The lanes whose unsent blocks may go, in this order."""


@dataclass(frozen=True, slots=True)
class BufferLimits:
    """How much the buffer keeps: `quota_bytes` of sealed blocks, and for how long what the clinic has answered.

    The buffer is nearly full when the blocks that wait for the clinic have this fraction of the quota.
    """

    quota_bytes: int = 1024**3
    nearly_full: float = 0.9
    retention_s: int = 7 * 86_400


BUFFER_LIMITS: Final = BufferLimits()


def make_room(database: OutboxDatabase, tables: BlockTables, needed_bytes: int) -> int:
    """Delete at most `STEP_BLOCKS` blocks, as many as hold `needed_bytes`.

    First go answered ones, then withheld ones, then unsent ones that may be lost.

    Returns the bytes of the deleted blocks.
    """
    freed, count = delete_answered(tables, needed_bytes, STEP_BLOCKS)
    for sequence in tables.where("lane = 'archive' AND bytes > 0"):
        if freed >= needed_bytes or count >= STEP_BLOCKS:
            return freed
        rows = _first_rows(tables.read_withheld(sequence, STEP_BLOCKS - count), needed_bytes - freed)
        tables.delete(sequence, rows)  # the clinic does not wait for them
        freed += sum(row.size for row in rows)
        count += len(rows)
    for lane in _LOSSY_LANES:
        for sequence in tables.where("lane = ? AND pending > 0", lane):
            if freed >= needed_bytes or count >= STEP_BLOCKS:
                return freed
            rows = _first_rows(tables.read_pending(sequence, STEP_BLOCKS - count), needed_bytes - freed)
            drop(database, tables, sequence, rows)
            freed += sum(row.size for row in rows)
            count += len(rows)
    return freed


def delete_answered(tables: BlockTables, needed_bytes: int, limit: int) -> tuple[int, int]:
    """Delete the oldest blocks that the clinic released or set aside, at most `limit`. Returns their bytes and number."""
    freed = count = 0
    for sequence in tables.where(f"released + aside > 0 AND lane IN {_ANSWERED_LANES}"):
        if freed >= needed_bytes or count >= limit:
            break
        rows = tables.read_answered(sequence, (Answer.RELEASED, Answer.ASIDE), limit - count)
        rows = _first_rows(rows, needed_bytes - freed)
        tables.delete(sequence, rows)
        freed += sum(row.size for row in rows)
        count += len(rows)
    return freed, count


def drop(database: OutboxDatabase, tables: BlockTables, sequence: BlockSequence, rows: Sequence[BlockRow]) -> None:
    """Give up blocks of one sequence that are not sent, so that the clinic does not wait for them."""
    list_dropped(database, sequence, rows)
    tables.delete(sequence, rows, "dropped")


def drop_unsent(database: OutboxDatabase, tables: BlockTables, keys: Container[int]) -> int:
    """Delete at most `STEP_BLOCKS` blocks of all lanes, sealed with these keys, that were not sent; returns how many."""
    count = 0
    for sequence in tables.where("pending > 0 OR (lane = 'archive' AND bytes > 0)"):
        pending = [row for row in tables.read_pending(sequence, STEP_BLOCKS - count) if row.key in keys]
        drop(database, tables, sequence, pending)
        count += len(pending)
        withheld = [row for row in tables.read_withheld(sequence, STEP_BLOCKS - count) if row.key in keys]
        tables.delete(sequence, withheld)  # the clinic does not wait for them
        count += len(withheld)
        if count >= STEP_BLOCKS:
            break
    return count


def dropped_ranges(database: OutboxDatabase) -> tuple[Dropped, ...]:
    """The oldest ranges of lost blocks that no mark has passed."""
    query = """SELECT lane, epoch, first, dropped.last, dropped.chain FROM dropped JOIN sequences ON id = sequence
               ORDER BY epoch, lane, first LIMIT ?"""
    return tuple(Dropped(*row) for row in database.rows(query, DROPPED_LIMIT))


def delete_passed_ranges(database: OutboxDatabase, sequence: BlockSequence, mark: int) -> None:
    database.execute("DELETE FROM dropped WHERE sequence = ? AND last <= ?", sequence.id, mark)


def range_chain(database: OutboxDatabase, sequence: BlockSequence, seq: int) -> bytes | None:
    """The chain value at the end of a range of lost blocks; None if none ends there."""
    row = database.row("SELECT chain FROM dropped WHERE sequence = ? AND last = ?", sequence.id, seq)
    return bytes(row[0]) if row else None


def _first_rows(rows: Sequence[BlockRow], needed_bytes: int) -> list[BlockRow]:
    """The first rows that together have so many bytes."""
    first: list[BlockRow] = []
    for row in rows:
        if needed_bytes <= 0:
            break
        first.append(row)
        needed_bytes -= row.size
    return first


def list_dropped(database: OutboxDatabase, sequence: BlockSequence, rows: Sequence[BlockRow]) -> None:
    """Add blocks to the ranges of lost ones; consecutive ones make one range."""
    for row in rows:
        extend = "UPDATE dropped SET last = ?, chain = ? WHERE sequence = ? AND last = ?"
        if not database.execute(extend, row.seq, row.chain, sequence.id, row.seq - 1).rowcount:
            database.execute("INSERT INTO dropped VALUES (?, ?, ?, ?)", sequence.id, row.seq, row.seq, row.chain)
