"""A virtual strap in a room with each of the two radios: bleak's BlueZ backend on the façade, and the virtual one."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from bleak.backends.bluezdbus import manager as bleak_manager
from bumble.att import ATT_Error
from bumble.core import UUID
from bumble.device import Device
from bumble.gatt import CharacteristicValue

from gateway.radio import Radio, open_radio
from gateway.radio.radio import VIRTUAL_HUB_ADDRESS
from gateway.radio.virtual import VirtualLink, make_device, virtual_radio
from gateway.simulate.heart import Heart
from gateway.simulate.journal import Journal
from gateway.simulate.playback import Playback, SensorClock
from gateway.simulate.strap import ADDRESS, NAME, Strap
from tests.bluez.facade import BlueZ, bluez_on

RAMP: Final = Heart(np.arange(100_000, dtype=np.int32), ())
"""A "heart" whose sample number n is n µV: whatever is missing or comes twice shows."""

PATIENCE_S: Final = 10.0
"""For what takes a second, on a loaded machine."""

TEST_LIMIT_S: Final = 30.0
"""For a whole test, so that one that hangs fails."""


@dataclass
class Room:
    """One strap and the agent's radio."""

    link: VirtualLink
    strap: Device
    told: list[Mapping[str, Any]]
    """What the strap reports."""
    radio: Radio

    def events(self) -> list[str]:
        """What happened to the strap's link."""
        return [event["event"] for event in self.told if event["event"] in ("connected", "disconnected")]


OpenRoom = Callable[[], AbstractAsyncContextManager[Room]]


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test in real time; what it leaves running, or an endless wait, fails it."""

    async def bounded() -> None:
        async with asyncio.timeout(TEST_LIMIT_S):
            await test
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it; TimeoutError when it takes too long."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def strap_in(link: VirtualLink, folder: Path) -> AsyncIterator[tuple[Device, list[Mapping[str, Any]]]]:
    device = make_device(link, ADDRESS, NAME, folder / "strap-bonds.json")
    await device.power_on()
    told: list[Mapping[str, Any]] = []
    with Journal(folder / "strap.jsonl", "run") as journal:
        clock = SensorClock.set_to(time.time_ns(), asyncio.get_running_loop().time())
        running = asyncio.create_task(Strap(device, Playback(RAMP, clock, journal), told.append).run())
        try:
            await until(lambda: bool(told))
            yield device, told
        finally:
            running.cancel()
            await asyncio.wait([running])
            link.remove(ADDRESS)


def refuse_reads(strap: Device, number: int, code: int) -> None:
    """From now on a read of this characteristic of the strap ends with this ATT error."""

    def refuse(_connection: object) -> bytes:
        raise ATT_Error(code)

    (attribute,) = (each for each in strap.gatt_server.attributes if each.type == UUID.from_16_bits(number))
    attribute.value = CharacteristicValue(read=refuse)


@asynccontextmanager
async def bluez_in(link: VirtualLink, bus: str, folder: Path) -> AsyncIterator[BlueZ]:
    """The façade with an adapter of its own. Its bonds lie in the folder and outlive it."""
    device = make_device(link, VIRTUAL_HUB_ADDRESS, "hub", folder / "hub-bonds.json")
    await device.power_on()
    try:
        async with bluez_on(device, bus) as bluez:
            yield bluez
    finally:
        link.remove(VIRTUAL_HUB_ADDRESS)


@asynccontextmanager
async def bluez_room(bus: str, folder: Path) -> AsyncIterator[Room]:
    link = VirtualLink()
    async with strap_in(link, folder) as (strap, told), bluez_in(link, bus, folder), bleak_radio() as radio:
        yield Room(link, strap, told, radio)


@asynccontextmanager
async def virtual_room(folder: Path) -> AsyncIterator[Room]:
    link = VirtualLink()
    async with strap_in(link, folder) as (strap, told), virtual_radio(link, VIRTUAL_HUB_ADDRESS) as radio:
        yield Room(link, strap, told, radio)


@asynccontextmanager
async def bleak_radio() -> AsyncIterator[Radio]:
    """The machine's adapter. Closes the bus connection that bleak keeps for each event loop: it has no public way to."""
    try:
        async with open_radio("bluetooth") as radio:
            yield radio
    finally:
        manager = bleak_manager._global_instances.pop(asyncio.get_running_loop(), None)
        if manager is not None and manager._bus is not None and manager._bus_watcher_task is not None:
            manager._bus.disconnect()
            await manager._bus_watcher_task
