"""The agent's sensor session over bleak's own Linux backend, a fake BlueZ on D-Bus, and a virtual strap, in real time.

Not covered: bluetoothd, the kernel and real radio. The docstring of `fake_bluez` says what it leaves out.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from config.settings import SensorSettings
from drivers.readings import Quarantined, Reading, Status, Waveform
from drivers.registry import Registry, load_drivers
from gateway import session
from gateway.clock import SystemClock
from gateway.link_states import LinkState
from gateway.radio import Radio, open_radio
from gateway.radio.virtual import VirtualLink
from gateway.sensor_events import Interruption, Notification, SensorEvent
from gateway.session import SensorSession
from gateway.simulate import pmd
from gateway.simulate.strap import ADDRESS, NAME
from tests.bluez.testbed import OpenTestbed, run_bluez, run_strap, run_test, wait_until

REGISTRY = load_drivers()
STREAMING = ["absent", "seen", "connecting", "securing", "subscribing", "streaming"]
Requests = list[tuple[bytes, int]]


class RecordedSession:
    """A sensor session, with all its states and events."""

    def __init__(self, radio: Radio, registry: Registry) -> None:
        self.states: list[LinkState] = []
        self.events: list[SensorEvent] = []
        sensor = SensorSettings("strap", advertised_name="Virtual H10")
        self.session = SensorSession(sensor, radio, registry, SystemClock(), lambda _name, state: self.states.append(state))

    async def collect(self) -> None:
        while True:
            self.events.append(await self.session.events.get())

    def readings(self) -> list[Reading]:
        notifications = [event for event in self.events if isinstance(event, Notification)]
        return [reading for each in notifications for reading in each.readings]

    def frames(self) -> list[Waveform]:
        return [reading for reading in self.readings() if isinstance(reading, Waveform)]

    def microvolts(self) -> list[int]:
        return [sample for frame in self.frames() for sample in frame.samples]

    async def wait_frames(self, count: int = 1) -> None:
        """Wait for `count` more frames."""
        total = len(self.frames()) + count
        await wait_until(lambda: len(self.frames()) >= total)


@asynccontextmanager
async def run_session(radio: Radio, registry: Registry = REGISTRY) -> AsyncIterator[RecordedSession]:
    """Run a session during the `with` body, and stop it cleanly."""
    recorded = RecordedSession(radio, registry)
    async with asyncio.TaskGroup() as tasks:
        collecting = tasks.create_task(recorded.collect())
        serving = tasks.create_task(recorded.session.run())
        try:
            yield recorded
        finally:
            serving.cancel()
            await asyncio.wait([serving])
            await wait_until(recorded.session.events.empty)
            collecting.cancel()


@pytest.fixture(autouse=True)
def _short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "choose_pause_s", lambda *_: 0.1)


def test_a_scan_finds_the_strap(open_testbed: OpenTestbed) -> None:
    async def main() -> None:
        async with open_testbed() as testbed:
            for _ in range(2):  # the second time BlueZ knows the strap and signals only changes
                ((device, advertisement),) = await testbed.radio.scan(0.2)
                assert (device.address, device.name) == (ADDRESS, NAME)
                assert advertisement.local_name == NAME
                assert advertisement.service_uuids == ["0000180d-0000-1000-8000-00805f9b34fb"]

    run_test(main())


def test_a_session_bonds_and_streams_every_sample_once_until_stopped(open_testbed: OpenTestbed, requests: Requests) -> None:
    async def main() -> None:
        async with open_testbed() as testbed:
            async with run_session(testbed.radio) as recorded:
                await recorded.wait_frames(2)
            await wait_until(lambda: testbed.link_events() == ["connected", "disconnected"])
            assert recorded.states == [*STREAMING, "stopped"]
            assert recorded.session.statistics.failures == 0
            assert Status("battery", 87) in recorded.readings()
            assert not [reading for reading in recorded.readings() if isinstance(reading, Quarantined)]
            first, *_ = samples = recorded.microvolts()
            assert samples == list(range(first, first + len(samples)))  # the strap plays a ramp
            times = [frame.last_ns for frame in recorded.frames() if frame.last_ns is not None]
            frame_ns = pmd.MAX_FRAME_SAMPLES / pmd.RATE_HZ * 1e9
            assert [later - earlier for earlier, later in pairwise(times)] == pytest.approx([frame_ns] * (len(times) - 1))
            assert len(await testbed.strap.keystore.get_all()) == 1

    run_test(main())
    succeeded = [
        (request[0], request[1]) for request, status in requests if status == pmd.SUCCESS and request[0] != pmd.GET_SETTINGS
    ]
    both = (pmd.ECG, pmd.ACCELERATION)
    assert succeeded == [*((pmd.START, each) for each in both), *((pmd.STOP, each) for each in both)]


def test_a_lost_link_is_reconnected_with_the_same_bond(open_testbed: OpenTestbed) -> None:
    async def main() -> None:
        async with open_testbed() as testbed, run_session(testbed.radio) as recorded:
            await recorded.wait_frames()
            bonds = await testbed.strap.keystore.get_all()
            assert testbed.link.simulate_link_loss(ADDRESS) == 2
            await recorded.wait_frames()
            assert recorded.states == [*STREAMING, "backing_off", *STREAMING]
            assert [event.reason for event in recorded.events if isinstance(event, Interruption)] == ["the link was lost"]
            assert testbed.link_events() == ["connected", "disconnected", "connected"]
            samples = recorded.microvolts()
            assert samples == sorted(set(samples))
            assert samples[-1] - samples[0] > len(samples)  # some samples are missing, none is repeated
            assert str(await testbed.strap.keystore.get_all()) == str(bonds)

    run_test(main())


@pytest.mark.parametrize("moment_s", [0.0, 0.1, 0.15, 0.2])
def test_a_stop_at_any_moment_leaves_nothing_behind(open_testbed: OpenTestbed, moment_s: float) -> None:
    async def main() -> None:
        async with open_testbed() as testbed:
            async with run_session(testbed.radio) as recorded:
                await asyncio.sleep(moment_s)
            assert recorded.states[-1] == "stopped"
            await wait_until(lambda: not testbed.strap.connections)
            async with run_session(testbed.radio) as recorded:
                await wait_until(lambda: recorded.session.state == "streaming")

    run_test(main())


def test_a_bluetoothd_that_dies_costs_the_radio_and_a_new_one_serves_the_next_session(bus: str, tmp_path: Path) -> None:
    """bleak does not notice that bluetoothd died; the radio does, and ends the session's connection."""

    async def main() -> None:
        link = VirtualLink()
        async with run_strap(link, tmp_path) as (strap, _), AsyncExitStack() as bluetoothd:
            await bluetoothd.enter_async_context(run_bluez(link, bus, tmp_path))
            async with open_radio("bluetooth") as radio, run_session(radio) as recorded:
                await recorded.wait_frames()
                await bluetoothd.aclose()
                await asyncio.wait_for(radio.lost.wait(), 5)
                await wait_until(lambda: "backing_off" in recorded.states)
                assert "silent" not in recorded.states
            await bluetoothd.enter_async_context(run_bluez(link, bus, tmp_path))
            async with open_radio("bluetooth") as radio, run_session(radio) as recorded:
                await recorded.wait_frames()
                assert recorded.states == STREAMING
            await wait_until(lambda: not strap.connections)

    run_test(main())
