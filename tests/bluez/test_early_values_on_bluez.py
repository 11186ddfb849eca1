"""A bonded cuff indicates before the hub subscribes; bluetoothd confirms at once. No result may be lost or come twice."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from bumble.att import ATT_Error, ErrorCode

from config.settings import SensorSettings
from drivers.readings import Vital
from drivers.registry import load_drivers
from gateway import session
from gateway.clock import SystemClock
from gateway.radio import Radio, open_radio
from gateway.radio.virtual import VirtualLink
from gateway.sensor_events import Notification, SensorEvent
from gateway.session import SensorSession
from gateway.simulate.peripherals.cuff import MEDISANA_CUFF, Cuff
from gateway.simulate.peripherals.services import follow_loop
from tests.bluez.testbed import run_bluez, run_test, wait_until
from tests.simulate.plain_hub import SENSOR, START, make_sensor_device

REGISTRY = load_drivers()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "choose_pause_s", lambda *_: 0.1)
    monkeypatch.setattr(Cuff, "linger_s", 0.2)


@dataclass
class CuffSession:
    """A cuff that sends its whole memory at each connection, and the hub's session with it."""

    cuff: Cuff
    session: SensorSession
    events: list[SensorEvent] = field(default_factory=list)

    def systolics(self) -> list[float]:
        readings = [reading for each in self.events if isinstance(each, Notification) for reading in each.readings]
        return [reading.value for reading in readings if isinstance(reading, Vital) and reading.kind == "systolic"]

    def confirmed(self) -> list[int]:
        return [value.payload[1] for value in self.cuff.sent.values if value.confirmed_s is not None]

    async def measure(self, systolic: int) -> None:
        """Measure, and wait until the cuff has sent its results and disconnected."""
        result = await self.cuff.measure(systolic, 80, 70)
        await wait_until(lambda: result.is_confirmed and self.cuff.connection is None)

    async def measure_twice_while_connected(self, first: int, second: int) -> None:
        """Measure, and again when the hub is subscribed: the cuff stays connected until it has the second result."""
        self.cuff.linger_s, linger_s = 60.0, self.cuff.linger_s
        result = await self.cuff.measure(first, 80, 70)
        await wait_until(lambda: result.is_confirmed and self.session.state == "streaming")
        self.cuff.linger_s = linger_s
        await self.measure(second)


@asynccontextmanager
async def run_session(link: VirtualLink, radio: Radio) -> AsyncIterator[CuffSession]:
    cuff = Cuff(make_sensor_device(link), follow_loop(START), MEDISANA_CUFF)
    await cuff.device.power_on()
    running = SensorSession(SensorSettings("cuff", address=SENSOR), radio, REGISTRY, SystemClock(), lambda *_: None)
    both = CuffSession(cuff, running)

    async def collect() -> None:
        while True:
            both.events.append(await running.events.get())

    tasks = [asyncio.create_task(each) for each in (cuff.run(), running.run(), collect())]
    try:
        yield both
        await wait_until(lambda: running.state == "absent" and running.events.empty())
    finally:
        for task in tasks:
            task.cancel()
            await asyncio.wait([task])


def refuse_subscriptions(cuff: Cuff, count: int) -> None:
    """Refuse the next subscriptions."""
    server: Any = cuff.device.gatt_server
    write = server.write_cccd
    left = count

    def refuse(*arguments: object) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise ATT_Error(ErrorCode.UNLIKELY_ERROR)
        write(*arguments)

    server.write_cccd = refuse


def follow(bus: str, folder: Path, scenario: Callable[[CuffSession], Awaitable[None]]) -> None:
    """Play a scenario; every result that was confirmed to the cuff must come out once, and in order."""

    async def main() -> None:
        link = VirtualLink()
        async with run_bluez(link, bus, folder), open_radio("bluetooth") as radio, run_session(link, radio) as running:
            await scenario(running)
        assert running.systolics() == running.confirmed()

    run_test(main())


def test_every_confirmed_result_of_a_bonded_cuff_comes_out_once(bus: str, tmp_path: Path) -> None:
    async def scenario(running: CuffSession) -> None:
        for number in range(4):
            await running.measure(120 + number)
        assert running.confirmed() == [120, 121, 120, 122, 121, 120, 123, 122, 121, 120]

    follow(bus, tmp_path, scenario)


def test_a_result_after_the_subscription_comes_out_once(bus: str, tmp_path: Path) -> None:
    async def scenario(running: CuffSession) -> None:
        await running.measure(120)
        await running.measure_twice_while_connected(121, 122)
        assert running.confirmed() == [120, 121, 120, 122]

    follow(bus, tmp_path, scenario)


def test_a_held_subscription_that_the_cuff_refuses_is_made_again(bus: str, tmp_path: Path) -> None:
    async def scenario(running: CuffSession) -> None:
        await running.measure(120)
        refuse_subscriptions(running.cuff, 1)
        await running.measure_twice_while_connected(121, 122)
        assert running.confirmed() == [120, 121, 120, 122]

    follow(bus, tmp_path, scenario)


def test_a_result_of_a_connect_that_failed_comes_out_at_the_next_one(bus: str, tmp_path: Path) -> None:
    async def scenario(running: CuffSession) -> None:
        await running.measure(120)
        running.cuff.linger_s = 0.0
        await running.measure(121)
        running.cuff.linger_s = 0.2
        await running.measure(122)

    follow(bus, tmp_path, scenario)
