"""The durable buffer between the sensors and the clinic: a SQLite database of blocks, sealed before they are written.

Each change of a block's state is one transaction:

    put() ──> pending ──acknowledged──> unopened ──receipt──> released ──(retention, or room is needed)──> deleted
                 │                      (alert, vital)           ▲
                 ├──acknowledged (wave)──────────────────────────┘
                 ├──set aside──> aside ──(retention, or room is needed)──> deleted
                 └──refused──> deleted

Only the uplink keeps track of the blocks that were sent, in memory. After a crash it sends them again, and the clinic stores
each block once, however often it arrives. When the clinic has another store, every block is pending again.

A reserve file (`sync.outbox.reserve`) keeps room to delete, to store alerts and to start on a full disk.

The class is synchronous and used by one thread at a time: the agent's storage worker.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from sync.data_keys import KeyStatement, WrappedKey
from sync.errors import DiskFullError, PermanentError, SyncError
from sync.keys import HubKeys
from sync.messages import Ack, Receipt
from sync.outbox.acks import Applied, OutboxAcks
from sync.outbox.archive import STEP_BLOCKS, release_some
from sync.outbox.block_tables import BlockTables
from sync.outbox.database import OutboxDatabase
from sync.outbox.epochs import CLOCK_LEAP_S, SECONDS_PER_DAY, HubClock, sealing_day
from sync.outbox.format_1 import report_unreadable, reseal_blocks
from sync.outbox.header_templates import HeaderTemplates
from sync.outbox.keys import OutboxKeys
from sync.outbox.observed_time import ObservedTime
from sync.outbox.repair import BufferOpener, delete_damaged, delete_old_damaged
from sync.outbox.reserve import Reserve
from sync.outbox.room import BLOCK_OVERHEAD_BYTES, BUFFER_LIMITS, BufferLimits, delete_answered, drop_unsent, make_room
from sync.outbox.schema import is_disk_full
from sync.outbox.sealer import OutboxSealer
from sync.outbox.state import OutboxState, StoredState
from sync.outbox.stored_blocks import OutboxBlock, StoredBlocks
from sync.outbox.sweep import OutboxSweep
from sync.outbox.transactions import Transactions
from sync.outbox.views import ClinicView, OutboxStatistics, read_clinic_view, read_statistics
from sync.registration import Registration
from sync.wire import MAX_COUNT, BlockId, Lane, epoch_seconds, is_name

SECONDS_PER_HOUR: Final = 3600
RESERVE_SUFFIX: Final = "-reserve"
NEWEST: Final = (MAX_COUNT, MAX_COUNT)
"""A position (epoch, seq) that no block is after."""


class Outbox:
    """The open buffer of one hub. Create it with `Outbox.open`."""

    def __init__(
        self,
        database: OutboxDatabase,
        *,
        hub: str,
        subject: str,
        keys: HubKeys,
        registration: Registration,
        clock: Callable[[], int],
        limits: BufferLimits,
    ) -> None:
        self._database = database
        self._hub = hub
        self._subject = subject
        self._state = OutboxState(database, keys.hub)
        self._clock = HubClock(clock, registration.registered_s)
        self._limits = limits
        retention_s = max(limits.retention_s, registration.backup_interval_h * SECONDS_PER_HOUR)
        self._tables = BlockTables(database)
        self._keys = OutboxKeys(database, hub, keys, registration)
        templates = HeaderTemplates(hub)
        self._sealer = OutboxSealer(hub, self._tables, templates)
        self._transactions = Transactions(database, self._reload)
        run = self._transactions.run_or_use_reserve
        self._blocks = StoredBlocks(database, self._tables, self._keys, templates, run)
        self._acks = OutboxAcks(database, self._tables, self._keys, hub)
        self._observed = ObservedTime(database, retention_s)
        self._sweep = OutboxSweep(database, self._tables, self._keys, subject=subject, observed=self._observed)
        self._is_collecting = True
        self._epoch = 0
        self._keys.recipient(subject)  # raises RegistrationError before anything is changed
        self._transactions.run(self._begin)
        reseal_blocks(database, keys.hub, self._store)
        report_unreadable(database)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        hub: str,
        subject: str,
        keys: HubKeys,
        registration: Registration,
        clock: Callable[[], int],
        limits: BufferLimits = BUFFER_LIMITS,
        is_damaged: bool = False,
    ) -> "Outbox":
        """Open the buffer, or create it (mode 0600), and begin a new epoch. `clock` returns seconds since 1970, UTC.

        If the file is damaged, a new buffer with all that is readable takes its place (`sync.outbox.repair`). `is_damaged` says
        that damage was met before, so that it is not looked for.

        Raises:
            PermanentError: the file is of a newer version, of another hub or application, or not writable.
            RegistrationError: the registration has no such subject.
            SealError: it was sealed with another hub key.
            TransientError: it is locked by another process, or the disk is full.
        """
        if not (is_name(hub) and is_name(subject)):
            raise PermanentError(
                "cannot open the buffer: hub or subject is not a valid name; use 1 to 64 letters, digits, '.', '_' and '-'"
            )
        reserve = Reserve(path.with_name(path.name + RESERVE_SUFFIX))
        opener = BufferOpener(path, reserve, hub, subject, keys, registration.recipients.keys(), clock)

        def open_once() -> Outbox:
            database = opener.open(is_damaged=is_damaged)
            try:
                return cls(database, hub=hub, subject=subject, keys=keys, registration=registration, clock=clock, limits=limits)
            except BaseException:
                database.close()
                raise

        try:
            outbox = open_once()
        except SyncError as error:
            if not (isinstance(error, DiskFullError) or is_disk_full(path)) or not reserve.release():
                raise
            outbox = open_once()
            outbox._database.shrink_wal()
        reserve.fill()
        return outbox

    @property
    def epoch(self) -> int:
        """The present epoch. It changes with the first block of a UTC day, and when the clinic knows a higher one."""
        return self._epoch

    @property
    def is_nearly_full(self) -> bool:
        """Whether the blocks that wait for the clinic take nearly the whole quota."""
        return self._tables.open_bytes >= self._limits.nearly_full * self._limits.quota_bytes

    @property
    def erased_subjects(self) -> frozenset[str]:
        """Subjects whose keys were destroyed since the start, because the clinic has erased them."""
        return frozenset(self._keys.erased_subjects)

    def stop_collecting(self) -> None:
        """Store no block of the outbox's subject from now on, and delete those that were not sent: it does not consent."""
        self._is_collecting = False
        numbers = {key.number for key in self._keys.stored.values() if key.subject == self._subject}
        while self._transactions.run_or_use_reserve(lambda: drop_unsent(self._database, self._tables, numbers)):
            pass

    def close(self) -> None:
        self._database.close()

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

        All of it belongs to the outbox's subject, or to an earlier `subject` of this hub. If the buffer is over its quota,
        this deletes some blocks first (`sync.outbox.room`), unless an alert is stored.
        On a full disk alerts may spend a part of the reserve, and other blocks the space of deleted and released ones.
        Values of a subject that the clinic has erased since the start are not stored: they say what was measured before.
        After `stop_collecting` no block of the outbox's subject is stored, and nothing is returned for it.

        Raises:
            PermanentError: a plaintext exceeds `PLAINTEXT_LIMIT_BYTES`, or the buffer is damaged.
            RegistrationError: the earlier subject was never registered.
            TransientError: the disk is full or the buffer locked. Nothing was stored; the call may be repeated.
        """
        blocks, owner, state = list(blocks), subject or self._subject, state or {}
        if owner == self._subject and not self._is_collecting:
            blocks = []
        has_alert = any(lane == "alert" for lane, _ in blocks)

        def store() -> list[BlockId]:
            if not has_alert:
                self._make_room()
            return self._store(blocks, owner, state)

        try:
            return self._transactions.run(store)
        except DiskFullError:
            if not (has_alert and self._database.reserve.has_room_for_alerts) and not self._free_pages_for(blocks):
                raise
            return self._transactions.run_in_reserve(store)

    def load_state(self, name: str) -> bytes | None:
        """The value that a `put`, in this or an earlier process, last stored under this name; None if there is none.

        Values of another subject are not returned.
        """
        return self._state.load(self._subject, name)

    def stored_states(self) -> list[StoredState]:
        """Every stored value, also those of earlier subjects."""
        return self._state.load_all()

    def delete_states(self, subject: str) -> None:
        """Delete the stored values of a subject."""
        self._transactions.run_or_use_reserve(lambda: self._state.delete(subject))

    def last_position(self, lane: Lane) -> tuple[int, int]:
        """(epoch, seq) of the newest block ever stored in the lane, even if it is deleted by now; (0, 0) if there was none."""
        end = self._tables.end_before(lane, MAX_COUNT)
        return (end.epoch, end.seq) if end else (0, 0)

    def pending(
        self, lane: Lane, after: tuple[int, int], limit_bytes: int, *, until: tuple[int, int] = NEWEST
    ) -> list[OutboxBlock]:
        """Blocks of a lane to send after a position (epoch, seq), in order: at most `limit_bytes`, but at least one block.

        None of them is after `until`. Headers that were damaged on the disk are restored. A block that was damaged elsewhere is
        given up: it is deleted and listed as dropped.
        """
        return self._blocks.read_pending(lane, after, limit_bytes, until)

    def keys_for(self, ids: Iterable[bytes], *, also_held: bool = False) -> tuple[list[KeyStatement], list[WrappedKey]]:
        """Statements and wrapped keys of these data keys. Omits those that the clinic has confirmed, unless `also_held`."""
        return self._keys.for_clinic(ids, also_held=also_held)

    def clinic_view(self) -> ClinicView:
        """What the next envelope says about the buffer."""
        return read_clinic_view(self._database, self._hub)

    def apply_ack(self, ack: Ack, sent: Container[BlockId] = frozenset()) -> Applied:
        """Apply a verified acknowledgement. A crash before the next `put` may lose it: then its blocks are sent again.

        Args:
            ack: the acknowledgement.
            sent: blocks that were sent and have no answer. A mark settles no other: who only saw the heads of an envelope knows
                their chain values, but not the blocks.
        """

        def apply() -> Applied:
            applied = self._acks.apply_ack(ack, sent, self._note_now_s())
            if applied.accepted and ack.epoch is not None and ack.epoch > self._epoch:
                if epoch_seconds(ack.epoch) > self._now_s() + CLOCK_LEAP_S:
                    return replace(applied, problem=f"the clinic names the epoch {ack.epoch}, which cannot be right; ignored")
                self._begin_epoch(ack.epoch)
            return applied

        return self._apply(apply)

    def apply_receipt(self, receipt: Receipt) -> Applied:
        """Apply a verified receipt. A crash before the next `put` may lose it: then its blocks are sent again."""
        return self._apply(lambda: self._acks.apply_receipt(receipt, self._note_now_s()))

    def requeue_unopened(self) -> int:
        """Make alerts and vital signs pending again that were acknowledged 10 min ago and have no receipt. Returns how many."""
        return self._transactions.defer(lambda: self._acks.requeue_unopened(self._now_s()))

    def rotate_key(self) -> bytes:
        """Seal what is stored from now on with a new data key; returns its id. The earlier one opens what it sealed.

        Raises:
            TransientError: the disk is full or the buffer locked. Nothing was changed.
        """

        def rotate() -> bytes:
            key = self._keys.rotate(self._subject, sealing_day(self._epoch))
            self._sweep.keep_key(key.number)
            return key.id

        return self._transactions.run_or_use_reserve(rotate)

    def use_registration(self, registration: Registration) -> None:
        """Wrap the data keys for the recipients of a newer registration, those of blocks that wait for the clinic included.

        Raises:
            TransientError: the disk is full or the buffer locked; the call may be repeated.
        """
        self._transactions.run_or_use_reserve(lambda: self._keys.register(registration))

    def release_archive(self, subject: str, from_s: int, to_s: int) -> int:
        """Make the blocks in `archive` pending that may hold samples of a subject from a time (seconds since 1970).

        Returns how many. Call `Uplink.send_archive` afterwards.
        """
        total, released = 0, STEP_BLOCKS
        while released >= STEP_BLOCKS:
            released = self._transactions.run_or_use_reserve(
                lambda: release_some(self._database, self._tables, self._keys, subject, from_s, to_s, self._now_s()),
            )
            total += released
        return total

    def tidy(self) -> bool:
        """Delete a few blocks that the buffer need not keep, and read a few others again. Call it every few seconds.

        Returns whether a round over the whole buffer ended. Then every old key has gone that opens nothing in the buffer.
        """

        def delete() -> bool:
            self._make_room()
            return self._sweep.step(self._note_now_s())

        changes = self._database.connection.total_changes
        is_round_over = self._transactions.defer(delete)
        if self._database.connection.total_changes > changes:
            self._transactions.commit()
        if is_round_over:
            delete_old_damaged(self._database.path, self._limits.retention_s)
        self._blocks.scrub()
        return is_round_over

    def statistics(self) -> OutboxStatistics:
        return read_statistics(self._database, self._tables, self._now_s())

    def _begin(self) -> None:
        """Begin the first epoch of this opening, sign damaged statements again, and wrap keys for new recipients."""
        self._keys.sign_again()
        self._keys.save_recipients()
        last = self._load_epoch() or 0
        self._observed.begin(epoch_seconds(last))
        self._begin_epoch(last)
        self._note_now_s()

    def _load_epoch(self) -> int | None:
        """The last epoch of the buffer; None if there was none."""
        return int(self._database.rows("SELECT epoch FROM buffer")[0][0]) or None

    def _begin_epoch(self, last: int) -> None:
        """Begin an epoch above `last`."""
        epoch = self._clock.next_epoch(last or None)
        self._database.execute("UPDATE buffer SET previous = nullif(epoch, 0), epoch = ?", epoch)
        self._epoch = epoch

    def _now_s(self) -> int:
        return self._clock.now_s(self._epoch)

    def _note_now_s(self) -> int:
        """The time, noted within a transaction that may store it."""
        now_s = self._now_s()
        self._observed.note(now_s)
        return now_s

    def _store(
        self, blocks: Sequence[tuple[Lane, bytes]], owner: str, state: Mapping[str, bytes] | None = None
    ) -> list[BlockId]:
        """Seal and store within a transaction."""
        now_s = self._note_now_s()
        if now_s // SECONDS_PER_DAY > sealing_day(self._epoch):
            self._begin_epoch(self._epoch)
        key = self._keys.current(owner, sealing_day(self._epoch))
        self._sweep.keep_key(key.number)
        ids = self._sealer.put(blocks, self._epoch, key, now_s)
        if owner not in self._keys.erased_subjects:
            self._state.save(owner, state or {})
        return ids

    def _make_room(self) -> None:
        over = self._tables.bytes - self._limits.quota_bytes
        if over > 0:
            make_room(self._database, self._tables, over)

    def _free_pages_for(self, blocks: Sequence[tuple[Lane, bytes]]) -> bool:
        """Whether deleted blocks have left room for these in the database file; deletes answered ones for it."""
        needed = sum(len(plaintext) + BLOCK_OVERHEAD_BYTES for _, plaintext in blocks)
        if needed > self._database.count_free_bytes():
            self._transactions.run_in_reserve(lambda: delete_answered(self._tables, needed, MAX_COUNT))
        return needed <= self._database.count_free_bytes()

    def _apply(self, body: Callable[[], Applied]) -> Applied:
        """Apply an answer of the clinic. Only another store and erasure are made durable at once."""
        applied = self._transactions.defer(body)
        if applied.is_new_store or applied.refused:
            self._transactions.commit()
        if applied.refused:
            delete_damaged(self._database.path)  # an erased subject's keys may be in it
        return applied

    def _reload(self) -> None:
        """Read again what is kept in memory, after a transaction that failed."""
        self._tables.load()
        self._keys.load()
        self._observed.load()
        self._sweep.begin()
        self._epoch = self._load_epoch() or 0
