"""Opens the blocks of the store and projects their records.

    work rows of the store ──▶ open ──▶ projections, one transaction ──▶ delete the work rows ──▶ receipts ──▶ hint

After a kill at any moment it opens the blocks again whose work rows are left; the projections know the blocks that they hold,
so nothing is projected twice. A block that cannot be read is set aside: recorded with the reason, and the opener continues with
the next one. Only a failure of a database makes the opener wait, and only while it lasts.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.engine import Connection

from cloud import change_log, metrics, projections, projections_database, work
from cloud.block_reader import (
    ERASED,
    NO_KEY,
    NOT_ASSIGNED,
    NOT_AUTHENTIC,
    UNDECODABLE,
    BlockReader,
    OpenedBlock,
    UnreadableError,
)
from cloud.changes import BatchChanges, BlockOrigin, Change, Position
from cloud.clock import now_us
from cloud.database_errors import find_database_failure, translating_errors
from cloud.errors import ClinicError
from cloud.projections import UnopenedBlock
from cloud.receipts import BlockOutcome
from cloud.store import Store
from cloud.store.commands import CommandAnswer, note_answers
from cloud.store.stored_blocks import StoredBlock, StoredBlockId
from sync.commands import ANSWER_KINDS, REFUSED_KINDS
from sync.errors import TransientError
from sync.records import Record, RecordError, StatusRecord
from sync.wire import is_count

BATCH_BLOCKS: Final = 16
"""Blocks per transaction: 80 ms of work, if each is ten seconds of a strap. What is urgent and arrives then waits for it."""
RETRY_DELAY_S: Final = 1.0
"""Delay before the next attempt while a database is locked or full: longer than any transaction here."""

RETRIED_REASONS: Final = (NO_KEY, NOT_ASSIGNED, NOT_AUTHENTIC)
"""What may have been put right since the last run: the operator has brought a key back or corrected a registration."""

_log = logging.getLogger(__name__)

Report = Callable[[Sequence[BlockOutcome]], None]
"""Hears, on the opener's thread, what became of the blocks of a batch, once both databases have committed it."""


class Opener:
    """Opens the blocks of the store as they arrive. `open_batch` opens one batch; `run` repeats it on a worker thread."""

    def __init__(self, store: Store, engine: Engine, reader: BlockReader, report: Report) -> None:
        self._store = store
        self._engine = engine
        self._reader = reader
        self._report = report
        self._has_work = asyncio.Event()
        self._retried: StoredBlockId | None = None
        """The last block that `retry_unopened` tried again."""
        self._has_retried_all = False

    def wake(self) -> None:
        """Tell the opener that blocks were committed. Call it on the event loop."""
        self._has_work.set()

    async def run(self, on_batch: Callable[[], Awaitable[None]]) -> None:
        """Open stored and arriving blocks until cancelled. Retries while a database is locked or full.

        It awaits `on_batch` after each batch: a hint that the change log may have grown. The next batch waits meanwhile: it
        would compete with an alert of this one on its way to the page.

        When no new block waits, it tries blocks again that were not opened for one of `RETRIED_REASONS`. A hub with a wrong key
        thus delays no other hub.
        """
        while True:
            self._has_work.clear()
            while await self._run_with_retry(self._open_or_retry) is not None:
                await on_batch()
            await self._has_work.wait()

    def _open_or_retry(self) -> int | None:
        tried = self.open_batch()
        return self.retry_unopened() if tried is None else tried

    async def _run_with_retry(self, work: Callable[[], int | None]) -> int | None:
        while True:
            try:
                return await asyncio.to_thread(work)
            except (TransientError, MemoryError) as error:
                reason = str(error) or type(error).__name__
                _log.warning("cannot open blocks now: %s; retrying in %g s", reason, RETRY_DELAY_S)
                await asyncio.sleep(RETRY_DELAY_S)

    def check_databases(self) -> None:
        """If either database was lost or restored from a backup, empty the projections and make all blocks work again.

        Call it before blocks are received: those that are lost must not be hidden by as many new ones.

        Raises:
            TransientError, PermanentError: a database failed.
        """
        with self._store.transaction() as store, self._projections() as connection:
            source = projections.lock_source(connection)
            if work.find_mismatch(source, work.read_state(store)) is None:
                return
            state = work.read_state(store, lock=True)  # another opener may have emptied the projections just now
            mismatch = work.find_mismatch(source, state)
            if mismatch is None:
                return
            if mismatch.value is not None:
                seen = {"seen": source.commits, "commits": state.commits, "stored": state.stored}
                _log.warning("%s", mismatch.value.format(**seen))
            projections_database.empty_tables(connection)
            projections.write_source(connection, work.begin_again(store, state, mismatch))

    def open_batch(self) -> int | None:
        """Open the next batch, the most urgent blocks first; returns its number of blocks, or None if no block waits."""
        self.check_databases()
        with self._store.transaction() as store:
            with self._projections() as connection:
                source, state = projections.lock_source(connection), work.read_state(store)
                blocks = work.take_blocks(store, BATCH_BLOCKS)
                if not blocks:
                    return None
                changes, outcomes = self._open(connection, blocks)
                _record_unopened(connection, outcomes)
                source = replace(source, batches=source.batches + 1, commits=max(source.commits, state.commits))
                projections.write_source(connection, source)
                change_log.write_changes(connection, source.batches, changes)
            _note_answers(store, outcomes)
            work.delete_work(store, blocks, source)
        _log_unopened(outcomes)
        for outcome in outcomes:
            metrics.note_opened(outcome.block, now_us(), is_opened=outcome.error is None)
        self._report(outcomes)
        return len(blocks)

    def retry_unopened(self) -> int | None:
        """Try the next batch of blocks again that were not opened for one of `RETRIED_REASONS`.

        Returns their number, or None when each of them has been tried once since the start.
        """
        if self._has_retried_all:
            return None
        with self._store.transaction() as store, self._projections() as connection:
            source = projections.lock_source(connection)
            ids = projections.list_unopened(connection, RETRIED_REASONS, self._retried, BATCH_BLOCKS)
            changes, outcomes = self._open(connection, self._store.blocks_by_id(ids))
            _record_unopened(connection, outcomes)
            _note_answers(store, outcomes)
            if ids:
                source = replace(source, batches=source.batches + 1)
                projections.write_source(connection, source)
                change_log.write_changes(connection, source.batches, changes)
        if not ids:
            self._has_retried_all = True
            return None
        self._retried = ids[-1]
        self._report([outcome for outcome in outcomes if outcome.error is None])
        return len(ids)

    @contextmanager
    def _projections(self) -> Iterator[Connection]:
        with translating_errors("the projections"), self._engine.begin() as connection:
            yield connection

    def _open(self, connection: Connection, blocks: Iterable[StoredBlock]) -> tuple[BatchChanges, list[BlockOutcome]]:
        """Project each block in a savepoint; returns the changes, and what became of each block.

        Raises:
            TransientError, PermanentError, DBAPIError: a database failed; the transaction cannot be committed.
        """
        changes = BatchChanges()
        outcomes: list[BlockOutcome] = []
        self._reader.refresh()  # after the projections were locked: what is erased from now on is deleted after this batch
        for block in blocks:
            error: UnreadableError | None = None
            answers: tuple[CommandAnswer, ...] = ()
            try:
                with connection.begin_nested():
                    opened = self._reader.read(block)
                    changes.add(_project(connection, block, opened))
                    metrics.note_alerts(block, opened.records)
                    answers = find_answers(block.hub, opened.records)
            except UnreadableError as unreadable:
                error = unreadable
            except ClinicError:
                raise  # the clinic's own files are damaged, not the block
            except Exception as unexpected:  # noqa: BLE001 - no block may stop the blocks of other hubs
                if failure := find_database_failure(connection, unexpected):
                    raise failure from None
                error = UnreadableError(UNDECODABLE, f"its records cannot be shown: {type(unexpected).__name__}")
            outcomes.append(BlockOutcome(block, error, answers))
        return changes, outcomes


def _project(connection: Connection, block: StoredBlock, opened: OpenedBlock) -> list[Change]:
    if not projections.note_opened(connection, block.id):
        return []
    lane, epoch, seq = block.position
    origin = BlockOrigin(opened.subject, block.hub, lane, Position(epoch, seq), block.received_us, opened.is_proven)
    try:
        return projections.project_records(connection, origin, opened.records)
    except RecordError as error:
        raise UnreadableError(UNDECODABLE, str(error)) from error


def find_answers(hub: str, records: Iterable[Record]) -> tuple[CommandAnswer, ...]:
    """Return what a hub's records say of commands to it."""
    return tuple(
        CommandAnswer(hub, int(record.value), REFUSED_KINDS.get(record.kind), record.times.at_us)
        for record in records
        if isinstance(record, StatusRecord) and record.kind in ANSWER_KINDS and is_count(record.value)
    )


def _note_answers(store: Connection, outcomes: Iterable[BlockOutcome]) -> None:
    """Note the answers also of a block that was projected before: the store's transaction may have failed then."""
    note_answers(store, (answer for outcome in outcomes for answer in outcome.answers))


def _list_unopened(outcomes: Iterable[BlockOutcome]) -> list[tuple[StoredBlock, UnreadableError]]:
    """Return the blocks that a person must know of, and why they were not opened. Nothing is kept about erased subjects."""
    return [(one.block, one.error) for one in outcomes if one.error is not None and one.error.reason != ERASED]


def _record_unopened(connection: Connection, outcomes: Iterable[BlockOutcome]) -> None:
    for block, error in _list_unopened(outcomes):
        lane, epoch, seq = block.position
        projections.record_unopened(connection, UnopenedBlock(block.hub, epoch, lane, seq, error.reason, str(error)))


def _log_unopened(outcomes: Iterable[BlockOutcome]) -> None:
    """Log one line for each hub and reason: a hub with a wrong key can have a hundred thousand blocks."""
    for (hub, reason), found in groupby(sorted(_list_unopened(outcomes), key=_hub_and_reason), key=_hub_and_reason):
        blocks = list(found)
        (lane, epoch, seq), error = blocks[0][0].position, blocks[0][1]
        text = "cannot open %d blocks of hub %s, the first of them %s/%d/%d, %s: %s"
        _log.warning(text, len(blocks), hub, lane, epoch, seq, reason, error)


def _hub_and_reason(unopened: tuple[StoredBlock, UnreadableError]) -> tuple[str, str]:
    return unopened[0].hub, unopened[1].reason
