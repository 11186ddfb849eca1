"""Writes records to the outbox in one transaction every 10 s, every second while that matters, and at once with an alert."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from drivers.kinds import KINDS
from gateway.buffer_alert import BUFFER_STATE_KEY, BufferAlert
from gateway.cancellation import finish_despite_cancel
from gateway.thinning import VitalThinner
from gateway.upload import WaveformUpload
from sync.errors import TransientError
from sync.record_codec import encode_blocks
from sync.records import AlertRecord, GapRecord, IntervalsRecord, QuarantinedRecord, Record, VitalRecord, WaveformRecord
from sync.transport import WorkerCall
from sync.wire import LANES, PLAINTEXT_LIMIT_BYTES, Lane

log = logging.getLogger(__name__)

COMMIT_INTERVAL_S: Final = 10.0
"""Streaming data is durable within ten seconds. A commit writes whole pages, so one every second would wear out an SD card."""
LIVE_INTERVAL_S: Final = 1.0
"""The interval after an alert of high priority and while someone watches the stream at the clinic."""
LIVE_LIMIT_S: Final = 600.0
"""The longest time for which one call of `Recorder.watch_live` has an effect, so that a viewer who is gone costs little."""
HIGH_ALERT_LIVE_S: Final = 600.0
"""How long streaming data is stored and sent every second after an alert of high priority: someone now looks at the patient."""
BLOCK_BYTES: Final = 5_800
"""The longest plaintext of a block of several streamed records: 6 kB with header and tag. A block cannot be cut, so an alert
waits for the rest of it: 0.75 s at 64 kbit/s."""
RETRY_DELAY_S: Final = 2.0
"""Pause after a failed write: longer than a checkpoint of the database, short enough for a patient who is waiting."""
PENDING_LIMIT: Final = 2_000
"""Records that may wait: those of one strap for seven minutes, or of 20 for 20 s. At this limit `add` waits and a write begins
before its time. If the disk cannot be written, the queues of the sensors then overflow, and each records what it dropped."""


class OutboxLike(Protocol):
    """The part of `sync.outbox.Outbox` that the recorder uses."""

    @property
    def is_nearly_full(self) -> bool:
        """Whether the blocks that wait for the clinic take nearly the whole quota."""
        ...

    def put_many(self, blocks: Iterable[tuple[Lane, bytes]], state: Mapping[str, bytes] | None = None) -> Sequence[object]:
        """Seals and stores the blocks and the state in one transaction."""
        ...


@dataclass(slots=True)
class RecorderCounters:
    """Counters of the records that the recorder accepted, and of failed writes."""

    failed_writes: int = 0
    samples_received: int = 0
    samples_lost: int = 0
    gaps: int = 0
    quarantined: int = 0
    alerts: int = 0
    values_left_out: int = 0
    """Continuous vital signs and intervals that were not stored because the buffer was nearly full."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Encoded records of one transaction, kept until it succeeds: a full disk must not cost an encoding at every attempt."""

    records: int
    blocks: Sequence[tuple[Lane, bytes]]
    state: Mapping[str, bytes]


@dataclass(slots=True)
class Recorder:
    """Keeps records in memory until they are durable. One instance serves all sensors."""

    outbox: OutboxLike
    call: WorkerCall
    on_stored: Callable[[], None]
    buffer_alert: BufferAlert
    counters: RecorderCounters = field(default_factory=RecorderCounters)
    upload: WaveformUpload = field(default_factory=lambda: WaveformUpload("all"))
    before_write: list[Callable[[], None]] = field(default_factory=list)
    """Called before pending records are written; each may add records that it has kept."""
    _pending: list[tuple[Lane, Record]] = field(default_factory=list)
    _pending_state: dict[str, object] = field(default_factory=dict)
    """The latest state of each name, converted to JSON only when it is written."""
    _problem: str | None = None
    _batch: _Batch | None = None
    """The batch whose write is in progress or has failed."""
    _is_stopping: bool = False
    _has_space: asyncio.Event = field(default_factory=asyncio.Event)
    _is_due: asyncio.Event = field(default_factory=asyncio.Event)
    """Set where the next write must not wait for the end of the interval."""
    _live_until_s: float = 0.0
    """Until when, in the event loop's time, records are written every second."""
    _high_alerts: dict[str, int | None] = field(default_factory=dict)
    """When each open alert of high priority was last raised, by its id."""
    _is_nearly_full: bool = False
    """What the outbox said after the last write."""
    _thinner: VitalThinner = field(default_factory=VitalThinner)
    _flush_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self._has_space.set()

    async def add(self, new: Sequence[Record], state: Mapping[str, object]) -> None:
        """Accepts records together with the state that a restart resumes from, stored in the same transaction.

        Writes them at once when an alert or a spot reading is among them, together with everything received before; otherwise
        returns without waiting unless `PENDING_LIMIT` is reached. While the buffer is nearly full, it leaves out continuous
        vital signs.
        """
        await self._has_space.wait()
        self._accept(new, state)
        if any(_is_urgent(record) for record in new):
            await self.flush()

    def add_nowait(self, new: Sequence[Record], state: Mapping[str, object]) -> None:
        """Accepts records as `add` does, without waiting; only where `has_space`. Urgent ones are written soon."""
        self._accept(new, state)
        if any(_is_urgent(record) for record in new):
            self.flush_soon()

    @property
    def has_space(self) -> bool:
        """Whether `add` would not wait."""
        return self._has_space.is_set()

    def flush_soon(self) -> None:
        """Writes what is pending without waiting for the end of the interval."""
        self._is_due.set()

    def _accept(self, new: Sequence[Record], state: Mapping[str, object]) -> None:
        self._note(new)
        self._append(self._thinner.thin(new, is_nearly_full=self.buffer_alert.is_ongoing))
        self.counters.values_left_out = self._thinner.left_out
        self._pending_state.update(state)
        if len(self._pending) + (self._batch.records if self._batch else 0) >= PENDING_LIMIT and not self._is_stopping:
            self._has_space.clear()
            self._is_due.set()

    def _append(self, records: Iterable[Record]) -> None:
        is_live = self._is_live()
        for record in records:
            if isinstance(record, WaveformRecord):
                self._pending.append((self.upload.lane(record, is_live=is_live), record))
            else:
                self._pending.append((lane_of(record), record))

    async def run(self) -> None:
        """Flushes every `COMMIT_INTERVAL_S`, or `LIVE_INTERVAL_S` while live, until cancelled."""
        while True:
            self._is_due.clear()
            if await self.flush():
                await self._wait_due()
            else:
                await asyncio.sleep(RETRY_DELAY_S)

    def watch_live(self, seconds: float) -> None:
        """Writes what is pending, and then every `LIVE_INTERVAL_S` for so many seconds, at most `LIVE_LIMIT_S`.

        A call while records are written every second only makes this last longer. Called on the event loop.
        """
        was_live = self._is_live()
        live_until_s = asyncio.get_running_loop().time() + min(seconds, LIVE_LIMIT_S)
        self._live_until_s = max(self._live_until_s, live_until_s)
        if self._is_live() and not was_live:
            self._is_due.set()

    async def flush(self) -> bool:
        """Writes all pending records; returns False where the write failed and they remain pending."""
        return await finish_despite_cancel(self._flush())

    def stop_blocking(self) -> None:
        """Makes `add` accept everything without waiting for the disk, because the agent is stopping."""
        self._is_stopping = True
        self._has_space.set()

    def _is_live(self) -> bool:
        return asyncio.get_running_loop().time() < self._live_until_s

    async def _wait_due(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LIVE_INTERVAL_S if self._is_live() else COMMIT_INTERVAL_S):
                await self._is_due.wait()

    def _watch_high_alert(self, alert: AlertRecord) -> None:
        """Goes live where an alert of high priority opened or was raised again, or the priority of an open one rose to high.

        An alert is repeated at every later finding of its episode; these repetitions do not make the live time longer.
        """
        if alert.end_us is not None:
            self._high_alerts.pop(alert.id, None)
        elif alert.priority == "high" and self._high_alerts.get(alert.id, 0) != alert.raised_us:
            self._high_alerts[alert.id] = alert.raised_us
            self.watch_live(HIGH_ALERT_LIVE_S)

    async def _flush(self) -> bool:
        async with self._flush_lock:
            for add_kept in self.before_write:
                add_kept()
            if self._batch is not None and not await self._store_batch(self._batch):
                return False
            if self._pending or self._pending_state:  # a result that waits for the patient's answer is in the state only
                if not await self._store_pending():
                    return False
            elif self.buffer_alert.is_ongoing:  # no sensor sends, but the uplink may have made room
                self._is_nearly_full = await self.call(self._read_nearly_full)
            return await self._update_buffer_alert()

    async def _store_pending(self) -> bool:
        pending, state = self._pending, self._pending_state
        self._pending, self._pending_state = [], {}
        blocks, encoded = await self.call(_encode_batch, pending, state)
        self._batch = _Batch(len(pending), blocks, encoded)
        return await self._store_batch(self._batch)

    async def _update_buffer_alert(self) -> bool:
        """Stores the alert that the buffer is nearly full, or its end, at once."""
        alerts = self.buffer_alert.update(is_nearly_full=self._is_nearly_full)
        if not alerts:
            return True
        self._append(alerts)
        self._pending_state[BUFFER_STATE_KEY] = self.buffer_alert.state()
        self._note(alerts)
        return await self._store_pending()

    async def _store_batch(self, batch: _Batch) -> bool:
        try:
            self._is_nearly_full = await self.call(self._put_batch, batch)
        except TransientError as error:
            self.counters.failed_writes += 1
            self._set_problem(str(error))
            return False
        self._set_problem(None)
        self._batch = None
        self._has_space.set()
        self.on_stored()
        return True

    def _put_batch(self, batch: _Batch) -> bool:
        """Stores the batch and returns whether the buffer is nearly full. Called on the storage thread."""
        self.outbox.put_many(batch.blocks, batch.state)
        return self.outbox.is_nearly_full

    def _read_nearly_full(self) -> bool:
        return self.outbox.is_nearly_full

    def _set_problem(self, problem: str | None) -> None:
        """Logs a problem, or its end, once: a full disk is met again at every attempt."""
        if problem == self._problem:
            return
        self._problem = problem
        if problem is None:
            log.info("readings are stored again")
        else:
            log.error("cannot store readings, keeping them in memory: %s", problem)

    def _note(self, new: Sequence[Record]) -> None:
        """Counts the records, and goes live for alerts of high priority."""
        for record in new:
            match record:
                case VitalRecord() | IntervalsRecord():  # most records
                    pass
                case WaveformRecord():
                    self.counters.samples_received += len(record.samples)
                case GapRecord(to_us=int()):
                    self.counters.gaps += 1
                    self.counters.samples_lost += record.missing or 0
                case QuarantinedRecord():
                    self.counters.quarantined += 1
                case AlertRecord():
                    self.counters.alerts += record.end_us is None
                    self._watch_high_alert(record)
                case _:
                    pass


def lane_of(record: Record) -> Lane:
    """The lane in which a record is stored and sent; of a waveform, if the upload policy sends it."""
    match record:
        case AlertRecord():
            return "alert"
        case GapRecord(kind=kind) if kind in KINDS and not KINDS[kind].is_waveform:
            return "vital"  # the oldest blocks of `wave` may be deleted, and this gap must not be
        case WaveformRecord() | GapRecord():
            return "wave"
        case _:
            return "vital"


def _is_urgent(record: Record) -> bool:
    """Whether a record is stored at once: an alert, or a reading that its sensor may not have any more."""
    match record:
        case AlertRecord():
            return True
        case VitalRecord(kind=kind, origin=origin):
            return origin is not None or (kind in KINDS and KINDS[kind].is_spot)
        case _:
            return False


def _encode_batch(
    pending: Sequence[tuple[Lane, Record]], state: Mapping[str, object]
) -> tuple[list[tuple[Lane, bytes]], dict[str, bytes]]:
    return _encode_blocks(pending), {name: json.dumps(value).encode() for name, value in state.items()}


def _encode_blocks(pending: Sequence[tuple[Lane, Record]]) -> list[tuple[Lane, bytes]]:
    """The plaintexts of the blocks, each with its lane; those of a sensor within a lane in the order of its records."""
    lanes: dict[Lane, list[Record]] = {lane: [] for lane in LANES}
    for lane, record in pending:
        lanes[lane].append(record)
    return [
        (lane, plaintext)
        for lane, group in lanes.items()
        if group
        for plaintext in encode_blocks(group, PLAINTEXT_LIMIT_BYTES if lane == "alert" else BLOCK_BYTES)
    ]
