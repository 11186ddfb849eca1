"""Opens blocks with the clinic's private key and projects their records.

    work rows of the store ──▶ open ──▶ decode ──▶ projections, one transaction ──▶ delete the work rows ──▶ hint

After a kill at any moment it opens the blocks again whose work rows are left; the projections know the blocks that they hold,
so nothing is projected twice. A block that cannot be read is set aside: recorded with the reason, and the opener continues with
the next one. Only a failure of a database makes the opener wait, and only while it lasts.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.engine import Connection

from cloud import change_log, projections, tables, work
from cloud.changes import BatchChanges, BlockOrigin, Change, Position
from cloud.database_errors import find_database_failure, translating_errors
from cloud.projections import UnopenedBlock
from cloud.store import Store
from cloud.stored_blocks import StoredBlock, StoredBlockId
from cloud.validate import validate_record
from sync.errors import PermanentError, TransientError
from sync.records import Record, RecordError, decode_readable_records
from sync.seal import ClinicKeyPair, DataKey, SealError, open_block, parse_header, unwrap_at_clinic

BATCH_BLOCKS: Final = 64
"""Blocks per transaction: about 30 ms of work. An alert that arrives meanwhile waits no longer than that."""
CACHED_KEYS: Final = 4096
"""Data keys in memory, one per patient and day, unusable ones included: enough for a hundred patients for a month."""
RETRY_DELAY_S: Final = 1.0
"""Delay before the next attempt while a database is locked or full: longer than any transaction here."""

NO_KEY: Final = "no key"
DAMAGED: Final = "damaged"
UNDECODABLE: Final = "undecodable"

_log = logging.getLogger(__name__)


class UnreadableError(Exception):
    """A block that cannot be read; `reason` is one of `NO_KEY`, `DAMAGED`, `UNDECODABLE`. The message holds no health value."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class BlockReader:
    """Decrypts and decodes stored blocks. Caches the data keys that it unwrapped, and why it could not unwrap others."""

    def __init__(self, store: Store, clinic: ClinicKeyPair) -> None:
        self._store = store
        self._clinic = clinic
        self._keys: OrderedDict[tuple[str, str, bytes], DataKey | str] = OrderedDict()

    def read(self, block: StoredBlock) -> list[Record]:
        """Return the records of a block.

        Raises:
            UnreadableError: no key that this clinic can unwrap, an altered block, or content that is not a list of records.
            TransientError, PermanentError: the store cannot be read.
        """
        try:
            return self._read(block)
        except SealError as error:
            raise UnreadableError(DAMAGED, str(error)) from error
        except RecordError as error:
            # The message of a decode error may quote the plaintext, so it is not passed on.
            raise UnreadableError(UNDECODABLE, "its content is not a list of records that this version reads") from error
        except (UnreadableError, TransientError, PermanentError):
            raise
        except Exception as error:
            raise UnreadableError(UNDECODABLE, f"reading it failed: {type(error).__name__}") from error

    def _read(self, block: StoredBlock) -> list[Record]:
        subject = parse_header(block.block).subject
        _, plaintext = open_block(block.block, self._data_key(block, subject))
        return decode_readable_records(plaintext, validate_record)

    def _data_key(self, block: StoredBlock, subject: str) -> DataKey:
        cache_key = block.hub, subject, block.key
        if cache_key in self._keys:
            self._keys.move_to_end(cache_key)
        else:
            self._keys[cache_key] = self._unwrap_key(block, subject)
            if len(self._keys) > CACHED_KEYS:
                self._keys.popitem(last=False)
        key = self._keys[cache_key]
        if isinstance(key, str):
            raise UnreadableError(NO_KEY, key)
        return key

    def _unwrap_key(self, block: StoredBlock, subject: str) -> DataKey | str:
        """Return a block's data key, or why this clinic cannot unwrap it: the store never replaces a wrapped key."""
        wrapped = self._store.wrapped_key(block.hub, block.key)
        if wrapped is None:
            raise UnreadableError(NO_KEY, "its data key has not arrived")
        try:
            return unwrap_at_clinic(wrapped, key_id=block.key, hub=block.hub, subject=subject, clinic=self._clinic)
        except SealError as error:
            return str(error)


Unopened = list[tuple[StoredBlock, UnreadableError]]
"""Blocks that could not be read, and why."""


class Opener:
    """Opens the blocks of the store as they arrive. `open_batch` opens one batch; `run` repeats it on a worker thread."""

    def __init__(self, store: Store, engine: Engine, clinic: ClinicKeyPair) -> None:
        self._store = store
        self._engine = engine
        self._reader = BlockReader(store, clinic)
        self._has_work = asyncio.Event()
        self._retried: StoredBlockId | None = None
        """The last block that `retry_missing_keys` tried again."""
        self._has_retried_all = False

    def wake(self) -> None:
        """Tell the opener that blocks were committed. Call it on the event loop."""
        self._has_work.set()

    async def run(self, on_batch: Callable[[], Awaitable[None]]) -> None:
        """Open stored and arriving blocks until cancelled. Retries while a database is locked or full.

        It awaits `on_batch` after each batch: a hint that the change log may have grown. The next batch waits meanwhile: it
        would compete with an alert of this one on its way to the page.

        When no new block waits, it tries blocks again that had no usable key. A hub with a wrong key thus delays no other hub.
        """
        while True:
            self._has_work.clear()
            while await self._run_with_retry(self._open_or_retry) is not None:
                await on_batch()
            await self._has_work.wait()

    def _open_or_retry(self) -> int | None:
        tried = self.open_batch()
        return self.retry_missing_keys() if tried is None else tried

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
            tables.empty_tables(connection)
            projections.write_source(connection, work.begin_again(store, state, mismatch))

    def open_batch(self) -> int | None:
        """Open the next batch, alerts first; returns its number of blocks, or None if no block waits."""
        self.check_databases()
        with self._store.transaction() as store:
            with self._projections() as connection:
                source, state = projections.lock_source(connection), work.read_state(store)
                blocks = work.take_blocks(store, BATCH_BLOCKS)
                if not blocks:
                    return None
                changes, unopened = self._open(connection, blocks)
                for block, error in unopened:
                    _record_unopened(connection, block, error)
                source = replace(source, batches=source.batches + 1, commits=max(source.commits, state.commits))
                projections.write_source(connection, source)
                change_log.write_changes(connection, source.batches, changes)
            work.delete_work(store, blocks, source)
        _log_unopened(unopened)
        return len(blocks)

    def retry_missing_keys(self) -> int | None:
        """Try the next batch of blocks again that had no usable key: the clinic's key may have changed since the last run.

        Returns their number, or None when each of them has been tried once since the start.
        """
        if self._has_retried_all:
            return None
        with self._projections() as connection:
            source = projections.lock_source(connection)
            ids = projections.list_unopened(connection, NO_KEY, self._retried, BATCH_BLOCKS)
            changes, unopened = self._open(connection, self._store.blocks_by_id(ids))
            for block, error in unopened:
                if error.reason != NO_KEY:  # otherwise it is recorded and logged already
                    _record_unopened(connection, block, error)
            if ids:
                source = replace(source, batches=source.batches + 1)
                projections.write_source(connection, source)
                change_log.write_changes(connection, source.batches, changes)
        if not ids:
            self._has_retried_all = True
            return None
        self._retried = ids[-1]
        return len(ids)

    @contextmanager
    def _projections(self) -> Iterator[Connection]:
        with translating_errors("the projections"), self._engine.begin() as connection:
            yield connection

    def _open(self, connection: Connection, blocks: Iterable[StoredBlock]) -> tuple[BatchChanges, Unopened]:
        """Project each block in a savepoint; returns the changes, and the blocks that could not be read.

        Raises:
            TransientError, PermanentError, DBAPIError: a database failed; the transaction cannot be committed.
        """
        changes = BatchChanges()
        unopened: Unopened = []
        for block in blocks:
            try:
                with connection.begin_nested():
                    changes.add(self._project(connection, block))
            except UnreadableError as error:
                unopened.append((block, error))
            except Exception as error:  # noqa: BLE001 - no block may stop the blocks of other hubs
                if failure := find_database_failure(connection, error):
                    raise failure from None
                unopened.append((block, UnreadableError(UNDECODABLE, f"its records cannot be shown: {type(error).__name__}")))
        return changes, unopened

    def _project(self, connection: Connection, block: StoredBlock) -> list[Change]:
        records = self._reader.read(block)
        if not projections.note_opened(connection, block.id):
            return []
        subject = parse_header(block.block).subject  # authenticated: `read` has opened the block
        lane, epoch, seq = block.position
        origin = BlockOrigin(subject, block.hub, lane, Position(epoch, seq), block.received_us)
        try:
            return projections.project_records(connection, origin, records)
        except RecordError as error:
            raise UnreadableError(UNDECODABLE, str(error)) from error


def _record_unopened(connection: Connection, block: StoredBlock, error: UnreadableError) -> None:
    lane, epoch, seq = block.position
    projections.record_unopened(connection, UnopenedBlock(block.hub, epoch, lane, seq, error.reason, str(error)))


def _log_unopened(unopened: Unopened) -> None:
    """Log one line for each hub and reason: a hub with a wrong key can have a hundred thousand blocks."""
    for (hub, reason), found in groupby(sorted(unopened, key=_hub_and_reason), key=_hub_and_reason):
        blocks = list(found)
        (lane, epoch, seq), error = blocks[0][0].position, blocks[0][1]
        text = "cannot open %d blocks of hub %s, the first of them %s/%d/%d, %s: %s"
        _log.warning(text, len(blocks), hub, lane, epoch, seq, reason, error)


def _hub_and_reason(unopened: tuple[StoredBlock, UnreadableError]) -> tuple[str, str]:
    return unopened[0].hub, unopened[1].reason
