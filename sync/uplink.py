"""Sends the outbox's blocks to the clinic, and deletes a block when the clinic acknowledges that it has committed it.

The blocks in flight are tracked only in memory:

    pending ──publish──> in flight ──acknowledged──> deleted from the outbox
       ^                     │
       └── no acknowledgement in time, or a new connection

Alerts are sent first and never wait for an acknowledgement. Blocks stored since the connection began (live) are sent before
older ones (backlog). `sync.in_flight` limits what is in flight to what the link carries in a second, because on a slow link an
alert waits behind it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NoReturn, TypeVar

from sync.errors import TransientError
from sync.in_flight import InFlight
from sync.mqtt import PACKET_OVERHEAD_BYTES, Connected, Disconnected, Message
from sync.outbox import NEWEST, Outbox, OutboxBlock
from sync.transport import Transport, WorkerCall
from sync.wire import (
    UPLINK_LANES,
    Ack,
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

log: Final = logging.getLogger(__name__)

MESSAGE_BLOCKS_LIMIT_BYTES: Final = 48 * 1024
"""Limit of the blocks' bytes in one message: with their keys it stays below 64 KiB. A larger block (up to
`sync.wire.PLAINTEXT_LIMIT_BYTES`) is sent alone."""
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

    `problem` says why blocks do not reach the clinic and what to check; None once one is acknowledged, or none is left.
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

    def advance(self, is_live: bool, position: Position) -> None:
        if is_live:
            self.live = position
        else:
            self.backlog = position


@dataclass(frozen=True, slots=True)
class _Section:
    """A part of a lane, after one position and up to another, and how much of it to read: at least one block."""

    lane: Lane
    is_live: bool
    after: Position
    until: Position
    limit_bytes: int
    must_fit: bool
    """Whether a first block over the limit has to wait."""


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
        self._in_flight = InFlight()
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
                self._set_problem(str(error))
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
        section, rows, keys = await self._call(_read_first, self._outbox, self._list_sections(cursors))
        if cursors is not self._cursors:  # a new connection replaced the cursors meanwhile
            return True
        if section is None:
            if self._in_flight.is_empty:
                self._set_problem(None)
            return False
        if section.must_fit and len(rows[0].sealed) > section.limit_bytes and rows[0].id not in self._in_flight:
            return False
        cursors[section.lane].advance(section.is_live, _position(rows[-1]))
        blocks = [row for row in rows if row.id not in self._in_flight]
        if blocks:
            await self._publish(section.lane, blocks, keys)
        return True

    async def _create_cursors(self) -> dict[Lane, _Cursor]:
        cursors: dict[Lane, _Cursor] = {}
        for lane in UPLINK_LANES:
            end = await self._call(self._outbox.last_position, lane)
            cursors[lane] = _Cursor(end, end)
        return cursors

    def _list_sections(self, cursors: dict[Lane, _Cursor]) -> list[_Section]:
        """The parts of the lanes to send next, most urgent first, up to the first lane for which there is no room."""
        sections: list[_Section] = []
        for lane, is_live in _SEND_ORDER:
            room = self._in_flight.room_bytes(lane)
            if room == 0:
                break
            limit_bytes = MESSAGE_BLOCKS_LIMIT_BYTES
            if lane != "alert":
                limit_bytes = min(limit_bytes, self._in_flight.message_bytes)
            if room is not None:
                if not is_live and room < self._in_flight.window_bytes // 8:
                    break  # the rest of the window would cut the backlog into small messages: each is a commit at the clinic
                limit_bytes = min(limit_bytes, room - PACKET_OVERHEAD_BYTES)
            cursor = cursors[lane]
            after, until = (cursor.live, NEWEST) if is_live else (cursor.backlog, cursor.boundary)
            sections.append(_Section(lane, is_live, after, until, limit_bytes, room is not None))
        return sections

    async def _publish(self, lane: Lane, blocks: list[OutboxBlock], keys: list[WrappedKey]) -> None:
        """Send one message. Its blocks count as in flight beforehand: they may be acknowledged before `publish` returns."""
        ids = [block.id for block in blocks]
        resent = self._in_flight.sent_before(ids)
        if resent:  # a clinic that lost its store has lost the keys too
            cursors = self._cursors
            keys = await self._call(_read_all_keys, self._outbox, blocks)
            if cursors is not self._cursors:
                return
        payload = encode_envelope(Envelope(self._hub, tuple(block.sealed for block in blocks), tuple(keys)))
        self._in_flight.add(ids, len(payload) + PACKET_OVERHEAD_BYTES, asyncio.get_running_loop().time())
        try:
            await self._transport.publish(up_topic(self._hub, lane), payload)
        except TransientError:
            self._in_flight.remove_unsent(ids)
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
                    self._set_problem(reason)
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
            self._set_problem(str(error))
            return
        if ack.hub != self._hub or ack.fence < self._fence:
            return
        self._fence = ack.fence
        held = _held_ranges(ack)
        try:
            deleted = await self._call(self._outbox.acknowledge, (), held)
            self.statistics.blocks_acked += deleted
            if ack.keys:
                await self._call(self._outbox.mark_keys_held, ack.keys)
        except TransientError as error:
            self._set_problem(str(error))
            return
        self.statistics.rejected += len(ack.rejected)
        self._in_flight.acknowledge(held, asyncio.get_running_loop().time())
        if deleted:
            self._set_problem(None)
        self._wakeup.set()

    def _reset_connection(self) -> None:
        """Forget the blocks in flight, which may be lost, and read the outbox from its start again."""
        self._in_flight.reset()
        self._cursors = None

    def _expire_in_flight(self) -> None:
        """Read the lanes of blocks whose acknowledgement is overdue from the start again."""
        for id_ in self._in_flight.expire(asyncio.get_running_loop().time()):
            if self._cursors is not None:
                cursor = self._cursors[id_.lane]
                cursor.backlog, cursor.boundary = _START, cursor.live

    def _time_to_expiry_s(self) -> float | None:
        due_at = self._in_flight.next_expiry()
        return None if due_at is None else max(0.0, due_at - asyncio.get_running_loop().time())

    def _set_problem(self, problem: str | None) -> None:
        """Report a problem, or its end, in the statistics and once in the log."""
        if problem == self.statistics.problem:
            return
        self.statistics.problem = problem
        if problem is None:
            log.info("the clinic acknowledges blocks again")
        else:
            log.warning("cannot send to the clinic: %s", problem)


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


def _read_first(outbox: Outbox, sections: Iterable[_Section]) -> tuple[_Section | None, list[OutboxBlock], list[WrappedKey]]:
    """Read the first section that has blocks, and those of its keys that the clinic has not confirmed.

    One call of the storage worker reads all of it, because a call takes longer than reading an empty lane.
    """
    for section in sections:
        rows = _limit_keys(outbox.pending(section.lane, section.after, section.limit_bytes, until=section.until))
        if rows:
            return section, rows, outbox.keys_for(row.key for row in rows)
    return None, [], []


def _read_all_keys(outbox: Outbox, blocks: Iterable[OutboxBlock]) -> list[WrappedKey]:
    return outbox.keys_for((block.key for block in blocks), also_held=True)


def _held_ranges(ack: Ack) -> list[Range]:
    """The ranges of blocks that an acknowledgement covers. The clinic also holds the blocks in its quarantine."""
    marks = [Range(lane, epoch, 1, seq) for lane, epoch, seq in ack.marks]
    return [*marks, *ack.ranges, *(Range(lane, epoch, seq, seq) for lane, epoch, seq, _ in ack.rejected)]
