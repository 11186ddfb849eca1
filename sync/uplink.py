"""Sends the outbox's blocks to the clinic, and deletes a block when the clinic acknowledges that it has committed it.

The blocks in flight are tracked only in memory:

    pending ──publish──> in flight ──acknowledged──> deleted from the outbox
       ^                     │
       └── no acknowledgement in time, or a new connection

Alerts are sent first and never wait. Blocks stored since the connection began (live) are sent before older ones (backlog).
Before the first acknowledgement, and again after a timeout, only one message is in flight instead of a full window, so an
unreachable clinic costs the hub very little.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NoReturn, TypeVar

from sync.errors import TransientError
from sync.mqtt import Connected, Disconnected, Message
from sync.outbox import Outbox, OutboxBlock
from sync.transport import Transport, WorkerCall
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
"""Bounds of the acknowledgement timeout, after which a block is sent again. The timeout is four times the latest round trip,
doubled by each expiry. The clinic answers in 30 ms (p95), over 2G in 2 s; a hub that restarts before its clinic should not
wait long."""
IN_FLIGHT_LIMIT_BYTES: Final = 256 * 1024
"""Limit of unacknowledged bytes, without alerts. Sending them takes 0.1 s at 20 Mbit/s, and 33 s at 64 kbit/s: less than the
longest timeout."""
IN_FLIGHT_LIMIT_BLOCKS: Final = 1000
"""Limit of unacknowledged blocks, alerts included: every acknowledgement is compared with all of them."""
MESSAGE_BLOCKS_LIMIT_BYTES: Final = 48 * 1024
"""Limit of the blocks' bytes in one message: with their keys it stays below 64 KiB. A larger block (up to
`sync.outbox.PLAINTEXT_LIMIT_BYTES`) is sent alone."""
MESSAGE_KEYS_LIMIT: Final = 10
"""Limit of wrapped keys in one message, 1.2 KB each. Every UTC day has its own key, so ten keys cover ten days."""
RETRY_S: Final = 1.0
"""Pause after a transient failure: a locked database, a full disk, a lost connection."""

T = TypeVar("T")
Position = tuple[int, int]
"""(epoch, seq) of a block within its lane."""
_START: Final[Position] = (0, 0)


@dataclass(slots=True)
class UplinkStatistics:
    """Counts of blocks since start: `resent` counts repeated sends, `rejected` the blocks that the clinic quarantined.

    `problem` is the message of the latest transient failure.
    """

    blocks_sent: int = 0
    blocks_acked: int = 0
    resent: int = 0
    rejected: int = 0
    malformed_acks: int = 0
    problem: str | None = None


@dataclass(slots=True)
class _Cursor:
    """How far a lane has been read.

    `live` advances from the lane's end at the start of the connection; `backlog` advances from the lane's start to `boundary`.
    """

    live: Position
    boundary: Position
    backlog: Position = _START


_SEND_ORDER: Final[tuple[tuple[Lane, bool], ...]] = (
    ("alert", False),
    ("alert", True),
    ("vital", True),
    ("wave", True),
    ("vital", False),
    ("wave", False),
)
"""(lane, is live), most urgent first."""


class Uplink:
    """Sends the blocks of one hub to the clinic. `statistics` may be read at any time."""

    def __init__(self, outbox: Outbox, transport: Transport, *, hub: str, call: WorkerCall) -> None:
        self._outbox = outbox
        self._transport = transport
        self._hub = hub
        self._call = call
        self._is_connected = False
        self._fence = 0
        self._cursors: dict[Lane, _Cursor] | None = None
        self._in_flight: dict[BlockId, tuple[float, int]] = {}  # when it was sent, its size in bytes
        self._sent_before: set[BlockId] = set()  # sent at least once before, without an acknowledgement
        self._is_clinic_responding = False
        self._ack_timeout_s = ACK_TIMEOUT_S[0]
        self._wakeup = asyncio.Event()
        self.statistics: Final = UplinkStatistics()

    async def run(self) -> NoReturn:
        """Send and receive until cancelled.

        Raises:
            ExceptionGroup: of PermanentError, if the outbox is damaged.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._receive())
            tasks.create_task(self._send())
        raise AssertionError("the send and receive tasks must not return")

    def wake(self) -> None:
        """Signal that the outbox has new blocks. Call it on the event loop."""
        self._wakeup.set()

    async def _send(self) -> NoReturn:
        while True:
            self._wakeup.clear()
            self._expire_in_flight()
            try:
                is_idle = not await self._send_message()
                pause_s = self._time_to_expiry_s()
            except TransientError as error:
                self.statistics.problem = str(error)
                self._cursors = None  # read again the blocks that were read but not sent
                is_idle, pause_s = True, RETRY_S
            if is_idle:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._wakeup.wait()

    async def _send_message(self) -> bool:
        """Send one message with the most urgent blocks. Returns False if nothing can be sent now."""
        if not self._is_connected:
            return False
        if self._cursors is None:
            self._cursors = await self._create_cursors()
        cursors = self._cursors
        for lane, is_live in _SEND_ORDER:
            if not self._has_room(lane):
                return False
            blocks = await self._read_next(lane, cursors[lane], is_live)
            if cursors is not self._cursors:  # a new connection replaced the cursors meanwhile
                return True
            if blocks:
                await self._publish(lane, blocks)
                return True
        return False

    async def _create_cursors(self) -> dict[Lane, _Cursor]:
        cursors: dict[Lane, _Cursor] = {}
        for lane in UPLINK_LANES:
            end = await self._call(self._outbox.last_position, lane)
            cursors[lane] = _Cursor(end, end)
        return cursors

    async def _read_next(self, lane: Lane, cursor: _Cursor, is_live: bool) -> list[OutboxBlock]:
        """Read the next blocks of a lane that are not in flight; empty at the end of the lane."""
        while True:
            after = cursor.live if is_live else cursor.backlog
            rows = await self._call(self._outbox.pending, lane, after, MESSAGE_BLOCKS_LIMIT_BYTES)
            if not is_live:
                rows = [row for row in rows if _position(row) <= cursor.boundary]
            rows = _limit_keys(rows)
            if not rows:
                return []
            if is_live:
                cursor.live = _position(rows[-1])
            else:
                cursor.backlog = _position(rows[-1])
            blocks = [row for row in rows if row.id not in self._in_flight]
            if blocks:
                return blocks

    async def _publish(self, lane: Lane, blocks: list[OutboxBlock]) -> None:
        """Send one message. Its blocks count as in flight beforehand: they may be acknowledged before `publish` returns."""
        cursors = self._cursors
        resent = self._sent_before.intersection(block.id for block in blocks)
        # A clinic that lost its store has lost the keys too, so blocks that are sent again carry their keys again.
        keys = await self._call(_keys, self._outbox, [block.key for block in blocks], bool(resent))
        if cursors is not self._cursors:
            return
        payload = encode_envelope(Envelope(self._hub, tuple(block.sealed for block in blocks), keys))
        now = asyncio.get_running_loop().time()
        self._in_flight.update({block.id: (now, len(block.sealed)) for block in blocks})
        try:
            await self._transport.publish(up_topic(self._hub, lane), payload)
        except TransientError:
            for block in blocks:
                self._in_flight.pop(block.id, None)
            raise
        self.statistics.blocks_sent += len(blocks)
        self.statistics.resent += len(resent)

    async def _receive(self) -> NoReturn:
        while True:
            match await self._transport.receive():
                case Connected():
                    self._is_connected = True
                    self._reset_connection()
                    self._wakeup.set()
                case Disconnected(reason):
                    self._is_connected = False
                    self._reset_connection()
                    self.statistics.problem = reason
                case Message(topic, payload) if topic == ack_topic(self._hub):
                    await self._on_ack(payload)
                case Message():
                    self.statistics.malformed_acks += 1

    async def _on_ack(self, payload: bytes) -> None:
        """Delete the blocks that the clinic holds. If the outbox fails, they are sent again after the timeout."""
        try:
            ack = decode_ack(payload)
        except WireError as error:
            self.statistics.malformed_acks += 1
            self.statistics.problem = str(error)
            return
        if ack.hub != self._hub or ack.fence < self._fence:
            return
        self._fence = ack.fence
        held = _held_ranges(ack)
        try:
            self.statistics.blocks_acked += await self._call(self._outbox.acknowledge, (), held)
            if ack.keys:
                await self._call(self._outbox.mark_keys_held, ack.keys)
        except TransientError as error:
            self.statistics.problem = str(error)
            return
        self.statistics.rejected += len(ack.rejected)
        self._drop_acknowledged(held)
        self._wakeup.set()

    def _drop_acknowledged(self, held: list[Range]) -> None:
        """Drop the blocks that the clinic holds, and set the timeout by those sent only once (RFC 6298, section 3)."""
        now = asyncio.get_running_loop().time()
        for id_ in _covered(self._in_flight, held):
            sent_at, _ = self._in_flight.pop(id_)
            self._is_clinic_responding = True
            if id_ not in self._sent_before:
                self._ack_timeout_s = min(max(4 * (now - sent_at), ACK_TIMEOUT_S[0]), ACK_TIMEOUT_S[1])
        self._sent_before.difference_update(_covered(self._sent_before, held))

    def _reset_connection(self) -> None:
        """Forget the blocks in flight, which may be lost, and read the outbox from its start again."""
        self._sent_before.update(self._in_flight)
        self._in_flight.clear()
        self._cursors = None
        self._is_clinic_responding = False
        self._ack_timeout_s = ACK_TIMEOUT_S[0]

    def _expire_in_flight(self) -> None:
        """Drop the blocks whose acknowledgement is overdue, and read their lanes from the start again."""
        cutoff = asyncio.get_running_loop().time() - self._ack_timeout_s
        overdue = [id_ for id_, (sent_at, _) in self._in_flight.items() if sent_at <= cutoff]
        if overdue:
            self._is_clinic_responding = False
            self._ack_timeout_s = min(2 * self._ack_timeout_s, ACK_TIMEOUT_S[1])
        self._sent_before.update(overdue)
        for id_ in overdue:
            del self._in_flight[id_]
            if self._cursors is not None:
                cursor = self._cursors[id_.lane]
                cursor.backlog, cursor.boundary = _START, cursor.live

    def _time_to_expiry_s(self) -> float | None:
        if not self._in_flight:
            return None
        first_sent_at = next(iter(self._in_flight.values()))[0]
        return max(0.0, first_sent_at + self._ack_timeout_s - asyncio.get_running_loop().time())

    def _has_room(self, lane: Lane) -> bool:
        if len(self._in_flight) >= IN_FLIGHT_LIMIT_BLOCKS:
            return False
        sizes = [size for id_, (_, size) in self._in_flight.items() if id_.lane != "alert"]
        return lane == "alert" or sum(sizes) < (IN_FLIGHT_LIMIT_BYTES if self._is_clinic_responding else 1)


def _limit_keys(rows: list[OutboxBlock]) -> list[OutboxBlock]:
    """The longest prefix of the rows that needs at most `MESSAGE_KEYS_LIMIT` keys."""
    keys: set[bytes] = set()
    for i, row in enumerate(rows):
        keys.add(row.key)
        if len(keys) > MESSAGE_KEYS_LIMIT:
            return rows[:i]
    return rows


def _position(block: OutboxBlock) -> Position:
    return block.id.epoch, block.id.seq


def _keys(outbox: Outbox, ids: Iterable[bytes], also_held: bool) -> tuple[WrappedKey, ...]:
    return tuple(outbox.keys_for(ids, also_held=also_held))


def _held_ranges(ack: Ack) -> list[Range]:
    """The ranges of blocks that an acknowledgement covers. The clinic also holds the blocks in its quarantine."""
    marks = [Range(lane, epoch, 1, seq) for lane, epoch, seq in ack.marks]
    return [*marks, *ack.ranges, *(Range(lane, epoch, seq, seq) for lane, epoch, seq, _ in ack.rejected)]


def _covered(ids: Iterable[BlockId], held: list[Range]) -> list[BlockId]:
    return [
        id_
        for id_ in ids
        if any(id_.lane == lane and id_.epoch == epoch and first <= id_.seq <= last for lane, epoch, first, last in held)
    ]
