"""`pulsegate record`: writes the payloads of a sensor to a capture for `pulsegate replay`."""

import asyncio
from pathlib import Path
from typing import Final

from captures.jsonl import CaptureWriter
from captures.payloads import CaptureHeader
from config.settings import SensorSettings
from drivers.registry import Registry
from gateway.clock import Clock
from gateway.link_states import LinkState
from gateway.radio import Radio
from gateway.sensor_events import Answer, Interruption, LinkStateChange, Notification, Overflow
from gateway.session import SensorSession

_LINK_EVENTS: Final = {"streaming": "connected"}
"""The event that a capture contains for a state of the session; other states are not recorded."""


async def record(sensor: SensorSettings, radio: Radio, registry: Registry, clock: Clock, path: Path, seconds: float) -> int:
    """Records one sensor for `seconds` and returns the number of payloads. Without a payload, no file is left.

    Raises:
        FileExistsError: the file exists already.
        OSError: the file cannot be written.
    """
    started_ns = clock.mono_ns()

    with CaptureWriter(path, CaptureHeader(sensor.name, clock.wall_us())) as capture:

        def on_state(_name: str, state: LinkState) -> None:
            if state in _LINK_EVENTS:
                capture.write_event((clock.mono_ns() - started_ns) / 1e9, _LINK_EVENTS[state])

        session = SensorSession(sensor, radio, registry, clock, on_state)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(session.run()), group.create_task(_write_events(session, capture, started_ns))]
                await asyncio.sleep(seconds)
                for task in tasks:
                    task.cancel()
        finally:
            if not session.statistics.notifications:
                capture.delete()
    return session.statistics.notifications


async def _write_events(session: SensorSession, capture: CaptureWriter, started_ns: int) -> None:
    while True:
        match await session.events.get():
            case Notification(characteristic, payload, _, arrival):
                capture.write_payload((arrival.mono_ns - started_ns) / 1e9, characteristic, payload)
            case Interruption(_, arrival) | Overflow(_, arrival):
                capture.write_event((arrival.mono_ns - started_ns) / 1e9, "disconnected")
            case LinkStateChange() | Answer():
                pass
