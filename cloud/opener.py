"""Opens blocks with the clinic's private key and projects what they say.

    store of sealed blocks ──(cursor)──▶ open ──▶ decode ──▶ projections + cursor, one transaction ──▶ publish

Killed at any moment, it goes on behind the last block whose transaction was committed: nothing is projected twice. A block
that cannot be read is set aside with the reason and holds up nothing.
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
from cloud.conform import check
from cloud.projections import Changes, Unopened
from cloud.store import Store, StoredBlock
from sync.errors import Transient
from sync.records import Record, RecordError, decode
from sync.seal import ClinicKeyPair, DataKey, SealError, open_block, parse_header, unwrap_at_clinic
from sync.wire import LANES

BATCH: Final = 64
"""Blocks a transaction: some 30 ms of work, so that an alert that arrives meanwhile waits no longer."""
SCAN: Final = 512
"""Blocks looked through at once for alerts, of which only those are opened."""
KEYS_KEPT: Final = 4096
"""One data key a patient and day: a month of more than a hundred patients."""
RETRY_S: Final = 1.0
"""Wait after a locked or full database: shorter than a person notices, longer than any transaction here."""

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
    """From a stored block to its records. Keeps the data keys that it unwrapped."""

    def __init__(self, store: Store, clinic: ClinicKeyPair) -> None:
        self._store = store
        self._clinic = clinic
        self._keys: OrderedDict[tuple[str, str, bytes], DataKey] = OrderedDict()

    def read(self, block: StoredBlock) -> list[Record]:
        """The records of a block.

        Raises:
            UnreadableError: no key that this clinic can unwrap, a changed block, or content that is no list of records.
            Transient: the store cannot be asked now.
        """
        try:
            subject = parse_header(block.block).subject
            _, plaintext = open_block(block.block, self._data_key(block, subject))
        except SealError as error:
            raise UnreadableError(DAMAGED, str(error)) from error
        try:
            records = decode(plaintext)
            for record in records:
                check(record)
        except RecordError as error:
            # An error from within the plaintext may quote it.
            raise UnreadableError(UNDECODABLE, "its content is not a list of records that this version reads") from error
        return records

    def _data_key(self, block: StoredBlock, subject: str) -> DataKey:
        name = block.hub, subject, block.key
        if name in self._keys:
            self._keys.move_to_end(name)
            return self._keys[name]
        wrapped = self._store.wrapped_key(block.hub, block.key)
        if wrapped is None:
            raise UnreadableError(NO_KEY, "its data key has not arrived")
        try:
            key = unwrap_at_clinic(wrapped, key_id=block.key, hub=block.hub, subject=subject, clinic=self._clinic)
        except SealError as error:
            raise UnreadableError(NO_KEY, str(error)) from error
        self._keys[name] = key
        if len(self._keys) > KEYS_KEPT:
            self._keys.popitem(last=False)
        return key


@dataclass(frozen=True, slots=True)
class Pass:
    """One way through the store: alerts have their own, so that an alert does not wait behind a day of waveforms."""

    name: str
    lanes: frozenset[str]
    limit: int


PASSES: Final = (Pass("alerts", frozenset({"alert"}), SCAN), Pass("rest", frozenset(LANES) - {"alert"}, BATCH))


class Opener:
    """Follows the store. `step` is synchronous and opens one batch; `run` calls it on a worker thread for ever."""

    def __init__(self, store: Store, engine: Engine, clinic: ClinicKeyPair, publish: Publish) -> None:
        self._store = store
        self._engine = engine
        self._reader = BlockReader(store, clinic)
        self._publish = publish
        self._work = asyncio.Event()

    def wake(self) -> None:
        """New blocks were committed. Call it on the event loop."""
        self._work.set()

    async def run(self) -> None:
        """Open what is there and what comes, until cancelled. A database that is locked or full is tried again."""
        await self._patiently(self.retry_without_key)
        while True:
            self._work.clear()
            while (changes := await self._patiently(self.step)) is not None:
                await self._publish(changes)
            await self._work.wait()

    async def _patiently(self, work: Callable[[], Changes | None]) -> Changes | None:
        while True:
            try:
                return await asyncio.to_thread(work)
            except (Transient, OperationalError) as error:
                reason = error.orig if isinstance(error, OperationalError) else error
                _log.warning("opening waits, %s; trying again in %g s", reason, RETRY_S)
                await asyncio.sleep(RETRY_S)

    def step(self) -> Changes | None:
        """Open the next batch, alerts first; None when there is nothing new."""
        for one in PASSES:
            with self._engine.begin() as connection:
                blocks = self._store.blocks_after(projections.cursor(connection, one.name), one.limit)
                if not blocks:
                    continue
                changes = self._open(connection, [block for block in blocks if block.place.lane in one.lanes])
                projections.advance(connection, one.name, blocks[-1].id)
            return changes
        return None

    def retry_without_key(self) -> Changes | None:
        """Try the blocks again for which there was no key: the clinic may have another one now."""
        with self._engine.begin() as connection:
            for arrival in projections.arrivals_set_aside(connection, NO_KEY):
                self._open(connection, self._store.blocks_after(arrival - 1, 1))
        return None

    def _open(self, connection: Connection, blocks: list[StoredBlock]) -> Changes:
        changes = Changes()
        for block in blocks:
            try:
                with connection.begin_nested():
                    changes.add(self._project(connection, block))
            except UnreadableError as error:
                self._set_aside(connection, block, error)
        return changes

    def _project(self, connection: Connection, block: StoredBlock) -> Changes:
        changes = projections.project(connection, block.hub, self._reader.read(block))
        projections.take_back(connection, block.id)
        projections.count(connection, "opened", 1)
        return changes

    def _set_aside(self, connection: Connection, block: StoredBlock, error: UnreadableError) -> None:
        lane, epoch, seq = block.place
        projections.set_aside(connection, Unopened(block.id, block.hub, epoch, lane, seq, error.reason, str(error)))
        _log.warning("block %s/%d/%d of hub %s is set aside, %s: %s", lane, epoch, seq, block.hub, error.reason, error)
