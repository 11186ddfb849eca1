"""`pulsegate record`: writes the payloads of a sensor to a capture for `pulsegate replay`."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from captures.bluetooth.btsnoop_writer import BtsnoopWriter
from captures.jsonl import CaptureWriter
from captures.payloads import CaptureHeader
from config.settings import SensorSettings
from drivers.device import DeviceInformation
from drivers.registry import Registry
from gateway.clock import Clock
from gateway.link_states import LinkState
from gateway.radio import Radio
from gateway.sensor_events import Answer, Interruption, LinkStateChange, Notification, Overflow, TimePassed
from gateway.session import SensorSession

_LINK_EVENTS: Final = {"streaming": "connected"}
"""The event that a capture contains for a state of the session; other states are not recorded."""


async def record(
    sensor: SensorSettings,
    radio: Radio,
    registry: Registry,
    clock: Clock,
    path: Path,
    seconds: float,
    *,
    as_btsnoop: bool = False,
) -> int:
    """Records one sensor for `seconds` and returns the number of payloads. Without a payload, no file is left.

    Raises:
        FileExistsError: the file exists already.
        OSError: the file cannot be written.
    """
    timer = _Timer(clock.mono_ns())
    with _open_writer(sensor, path, clock.wall_us(), as_btsnoop=as_btsnoop) as capture:

        def on_state(_name: str, state: LinkState) -> None:
            if state in _LINK_EVENTS:
                capture.write_event(timer.read(clock.mono_ns()), _LINK_EVENTS[state])

        session = SensorSession(sensor, radio, registry, clock, on_state)
        known = frozenset(uuid for driver in registry.drivers for uuid in driver.characteristics)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(session.run()),
                    group.create_task(_write_events(session, capture, timer, known)),
                ]
                await asyncio.sleep(seconds)
                for task in tasks:
                    task.cancel()
        finally:
            if not session.statistics.notifications:
                capture.delete()
    return session.statistics.notifications


@dataclass(slots=True)
class _Timer:
    """Seconds since the start, which never decrease: values that waited for the model come after later ones."""

    started_ns: int
    _last_s: float = 0.0

    def read(self, mono_ns: int) -> float:
        self._last_s = max(self._last_s, (mono_ns - self.started_ns) / 1e9)
        return self._last_s


def _open_writer(sensor: SensorSettings, path: Path, started_us: int, *, as_btsnoop: bool) -> CaptureWriter | BtsnoopWriter:
    name = sensor.advertised_name or ""
    if as_btsnoop:
        return BtsnoopWriter(path, name or sensor.name, started_us)
    return CaptureWriter(path, CaptureHeader(sensor.name, started_us, DeviceInformation(name=name)))


async def _write_events(
    session: SensorSession, capture: CaptureWriter | BtsnoopWriter, timer: _Timer, known: Collection[str]
) -> None:
    """Write what comes from the sensor. What a driver says by itself has its service in place of a characteristic."""
    while True:
        match await session.events.get():
            case Notification(characteristic, payload, _, arrival) if characteristic in known:
                capture.write_payload(timer.read(arrival.mono_ns), characteristic, payload)
            case Interruption(_, arrival) | Overflow(_, arrival):
                capture.write_event(timer.read(arrival.mono_ns), "disconnected")
            case Notification() | LinkStateChange() | Answer() | TimePassed():
                pass
