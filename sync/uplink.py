"""Sends the outbox's blocks to the clinic, and applies the clinic's signed acknowledgements and receipts to the outbox.

The blocks in flight are tracked only in memory:

    pending ──publish──> in flight ──acknowledged──> not sent any more
       ^                     │
       └── no acknowledgement in time, or a new connection

Alerts are sent first and never wait for an acknowledgement. Blocks stored since the connection began (live) are sent before
older ones (backlog). `sync.in_flight` limits what is in flight to what the link carries in a second, because on a slow link an
alert waits behind it.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, NoReturn

from sync.audit_heads import SiteAudit
from sync.consent import ConsentAnswer
from sync.errors import TransientError
from sync.in_flight import LIVE_SHARE, InFlight, SentBlocks
from sync.incoming import Received, receive_ack, receive_receipt
from sync.keys import HubKeys
from sync.mqtt import PACKET_OVERHEAD_BYTES, Connected, Disconnected, Message
from sync.outbox import NEWEST, Outbox
from sync.outgoing import MESSAGE_BLOCKS_LIMIT_BYTES, Due, OutgoingMessage, Section, Sender, prepare_message
from sync.registration import Registration
from sync.signing import SignatureError
from sync.transport import Transport, WorkerCall
from sync.uplink_cursor import SEND_ORDER, Cursor
from sync.wire import LANES, RETRY_AFTER_LIMIT_S, Lane, WireError, ack_topic, command_topic, receipt_topic, up_topic

log: Final = logging.getLogger(__name__)

RETRY_S: Final = 1.0
"""Pause after a transient failure: a locked database, a full disk, a lost connection."""
RENEWAL_INTERVAL_S: Final = 60.0
"""How often blocks without a receipt are looked for, and dropped ranges sent without a block. Receipts have 10 min."""
HELLO_INTERVAL_S: Final = 3600.0
"""How often a message, without blocks if there are none, asks whether the clinic's store was restored from a backup."""
IGNORED_REPORT_INTERVAL_S: Final = 60.0
"""At most one ignored message in this time is reported: a broker may send thousands."""

ANSWER_LIMIT_S: Final = 30.0
"""Time without an acknowledgement after which the status says so. Several sendings expire before: the first after 2 s."""
OUTDATED_PAUSE_S: Final = 3600.0
"""How long an outdated hub sends nothing but alerts after the clinic refused its blocks. It tries again after that, as the
clinic may have been set back; after an update the agent starts anew, without a pause."""
SPREAD: Final = 1.5
"""A pause that the clinic asks for is prolonged at random by up to this factor: its hubs must not all come back at once."""
_LEAST_URGENT: Final[Lane] = "wave"
"""The topic of a message without blocks, and of one with blocks of `archive`, which has no topic."""
_ARCHIVE: Final[tuple[Lane, ...]] = ("archive",)
_ReceiveMessage = Callable[[Outbox, Registration, bytes, SentBlocks], Received]


@dataclass(slots=True)
class UplinkStatistics:
    """Counts since start: blocks sent, those of them `resent`, and blocks that need not be sent any more (`blocks_acked`).

    `ignored_messages` were forged, foreign, replayed or malformed; `ignored_reason` says why one of them was ignored.
    `problem` says why blocks do not reach the clinic and what to check; None once one is acknowledged, or none is left.
    `aside_reason` and `refused_reason` are the clinic's reasons for the last block that it set aside, and that it refused.
    `is_copied`: the clinic says that two machines use this hub's identity. `update_by_s`: the clinic says that this agent is
    outdated, and that it refuses its blocks from then on, seconds since 1970. `pauses` counts how often it asked to wait.
    """

    blocks_sent: int = 0
    blocks_acked: int = 0
    resent: int = 0
    ignored_messages: int = 0
    problem: str | None = None
    ignored_reason: str | None = None
    aside_reason: str | None = None
    refused_reason: str | None = None
    is_copied: bool = False
    update_by_s: int | None = None
    pauses: int = 0


def ignore(*_values: object) -> None:
    """Do nothing when an uplink calls."""


@dataclass(frozen=True, slots=True)
class UplinkCallbacks:
    """What an uplink calls.

    `on_live`: with the seconds for which the clinic asks for a commit every second. `on_connected`: at each new connection.
    `on_audit`: with heads of the audit logs that are new, in the thread of the uplink's `call`. `on_command`: with a message on
    `down/command`, in that thread; it raises WireError or SignatureError if the message is not a command to this hub.
    `on_consent`: with what the clinic says of the subject's consent, in that thread.
    """

    on_live: Callable[[float], None] = ignore
    on_connected: Callable[[], None] = ignore
    on_audit: Callable[[SiteAudit], None] = ignore
    on_command: Callable[[bytes], None] = ignore
    on_consent: Callable[[ConsentAnswer], None] = ignore


class Uplink:
    """Sends the blocks of one hub to the clinic. `statistics` may be read at any time."""

    def __init__(
        self,
        outbox: Outbox,
        transport: Transport,
        *,
        hub: str,
        keys: HubKeys,
        registration: Registration,
        call: WorkerCall,
        callbacks: UplinkCallbacks,
    ) -> None:
        self._outbox = outbox
        self._transport = transport
        self._hub = hub
        self._sender = Sender(hub, keys.device)
        self._registration = registration
        self._call = call
        self._callbacks = callbacks
        self._audit: SiteAudit | None = None
        self._is_connected = False
        self._due = Due.HELLO
        self._asked_at = self._answered_at = 0.0
        self._paused_until = self._outdated_until = 0.0
        """Until when nothing but alerts is sent, as the clinic asked for it, and as this agent is outdated."""
        self._ignored_reported_at: float | None = None
        self._cursors: dict[Lane, Cursor] | None = None
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
            tasks.create_task(self._renew())
        raise AssertionError("the tasks of the uplink must not return")

    def wake(self) -> None:
        """Signal that the outbox has new blocks. Call it on the event loop."""
        self._wakeup.set()

    def send_archive(self) -> None:
        """Send blocks that were released in `archive`. Call it on the event loop."""
        self._read_again(_ARCHIVE)
        self.wake()

    async def _send(self) -> NoReturn:
        while True:
            self._wakeup.clear()
            self._expire_in_flight()
            try:
                is_idle = not await self._send_message()
                pause_s = self._time_to_next_event_s()
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
        cursors, in_flight = self._cursors, self._in_flight
        prepare = (prepare_message, self._outbox, self._sender, self._list_sections(cursors))
        due = self._due if in_flight.is_empty and not self._pause_s() else Due.NOTHING
        message = await self._call(*prepare, in_flight.sent_blocks(), due)
        if cursors is not self._cursors:  # the lanes have to be read again
            return True
        if message is None:
            if in_flight.is_empty and not self._pause_s():
                self._set_problem(None)
            return False
        if message.section is not None:
            cursors[message.section.lane].advance(message.section.is_live, message.end)
        if message.payload:
            await self._publish(message, due)
        return True

    async def _create_cursors(self) -> dict[Lane, Cursor]:
        cursors: dict[Lane, Cursor] = {}
        for lane in LANES:
            end = await self._call(self._outbox.last_position, lane)
            cursors[lane] = Cursor(end, end)
        return cursors

    def _list_sections(self, cursors: dict[Lane, Cursor]) -> list[Section]:
        """The parts of the lanes to send next, most urgent first, up to the first lane for which there is no room."""
        sections: list[Section] = []
        for lane, is_live in SEND_ORDER:
            room = self._in_flight.room_bytes(lane, asyncio.get_running_loop().time(), is_backlog=not is_live)
            if room == 0 or (lane != "alert" and self._pause_s()):
                break
            limit_bytes = MESSAGE_BLOCKS_LIMIT_BYTES
            if lane != "alert":
                limit_bytes = min(limit_bytes, self._in_flight.message_bytes)
            if room is not None:
                if not is_live and room < self._in_flight.window_bytes // LIVE_SHARE:
                    break  # the rest of the window would cut the backlog into small messages: each is a commit at the clinic
                limit_bytes = min(limit_bytes, room - PACKET_OVERHEAD_BYTES)
            cursor = cursors[lane]
            after, until = (cursor.live, NEWEST) if is_live else (cursor.backlog, cursor.boundary)
            sections.append(Section(lane, is_live, after, until, limit_bytes, room is not None))
        return sections

    async def _publish(self, message: OutgoingMessage, due: Due) -> None:
        """Send a message. Its blocks count as in flight beforehand: they may be acknowledged before `publish` returns."""
        self._due, now = Due.NOTHING, asyncio.get_running_loop().time()
        if due is Due.HELLO:
            self._asked_at = now
        if message.ids:
            self._in_flight.add(message.ids, len(message.payload) + PACKET_OVERHEAD_BYTES, now)
        lane = message.section.lane if message.section else _LEAST_URGENT
        lane = _LEAST_URGENT if lane == "archive" else lane
        try:
            await self._transport.publish(up_topic(self._hub, lane), message.payload)
        except TransientError:
            self._in_flight.remove_unsent(message.ids)
            raise
        self.statistics.blocks_sent += len(message.ids)
        self.statistics.resent += message.resent

    async def _receive(self) -> NoReturn:
        while True:
            match await self._transport.receive():
                case Connected():
                    self._is_connected = True
                    self._answered_at = asyncio.get_running_loop().time()
                    self._reset_connection()
                    self._callbacks.on_connected()
                    self._wakeup.set()
                case Disconnected(reason):
                    self._is_connected = False
                    self._reset_connection()
                    self._set_problem(reason)
                case Message(topic, payload) if topic == ack_topic(self._hub):
                    await self._on_message(receive_ack, payload)
                case Message(topic, payload) if topic == receipt_topic(self._hub):
                    await self._on_message(receive_receipt, payload)
                case Message(topic, payload) if topic == command_topic(self._hub):
                    await self._on_command(payload)
                case Message():
                    self._on_ignored("a message on a topic that this hub does not subscribe to")

    async def _on_command(self, payload: bytes) -> None:
        try:
            await self._call(self._callbacks.on_command, payload)
        except (WireError, SignatureError) as error:
            self._on_ignored(str(error))

    async def _on_message(self, receive: _ReceiveMessage, payload: bytes) -> None:
        """Apply a message of the clinic. If the outbox fails, the blocks are sent again after the timeout."""
        sent = self._in_flight.sent_blocks()
        try:
            received = await self._call(receive, self._outbox, self._registration, payload, sent)
        except (WireError, SignatureError) as error:
            self._on_ignored(str(error))
            return
        except TransientError as error:
            self._set_problem(str(error))
            return
        applied = received.applied
        if not applied.accepted:
            self._on_ignored(applied.problem or "it does not follow the messages before it")
            return
        self.statistics.blocks_acked += sum(id_ in sent for id_ in applied.settled)
        now = asyncio.get_running_loop().time()
        self._in_flight.settle(applied.settled, now)
        if applied.settled:
            self._answered_at = now
            self._set_problem(None)
        if applied.is_new_store:
            self._read_again(LANES)
        self._note_report(received)
        self._wakeup.set()
        if received.consent is not None:
            await self._call(self._callbacks.on_consent, received.consent)
        if received.audit not in (None, self._audit):
            self._audit = received.audit
            await self._call(self._callbacks.on_audit, received.audit)

    def _note_report(self, received: Received) -> None:
        """Note what the clinic says besides which blocks it holds."""
        statistics = self.statistics
        if received.aside_reason not in (None, statistics.aside_reason):
            statistics.aside_reason = received.aside_reason
            log.warning("the clinic keeps blocks of this hub aside: %s", received.aside_reason)
        if received.refused_reason not in (None, statistics.refused_reason):
            statistics.refused_reason = received.refused_reason
            log.warning("the clinic refuses blocks of this hub, and they are deleted here: %s", received.refused_reason)
        if received.is_copied is not None:
            if received.is_copied and not statistics.is_copied:
                log.error("another machine uses this hub's identity: find and stop it, and register it under another name")
            statistics.is_copied = received.is_copied
        if received.live_s:
            self._callbacks.on_live(received.live_s)
        if received.pause_s is not None:
            self._pause(min(received.pause_s * random.uniform(1.0, SPREAD), RETRY_AFTER_LIMIT_S))  # noqa: S311 - no secret
            self._note_update(received)

    def _note_update(self, received: Received) -> None:
        """Note whether the clinic says that this agent is outdated, and keep what it refuses therefore."""
        if received.update_by_s is not None and self.statistics.update_by_s is None:
            log.warning("this pulsegate is outdated: update it, or the clinic will soon take nothing of it but alerts")
        self.statistics.update_by_s = received.update_by_s
        if received.update_by_s is None:
            self._outdated_until = 0.0
        if received.outdated:
            self._in_flight.remove_unsent(received.outdated)
            self._read_again({id_.lane for id_ in received.outdated})
            self._outdated_until = asyncio.get_running_loop().time() + OUTDATED_PAUSE_S
            self._set_problem("the clinic takes only alerts of this hub, as its pulsegate is outdated: update it")

    def _pause(self, seconds: float) -> None:
        """Send nothing but alerts for so long; 0 ends the pause. What is in flight may still be acknowledged."""
        self.statistics.pauses += bool(seconds)
        self._paused_until = asyncio.get_running_loop().time() + seconds

    def _pause_s(self) -> float:
        """The rest of the pause."""
        return max(0.0, max(self._paused_until, self._outdated_until) - asyncio.get_running_loop().time())

    def _on_ignored(self, reason: str) -> None:
        """Count a message that changes nothing, and report it unless another one was reported lately."""
        self.statistics.ignored_messages += 1
        now, before = asyncio.get_running_loop().time(), self._ignored_reported_at
        if before is None or now - before >= IGNORED_REPORT_INTERVAL_S:
            self._ignored_reported_at = now
            self.statistics.ignored_reason = reason
            log.warning("ignored a message from the broker: %s", reason)

    async def _renew(self) -> NoReturn:
        """Send again, from time to time, what the clinic should have confirmed in another way than by an acknowledgement."""
        while True:
            await asyncio.sleep(RENEWAL_INTERVAL_S)
            is_hello_due = asyncio.get_running_loop().time() - self._asked_at >= HELLO_INTERVAL_S
            self._due = Due.HELLO if is_hello_due else max(self._due, Due.DROPPED)
            try:
                if await self._call(self._outbox.requeue_unopened):
                    self._read_again(("alert", "vital"))
            except TransientError as error:
                self._set_problem(str(error))
            self._wakeup.set()

    def _reset_connection(self) -> None:
        """Forget the blocks in flight, which may be lost, and read the outbox from its start again."""
        self._in_flight.reset()
        self._cursors = None
        self._due = max(self._due, Due.DROPPED)

    def _expire_in_flight(self) -> None:
        now = asyncio.get_running_loop().time()
        overdue = self._in_flight.expire(now)
        if overdue and now - self._answered_at >= ANSWER_LIMIT_S:
            self._set_problem(
                "the broker is there, but the clinic does not acknowledge: check that pulsegate-cloud runs, and that this hub"
                " is registered there with this device's key (pulsegate-cloud register)"
            )
        self._read_again({id_.lane for id_ in overdue})

    def _read_again(self, lanes: Collection[Lane]) -> None:
        """Read lanes from their start again. Replaces the cursors, so that a message that is being prepared is discarded."""
        if self._cursors is not None and lanes:
            again: dict[Lane, Cursor] = {lane: Cursor(self._cursors[lane].live, self._cursors[lane].live) for lane in lanes}
            self._cursors = {**self._cursors, **again}

    def _time_to_next_event_s(self) -> float | None:
        """Time until a block is overdue, the pause ends, or a further alert may be sent; None if none of these comes."""
        now = asyncio.get_running_loop().time()
        due_at = self._in_flight.next_expiry()
        expiry = [] if due_at is None else [max(0.0, due_at - now)]
        return min([*expiry, *filter(None, (self._pause_s(), self._in_flight.alert_wait_s(now)))], default=None)

    def _set_problem(self, problem: str | None) -> None:
        """Report a problem, or its end, in the statistics and once in the log."""
        if problem == self.statistics.problem:
            return
        self.statistics.problem = problem
        if problem is None:
            log.info("the clinic acknowledges blocks again")
        else:
            log.warning("cannot send to the clinic: %s", problem)
