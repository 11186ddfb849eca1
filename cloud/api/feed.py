"""The live feed of the page's WebSockets: sends every change as soon as its transaction is committed."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine

from cloud.api import alert_queries, queries
from cloud.api.numbers import Json, to_millivolts
from cloud.changes import Changes, LiveVital, LiveWaveform

QUEUE_MESSAGES: Final = 256
"""Messages that can wait for one viewer: enough for a minute of data from three sensors. If the queue is full, the viewer
fetches the data over REST instead."""
HEARTBEAT_S: Final = 2.0
"""Longest silence on a healthy WebSocket. After three times this silence the page reports a lost connection (js/link.js)."""

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
        """Build the messages about the changes; for a backlog the one that makes the page fetch what it shows over REST."""
        if changes.is_backlog:
            return [{"type": "resync", "dropped": changes.blocks}]
        alerts = [alert_queries.find_alert(self._engine, key) for key in changes.alerts]
        subjects = dict.fromkeys(key.subject for key in changes.alerts)
        patients = [alert_queries.find_patient(self._engine, subject) for subject in subjects]
        sensors = [queries.find_sensor(self._engine, key) for key in changes.sensors]
        ecg = [_ecg_message(wave) for wave in changes.waveforms if wave.record.kind == "ecg"]
        vitals = [_vital_message(vital) for vital in changes.vitals]
        return [*_with_type("alert", alerts), *_with_type("patient", patients), *ecg, *vitals, *_with_type("sensor", sensors)]


def _ecg_message(wave: LiveWaveform) -> Json:
    record = wave.record
    return {
        "type": "ecg",
        **wave.key._asdict(),
        "position": wave.position,
        "start_us": record.times.at_us,
        "rate_hz": record.rate_hz,
        "mv": to_millivolts(record.samples, record.scale),
    }


def _vital_message(vital: LiveVital) -> Json:
    record = vital.record
    return {
        "type": "vital",
        **vital.key._asdict(),
        "position": vital.position,
        "kind": record.kind,
        "at_us": record.times.at_us,
        "value": record.value,
    }


def _with_type(name: str, items: Sequence[Json | None]) -> list[dict[str, Any]]:
    return [{"type": name} | item for item in items if item is not None]
