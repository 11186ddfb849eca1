"""Deletes what the outbox need not keep any longer: old blocks, those of earlier and erased subjects, and keys without blocks.

A round reads every row of the tables of blocks once, in small steps. A key that no row needed in a whole round goes.
"""

from itertools import groupby
from typing import Final

from sync.outbox.block_tables import WITHHELD, Answer, BlockRow, BlockTables, sequence_of
from sync.outbox.database import OutboxDatabase
from sync.outbox.epochs import SECONDS_PER_DAY
from sync.outbox.keys import OutboxKeys
from sync.outbox.observed_time import ObservedTime
from sync.wire import LANES

STEP_ROWS: Final = 512
"""Rows that one transaction reads, and at most deletes: 1 ms from memory, some 20 ms from an SD card."""


class OutboxSweep:
    """The present round. Call `step` in a transaction; after a rollback call `begin`."""

    def __init__(
        self, database: OutboxDatabase, tables: BlockTables, keys: OutboxKeys, *, subject: str, observed: ObservedTime
    ) -> None:
        self._database = database
        self._tables = tables
        self._keys = keys
        self._subject = subject
        self._observed = observed
        self.begin()

    def begin(self) -> None:
        """Begin a new round with the next step."""
        self._lane = 0
        self._after = 0
        self._in_use: set[int] = set()
        self._candidates: set[int] | None = None
        self._done: set[int] = set()

    def keep_key(self, number: int) -> None:
        """A block was sealed with this key."""
        self._in_use.add(number)

    def step(self, now_s: int) -> bool:
        """Continue the round. Returns whether it ended."""
        if self._candidates is None:
            self._done = self._keys_of_done_subjects()
            day = now_s // SECONDS_PER_DAY  # not that of the epoch: a hub that stores nothing begins none
            old = {key.number for key in self._keys.stored.values() if key.day < day or key.is_erased}
            self._candidates = old | self._done
        lane = LANES[self._lane]
        rows = self._tables.read_after(lane, self._after, STEP_ROWS)
        for id_, group in groupby(rows, lambda row: sequence_of(row.row_id)):
            self._delete_from(id_, list(group))
        if len(rows) == STEP_ROWS:
            self._after = rows[-1].row_id
            return False
        self._lane, self._after = self._lane + 1, 0
        if self._lane < len(LANES):
            return False
        unused = self._candidates - self._in_use
        if unused:
            self._keys.delete(unused)
        self.begin()
        return True

    def _keys_of_done_subjects(self) -> set[int]:
        """The keys of earlier subjects of which nothing waits for the clinic, and whose alerts were ended."""
        unfinished = {self._subject, *(row[0] for row in self._database.rows("SELECT DISTINCT subject FROM state"))}
        earlier = [key for key in self._keys.stored.values() if key.subject not in unfinished and not key.is_erased]
        unfinished |= {key.subject for key in earlier if self._tables.has_open(key.number)}
        return {key.number for key in earlier if key.subject not in unfinished}

    def _delete_from(self, sequence_id: int, rows: list[BlockRow]) -> None:
        erased = self._keys.erased
        refused = [row for row in rows if row.key in erased]
        ended = [row for row in rows if row.key not in erased and self._may_delete(row)]
        self._in_use |= {row.key for row in set(rows).difference(refused, ended)}
        sequence = self._tables.find_by_id(sequence_id)
        self._tables.delete(sequence, refused, "refused")
        self._tables.delete(sequence, ended)

    def _may_delete(self, row: BlockRow) -> bool:
        may_go = row.state == WITHHELD or self._tables.answer_of(row.state) in (Answer.RELEASED, Answer.ASIDE)
        return may_go and (row.key in self._done or self._observed.is_over(row.since))
