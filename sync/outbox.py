"""The durable buffer between the sensors and the clinic: a SQLite database of blocks, sealed before they are written.

Each change of a block's state is one transaction:

    put() ──> stored ──(the clinic's own acknowledgement)──> acknowledge() ──> deleted

Only the uplink keeps track of the blocks that were sent, in memory. After a crash it sends them again, and the clinic stores
each block once, however often it arrives. Only the acknowledgement of a committed row deletes a block.

A reserve file (`sync.reserve`) keeps room to delete, to store alerts and to start on a full disk.

The class is synchronous and used by one thread at a time: the agent's storage worker.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from sync.errors import DiskFullError, PermanentError, SyncError
from sync.keys import HubKey
from sync.outbox_schema import count_free_bytes, prepare_database, shrink_wal, transaction, translating_sqlite_errors
from sync.reserve import Reserve
from sync.seal import BlockHeader, ClinicPublicKey, DataKey, seal_block, wrap_for_clinic
from sync.stored_headers import StoredHeaders
from sync.wire import LANES, MAX_INTEGER, PLAINTEXT_LIMIT_BYTES, BlockId, Lane, Mark, Range, WrappedKey, is_name

BUSY_TIMEOUT_S: Final = 2.0
"""How long to wait for another process's transaction: longer than any of ours (tens of ms on an SD card), and short enough for
a person who waits at start for the message that a second agent is running."""
SECONDS_PER_DAY: Final = 86_400
RESERVE_SUFFIX: Final = "-reserve"
FULL_DISK_BYTES: Final = 256 * 1024
"""Less than this is a full disk at the start: SQLite needs 32 KiB for its shared-memory file and some pages for the WAL, and
reports a failure to create them in several ways."""
BLOCK_OVERHEAD_BYTES: Final = 8 * 1024
"""Space of a block in the database beyond its plaintext: header and tag (under 500 bytes), a partly filled last page, and its
share of the pages of the index."""
NEWEST: Final = (MAX_INTEGER, MAX_INTEGER)
"""A position (epoch, seq) that no block is after."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OutboxBlock:
    """A sealed block, as stored and as sent; `key` is the id of its data key."""

    id: BlockId
    key: bytes
    sealed: bytes


@dataclass(frozen=True, slots=True)
class OutboxStatistics:
    """Blocks ever `stored` and `acknowledged`; blocks still in the buffer by lane (`pending`), and their total `bytes`."""

    stored: int
    pending: Mapping[Lane, int]
    acknowledged: int
    bytes: int


@dataclass(frozen=True, slots=True)
class _DayKey:
    subject: str
    day: int
    key: DataKey


@dataclass(frozen=True, slots=True)
class StoredState:
    """A named value of the caller and the subject that it belongs to."""

    subject: str
    name: str
    value: bytes


class Outbox:
    """The open buffer of one hub. Create it with `Outbox.open`."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        *,
        hub: str,
        subject: str,
        hub_key: HubKey,
        clinic: ClinicPublicKey,
        clock: Callable[[], int],
        reserve: Reserve,
    ) -> None:
        self._connection = connection
        self._reserve = reserve
        self._path = path
        self._hub = hub
        self._subject = subject
        self._hub_key = hub_key
        self._clinic = clinic
        self._clock = clock
        self._day_key: _DayKey | None = None
        self._headers = StoredHeaders(self._header_of_stored)
        self.epoch: Final = self._begin_epoch()

    @classmethod
    def open(
        cls, path: Path, *, hub: str, subject: str, hub_key: HubKey, clinic: ClinicPublicKey, clock: Callable[[], int]
    ) -> Self:
        """Open the buffer, or create it (mode 0600), and begin a new epoch. `clock` returns seconds since 1970, UTC.

        Raises:
            PermanentError: the file is damaged, of a newer version, of another hub or application, or not writable.
            SealError: it was sealed with another hub key.
            TransientError: it is locked by another process, or the disk is full.
        """
        if not (is_name(hub) and is_name(subject)):
            raise PermanentError(
                "cannot open the buffer: hub or subject is not a valid name; use 1 to 64 letters, digits, '.', '_' and '-'"
            )
        reserve = Reserve(path.with_name(path.name + RESERVE_SUFFIX))
        open_once = partial(
            cls._open_once, path, reserve, hub=hub, subject=subject, hub_key=hub_key, clinic=clinic, clock=clock
        )
        try:
            outbox = open_once()
        except SyncError as error:
            if not (isinstance(error, DiskFullError) or _is_disk_full(path)) or not reserve.release():
                raise
            outbox = open_once()
            shrink_wal(outbox._connection)
        reserve.fill()
        return outbox

    @classmethod
    def _open_once(
        cls,
        path: Path,
        reserve: Reserve,
        *,
        hub: str,
        subject: str,
        hub_key: HubKey,
        clinic: ClinicPublicKey,
        clock: Callable[[], int],
    ) -> Self:
        with translating_sqlite_errors(path):
            _create_private_file(path)
            connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
            try:
                prepare_database(connection, path, hub=hub, hub_key=hub_key)
                return cls(
                    connection, path, hub=hub, subject=subject, hub_key=hub_key, clinic=clinic, clock=clock, reserve=reserve
                )
            except BaseException:
                connection.close()
                raise

    def close(self) -> None:
        self._connection.close()

    def put(self, lane: Lane, plaintext: bytes, state: Mapping[str, bytes] | None = None) -> BlockId:
        """Seal and store one block; see `put_many`."""
        return self.put_many([(lane, plaintext)], state)[0]

    def put_many(
        self,
        blocks: Iterable[tuple[Lane, bytes]],
        state: Mapping[str, bytes] | None = None,
        *,
        subject: str | None = None,
    ) -> list[BlockId]:
        """Seal and store blocks together with named values of the caller, in one transaction that is on the disk on return.

        All of it belongs to the outbox's subject, or to an earlier `subject` of this hub.
        On a full disk alerts may spend a part of the reserve, and other blocks the space of deleted ones.

        Raises:
            PermanentError: a plaintext exceeds `PLAINTEXT_LIMIT_BYTES`, or the buffer is damaged.
            TransientError: the disk is full or the buffer locked. Nothing was stored; the call may be repeated.
        """
        blocks, owner = list(blocks), subject or self._subject

        def store() -> tuple[_DayKey, list[BlockId]]:
            day_key = self._current_key(owner)
            ids = [self._insert(lane, plaintext, day_key) for lane, plaintext in blocks]
            for name, value in (state or {}).items():
                sealed = self._hub_key.seal(value, _state_purpose(owner, name))
                self._execute("INSERT OR REPLACE INTO state VALUES (?, ?, ?)", owner, name, sealed)
            return day_key, ids

        try:
            self._day_key, ids = self._run_transaction(store)
        except DiskFullError:
            has_alert = any(lane == "alert" for lane, _ in blocks)
            if not (has_alert and self._reserve.has_room_for_alerts) and not self._fits_free_space(blocks):
                raise
            self._day_key, ids = self._run_with_reserve(store)
        return ids

    def load_state(self, name: str) -> bytes | None:
        """The value that a `put`, in this or an earlier process, last stored under this name; None if there is none.

        Values of another subject are not returned.
        """
        rows = self._rows("SELECT sealed FROM state WHERE subject = ? AND name = ?", self._subject, name)
        return self._hub_key.open(rows[0][0], _state_purpose(self._subject, name)) if rows else None

    def stored_states(self) -> list[StoredState]:
        """Every stored value, also those of earlier subjects."""
        rows = self._rows("SELECT subject, name, sealed FROM state ORDER BY subject, name")
        return [
            StoredState(subject, name, self._hub_key.open(sealed, _state_purpose(subject, name)))
            for subject, name, sealed in rows
        ]

    def delete_states(self, subject: str) -> None:
        """Delete the stored values of a subject."""

        def delete() -> None:
            self._execute("DELETE FROM state WHERE subject = ?", subject)

        try:
            self._run_transaction(delete)
        except DiskFullError:
            self._run_with_reserve(delete)

    def last_position(self, lane: Lane) -> tuple[int, int]:
        """(epoch, seq) of the newest block ever stored in the lane, even if it is deleted by now; (0, 0) if there was none."""
        rows = self._rows("SELECT epoch, last FROM lanes WHERE lane = ? ORDER BY epoch DESC LIMIT 1", lane)
        return (int(rows[0][0]), int(rows[0][1])) if rows else (0, 0)

    def pending(
        self, lane: Lane, after: tuple[int, int], limit_bytes: int, *, until: tuple[int, int] = NEWEST
    ) -> list[OutboxBlock]:
        """Stored blocks of a lane after a position (epoch, seq), in order: at most `limit_bytes`, but at least one block.

        None of them is after `until`. Headers that were damaged on the disk are restored.
        """
        query = """SELECT epoch, seq, key, sealed FROM blocks
                   WHERE lane = ? AND (epoch, seq) > (?, ?) AND (epoch, seq) <= (?, ?) ORDER BY epoch, seq"""
        found: list[OutboxBlock] = []
        with translating_sqlite_errors(self._path):
            for epoch, seq, key, sealed in self._connection.execute(query, (lane, *after, *until)):
                limit_bytes -= len(sealed)
                if found and limit_bytes < 0:
                    break
                id_ = BlockId(lane, epoch, seq)
                found.append(OutboxBlock(id_, key, self._headers.restore(id_, key, sealed)))
        return found

    def acknowledge(self, marks: Iterable[Mark], ranges: Iterable[Range]) -> int:
        """Delete the blocks that the clinic has committed. Returns how many were deleted."""
        held = [*(Range(mark.lane, mark.epoch, 1, mark.seq) for mark in marks), *ranges]

        def delete() -> int:
            return sum(self._delete(range_) for range_ in held)

        try:
            deleted = self._run_transaction(delete)
        except DiskFullError:
            return self._run_with_reserve(delete)
        if not self._reserve.is_full:
            self._reserve.fill()
        return deleted

    def keys_for(self, ids: Iterable[bytes], *, also_held: bool = False) -> list[WrappedKey]:
        """These data keys, wrapped for the clinic. Omits those that the clinic has confirmed, unless `also_held`."""
        query = "SELECT id, wrapped FROM keys WHERE id = ? AND (held = 0 OR ?)"
        return [WrappedKey(*row) for id_ in dict.fromkeys(ids) for row in self._rows(query, id_, also_held)]

    def mark_keys_held(self, ids: Iterable[bytes]) -> None:
        """Record that the clinic holds these data keys."""
        ids = list(ids)

        def mark() -> None:
            for id_ in ids:
                self._execute("UPDATE keys SET held = 1 WHERE id = ?", id_)

        try:
            self._run_transaction(mark)
        except DiskFullError:
            self._run_with_reserve(mark)

    def statistics(self) -> OutboxStatistics:
        query = "SELECT lane, sum(last), sum(acknowledged), sum(bytes) FROM lanes GROUP BY lane"
        rows = {row[0]: row[1:] for row in self._rows(query)}
        totals = {lane: rows.get(lane, (0, 0, 0)) for lane in LANES}
        return OutboxStatistics(
            stored=sum(stored for stored, _, _ in totals.values()),
            pending={lane: totals[lane][0] - totals[lane][1] for lane in LANES},
            acknowledged=sum(acknowledged for _, acknowledged, _ in totals.values()),
            bytes=sum(size for _, _, size in totals.values()),
        )

    def _begin_epoch(self) -> int:
        with transaction(self._connection, self._path):
            latest = self._rows("SELECT epoch FROM buffer")[0][0]
            epoch = max(int(latest) + 1, self._clock())
            self._execute("UPDATE buffer SET epoch = ?", epoch)
        return epoch

    def _current_key(self, subject: str) -> _DayKey:
        """The subject's data key of this UTC day, created for the day's first block. Call it within a transaction."""
        day = self._clock() // SECONDS_PER_DAY
        if self._day_key is not None and (self._day_key.subject, self._day_key.day) == (subject, day):
            return self._day_key
        query = "SELECT id, local FROM keys WHERE subject = ? AND day = ? AND clinic = ?"
        rows = self._rows(query, subject, day, self._clinic.fingerprint)
        if rows:
            id_, local = rows[0]
            return _DayKey(subject, day, DataKey(id_, self._hub_key.open(local, _key_purpose(id_))))
        return _DayKey(subject, day, self._create_key(subject, day))

    def _create_key(self, subject: str, day: int) -> DataKey:
        key = DataKey.generate()
        local = self._hub_key.seal(key.secret, _key_purpose(key.id))
        wrapped = wrap_for_clinic(key, hub=self._hub, subject=subject, clinic=self._clinic)
        insert = "INSERT INTO keys (id, subject, day, clinic, local, wrapped) VALUES (?, ?, ?, ?, ?, ?)"
        self._execute(insert, key.id, subject, day, self._clinic.fingerprint, local, wrapped)
        return key

    def _insert(self, lane: Lane, plaintext: bytes, day_key: _DayKey) -> BlockId:
        if len(plaintext) > PLAINTEXT_LIMIT_BYTES:
            raise PermanentError(
                f"cannot store a block of {len(plaintext)} bytes: the limit is {PLAINTEXT_LIMIT_BYTES}; split its records"
            )
        last = self._rows("SELECT last FROM lanes WHERE lane = ? AND epoch = ?", lane, self.epoch)
        seq = last[0][0] + 1 if last else 1
        key = day_key.key
        header = self._make_header(BlockId(lane, self.epoch, seq), key.id, day_key.subject)
        sealed = seal_block(header, plaintext, key)
        self._execute("INSERT INTO blocks VALUES (?, ?, ?, ?, ?)", lane, self.epoch, seq, key.id, sealed)
        upsert = """INSERT INTO lanes (lane, epoch, last, bytes) VALUES (?, ?, ?, ?)
                   ON CONFLICT (lane, epoch) DO UPDATE SET last = excluded.last, bytes = bytes + excluded.bytes"""
        self._execute(upsert, lane, self.epoch, seq, len(sealed))
        return BlockId(lane, self.epoch, seq)

    def _make_header(self, id_: BlockId, key: bytes, subject: str) -> BlockHeader:
        """The header of a block, with a new nonce. The first of an epoch names the lane's last block of any earlier epoch."""
        prev = None
        if id_.seq == 1:
            query = "SELECT epoch, last FROM lanes WHERE lane = ? AND epoch < ? ORDER BY epoch DESC LIMIT 1"
            rows = self._rows(query, id_.lane, id_.epoch)
            prev = (int(rows[0][0]), int(rows[0][1])) if rows else None
        return BlockHeader(self._hub, subject, id_.epoch, id_.lane, id_.seq, key, prev=prev)

    def _header_of_stored(self, id_: BlockId, key: bytes) -> BlockHeader | None:
        rows = self._rows("SELECT subject FROM keys WHERE id = ?", key)
        return self._make_header(id_, key, rows[0][0]) if rows else None

    def _delete(self, held: Range) -> int:
        bounds = (held.lane, held.epoch, held.first, held.last)
        where = "FROM blocks WHERE lane = ? AND epoch = ? AND seq BETWEEN ? AND ?"
        count, size = self._rows(f"SELECT count(*), total(length(sealed)) {where}", *bounds)[0]
        if count:
            self._execute(f"DELETE {where}", *bounds)
            update = "UPDATE lanes SET acknowledged = acknowledged + ?, bytes = bytes - ? WHERE lane = ? AND epoch = ?"
            self._execute(update, count, int(size), held.lane, held.epoch)
        return int(count)

    def _run_transaction(self, body: Callable[[], T]) -> T:
        with transaction(self._connection, self._path):
            return body()

    def _run_with_reserve(self, body: Callable[[], T]) -> T:
        """Run a transaction in the room of the reserve, and fill the reserve again."""
        self._reserve.release()
        try:
            return self._run_transaction(body)
        finally:
            shrink_wal(self._connection)
            self._reserve.fill()

    def _fits_free_space(self, blocks: Sequence[tuple[Lane, bytes]]) -> bool:
        """Whether deleted blocks have left room for these in the database file."""
        needed = sum(len(plaintext) + BLOCK_OVERHEAD_BYTES for _, plaintext in blocks)
        with translating_sqlite_errors(self._path):
            return needed <= count_free_bytes(self._connection)

    def _execute(self, statement: str, *values: Any) -> None:
        with translating_sqlite_errors(self._path):
            self._connection.execute(statement, values)

    def _rows(self, query: str, *values: Any) -> Sequence[tuple[Any, ...]]:
        with translating_sqlite_errors(self._path):
            return self._connection.execute(query, values).fetchall()


def _is_disk_full(path: Path) -> bool:
    """Whether the disk has no room for the files that SQLite creates beside the database."""
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < FULL_DISK_BYTES


def _create_private_file(path: Path) -> None:
    try:
        path.touch(mode=0o600, exist_ok=True)
    except OSError as error:
        raise PermanentError(
            f"cannot create the buffer {path}: {error.strerror}; check that its folder exists and is writable"
        ) from error


def _state_purpose(subject: str, name: str) -> bytes:
    return f"state {subject} {name}".encode()


def _key_purpose(key_id: bytes) -> bytes:
    return b"data key " + key_id
