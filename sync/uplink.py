"""Brings the outbox's blocks to the clinic, and deletes them there when the clinic says that it has committed them.

A block on its way is remembered in memory only:

    pending ──publish──> in flight ──acknowledged──> deleted from the outbox
       ^                     │
       └── no answer in time, or a new connection

Alerts go before all else and never wait; what was stored since the connection began goes before what had piled up until then.
Until the clinic has answered, and again after a time-out, there is one message on its way instead of a window full: a clinic
that is away costs the hub next to nothing.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NoReturn, TypeVar

from sync.errors import Transient
from sync.mqtt import Connected, Disconnected, Message
from sync.outbox import Outbox, StoredBlock
from sync.transport import Call, Transport
from sync.wire import (
    UPLINK_LANES,
    Ack,
    BlockId,
    Envelope,
    Lane,
    Range,
    WireError,
    WrappedKey,
    ack_topic,
    decode_ack,
    encode_envelope,
    up_topic,
)

ACK_TIMEOUT_S: Final = (2.0, 60.0)
"""Without an answer for so long, a block is sent again: four times the latest round trip, within these bounds, doubled by each
time-out. The clinic answers in 30 ms (p95), over 2G in 2 s; a hub that is back before its clinic should not wait for long."""
IN_FLIGHT_BYTES: Final = 256 * 1024
"""Sent and not answered, alerts apart: 0.1 s of a link of 20 Mbit/s, and at 64 kbit/s no more than the longest time-out."""
IN_FLIGHT_BLOCKS: Final = 1000
"""As above, for small blocks and for alerts: every acknowledgement looks through all of them."""
MESSAGE_BLOCK_BYTES: Final = 48 * 1024
"""Blocks of one message, so that with their keys it stays under the limit of 64 KiB. A larger one (up to
`sync.outbox.PLAINTEXT_LIMIT`) travels alone."""
MESSAGE_KEYS: Final = 10
"""Wrapped keys of one message, 1.2 KB each: ten days of sparse readings."""
RETRY_S: Final = 1.0
"""Pause after a failure that may pass: a locked database, a full disk, a connection just lost."""

T = TypeVar("T")
Place = tuple[int, int]
_START: Final[Place] = (0, 0)


@dataclass(slots=True)
class UplinkStatistics:
    """Blocks since start: `resent` are sendings after a block's first, `rejected` those that the clinic put into quarantine.

    `problem` is the latest failure that may pass, in words.
    """

    blocks_sent: int = 0
    blocks_acked: int = 0
    resent: int = 0
    rejected: int = 0
    malformed_acks: int = 0
    problem: str | None = None


@dataclass(slots=True)
class _Cursor:
    """How far a lane has been read: `live` from where the connection found its end, `backlog` from its start to `boundary`."""

    live: Place
    boundary: Place
    backlog: Place = _START


_ORDER: Final[tuple[tuple[Lane, bool], ...]] = (
    ("alert", False),
    ("alert", True),
    ("vital", True),
    ("wave", True),
    ("vital", False),
    ("wave", False),
)
"""Lanes with whether their live part is meant, most urgent first."""


class Uplink:
    """One hub's way to the clinic. `statistics` may be read at any time."""

    def __init__(self, outbox: Outbox, transport: Transport, *, hub: str, call: Call) -> None:
        self._outbox = outbox
        self._transport = transport
        self._hub = hub
        self._call = call
        self._is_connected = False
        self._fence = 0
        self._cursors: dict[Lane, _Cursor] | None = None
        self._in_flight: dict[BlockId, tuple[float, int]] = {}
        self._unanswered: set[BlockId] = set()
        self._is_answered = False
        self._patience_s = ACK_TIMEOUT_S[0]
        self._news = asyncio.Event()
        self.statistics: Final = UplinkStatistics()

    async def run(self) -> NoReturn:
        """Send and receive until cancelled.

        Raises:
            ExceptionGroup: of Permanent, where the outbox is damaged.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._receive())
            tasks.create_task(self._send())
        raise AssertionError("neither of the two returns")

    def wake(self) -> None:
        """Tell that the outbox has new blocks. To be called on the event loop."""
        self._news.set()

    async def _send(self) -> NoReturn:
        while True:
            self._news.clear()
            self._expire()
            try:
                is_idle = not await self._send_message()
                pause = self._until_expiry()
            except Transient as error:
                self.statistics.problem = str(error)
                self._cursors = None  # what was read and not sent is read again
                is_idle, pause = True, RETRY_S
            if is_idle:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._news.wait()

    async def _send_message(self) -> bool:
        """Send the most urgent blocks, as many as one message takes. False: there is nothing to do now."""
        if not self._is_connected:
            return False
        if self._cursors is None:
            self._cursors = await self._from_the_start()
        cursors = self._cursors
        for lane, is_live in _ORDER:
            if not self._has_room(lane):
                return False
            blocks = await self._next(lane, cursors[lane], is_live)
            if cursors is not self._cursors:  # another connection began meanwhile
                return True
            if blocks:
                await self._publish(lane, blocks)
                return True
        return False

    async def _from_the_start(self) -> dict[Lane, _Cursor]:
        cursors: dict[Lane, _Cursor] = {}
        for lane in UPLINK_LANES:
            end = await self._call(self._outbox.last, lane)
            cursors[lane] = _Cursor(end, end)
        return cursors

    async def _next(self, lane: Lane, cursor: _Cursor, is_live: bool) -> list[StoredBlock]:
        """The next blocks of a lane that are not on their way; none if there are none."""
        while True:
            after = cursor.live if is_live else cursor.backlog
            rows = await self._call(self._outbox.pending, lane, after, MESSAGE_BLOCK_BYTES)
            if not is_live:
                rows = [row for row in rows if _place(row) <= cursor.boundary]
            rows = _of_few_keys(rows)
            if not rows:
                return []
            if is_live:
                cursor.live = _place(rows[-1])
            else:
                cursor.backlog = _place(rows[-1])
            blocks = [row for row in rows if row.id not in self._in_flight]
            if blocks:
                return blocks

    async def _publish(self, lane: Lane, blocks: list[StoredBlock]) -> None:
        """Send one message. Its blocks count as on their way before it leaves: the answer may be faster than this task."""
        cursors = self._cursors
        again = self._unanswered.intersection(block.id for block in blocks)
        # A clinic that lost its store has lost the keys too: what it left unanswered goes out with its keys again.
        keys = await self._call(_keys, self._outbox, [block.key for block in blocks], bool(again))
        if cursors is not self._cursors:
            return
        payload = encode_envelope(Envelope(self._hub, tuple(block.sealed for block in blocks), keys))
        now = asyncio.get_running_loop().time()
        self._in_flight.update({block.id: (now, len(block.sealed)) for block in blocks})
        try:
            await self._transport.publish(up_topic(self._hub, lane), payload)
        except Transient:
            for block in blocks:
                self._in_flight.pop(block.id, None)
            raise
        self.statistics.blocks_sent += len(blocks)
        self.statistics.resent += len(again)

    async def _receive(self) -> NoReturn:
        while True:
            match await self._transport.receive():
                case Connected():
                    self._is_connected = True
                    self._forget_connection()
                    self._news.set()
                case Disconnected(reason):
                    self._is_connected = False
                    self._forget_connection()
                    self.statistics.problem = reason
                case Message(topic, payload) if topic == ack_topic(self._hub):
                    await self._take(payload)
                case Message():
                    self.statistics.malformed_acks += 1

    async def _take(self, payload: bytes) -> None:
        """Delete what the clinic holds. If that fails, the blocks are sent and acknowledged once more."""
        try:
            ack = decode_ack(payload)
        except WireError as error:
            self.statistics.malformed_acks += 1
            self.statistics.problem = str(error)
            return
        if ack.hub != self._hub or ack.fence < self._fence:
            return
        self._fence = ack.fence
        held = _held(ack)
        try:
            self.statistics.blocks_acked += await self._call(self._outbox.acknowledge, (), held)
            if ack.keys:
                await self._call(self._outbox.key_held, ack.keys)
        except Transient as error:
            self.statistics.problem = str(error)
            return
        self.statistics.rejected += len(ack.rejected)
        self._answered(held)
        self._news.set()

    def _answered(self, held: list[Range]) -> None:
        """Strike off what the clinic holds; measure its round trip on what was sent once only (as RFC 6298, section 3)."""
        now = asyncio.get_running_loop().time()
        for id_ in _covered(self._in_flight, held):
            sent, _ = self._in_flight.pop(id_)
            self._is_answered = True
            if id_ not in self._unanswered:
                self._patience_s = min(max(4 * (now - sent), ACK_TIMEOUT_S[0]), ACK_TIMEOUT_S[1])
        self._unanswered.difference_update(_covered(self._unanswered, held))

    def _forget_connection(self) -> None:
        """What was on its way may be lost; read the outbox from its start again."""
        self._unanswered.update(self._in_flight)
        self._in_flight.clear()
        self._cursors = None
        self._is_answered = False
        self._patience_s = ACK_TIMEOUT_S[0]

    def _expire(self) -> None:
        """Give up waiting for what has been on its way for too long; its lanes are read from their start again."""
        limit = asyncio.get_running_loop().time() - self._patience_s
        late = [id_ for id_, (sent, _) in self._in_flight.items() if sent <= limit]
        if late:
            self._is_answered = False
            self._patience_s = min(2 * self._patience_s, ACK_TIMEOUT_S[1])
        self._unanswered.update(late)
        for id_ in late:
            del self._in_flight[id_]
            if self._cursors is not None:
                cursor = self._cursors[id_.lane]
                cursor.backlog, cursor.boundary = _START, cursor.live

    def _until_expiry(self) -> float | None:
        if not self._in_flight:
            return None
        first = next(iter(self._in_flight.values()))[0]
        return max(0.0, first + self._patience_s - asyncio.get_running_loop().time())

    def _has_room(self, lane: Lane) -> bool:
        if len(self._in_flight) >= IN_FLIGHT_BLOCKS:
            return False
        sizes = [size for id_, (_, size) in self._in_flight.items() if id_.lane != "alert"]
        return lane == "alert" or sum(sizes) < (IN_FLIGHT_BYTES if self._is_answered else 1)


def _of_few_keys(rows: list[StoredBlock]) -> list[StoredBlock]:
    """The first rows, so many that they need no more than `MESSAGE_KEYS` keys."""
    keys: set[bytes] = set()
    for i, row in enumerate(rows):
        keys.add(row.key)
        if len(keys) > MESSAGE_KEYS:
            return rows[:i]
    return rows


def _place(block: StoredBlock) -> Place:
    return block.id.epoch, block.id.seq


def _keys(outbox: Outbox, ids: Iterable[bytes], also_held: bool) -> tuple[WrappedKey, ...]:
    return tuple(outbox.keys_for(ids, also_held=also_held))


def _held(ack: Ack) -> list[Range]:
    """All that an acknowledgement covers; what is in quarantine is held too."""
    marks = [Range(lane, epoch, 1, seq) for lane, epoch, seq in ack.marks]
    return [*marks, *ack.ranges, *(Range(lane, epoch, seq, seq) for lane, epoch, seq, _ in ack.rejected)]


def _covered(ids: Iterable[BlockId], held: list[Range]) -> list[BlockId]:
    return [
        id_
        for id_ in ids
        if any(id_.lane == lane and id_.epoch == epoch and first <= id_.seq <= last for lane, epoch, first, last in held)
    ]
