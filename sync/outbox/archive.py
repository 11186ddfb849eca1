"""Releases blocks of the lane `archive` that the clinic requests: they become pending, and the uplink sends them.

The blocks before a released one that stay on the hub are listed as dropped, so that the clinic does not wait for them. It takes
them all the same if they are requested later.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from sync.outbox.block_tables import WITHHELD, BlockRow, BlockSequence, BlockTables
from sync.outbox.database import OutboxDatabase
from sync.outbox.keys import OutboxKeys
from sync.wire import UNKNOWN_CHAIN

SEALED_LATER_S: Final = 60
"""A sample may be sealed this much later than it was measured: records wait for 10 s, and longer while the disk is busy."""
STEP_BLOCKS: Final = 512
"""Blocks that one transaction releases."""


def release_some(
    database: OutboxDatabase, tables: BlockTables, keys: OutboxKeys, subject: str, from_s: int, to_s: int, now_s: int
) -> int:
    """Release the oldest withheld blocks of a subject that may hold samples of a time, within a transaction.

    Returns how many; fewer than `STEP_BLOCKS` if these were the last.
    """
    numbers = {key.number for key in keys.stored.values() if key.subject == subject and not key.is_erased}
    count = 0
    for sequence in tables.where("lane = 'archive' AND bytes > 0"):
        found = tables.read_withheld(sequence, STEP_BLOCKS - count, (from_s, to_s + SEALED_LATER_S))
        rows = [row for row in found if row.key in numbers]
        if rows:
            tables.answer(sequence, rows, None, now_s)
            _list_others(database, tables, sequence, rows)
        count += len(rows)
    return count


def _list_others(database: OutboxDatabase, tables: BlockTables, sequence: BlockSequence, released: Sequence[BlockRow]) -> None:
    """List the blocks up to the last released one that are not sent, as far as the clinic's mark has not passed them."""
    mark = database.rows("SELECT mark FROM sequences WHERE id = ?", sequence.id)[0][0]
    listed = database.rows("SELECT first, last FROM dropped WHERE sequence = ? ORDER BY first", sequence.id)
    sent = [row.seq for row in tables.read(sequence, mark + 1, released[-1].seq) if row.state != WITHHELD]
    known = sorted([(mark, mark), *listed, *((seq, seq) for seq in sent)])
    others: list[tuple[int, int]] = []
    end = mark
    for (_, last), (first, _) in pairwise(known):
        end = max(end, last)
        if first > end + 1:
            others.append((end + 1, first - 1))
    insert = "INSERT INTO dropped VALUES (?, ?, ?, ?)"
    database.execute_many(insert, [(sequence.id, first, last, UNKNOWN_CHAIN) for first, last in others])
