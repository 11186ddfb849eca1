"""Opens blocks with the clinic's private key and projects their records.

    store of sealed blocks ──(cursor)──▶ open ──▶ decode ──▶ projections + cursor, one transaction ──▶ publish

After a kill at any moment it continues with the block after the last one whose transaction was committed, so nothing is
projected twice. A block that cannot be read is recorded with the reason, and the opener continues with the next one.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from cloud import projections
from cloud.projections import Changes, UnopenedBlock
from cloud.store import Store, StoredBlock
from cloud.validate import validate_record
from sync.errors import TransientError
from sync.records import Record, RecordError, decode_readable_records
from sync.seal import ClinicKeyPair, DataKey, SealError, open_block, parse_header, unwrap_at_clinic
from sync.wire import LANES

BATCH_BLOCKS: Final = 64
"""Blocks per transaction: about 30 ms of work. An alert that arrives meanwhile waits no longer than that."""
ALERT_SCAN_BLOCKS: Final = 512
"""Blocks scanned at once for alerts; only the alerts among them are opened."""
CACHED_KEYS: Final = 4096
"""Unwrapped data keys in memory. There is one key per patient and day: these are enough for a hundred patients for a month."""
RETRY_DELAY_S: Final = 1.0
"""Delay before the next attempt while a database is locked or full: longer than any transaction here."""

NO_KEY: Final = "no key"
DAMAGED: Final = "damaged"
UNDECODABLE: Final = "undecodable"

_log = logging.getLogger(__name__)

Publish = Callable[[Changes], Awaitable[None]]


class UnreadableError(Exception):
    """A block that cannot be read; `reason` is one of `NO_KEY`, `DAMAGED`, `UNDECODABLE`. The message holds no health value."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class BlockReader:
    """Decrypts and decodes stored blocks. Caches the data keys that it unwrapped."""

    def __init__(self, store: Store, clinic: ClinicKeyPair) -> None:
        self._store = store
        self._clinic = clinic
        self._keys: OrderedDict[tuple[str, str, bytes], DataKey] = OrderedDict()

    def read(self, block: StoredBlock) -> list[Record]:
        """Return the records of a block.

        Raises:
            UnreadableError: no key that this clinic can unwrap, an altered block, or content that is not a list of records.
            TransientError: the store cannot be read now.
        """
        try:
            subject = parse_header(block.block).subject
            _, plaintext = open_block(block.block, self._data_key(block, subject))
        except SealError as error:
            raise UnreadableError(DAMAGED, str(error)) from error
        try:
            records = decode_readable_records(plaintext, validate_record)
        except RecordError as error:
            # The message of a decode error may quote the plaintext, so it is not passed on.
            raise UnreadableError(UNDECODABLE, "its content is not a list of records that this version reads") from error
        return records

    def _data_key(self, block: StoredBlock, subject: str) -> DataKey:
        cache_key = block.hub, subject, block.key
        if cache_key in self._keys:
            self._keys.move_to_end(cache_key)
            return self._keys[cache_key]
        wrapped = self._store.wrapped_key(block.hub, block.key)
        if wrapped is None:
            raise UnreadableError(NO_KEY, "its data key has not arrived")
        try:
            key = unwrap_at_clinic(wrapped, key_id=block.key, hub=block.hub, subject=subject, clinic=self._clinic)
        except SealError as error:
            raise UnreadableError(NO_KEY, str(error)) from error
        self._keys[cache_key] = key
        if len(self._keys) > CACHED_KEYS:
            self._keys.popitem(last=False)
        return key


@dataclass(frozen=True, slots=True)
class LaneCursor:
    """A cursor over the store that opens only the blocks of `lanes`, and reads `limit` blocks at once."""

    name: str
    lanes: frozenset[str]
    limit: int


LANE_CURSORS: Final = (
    LaneCursor("alerts", frozenset({"alert"}), ALERT_SCAN_BLOCKS),
    LaneCursor("rest", frozenset(LANES) - {"alert"}, BATCH_BLOCKS),
)
"""Alerts have a cursor of their own: an alert must not wait behind a day of waveforms."""


class Opener:
    """Opens the blocks of the store as they arrive. `open_batch` opens one batch; `run` repeats it on a worker thread."""

    def __init__(self, store: Store, engine: Engine, clinic: ClinicKeyPair, publish: Publish) -> None:
        self._store = store
        self._engine = engine
        self._reader = BlockReader(store, clinic)
        self._publish = publish
        self._has_work = asyncio.Event()

    def wake(self) -> None:
        """Tell the opener that blocks were committed. Call it on the event loop."""
        self._has_work.set()

    async def run(self) -> None:
        """Open stored and arriving blocks until cancelled. Retries while a database is locked or full."""
        await self._run_with_retry(self.retry_missing_keys)
        while True:
            self._has_work.clear()
            while (changes := await self._run_with_retry(self.open_batch)) is not None:
                await self._publish(changes)
            await self._has_work.wait()

    async def _run_with_retry(self, work: Callable[[], Changes | None]) -> Changes | None:
        while True:
            try:
                return await asyncio.to_thread(work)
            except (TransientError, OperationalError) as error:
                reason = error.orig if isinstance(error, OperationalError) else error
                _log.warning("cannot open blocks now: %s; retrying in %g s", reason, RETRY_DELAY_S)
                await asyncio.sleep(RETRY_DELAY_S)

    def open_batch(self) -> Changes | None:
        """Open the next batch, alerts first; returns None if there are no new blocks."""
        for cursor in LANE_CURSORS:
            with self._engine.begin() as connection:
                blocks = self._store.blocks_after(projections.read_cursor(connection, cursor.name), cursor.limit)
                if not blocks:
                    continue
                changes = self._open(connection, [block for block in blocks if block.position.lane in cursor.lanes])
                projections.move_cursor(connection, cursor.name, blocks[-1].id)
            return changes
        return None

    def retry_missing_keys(self) -> Changes | None:
        """Try again to open the blocks that had no usable key: the key may have arrived, or the clinic's key changed."""
        with self._engine.begin() as connection:
            for block_id in projections.unopened_block_ids(connection, NO_KEY):
                self._open(connection, self._store.blocks_after(block_id - 1, 1))
        return None

    def _open(self, connection: Connection, blocks: list[StoredBlock]) -> Changes:
        changes = Changes()
        for block in blocks:
            try:
                with connection.begin_nested():
                    changes.add(self._project(connection, block))
            except UnreadableError as error:
                self._record_unopened(connection, block, error)
        return changes

    def _project(self, connection: Connection, block: StoredBlock) -> Changes:
        changes = projections.project_records(connection, block.hub, self._reader.read(block))
        projections.delete_unopened(connection, block.id)
        projections.increase_counter(connection, "opened", 1)
        return changes

    def _record_unopened(self, connection: Connection, block: StoredBlock, error: UnreadableError) -> None:
        lane, epoch, seq = block.position
        unopened = UnopenedBlock(block.id, block.hub, epoch, lane, seq, error.reason, str(error))
        projections.record_unopened(connection, unopened)
        _log.warning("cannot open block %s/%d/%d of hub %s, %s: %s", lane, epoch, seq, block.hub, error.reason, error)
