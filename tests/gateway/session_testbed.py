"""A session with one sensor on a virtual link, without an agent around it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bumble.device import Device

from config.settings import SensorSettings
from drivers.registry import Registry
from gateway.clock import VirtualClock
from gateway.radio.virtual import VIRTUAL_HUB_ADDRESS, VirtualLink, open_in_process_radio
from gateway.sensor_events import Notification
from gateway.session import SensorSession
from tests.radio.hub_actions import SENSOR

START_US = 1_800_000_000_000_000
"""2027-01-15, 08:00:00 UTC."""


@asynccontextmanager
async def run_session(link: VirtualLink, device: Device, registry: Registry, **options: Any) -> AsyncIterator[SensorSession]:
    """Let a sensor with the address `SENSOR` advertise, and run a session with it. `options` are those of the session."""
    await device.power_on()
    await device.start_advertising(auto_restart=True)
    async with open_in_process_radio(link, VIRTUAL_HUB_ADDRESS) as radio:
        settings, clock = SensorSettings("sensor", address=SENSOR), VirtualClock(asyncio.get_running_loop(), START_US)
        session = SensorSession(settings, radio, registry, clock, lambda *_: None, **options)
        running = asyncio.create_task(session.run())
        try:
            yield session
        finally:
            running.cancel()
            await asyncio.wait([running])
    link.remove_device(SENSOR)


def take_notifications(session: SensorSession) -> list[Notification]:
    """Take all events of a session, and return what the sensor sent."""
    return [event for event in session.events.drain(10_000) if isinstance(event, Notification)]
