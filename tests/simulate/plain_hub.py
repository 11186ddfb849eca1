"""A plain central for tests of emulated sensors: a Bumble device that follows the profiles, without any code of the agent."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NoReturn

from bumble.att import ATT_Error
from bumble.core import ProtocolError
from bumble.device import Connection, Device, Peer
from bumble.hci import Address

from gateway.radio.virtual import VirtualLink, make_device
from gateway.simulate.peripherals.peripheral import Peripheral, format_uuid

SENSOR = "C0:DE:00:00:00:10"
HUB = "C2:00:00:00:00:02"
START = datetime(2026, 11, 30, 8, 0, 0)  # noqa: DTZ001
"""The true local time when the loop's time is 0."""


def now_s() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class PlainHub:
    """A central with everything that it received: the loop's time, the characteristic's number, the value."""

    device: Device
    link: VirtualLink
    mtu: int = 247
    connection: Connection | None = None
    characteristics: dict[str, Any] = field(default_factory=dict)
    received: list[tuple[float, str, bytes]] = field(default_factory=list)
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)
    _receivers: dict[str, Callable[[bytes], None]] = field(default_factory=dict)

    async def wait_advertisement(self, timeout_s: float = 5.0) -> Any:
        """Return the next advertisement of the sensor, or None if it does not advertise."""
        found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def on_advertisement(advertisement: Any) -> None:
            if not found.done():
                found.set_result(advertisement)

        self.device.on("advertisement", on_advertisement)
        await self.device.start_scanning()
        await asyncio.wait({found}, timeout=timeout_s)
        await self.device.stop_scanning()
        self.device.remove_listener("advertisement", on_advertisement)
        return found.result() if found.done() else None

    async def connect(self, *, discover: bool = True) -> Connection:
        """Connect, and find the characteristics, unless `discover` is called later."""
        self.disconnected.clear()
        connection = await self.device.connect(Address(SENSOR), timeout=5.0)
        self.connection = connection
        connection.on("disconnection", lambda _reason: self.disconnected.set())
        if discover:
            await self.discover()
        return connection

    async def discover(self) -> None:
        peer = Peer(self.connection)
        await peer.request_mtu(self.mtu)
        await peer.discover_services()
        await peer.discover_characteristics()
        found = [characteristic for service in peer.services for characteristic in service.characteristics]
        self.characteristics = {format_uuid(each): each for each in found}

    def listen(self, *uuids: str) -> None:
        """Take values from the first moment of a connection, without subscribing: the sensor kept the subscription."""
        assert self.connection is not None
        for uuid in uuids:
            self.connection.gatt_client.indication_subscribers[self.characteristics[uuid].handle] = {self._receiver(uuid)}

    async def subscribe(self, *uuids: str, indications: bool = True) -> None:
        for uuid in uuids:
            await self.characteristics[uuid].subscribe(self._receiver(uuid), prefer_notify=not indications)

    def _receiver(self, uuid: str) -> Callable[[bytes], None]:
        """Return the same function each time: Bumble keeps those of refused subscriptions too, in a set."""
        return self._receivers.setdefault(uuid, lambda value: self.received.append((now_s(), uuid, bytes(value))))

    async def read(self, uuid: str) -> bytes:
        return bytes(await self.characteristics[uuid].read_value())

    async def write(self, uuid: str, value: bytes) -> None:
        await self.characteristics[uuid].write_value(value, with_response=True)

    async def wait_disconnected(self, timeout_s: float = 60.0) -> None:
        async with asyncio.timeout(timeout_s):
            await self.disconnected.wait()

    def values(self, uuid: str) -> list[bytes]:
        return [value for _, received, value in self.received if received == uuid]


async def att_error_of(attempt: Any) -> int:
    """Return the ATT error that a request is refused with."""
    try:
        await attempt
    except (ATT_Error, ProtocolError) as error:
        return int(error.error_code)
    raise AssertionError("the request was not refused")


def make_sensor_device(link: VirtualLink) -> Device:
    return make_device(link, SENSOR, "sensor")


@asynccontextmanager
async def run_device(
    link: VirtualLink, device: Device, run: Callable[[], Coroutine[Any, Any, NoReturn]]
) -> AsyncIterator[PlainHub]:
    """Run a sensor on a device, with a hub in range. An error of the sensor fails the test."""
    hub = make_device(link, HUB, "hub")
    await device.power_on()
    await hub.power_on()
    running = asyncio.create_task(run())
    try:
        yield PlainHub(hub, link)
    finally:
        if running.done():
            await running
        running.cancel()
        await asyncio.wait([running])


def run_sensor(link: VirtualLink, sensor: Peripheral) -> AbstractAsyncContextManager[PlainHub]:
    return run_device(link, sensor.device, sensor.run)
