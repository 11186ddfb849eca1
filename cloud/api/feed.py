"""What the page's WebSockets hear: every change, as soon as its transaction is committed."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine

from cloud.api import queries
from cloud.api.queries import Json, millivolts
from cloud.projections import Changes
from sync.records import WaveformRecord

QUEUE: Final = 256
"""Messages that wait for one viewer: a minute of three sensors. Beyond it the viewer re-syncs by REST."""
BEAT_S: Final = 2.0
"""Longest silence on a healthy WebSocket; the page takes three times as much (js/link.js) for a lost line."""
HISTORY_BATCH: Final = 20
"""ECG stretches in one transaction that are no longer live: while the opener catches up, viewers fetch instead."""


def now_us() -> int:
    """The server's clock, microseconds since 1970."""
    return time.time_ns() // 1000


@dataclass(slots=True)
class Viewer:
    """One WebSocket's queue. `dropped` counts what did not fit since the last re-sync."""

    queue: asyncio.Queue[Json]
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class FeedStatistics:
    """Viewers now, and what was published and dropped since the start."""

    viewers: int
    published: int
    dropped: int


class Feed:
    """Hands changes to every viewer; a slow one loses its queue, never holds up the others or the opener."""

    def __init__(self, engine: Engine, clock_us: Callable[[], int] = now_us) -> None:
        self._engine = engine
        self._clock_us = clock_us
        self._viewers: dict[int, Viewer] = {}
        self._published = 0
        self._dropped = 0

    def statistics(self) -> FeedStatistics:
        """A snapshot of the counters."""
        return FeedStatistics(len(self._viewers), self._published, self._dropped)

    async def publish(self, changes: Changes) -> None:
        """Tell every viewer, alerts first."""
        if self._viewers:
            for message in await asyncio.to_thread(self._messages, changes):
                self._published += 1
                for viewer in self._viewers.values():
                    self._offer(viewer, message)

    @contextmanager
    def viewer(self) -> Iterator[Viewer]:
        """A new viewer, for as long as its connection lasts."""
        viewer = Viewer(asyncio.Queue(QUEUE))
        self._viewers[id(viewer)] = viewer
        try:
            yield viewer
        finally:
            del self._viewers[id(viewer)]

    async def next_text(self, viewer: Viewer) -> str:
        """The next message for a viewer as JSON, stamped with the time of its leaving; a beat where there is nothing to say."""
        try:
            async with asyncio.timeout(BEAT_S):
                message = await viewer.queue.get()
        except TimeoutError:
            message = {"type": "beat"}
        return json.dumps(message | {"published_us": self._clock_us()}, separators=(",", ":"), allow_nan=False)

    def _offer(self, viewer: Viewer, message: Json) -> None:
        if viewer.queue.full():
            lost = viewer.queue.qsize()
            while not viewer.queue.empty():
                viewer.queue.get_nowait()
            viewer.dropped += lost
            self._dropped += lost
            viewer.queue.put_nowait({"type": "resync", "dropped": viewer.dropped})
        viewer.queue.put_nowait(message)

    def _messages(self, changes: Changes) -> list[Json]:
        alerts = [queries.alert(self._engine, id_, hub) for hub, id_ in changes.alerts]
        sensors = [queries.sensor(self._engine, hub, name) for hub, name in changes.sensors]
        waves = [wave for wave in changes.waves if wave.kind == "ecg"]
        live = [_ecg(wave) for wave in waves] if len(waves) <= HISTORY_BATCH else [{"type": "resync", "dropped": len(waves)}]
        vitals = [
            {"type": "vital", "sensor": vital.sensor, "kind": vital.kind, "at_us": vital.times.at_us, "value": vital.value}
            for vital in changes.vitals
        ]
        return [*_typed("alert", alerts), *live, *vitals, *_typed("sensor", sensors)]


def _ecg(wave: WaveformRecord) -> Json:
    start_us, mv = wave.times.at_us, millivolts(wave.samples, wave.scale)
    return {"type": "ecg", "sensor": wave.sensor, "start_us": start_us, "rate_hz": wave.rate_hz, "mv": mv}


def _typed(name: str, items: list[Json | None]) -> list[dict[str, Any]]:
    return [{"type": name} | item for item in items if item is not None]
