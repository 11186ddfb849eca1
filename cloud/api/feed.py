"""The live feed of the page's WebSockets: sends every change as soon as its transaction is committed."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine

from cloud.api import queries
from cloud.api.queries import Json, to_millivolts
from cloud.projections import Changes
from sync.records import WaveformRecord

QUEUE_MESSAGES: Final = 256
"""Messages that can wait for one viewer: enough for a minute of data from three sensors. If the queue is full, the viewer
fetches the data over REST instead."""
HEARTBEAT_S: Final = 2.0
"""Longest silence on a healthy WebSocket. After three times this silence the page reports a lost connection (js/link.js)."""
MAX_LIVE_WAVEFORMS: Final = 20
"""A transaction with more ECG waveform records is a backlog, not live data: viewers are told to fetch it over REST instead."""


_log: Final = logging.getLogger(__name__)


def now_us() -> int:
    """Return the server's clock, microseconds since 1970."""
    return time.time_ns() // 1000


@dataclass(slots=True)
class Viewer:
    """The message queue of one WebSocket. `dropped` counts the messages that did not fit since it connected."""

    queue: asyncio.Queue[Json]
    dropped: int = 0


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
        self._viewers: dict[int, Viewer] = {}
        self._published = 0
        self._dropped = 0

    def statistics(self) -> FeedStatistics:
        """Return a snapshot of the counters."""
        return FeedStatistics(len(self._viewers), self._published, self._dropped)

    async def publish(self, changes: Changes) -> None:
        """Queue messages for every viewer, alerts first. If they cannot be built, viewers are told to fetch all over REST."""
        if self._viewers:
            try:
                messages = await asyncio.to_thread(self._build_messages, changes)
            except Exception as error:  # noqa: BLE001 - one block must not stop the live feed of the others
                _log.error("cannot build live messages (%s): viewers fetch the changes instead", type(error).__name__)
                messages = [{"type": "resync", "dropped": changes.blocks}]
            for message in messages:
                self._published += 1
                for viewer in self._viewers.values():
                    self._enqueue(viewer, message)

    @contextmanager
    def register_viewer(self) -> Iterator[Viewer]:
        """Register a viewer for the duration of its connection."""
        viewer = Viewer(asyncio.Queue(QUEUE_MESSAGES))
        self._viewers[id(viewer)] = viewer
        try:
            yield viewer
        finally:
            del self._viewers[id(viewer)]

    async def next_message(self, viewer: Viewer) -> str:
        """Wait for a viewer's next message and return it as JSON with the time of sending; a heartbeat after `HEARTBEAT_S`."""
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                message = await viewer.queue.get()
        except TimeoutError:
            message = {"type": "beat"}  # the heartbeat of the connection, not of the patient
        return json.dumps(message | {"published_us": self._clock_us()}, separators=(",", ":"), allow_nan=False)

    def _enqueue(self, viewer: Viewer, message: Json) -> None:
        if viewer.queue.full():
            lost = viewer.queue.qsize()
            while not viewer.queue.empty():
                viewer.queue.get_nowait()
            viewer.dropped += lost
            self._dropped += lost
            viewer.queue.put_nowait({"type": "resync", "dropped": viewer.dropped})
        viewer.queue.put_nowait(message)

    def _build_messages(self, changes: Changes) -> list[Json]:
        alerts = [queries.find_alert(self._engine, id_, hub) for hub, id_ in changes.alerts]
        sensors = [queries.find_sensor(self._engine, hub, name) for hub, name in changes.sensors]
        waveforms = [waveform for waveform in changes.waveforms if waveform.kind == "ecg"]
        is_live = len(waveforms) <= MAX_LIVE_WAVEFORMS
        ecg = [_ecg_message(waveform) for waveform in waveforms] if is_live else [{"type": "resync", "dropped": len(waveforms)}]
        vitals = [
            {"type": "vital", "sensor": vital.sensor, "kind": vital.kind, "at_us": vital.times.at_us, "value": vital.value}
            for vital in changes.vitals
        ]
        return [*_with_type("alert", alerts), *ecg, *vitals, *_with_type("sensor", sensors)]


def _ecg_message(waveform: WaveformRecord) -> Json:
    start_us, mv = waveform.times.at_us, to_millivolts(waveform.samples, waveform.scale)
    return {"type": "ecg", "sensor": waveform.sensor, "start_us": start_us, "rate_hz": waveform.rate_hz, "mv": mv}


def _with_type(name: str, items: list[Json | None]) -> list[dict[str, Any]]:
    return [{"type": name} | item for item in items if item is not None]
