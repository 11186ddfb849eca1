"""The events of one sensor, and the bounded queue between its session and their processing.

A full queue drops notifications and says so with an event of its own, so that every loss leaves a record.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from drivers.readings import Reading
from gateway.link_states import LinkState
from gateway.timeline import Arrival

QUEUE_LIMIT: Final = 1024
"""Notifications that may wait for the pipeline: nine minutes of one strap."""
QUEUE_RESERVE: Final = 256
"""Further places for what cannot be measured again: indicated readings, interruptions and changes of the link's state. A cuff
stores up to 200 measurements; a link that fails every few seconds takes ten minutes to fill these places."""


@dataclass(frozen=True, slots=True)
class Notification:
    """One value of a characteristic as received, and the readings in it.

    An indicated value is a spot reading, which the sensor sends only once. `memory` is what the hub remembers of the sensor
    from this value on, stored in one transaction with its readings; None where it has not changed.
    """

    characteristic: str
    payload: bytes
    readings: tuple[Reading, ...]
    arrival: Arrival
    is_indicated: bool = False
    memory: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Interruption:
    """The link ended, or could not be established."""

    reason: str
    arrival: Arrival


@dataclass(frozen=True, slots=True)
class LinkStateChange:
    """The state of the link changed."""

    state: LinkState
    arrival: Arrival


@dataclass(frozen=True, slots=True)
class Overflow:
    """Events were dropped because the queue was full.

    Attributes:
        notifications: how many notifications were dropped.
        arrival: of the first dropped event.
        state: the last dropped state of the link; None if none was dropped.
    """

    notifications: int
    arrival: Arrival
    state: LinkState | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The patient said whether a held result is their own."""

    id: str
    is_patient: bool
    arrival: Arrival


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Nothing came; what depends on the time alone is decided at this time."""

    arrival: Arrival


SensorEvent = Notification | Interruption | LinkStateChange | Overflow | Answer | TimePassed


def is_spot_reading(event: SensorEvent) -> bool:
    """Whether an event carries a result that its sensor sends only once, or makes a held one an ordinary one."""
    return isinstance(event, Answer) or (isinstance(event, Notification) and event.is_indicated and bool(event.readings))


class EventQueue:
    """The events of one sensor in order, at most `QUEUE_LIMIT` + `QUEUE_RESERVE` and one `Overflow`.

    `take` is offered each event that nothing waits before; one that it processes at once, and returns True, is not queued. Most
    events of a quiet sensor so cost no task switch.
    """

    def __init__(self, take: Callable[[SensorEvent], bool] | None = None) -> None:
        self.take = take
        self._events: asyncio.Queue[SensorEvent] = asyncio.Queue()
        self._overflow: Overflow | None = None
        """What was dropped since the queue became full; it joins the queue as soon as there is a place."""
        self.dropped = 0
        """The number of notifications that were dropped."""

    def put(self, event: Notification | Interruption | LinkStateChange | Answer) -> None:
        """Adds an event, or counts it in the `Overflow` that follows the queued events."""
        if self.take is not None and self._events.empty() and self.take(event):
            return
        is_streamed = isinstance(event, Notification) and not event.is_indicated
        if self._events.qsize() < (QUEUE_LIMIT if is_streamed else QUEUE_LIMIT + QUEUE_RESERVE):
            self._events.put_nowait(event)
            return
        overflow = self._overflow or Overflow(0, event.arrival)
        match event:
            case Notification():
                self.dropped += 1
                overflow = replace(overflow, notifications=overflow.notifications + 1)
            case LinkStateChange(state):
                overflow = replace(overflow, state=state)
            case Interruption() | Answer():  # every overflow opens a gap; the patient is asked again
                pass
        self._overflow = overflow

    async def get(self) -> SensorEvent:
        """Waits for the next event."""
        event = await self._events.get()
        self._queue_overflow()
        return event

    def get_nowait(self) -> SensorEvent:
        """Takes the next event; raises `asyncio.QueueEmpty` where there is none."""
        event = self._events.get_nowait()
        self._queue_overflow()
        return event

    def drain(self, limit: int) -> list[SensorEvent]:
        """Takes the events that are queued, at most `limit`."""
        drained: list[SensorEvent] = []
        while len(drained) < limit and not self.empty():
            drained.append(self.get_nowait())
        return drained

    def empty(self) -> bool:
        """Whether no event is queued."""
        return self._events.empty()

    def _queue_overflow(self) -> None:
        if self._overflow is not None and self._events.qsize() < QUEUE_LIMIT:
            self._events.put_nowait(self._overflow)
            self._overflow = None
