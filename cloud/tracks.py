"""The messages that ingest has received and not handled, in three tracks, so that what is urgent waits for nothing else.

    alerts ───────────────────────> track `alert`    Each track is handled by itself, beside the others: the messages that
    a few blocks, as live data ───> track `live`     wait in it are taken together as a group.
    many blocks (a backlog), and statuses ─> track `bulk`

A message of a backlog carries as many blocks as fit; one of live data carries what its hub has stored since the last one. A
hub that sends little is served soon, whatever the others send. The topic and the size decide and prove nothing: they only set
the order.
"""

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from cloud.pressure import Pressure
from sync.mqtt import RECEIVE_QUEUE_LENGTH, Message
from sync.wire import hub_of_status_topic

GROUP_MESSAGES: Final = 128
"""Messages that are committed together: half of what may wait (`sync.mqtt.RECEIVE_QUEUE_LENGTH`). A group costs hardly more
statements and syncs of the disk than a message does."""
GROUP_BYTES: Final = 2 * 1024 * 1024
"""Bytes of the messages that are committed together: 0.3 s of work on one processor. The bound is of the work and not of its
time: where a commit is slow, whatever is in it, smaller groups would make the queue longer."""
LIVE_BYTES: Final = 8 * 1024
"""Largest message of the track `live`: four times what a strap's hub seals in ten seconds, and the smallest limit of a hub's
messages on a slow link (`sync.in_flight.WINDOW_BYTES`)."""
WAITING_LIMIT: Final = RECEIVE_QUEUE_LENGTH
"""Messages that may wait in all tracks, at most 16 MiB. Beyond it the oldest of the least urgent ones is dropped; its hub
sends it again."""

_log: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class Track:
    """Messages that wait, the number of those that are being handled, and how long they take."""

    pressure: Pressure = field(default_factory=Pressure)
    _waiting: deque[Message] = field(default_factory=deque)
    _n_handled: int = 0
    _has_arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def n_waiting(self) -> int:
        return len(self._waiting)

    def add(self, message: Message) -> None:
        self._waiting.append(message)
        self._has_arrived.set()

    def drop_oldest(self) -> None:
        self._waiting.popleft()

    async def take_group(self) -> list[Message]:
        """Wait for messages; return those that waited longest, as many as are committed together.

        They count as being handled until the next call.
        """
        self._n_handled = 0
        while not self._waiting:
            self._has_arrived.clear()
            await self._has_arrived.wait()
        group, n_bytes = list[Message](), 0
        while self._waiting and len(group) < GROUP_MESSAGES:
            n_bytes += len(self._waiting[0].payload)
            if group and n_bytes > GROUP_BYTES:
                break
            group.append(self._waiting.popleft())
        self._n_handled = len(group)
        return group

    def retry_after_s(self) -> int:
        """Return what to ask the hubs to wait: messages take long, or come faster than they are handled."""
        n_before = self.n_waiting + self._n_handled
        if not n_before:
            return 0  # what was measured before says nothing of now
        return self.pressure.retry_after_s(n_before - 1) or int(self.n_waiting >= GROUP_MESSAGES)


@dataclass(slots=True)
class Tracks:
    """All tracks, most urgent first."""

    alert: Track = field(default_factory=Track)
    live: Track = field(default_factory=Track)
    bulk: Track = field(default_factory=Track)
    n_dropped: int = 0

    @property
    def all(self) -> tuple[Track, Track, Track]:
        return self.alert, self.live, self.bulk

    @property
    def n_waiting(self) -> int:
        return sum(track.n_waiting for track in self.all)

    def add(self, message: Message) -> None:
        """Let a message wait in its track."""
        self._choose(message).add(message)
        if self.n_waiting > WAITING_LIMIT:
            next(track for track in reversed(self.all) if track.n_waiting).drop_oldest()
            self.n_dropped += 1
            if self.n_dropped & (self.n_dropped - 1) == 0:  # 1, 2, 4, 8 …: an overload does not fill the log
                _log.warning("too many messages wait: %d were dropped so far; their hubs send them again", self.n_dropped)

    def retry_after_s(self) -> int:
        """Return what to ask hubs to wait with everything but alerts; 0 if they need not."""
        return max(self.live.retry_after_s(), self.bulk.retry_after_s())

    def _choose(self, message: Message) -> Track:
        if message.topic.endswith("/up/alert"):
            return self.alert
        is_status = hub_of_status_topic(message.topic) is not None
        return self.live if len(message.payload) <= LIVE_BYTES and not is_status else self.bulk
