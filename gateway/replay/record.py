"""`pulsegate record`: writes what a sensor sends into a capture, for `pulsegate replay`."""

import asyncio
from pathlib import Path
from typing import Final

from captures.jsonl import CaptureWriter, Header
from config.settings import SensorSettings
from drivers.registry import Registry
from gateway.clock import Clock
from gateway.radio import Radio
from gateway.session import Interruption, LinkState, Notification, SensorSession

_LINK_EVENTS: Final = {"streaming": "connected"}


async def record(sensor: SensorSettings, radio: Radio, registry: Registry, clock: Clock, path: Path, seconds: float) -> int:
    """Records one sensor for so long and returns how many payloads came.

    Raises:
        FileExistsError: there is such a file already.
        OSError: the file cannot be written.
    """
    started_ns = clock.mono_ns()

    def elapsed(mono_ns: int) -> float:
        return (mono_ns - started_ns) / 1e9

    with CaptureWriter(path, Header(sensor.name, clock.wall_us())) as capture:

        def changed(_name: str, state: LinkState) -> None:
            if state in _LINK_EVENTS:
                capture.event(elapsed(clock.mono_ns()), _LINK_EVENTS[state])

        session = SensorSession(sensor, radio, registry, clock, changed)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(session.run()), group.create_task(_write(session, capture, started_ns))]
            await asyncio.sleep(seconds)
            for task in tasks:
                task.cancel()
    return session.statistics.notifications


async def _write(session: SensorSession, capture: CaptureWriter, started_ns: int) -> None:
    while True:
        match await session.events.get():
            case Notification(characteristic, payload, arrival):
                capture.payload((arrival.mono_ns - started_ns) / 1e9, characteristic, payload)
            case Interruption(_, arrival):
                capture.event((arrival.mono_ns - started_ns) / 1e9, "disconnected")
