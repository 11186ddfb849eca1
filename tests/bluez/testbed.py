"""Testbeds: a virtual strap with one of two radios, bleak's backend on the fake BlueZ or the virtual radio."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from bumble.att import ATT_Error
from bumble.core import UUID
from bumble.device import Device
from bumble.gatt import CharacteristicValue

from gateway.radio import Radio, open_radio
from gateway.radio.virtual import VIRTUAL_HUB_ADDRESS, VirtualLink, make_device, open_in_process_radio
from gateway.simulate.heart import RepeatingEcg
from gateway.simulate.journal import Journal
from gateway.simulate.playback import Playback, SensorClock
from gateway.simulate.strap import ADDRESS, NAME, Strap
from tests.bluez.fake_bluez import FakeBlueZ, serve_bluez

RAMP: Final = RepeatingEcg(np.arange(100_000, dtype=np.int32), ())
"""An ECG whose sample number n is n µV, so that a missing or repeated sample is visible."""

WAIT_TIMEOUT_S: Final = 10.0
"""Time limit of an event that takes a second, with a margin for a loaded machine."""

TEST_TIMEOUT_S: Final = 30.0
"""Time limit of a whole test: a test that hangs fails."""


@dataclass
class StrapTestbed:
    """A strap and the hub's radio."""

    link: VirtualLink
    strap: Device
    strap_events: list[Mapping[str, Any]]
    """All events of the strap."""
    radio: Radio

    def link_events(self) -> list[str]:
        """Return the connections and disconnections of the strap, in order."""
        return [event["event"] for event in self.strap_events if event["event"] in ("connected", "disconnected")]


OpenTestbed = Callable[[], AbstractAsyncContextManager[StrapTestbed]]


def run_test(test: Coroutine[Any, Any, None]) -> None:
    """Run a test in real time. It fails if it hangs or leaves a task behind."""

    async def run_with_timeout() -> None:
        async with asyncio.timeout(TEST_TIMEOUT_S):
            await test
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run_with_timeout())


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds; raise TimeoutError after `WAIT_TIMEOUT_S`."""
    async with asyncio.timeout(WAIT_TIMEOUT_S):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def run_strap(link: VirtualLink, folder: Path) -> AsyncIterator[tuple[Device, list[Mapping[str, Any]]]]:
    """Run a strap on the link; yield its device and the list of its events."""
    device = make_device(link, ADDRESS, NAME, folder / "strap-bonds.json")
    await device.power_on()
    events: list[Mapping[str, Any]] = []
    with Journal(folder / "strap.jsonl", "run") as journal:
        clock = SensorClock.set_to(time.time_ns(), asyncio.get_running_loop().time())
        running = asyncio.create_task(Strap(device, Playback(RAMP, clock, journal), events.append).run())
        try:
            await wait_until(lambda: bool(events))
            yield device, events
        finally:
            running.cancel()
            await asyncio.wait([running])
            link.remove_device(ADDRESS)


def refuse_reads(strap: Device, number: int, code: int) -> None:
    """Make every later read of this characteristic of the strap fail with this ATT error."""

    def refuse(_connection: object) -> bytes:
        raise ATT_Error(code)

    (attribute,) = (each for each in strap.gatt_server.attributes if each.type == UUID.from_16_bits(number))
    attribute.value = CharacteristicValue(read=refuse)


@asynccontextmanager
async def run_bluez(link: VirtualLink, bus: str, folder: Path) -> AsyncIterator[FakeBlueZ]:
    """Run the fake BlueZ with its own adapter. Its bonds are stored in the folder and outlive it."""
    device = make_device(link, VIRTUAL_HUB_ADDRESS, "hub", folder / "hub-bonds.json")
    await device.power_on()
    try:
        async with serve_bluez(device, bus) as bluez:
            yield bluez
    finally:
        link.remove_device(VIRTUAL_HUB_ADDRESS)


@asynccontextmanager
async def run_bluez_testbed(bus: str, folder: Path) -> AsyncIterator[StrapTestbed]:
    link = VirtualLink()
    async with run_strap(link, folder) as (strap, events), run_bluez(link, bus, folder), open_radio("bluetooth") as radio:
        yield StrapTestbed(link, strap, events, radio)


@asynccontextmanager
async def run_virtual_testbed(folder: Path) -> AsyncIterator[StrapTestbed]:
    link = VirtualLink()
    async with run_strap(link, folder) as (strap, events), open_in_process_radio(link, VIRTUAL_HUB_ADDRESS) as radio:
        yield StrapTestbed(link, strap, events, radio)
