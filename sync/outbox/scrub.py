"""Reads all stored blocks again and again, a few at a time, to find those that were damaged on the disk.

SQLite does not notice a bit that flips within a block; the block's digest does. If SQLite itself finds damage meanwhile, the
agent starts again, and the start salvages.
"""

from typing import Final

from sync.chain import block_digest
from sync.outbox.block_tables import BlockRow, BlockTables
from sync.wire import LANES

STEP_ROWS: Final = 64
"""Blocks that one step reads: at most 4 MB, of a strap 0.4 MB. With a step every 5 s, a buffer of 1 GB takes 4 hours."""


class OutboxScrub:
    """How far the present round has come."""

    def __init__(self, tables: BlockTables) -> None:
        self._tables = tables
        self._lane = 0
        self._after = 0

    def step(self) -> list[BlockRow]:
        """Read the next blocks; returns those whose bytes are not those that were stored.

        Raises:
            DamagedBufferError: SQLite cannot read a block.
        """
        lane = LANES[self._lane]
        rows = self._tables.read_sealed_after(lane, self._after, STEP_ROWS)
        if len(rows) < STEP_ROWS:
            self._lane, self._after = (self._lane + 1) % len(LANES), 0
        else:
            self._after = rows[-1][0].row_id
        return [row for row, sealed in rows if block_digest(sealed) != row.digest]
