"""bleak's own Linux backend under the agent: over D-Bus to a façade of BlueZ, from there to a virtual strap. In real time.

What this does not show: bluetoothd, the kernel and radio waves. The façade's docstring says what it leaves out.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from config.settings import SensorSettings
from drivers import polar_pmd
from drivers.readings import Quarantined, Reading, Status, Waveform
from drivers.registry import Registry, load_drivers, registry_of
from gateway import session
from gateway.clock import SystemClock
from gateway.radio import Radio
from gateway.radio.virtual import VirtualLink
from gateway.session import Event, Interruption, Notification, Session, State
from gateway.simulate import pmd
from gateway.simulate.strap import ADDRESS, NAME
from tests.bluez.rooms import OpenRoom, bleak_radio, bluez_in, run, strap_in, until

REGISTRY = load_drivers()
Requests = list[tuple[bytes, int]]


class Watched:
    """A session, and all that comes out of it."""

    def __init__(self, radio: Radio, registry: Registry) -> None:
        self.states: list[State] = []
        self.events: list[Event] = []
        sensor = SensorSettings("strap", advertised_name="Virtual H10")
        self.session = Session(sensor, radio, registry, SystemClock(), lambda _name, state: self.states.append(state))

    async def collect(self) -> None:
        while True:
            self.events.append(await self.session.events.get())

    def readings(self) -> list[Reading]:
        values = [event for event in self.events if isinstance(event, Notification)]
        return [reading for value in values for reading in REGISTRY.decode(value.characteristic, value.payload)]

    def frames(self) -> list[Waveform]:
        return [reading for reading in self.readings() if isinstance(reading, Waveform)]

    def microvolts(self) -> list[int]:
        return [sample for frame in self.frames() for sample in frame.samples]

    async def streaming(self, frames: int = 1) -> None:
        """Wait for so many frames more."""
        enough = len(self.frames()) + frames
        await until(lambda: len(self.frames()) >= enough)


@asynccontextmanager
async def running(radio: Radio, registry: Registry = REGISTRY) -> AsyncIterator[Watched]:
    """A session until the block ends; that stops it cleanly."""
    watched = Watched(radio, registry)
    async with asyncio.TaskGroup() as tasks:
        collecting = tasks.create_task(watched.collect())
        serving = tasks.create_task(watched.session.run())
        try:
            yield watched
        finally:
            serving.cancel()
            await asyncio.wait([serving])
            await until(watched.session.events.empty)
            collecting.cancel()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "BACKOFF_S", (0.1,))


def test_a_scan_finds_the_strap(room: OpenRoom) -> None:
    async def main() -> None:
        async with room() as here:
            for _ in range(2):  # the second time BlueZ knows it, and tells only what changes
                ((device, advertisement),) = await here.radio.scan(0.2)
                assert (device.address, device.name) == (ADDRESS, NAME)
                assert advertisement.local_name == NAME
                assert advertisement.service_uuids == ["0000180d-0000-1000-8000-00805f9b34fb"]

    run(main())


def test_a_session_bonds_and_streams_every_sample_once_until_it_is_stopped(room: OpenRoom, requests: Requests) -> None:
    async def main() -> None:
        async with room() as here:
            async with running(here.radio) as watched:
                await watched.streaming(frames=2)
            await until(lambda: here.events() == ["connected", "disconnected"])
            assert watched.states == ["searching", "connecting", "streaming", "lost", "stopped"]
            assert watched.session.statistics.failures == 0
            assert Status("battery", 87) in watched.readings()
            assert not [reading for reading in watched.readings() if isinstance(reading, Quarantined)]
            first, *_ = samples = watched.microvolts()
            assert samples == list(range(first, first + len(samples)))  # the strap's heart beats a ramp
            times = [frame.last_ns for frame in watched.frames() if frame.last_ns is not None]
            frame_ns = pmd.FRAME_SAMPLES / pmd.RATE_HZ * 1e9
            assert [later - earlier for earlier, later in pairwise(times)] == pytest.approx([frame_ns] * (len(times) - 1))
            assert len(await here.strap.keystore.get_all()) == 1

    run(main())
    assert [(request[0], status) for request, status in requests] == [(pmd.START, pmd.SUCCESS), (pmd.STOP, pmd.SUCCESS)]


def test_a_lost_link_is_noticed_and_made_again_with_the_same_bond(room: OpenRoom) -> None:
    async def main() -> None:
        async with room() as here, running(here.radio) as watched:
            await watched.streaming()
            bonds = await here.strap.keystore.get_all()
            assert here.link.link_loss(ADDRESS) == 2
            await watched.streaming()
            assert watched.states == ["searching", "connecting", "streaming", "lost", "searching", "connecting", "streaming"]
            assert [event.reason for event in watched.events if isinstance(event, Interruption)] == ["the link was lost"]
            assert here.events() == ["connected", "disconnected", "connected"]
            samples = watched.microvolts()
            assert samples == sorted(set(samples))
            assert samples[-1] - samples[0] > len(samples)  # some were missed, none came twice
            assert str(await here.strap.keystore.get_all()) == str(bonds)

    run(main())


@pytest.mark.parametrize("moment_s", [0.0, 0.1, 0.15, 0.2])
def test_a_stop_at_any_moment_leaves_nothing_behind(room: OpenRoom, moment_s: float) -> None:
    async def main() -> None:
        async with room() as here:
            async with running(here.radio) as watched:
                await asyncio.sleep(moment_s)
            assert watched.states[-1] == "stopped"
            await until(lambda: not here.strap.connections)
            async with running(here.radio) as watched:
                await until(lambda: watched.session.state == "streaming")

    run(main())


def test_bluetoothd_may_die_and_come_back(bus: str, tmp_path: Path) -> None:
    """bleak does not notice; the silence of a stream that should be busy does."""
    impatient = tuple(replace(stream, silent_after_s=1.0) for stream in polar_pmd.DRIVER.streams)
    registry = registry_of([replace(polar_pmd.DRIVER, streams=impatient)])

    async def main() -> None:
        link = VirtualLink()
        async with strap_in(link, tmp_path), bleak_radio() as radio, AsyncExitStack() as bluetoothd:
            await bluetoothd.enter_async_context(bluez_in(link, bus, tmp_path))
            async with running(radio, registry) as watched:
                await watched.streaming()
                await bluetoothd.aclose()
                await until(lambda: "silent" in watched.states)
                await bluetoothd.enter_async_context(bluez_in(link, bus, tmp_path))
                await watched.streaming()
                assert watched.states[-1] == "streaming"
                assert watched.session.statistics.connects == 2

    run(main())
