"""The live feed of the page's WebSockets: follows the change log and sends every change to the viewers who may see it.

An opener in the same process calls `send_changes` after each batch. That is only a hint: the feed also reads the log every
`POLL_S`, and so follows openers in other processes.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Engine

from cloud import change_log
from cloud.api import alert_queries, queries
from cloud.api.numbers import Json
from cloud.change_log import LogPosition
from cloud.changes import ALERT, SENSOR, VITAL, WAVEFORM, AlertKey, Change, SensorKey
from cloud.clock import now_us
from cloud.databases import snapshot
from cloud.metrics import note_shown
from cloud.scope import Scope

QUEUE_MESSAGES: Final = 256
"""Messages that can wait for one viewer: enough for a minute of data from three sensors. If the queue is full, the viewer
fetches the data over REST instead."""
HEARTBEAT_S: Final = 2.0
"""Longest silence on a healthy WebSocket. After three times this silence the page reports a lost connection (js/link.js)."""
POLL_S: Final = 1.0
"""Time between two readings of the log without a hint: what an alert is late by at the most if its hint was lost, or if the
opener is another process. A reading takes some ms, so that it costs less than a hundredth of a core."""
RESYNC: Final[Json] = {"type": "resync"}
"""Tells the page to fetch over REST what it shows."""

_log: Final = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Viewer:
    """The message queue of one WebSocket."""

    queue: asyncio.Queue[Json] = field(default_factory=lambda: asyncio.Queue(QUEUE_MESSAGES))


@dataclass(eq=False, slots=True)
class Channel:
    """The viewers of one scope, and the place in the log up to which they have been told; None after a failure."""

    position: LogPosition | None
    viewers: list[Viewer] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FeedStatistics:
    """Connected viewers, and messages published and dropped since the start."""

    viewers: int
    published: int
    dropped: int


class Feed:
    """Sends changes to every viewer. A slow viewer loses its queued messages; it never delays other viewers or the opener."""

    def __init__(self, engine: Engine, clock_us: Callable[[], int] = now_us) -> None:
        self._engine = engine
        self._clock_us = clock_us
        self._channels: dict[Scope, Channel] = {}
        self._sending = asyncio.Lock()
        self._published = 0
        self._dropped = 0

    def statistics(self) -> FeedStatistics:
        """Return a snapshot of the counters."""
        viewers = sum(len(channel.viewers) for channel in self._channels.values())
        return FeedStatistics(viewers, self._published, self._dropped)

    async def run(self) -> None:
        """Send changes without a hint until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            await self.send_changes()

    async def send_changes(self) -> None:
        """Queue messages about what has changed for every viewer, alerts first.

        If they cannot be built, viewers are told to fetch what they show, as soon as the projections can be read.
        """
        async with self._sending:
            for scope, channel in list(self._channels.items()):
                await self._send_to_channel(scope, channel)

    async def _send_to_channel(self, scope: Scope, channel: Channel) -> None:
        try:
            channel.position, messages = await asyncio.to_thread(self._read_messages, scope, channel.position)
        except Exception as error:  # noqa: BLE001 - one block must not stop the live feed of the others
            _log.error("cannot build live messages (%s): viewers fetch the changes instead", type(error).__name__)
            channel.position, messages = None, []
        self._published += len(messages)
        for message in messages:
            if message["type"] == "alert":
                note_shown(message["received_us"], self._clock_us())
        for viewer in channel.viewers:
            for message in messages:
                self._enqueue(viewer, message)

    @contextlib.asynccontextmanager
    async def register_viewer(self, scope: Scope) -> AsyncIterator[Viewer]:
        """Register a viewer for the duration of its connection: it gets the changes in its scope from now on."""
        viewer = Viewer()
        if scope not in self._channels:
            position = await asyncio.to_thread(self._read_end)
            self._channels.setdefault(scope, Channel(position))  # another viewer may have registered meanwhile
        channel = self._channels[scope]
        channel.viewers.append(viewer)
        try:
            yield viewer
        finally:
            channel.viewers.remove(viewer)
            if not channel.viewers:
                del self._channels[scope]

    async def next_message(self, viewer: Viewer) -> Json:
        """Wait for a viewer's next message and return it with the time of sending; a heartbeat after `HEARTBEAT_S`."""
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                message = await viewer.queue.get()
        except TimeoutError:
            message = {"type": "beat"}  # the heartbeat of the connection, not of the patient
        return message | {"published_us": self._clock_us()}

    def _enqueue(self, viewer: Viewer, message: Json) -> None:
        if viewer.queue.full():
            self._dropped += viewer.queue.qsize()
            while not viewer.queue.empty():
                viewer.queue.get_nowait()
            viewer.queue.put_nowait(RESYNC)
        viewer.queue.put_nowait(message)

    def _read_end(self) -> LogPosition:
        with snapshot(self._engine) as connection:
            return change_log.read_end(connection)

    def _read_messages(self, scope: Scope, after: LogPosition | None) -> tuple[LogPosition, list[Json]]:
        """Return the end of the log, and the messages about what has changed since `after` in the scope."""
        with snapshot(self._engine) as connection:
            end, changes = change_log.read_changes(connection, scope, after)
            return end, [RESYNC] if changes is None else _build_messages(connection, scope, changes)


def _build_messages(connection: Connection, scope: Scope, changes: Sequence[Change]) -> list[Json]:
    """Build the messages about the changed rows, as they are now; alerts in the order of their revisions, which pages note."""
    of: dict[str, list[Change]] = {kind: [] for kind in (ALERT, SENSOR, WAVEFORM, VITAL)}
    for change in changes:
        of[change.kind].append(change)
    keys = [AlertKey(change.subject, change.hub, change.name) for change in of[ALERT]]
    found = [alert_queries.find_alert(connection, scope, key) for key in keys]
    alerts = sorted((alert for alert in found if alert is not None), key=lambda alert: int(alert["revision"]))
    subjects = dict.fromkeys(key.subject for key in keys)
    patients = [alert_queries.find_patient(connection, scope, subject) for subject in subjects]
    ecg = queries.read_ecg_rows(connection, scope, [change.row for change in of[WAVEFORM]]) if of[WAVEFORM] else []
    vitals = queries.read_vital_rows(connection, scope, [change.row for change in of[VITAL]]) if of[VITAL] else []
    sensors = [queries.find_sensor(connection, scope, SensorKey(*change[1:4])) for change in of[SENSOR]]
    return [
        *_with_type("alert", alerts),
        *_with_type("patient", patients),
        *_with_type("ecg", ecg),
        *_with_type("vital", vitals),
        *_with_type("sensor", sensors),
    ]


def _with_type(name: str, items: Sequence[Json | None]) -> list[dict[str, Any]]:
    return [{"type": name} | item for item in items if item is not None]
