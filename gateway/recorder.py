"""Brings records to the outbox: each second in one transaction, and at once when an alert is among them."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from gateway.uninterrupted import uninterrupted
from sync import records
from sync.errors import Transient
from sync.outbox import PLAINTEXT_LIMIT
from sync.records import AlertRecord, GapRecord, Record, WaveformRecord
from sync.transport import Call
from sync.wire import Lane

log = logging.getLogger(__name__)

FLUSH_S: Final = 1.0
"""Streaming data is durable within one second: what a kill -9 may cost."""
RETRY_S: Final = 2.0
"""Pause after a failed write. Longer than a checkpoint of the database, shorter than a patient's patience."""
HELD_LIMIT: Final = 2_000
"""Records waiting for a disk that does not take them: ten minutes of one strap. Beyond it, intake waits and the radio's own
queue drops and counts, which the timeline turns into a gap record."""


class OutboxLike(Protocol):
    """What the recorder needs of `sync.outbox.Outbox`."""

    def put_many(self, blocks: Iterable[tuple[Lane, bytes]], state: Mapping[str, bytes] | None = None) -> Sequence[object]:
        """Seals and stores the blocks and the state in one transaction."""
        ...


@dataclass(slots=True)
class RecorderCounters:
    """What went through."""

    failed_writes: int = 0
    samples_received: int = 0
    samples_lost: int = 0
    gaps: int = 0
    quarantined: int = 0
    alerts: int = 0


@dataclass(slots=True)
class Recorder:
    """Holds records until they are durable. One instance serves all sensors."""

    outbox: OutboxLike
    call: Call
    on_stored: Callable[[], None]
    counters: RecorderCounters = field(default_factory=RecorderCounters)
    _held: list[Record] = field(default_factory=list)
    _state: dict[str, bytes] = field(default_factory=dict)
    _ending: bool = False
    _room: asyncio.Event = field(default_factory=asyncio.Event)
    _flushing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self._room.set()

    async def add(self, new: Sequence[Record], state: Mapping[str, object]) -> None:
        """Takes records and, with them, the state that a restart continues from. Returns at once unless the disk is behind."""
        await self._room.wait()
        self._held.extend(new)
        self._state.update({name: json.dumps(value).encode() for name, value in state.items()})
        self._count(new)
        if len(self._held) >= HELD_LIMIT and not self._ending:
            self._room.clear()
        if any(isinstance(record, AlertRecord) for record in new):
            await self.flush()

    async def run(self) -> None:
        """Flushes each second, for ever."""
        while True:
            await asyncio.sleep(FLUSH_S if await self.flush() else RETRY_S)

    async def flush(self) -> bool:
        """Makes durable what is held; False where the disk did not take it and it is held on."""
        return await uninterrupted(self._flush())

    def stop_waiting(self) -> None:
        """The agent ends: from now on `add` takes what comes, whatever the disk does."""
        self._ending = True
        self._room.set()

    async def _flush(self) -> bool:
        async with self._flushing:
            if not self._held:
                return True
            held, state = list(self._held), dict(self._state)
            blocks = list(_blocks(held))
            try:
                await self.call(self.outbox.put_many, blocks, state)
            except Transient as error:
                self.counters.failed_writes += 1
                log.error("readings wait in memory: %s", error)
                return False
            del self._held[: len(held)]
            self._room.set()
            self.on_stored()
            return True

    def _count(self, new: Sequence[Record]) -> None:
        for record in new:
            match record:
                case WaveformRecord():
                    self.counters.samples_received += len(record.samples)
                case GapRecord(to_us=int()):
                    self.counters.gaps += 1
                    self.counters.samples_lost += record.missing or 0
                case records.QuarantinedRecord():
                    self.counters.quarantined += 1
                case AlertRecord(end_us=None):
                    self.counters.alerts += 1
                case _:
                    pass


def lane_of(record: Record) -> Lane:
    """The lane a record travels in."""
    match record:
        case AlertRecord():
            return "alert"
        case WaveformRecord() | GapRecord():
            return "wave"
        case _:
            return "vital"


def _blocks(held: Sequence[Record]) -> list[tuple[Lane, bytes]]:
    """Plaintexts of blocks, one lane each, in the order of the records."""
    lanes: dict[Lane, list[Record]] = {"alert": [], "vital": [], "wave": []}
    for record in held:
        lanes[lane_of(record)].append(record)
    return [(lane, plaintext) for lane, group in lanes.items() if group for plaintext in _fitting(group)]


def _fitting(group: list[Record]) -> Iterator[bytes]:
    """The records encoded, halved until each part fits a block."""
    plaintext = records.encode(group)
    if len(plaintext) <= PLAINTEXT_LIMIT or len(group) == 1:
        yield plaintext
        return
    middle = len(group) // 2
    yield from _fitting(group[:middle])
    yield from _fitting(group[middle:])
