"""A bonded cuff indicates before the hub subscribes; bluetoothd confirms at once. No result may be lost or come twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

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
    monkeypatch.setattr(session, "BACKOFF_S", (0.1,))
    monkeypatch.setattr(Cuff, "linger_s", 0.2)


@dataclass
class CuffSession:
    """A cuff that sends its whole memory at each connection, and the hub's session with it."""

    cuff: Cuff
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


@asynccontextmanager
async def run_session(link: VirtualLink, radio: Radio) -> AsyncIterator[CuffSession]:
    cuff = Cuff(make_sensor_device(link), follow_loop(START), MEDISANA_CUFF)
    await cuff.device.power_on()
    running = SensorSession(SensorSettings("cuff", address=SENSOR), radio, REGISTRY, SystemClock(), lambda *_: None)
    both = CuffSession(cuff)

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


def test_every_confirmed_result_of_a_bonded_cuff_comes_out_once(bus: str, tmp_path: Path) -> None:
    async def main() -> None:
        link = VirtualLink()
        async with run_bluez(link, bus, tmp_path), open_radio("bluetooth") as radio, run_session(link, radio) as running:
            for number in range(4):
                await running.measure(120 + number)
        assert running.confirmed() == [120, 121, 120, 122, 121, 120, 123, 122, 121, 120]
        assert running.systolics() == running.confirmed()

    run_test(main())
