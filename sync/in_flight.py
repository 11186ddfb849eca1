"""The blocks that were sent and are not acknowledged: how many more bytes may be sent, and when a block is overdue.

Bytes in flight wait in the buffers of sockets, modems and the broker, and an alert waits behind them. They are therefore
limited to what the link carries in `WINDOW_S`, measured by the clinic's acknowledgements: the bytes acknowledged between a
block's sending and its acknowledgement, divided by that time. While the round trip is shorter than `WINDOW_S`, each
acknowledgement raises the limit in the ratio of the two. If the round trip of an idle link is longer, the limit falls to its
lower bound.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from sync.wire import BlockId, Lane

WINDOW_S: Final = 1.0
"""Time that the bytes in flight may take on the link. An alert must arrive within 2 s; the other half is for the way to the
store, and for a link that has just slowed down."""
WINDOW_BYTES: Final = (8 * 1024, 384 * 1024)
"""Bounds of the limit of bytes in flight, alerts excluded. The lower is 1 s at 64 kbit/s and applies until the clinic answers;
the upper is 0.16 s at 20 Mbit/s."""
MAX_BLOCKS: Final = 1000
"""Limit of blocks in flight, for alerts and for all others: it bounds the memory."""
MAX_MESSAGES: Final = 8
"""Limit of messages in flight, alerts excluded. A full window on a fast link is eight messages of 48 KiB."""
LIVE_MESSAGES: Final = 2
"""Messages of these that a backlog leaves to live data."""
LIVE_SHARE: Final = 8
"""One part in so many of the bytes in flight is left to live data, too: they must not wait until a message of the backlog is
acknowledged. On a link of 64 kbit/s it is a kilobyte, about what a strap's hub stores in ten seconds."""
ALERT_MESSAGES: Final = 16
"""Messages with alerts that may be sent without an answer. Further ones are sent every `ALERT_INTERVAL_S`, until the clinic
answers one: an alert then waits as long as on a slow link, and takes the others that wait with it."""
ALERT_INTERVAL_S: Final = 2.0
RECEIVER_DEAD_S: Final = 30.0
"""The time for which a broker queues messages for a clinic whose connection is dead: one and a half times the keep-alive."""
MESSAGES_QUEUED: Final = 45
"""The most messages of one hub that a broker may have to queue for the clinic in `RECEIVER_DEAD_S`: those in flight (8 + 16),
an alert every 2 s (15), one message after each of the timeouts of 2, 4, 8 and 16 s (4), a status at a new connection and one
in the minute (2). Brokers drop silently what exceeds their limit: `cloud.site.mosquitto` sets that of the site's."""
ACK_TIMEOUT_S: Final = (2.0, 60.0)
"""Bounds of the acknowledgement timeout, after which a block is sent again. The timeout is four times the latest round trip,
doubled by each expiry. The clinic answers in 30 ms (p95), over 2G in 2 s; a hub that restarts before its clinic should not
wait long."""
SHORTEST_S: Final = 1e-6
"""Shortest time between sending and acknowledgement; on virtual time there may be none."""
SLOWEST_BYTES_PER_S: Final = 2_500.0
"""20 kbit/s, a poor 2G uplink: the assumed throughput until it is measured. The timeout begins when the link has had time to
carry what was sent before, and the block itself."""


@dataclass(slots=True)
class _SentBlock:
    """One block in flight, in the message of this number. `acked_before`: bytes that had been acknowledged when it was sent."""

    message: int
    sent_at: float
    due_at: float
    size: int
    acked_before: int


@dataclass(frozen=True, slots=True)
class SentBlocks:
    """The blocks `in_flight`, and those that were sent `before` without an acknowledgement."""

    in_flight: frozenset[BlockId]
    before: frozenset[BlockId]

    def __contains__(self, id_: object) -> bool:
        return id_ in self.in_flight or id_ in self.before


@dataclass(slots=True)
class InFlight:
    """The blocks in flight. Times are those of the event loop, in seconds."""

    is_clinic_responding: bool = False
    """Whether a block was acknowledged since the connection began and since the last timeout. If not, one message at a time is
    sent, so an unreachable clinic costs the hub very little."""
    _blocks: dict[BlockId, _SentBlock] = field(default_factory=dict)
    _first_sent: dict[BlockId, float] = field(default_factory=dict)
    """Blocks that were sent at least once before, without an acknowledgement, and when first."""
    _alerts: int = 0
    _bytes: int = 0
    _sent_messages: int = 0
    _messages: Counter[int] = field(default_factory=Counter)
    """The messages in flight, with the number of blocks of each that are not acknowledged; alerts excluded."""
    _unanswered_alerts: set[int] = field(default_factory=set)
    """The messages with alerts that were sent since the clinic last answered one, whether they are overdue or not."""
    _alert_sent_at: float = 0.0
    _acked_bytes: int = 0
    _bytes_per_s: float | None = None
    _ack_timeout_s: float = ACK_TIMEOUT_S[0]

    @property
    def is_empty(self) -> bool:
        return not self._blocks

    def room_bytes(self, lane: Lane, now: float, *, is_backlog: bool = False) -> int | None:
        """Bytes that may be sent now in a lane; 0 if none. None: any number, as for alerts, or if only alerts are in flight.

        A backlog leaves some room to live data.
        """
        others = len(self._blocks) - self._alerts
        if lane == "alert":
            return 0 if self._alerts >= MAX_BLOCKS or self.alert_wait_s(now) else None
        if not others:
            return None
        n_messages = len(self._messages) + LIVE_MESSAGES * is_backlog
        if others >= MAX_BLOCKS or n_messages >= MAX_MESSAGES or not self.is_clinic_responding:
            return 0
        return max(0, self.window_bytes - self.window_bytes // LIVE_SHARE * is_backlog - self._bytes)

    def alert_wait_s(self, now: float) -> float:
        """Return how long the next alert has to wait; 0 as long as fewer than `ALERT_MESSAGES` are unanswered."""
        if len(self._unanswered_alerts) < ALERT_MESSAGES:
            return 0.0
        return max(0.0, self._alert_sent_at + ALERT_INTERVAL_S - now)

    @property
    def window_bytes(self) -> int:
        """The limit of bytes in flight, alerts excluded."""
        if not self.is_clinic_responding or self._bytes_per_s is None:
            return WINDOW_BYTES[0]
        return round(_clamp(self._bytes_per_s * WINDOW_S, WINDOW_BYTES))

    @property
    def message_bytes(self) -> int:
        """Limit of one message: half of the window, so that the link carries one while the other is acknowledged."""
        return max(WINDOW_BYTES[0], self.window_bytes // 2)

    def sent_blocks(self) -> SentBlocks:
        """A copy for another thread."""
        return SentBlocks(frozenset(self._blocks), frozenset(self._first_sent))

    def add(self, ids: Sequence[BlockId], message_bytes: int, now: float) -> None:
        """Note that the blocks are sent in one message of this size."""
        size = message_bytes // len(ids)
        carried_s = (self._bytes + message_bytes) / max(self._bytes_per_s or 0.0, SLOWEST_BYTES_PER_S)
        due_at = now + max(self._ack_timeout_s, ACK_TIMEOUT_S[0] + carried_s)
        self._sent_messages += 1
        if ids[0].lane == "alert":
            self._unanswered_alerts.add(self._sent_messages)
            self._alert_sent_at = now
        for id_ in ids:
            self._blocks[id_] = _SentBlock(self._sent_messages, now, due_at, size, self._acked_bytes)
            self._count(id_, self._blocks[id_], 1)

    def remove_unsent(self, ids: Iterable[BlockId]) -> None:
        """Undo `add` for a message that was not sent."""
        for id_ in ids:
            if block := self._remove(id_):
                self._unanswered_alerts.discard(block.message)

    def settle(self, ids: Collection[BlockId], now: float) -> None:
        """Remove the blocks that need not be sent any more, and measure the link by them.

        A block that was sent more than once counts from its first sending: nobody knows which copy the clinic answered
        (RFC 6298, section 3). That is at least the round trip, so the throughput is not overestimated.
        """
        acknowledged = {id_: block for id_ in ids if (block := self._remove(id_))}
        self._acked_bytes += sum(block.size for block in acknowledged.values())
        if any(id_.lane == "alert" for id_ in acknowledged):
            self._unanswered_alerts = {block.message for id_, block in self._blocks.items() if id_.lane == "alert"}
        if acknowledged:
            self.is_clinic_responding = True
            latest = max(acknowledged, key=lambda id_: self._first_sent.get(id_, acknowledged[id_].sent_at))
            is_resent, block = latest in self._first_sent, acknowledged[latest]
            elapsed_s = max(now - self._first_sent.get(latest, block.sent_at), SHORTEST_S)
            self._bytes_per_s = (self._acked_bytes - block.acked_before) / elapsed_s
            self._ack_timeout_s = _clamp(elapsed_s if is_resent else 4 * elapsed_s, ACK_TIMEOUT_S)
        for id_ in ids:
            self._first_sent.pop(id_, None)

    def expire(self, now: float) -> list[BlockId]:
        """Remove and return the blocks whose acknowledgement is overdue."""
        overdue = [id_ for id_, block in self._blocks.items() if block.due_at <= now]
        if overdue:
            self.is_clinic_responding = False
            self._ack_timeout_s = min(2 * self._ack_timeout_s, ACK_TIMEOUT_S[1])
        for id_ in overdue:
            self._forget(id_)
        return overdue

    def next_expiry(self) -> float | None:
        """When the next block is overdue; None if none is in flight."""
        return min((block.due_at for block in self._blocks.values()), default=None)

    def reset(self) -> None:
        """Forget the blocks in flight, which may be lost with their connection, and what was measured on it."""
        for id_ in list(self._blocks):
            self._forget(id_)
        self._bytes_per_s = None
        self.is_clinic_responding = False
        self._ack_timeout_s = ACK_TIMEOUT_S[0]

    def _forget(self, id_: BlockId) -> None:
        """Remove a block that has to be sent again."""
        block = self._remove(id_)
        if block is None:
            return
        if len(self._first_sent) >= 2 * MAX_BLOCKS:  # blocks that the full buffer deleted meanwhile are never settled
            self._first_sent.clear()
        self._first_sent.setdefault(id_, block.sent_at)

    def _remove(self, id_: BlockId) -> _SentBlock | None:
        block = self._blocks.pop(id_, None)
        if block is not None:
            self._count(id_, block, -1)
        return block

    def _count(self, id_: BlockId, block: _SentBlock, sign: int) -> None:
        if id_.lane == "alert":
            self._alerts += sign
            return
        self._bytes += sign * block.size
        self._messages[block.message] += sign
        if not self._messages[block.message]:
            del self._messages[block.message]


def _clamp(value: float, bounds: tuple[float, float]) -> float:
    return min(max(value, bounds[0]), bounds[1])
