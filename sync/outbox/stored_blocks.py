"""Reads stored blocks for sending, and finds those that were damaged on the disk."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sync.chain import block_digest
from sync.outbox.block_tables import BlockRow, BlockTables, SealedRow, sequence_of
from sync.outbox.database import OutboxDatabase
from sync.outbox.header_templates import HeaderTemplates
from sync.outbox.keys import OutboxKeys
from sync.outbox.room import drop
from sync.outbox.scrub import OutboxScrub
from sync.outbox.stored_headers import restore_header
from sync.wire import BlockId, Lane

log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OutboxBlock:
    """A sealed block, as stored and as sent; `key` is the id of its data key."""

    id: BlockId
    key: bytes
    sealed: bytes


class StoredBlocks:
    """The blocks of an outbox. `commit` runs a transaction that must not fail on a full disk."""

    def __init__(
        self,
        database: OutboxDatabase,
        tables: BlockTables,
        keys: OutboxKeys,
        templates: HeaderTemplates,
        commit: Callable[[Callable[[], None]], None],
    ) -> None:
        self._database = database
        self._tables = tables
        self._keys = keys
        self._templates = templates
        self._commit = commit
        self._scrub = OutboxScrub(tables)

    def read_pending(self, lane: Lane, after: tuple[int, int], limit_bytes: int, until: tuple[int, int]) -> list[OutboxBlock]:
        """See `Outbox.pending`."""
        found: list[SealedRow] = []
        for row in self._tables.iterate_pending(lane, after, until, without_keys=self._keys.erased):
            limit_bytes -= len(row.sealed)
            if found and limit_bytes < 0:
                break
            found.append(row)
        return self._restore(found)

    def scrub(self) -> None:
        """Read a few blocks again, and delete those that were damaged. Only what the clinic does not hold is lost by that."""
        for row in self._scrub.step():
            self._on_damaged(row)

    def _restore(self, rows: Iterable[SealedRow]) -> list[OutboxBlock]:
        """The blocks as they were stored, without those that cannot be restored."""
        blocks: list[OutboxBlock] = []
        for row in rows:
            key = self._keys.stored[row.key]
            prev = self._tables.end_before(row.id.lane, row.id.epoch) if row.id.seq == 1 else None
            sealed = restore_header(row.id, self._templates.make(row.id, key.id, key.subject, prev), row.sealed)
            if block_digest(sealed) == row.digest:
                blocks.append(OutboxBlock(row.id, key.id, sealed))
            else:
                self._give_up(row.id, is_pending=True)
        return blocks

    def _on_damaged(self, row: BlockRow) -> None:
        sequence = self._tables.find_by_id(sequence_of(row.row_id))
        id_ = BlockId(sequence.lane, sequence.epoch, row.seq)
        if self._tables.answer_of(row.state) is None:
            self.read_pending(id_.lane, (id_.epoch, id_.seq - 1), 1, (id_.epoch, id_.seq))  # its header may be restored
        else:
            self._give_up(id_, is_pending=False)

    def _give_up(self, id_: BlockId, *, is_pending: bool) -> None:
        """Delete a damaged block; if the clinic does not hold it, list it as dropped."""
        log.error("block %d of epoch %d in lane %s was damaged on the disk; check the disk", id_.seq, id_.epoch, id_.lane)

        def delete() -> None:
            sequence = self._tables.find(id_.lane, id_.epoch)
            rows: Sequence[BlockRow] = self._tables.read(sequence, id_.seq, id_.seq) if sequence else ()
            if sequence and is_pending:
                drop(self._database, self._tables, sequence, rows)
            elif sequence:
                self._tables.delete(sequence, rows)

        self._commit(delete)
