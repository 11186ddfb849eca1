"""The strap seen from a hub: advertising, bonding, heart rate and ECG, over a virtual link and on virtual time.

The hub is a bare Bumble device, and payloads are cut by hand: neither our drivers nor our backend could hide an error here.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bumble.att import ATT_Error
from bumble.core import AdvertisingData, ProtocolError
from bumble.device import Connection, Device, Peer
from bumble.hci import Address

from gateway import virtual_time
from gateway.radio.radio import RadioError
from gateway.radio.virtual import VirtualLink, make_device
from gateway.simulate import heart, pmd, strap
from gateway.simulate.journal import Journal, read_journal
from gateway.simulate.playback import Playback, SensorClock
from gateway.simulate.script import load_script

HEART = heart.from_script(load_script("demo"))
RATE, LOCATION, BATTERY, MODEL = "2A37", "2A38", "2A19", "2A24"
START_ECG = bytes.fromhex("02 00 00 01 82 00 01 01 0e 00")
STOP_ECG = bytes.fromhex("03 00")
UNIX_NS = 1_764_000_000 * 10**9
LOOP_ZERO_NS = UNIX_NS - 946_684_800 * 10**9
"""The strap's clock when the loop's shows 0."""


@dataclass
class Frame:
    """A PMD notification, cut by hand: when it came, the time of its last sample, its samples."""

    came_s: float
    last_ns: int
    samples: list[int]

    @classmethod
    def cut(cls, came_s: float, payload: bytes) -> "Frame":
        assert payload[0] == 0
        assert payload[9] == 0
        triples = [payload[at : at + 3] for at in range(10, len(payload), 3)]
        samples = [int.from_bytes(triple, "little", signed=True) for triple in triples]
        return cls(came_s, int.from_bytes(payload[1:9], "little"), samples)


@dataclass
class Hub:
    """A bare central, with everything that it heard."""

    device: Device
    connection: Connection | None = None
    characteristics: dict[str, Any] = field(default_factory=dict)
    rates: list[tuple[float, bytes]] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)

    async def connect(self, mtu: int = 232) -> Connection:
        self.connection = await self.device.connect(Address(strap.ADDRESS))
        peer = Peer(self.connection)
        if mtu > 23:
            await peer.request_mtu(mtu)
        await peer.discover_services()
        await peer.discover_characteristics()
        found = [characteristic for service in peer.services for characteristic in service.characteristics]
        self.characteristics = {characteristic.uuid.to_hex_str().upper(): characteristic for characteristic in found}
        return self.connection

    def __getitem__(self, uuid: str) -> Any:
        return self.characteristics[uuid.replace("-", "").upper()]

    async def listen(self, mtu: int = 232) -> None:
        """Connect, subscribe to everything, bond, and start the ECG."""
        connection = await self.connect(mtu)
        await self[RATE].subscribe(lambda value: self.rates.append((now_s(), bytes(value))))
        await connection.pair()
        await self.start()

    async def start(self) -> None:
        await self[pmd.CONTROL_POINT].subscribe(lambda value: self.answers.append(value.hex(" ")), prefer_notify=False)
        await self[pmd.DATA].subscribe(lambda value: self.frames.append(Frame.cut(now_s(), bytes(value))))
        await self.request(START_ECG)

    async def request(self, request: bytes) -> None:
        await self[pmd.CONTROL_POINT].write_value(request, with_response=True)


@dataclass
class World:
    link: VirtualLink
    strap: Device
    hub: Hub
    running: asyncio.Task[Any]
    journal: Path
    events: list[dict[str, Any]]


def now_s() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """A strap that runs and a hub in range of it."""
    link, events = VirtualLink(), list[dict[str, Any]]()
    device, hub = make_device(link, strap.ADDRESS, strap.NAME), make_device(link, "C2:00:00:00:00:02", "hub")
    await device.power_on()
    await hub.power_on()
    with Journal(folder / "strap.jsonl", "test") as journal:
        playback = Playback(HEART, SensorClock.set_to(UNIX_NS, now_s()), journal)
        running = asyncio.create_task(strap.Strap(device, playback, lambda event: events.append(dict(event))).run())
        try:
            yield World(link, device, Hub(hub), running, folder / "strap.jsonl", events)
        finally:
            running.cancel()
            await asyncio.wait([running])


def test_it_advertises_its_name_and_the_heart_rate_service(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as it:
            heard: asyncio.Queue[Any] = asyncio.Queue()
            it.hub.device.on("advertisement", heard.put_nowait)
            await it.hub.device.start_scanning()
            advertisement = await heard.get()
            assert advertisement.is_connectable
            assert advertisement.data.get(AdvertisingData.Type.COMPLETE_LOCAL_NAME) == "Virtual H10 0A1B2C3D"
            assert (
                advertisement.data.get(AdvertisingData.Type.COMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS)[0].to_hex_str()
                == "180D"
            )
            assert len(it.strap.advertising_data) <= 31

    virtual_time.run(scenario())


def test_it_says_what_it_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as it:
            await it.hub.connect()
            assert await it.hub[LOCATION].read_value() == b"\x01"
            assert await it.hub[BATTERY].read_value() == b"\x57"
            assert await it.hub[MODEL].read_value() == b"Virtual H10"
            assert await it.hub["2A25"].read_value() == b"0A1B2C3D"

    virtual_time.run(scenario())


def test_the_ecg_is_for_bonded_hubs_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as it:
            connection = await it.hub.connect()
            control = it.hub[pmd.CONTROL_POINT]
            await control.subscribe(lambda _value: None, prefer_notify=False)
            for attempt in (control.read_value(), it.hub.request(START_ECG)):
                with pytest.raises((ATT_Error, ProtocolError)) as refused:
                    await attempt
                assert refused.value.error_code in (0x05, 0x0F)  # insufficient authentication or encryption
            await connection.pair()
            assert (await control.read_value()).hex(" ") == "0f 01" + " 00" * 15
            assert connection.sc

    virtual_time.run(scenario())


def test_a_bonded_hub_comes_back_without_pairing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as it:
            await it.hub.listen()
            for _ in range(3):
                assert it.hub.connection is not None
                await it.hub.connection.disconnect()
                await asyncio.sleep(1)
                connection = await it.hub.connect()
                await connection.encrypt()
                await it.hub.start()
                await asyncio.sleep(1)
            assert it.hub.answers == ["f0 02 00 00 00"] * 4
            assert [event["event"] for event in it.events].count("advertising") == 4

    virtual_time.run(scenario())


def test_requests_are_answered_in_turn(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as it:
            await it.hub.listen()
            await it.hub.request(START_ECG)
            await it.hub.request(b"\x63\x00")
            await asyncio.sleep(1)
            await it.hub.request(STOP_ECG)
            stopped = len(it.hub.frames)
            await asyncio.sleep(5)
            assert it.hub.answers == ["f0 02 00 00 00", "f0 02 00 06", "f0 63 00 01", "f0 03 00 00 00"]
            assert stopped == len(it.hub.frames) > 0

    virtual_time.run(scenario())


def test_the_control_point_wants_indications_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as it:
            connection = await it.hub.connect()
            await connection.pair()
            with pytest.raises((ATT_Error, ProtocolError)) as refused:
                await it.hub.request(START_ECG)
            assert refused.value.error_code == 0xFD  # CCC descriptor improperly configured

    virtual_time.run(scenario())


@pytest.mark.parametrize(("mtu", "count"), [(23, 3), (100, 29), (232, 73), (517, 73)])
def test_frames_hold_the_hearts_samples_and_the_last_ones_time(tmp_path: Path, mtu: int, count: int) -> None:
    async def scenario() -> World:
        async with world(tmp_path) as it:
            await it.hub.listen(mtu)
            await asyncio.sleep(30)
            return it

    it = virtual_time.run(scenario())
    start_ns = read_journal(it.journal).starts[0].script_start_ns
    assert len(it.hub.frames) >= 30 * 130 // count - 2
    for frame in it.hub.frames:
        assert len(frame.samples) == count
        last = round((frame.last_ns - start_ns) * 130.16e-9)
        assert abs(frame.last_ns - start_ns - round(last / 130.16e-9)) <= 1
        assert frame.samples == HEART.microvolts[last - count + 1 : last + 1].tolist()
        assert frame.came_s == pytest.approx((frame.last_ns - LOOP_ZERO_NS) / 1e9, abs=1e-3)


def test_twenty_minutes_of_ecg_do_not_drift(tmp_path: Path) -> None:
    async def scenario() -> World:
        async with world(tmp_path) as it:
            await it.hub.listen()
            await asyncio.sleep(1200)
            return it

    frames = virtual_time.run(scenario()).hub.frames
    steps = {after.last_ns - before.last_ns for before, after in pairwise(frames)}
    assert len(frames) == pytest.approx(1200 * 130.16 / 73, abs=2)
    assert max(steps) - min(steps) <= 1
    assert frames[-1].came_s == pytest.approx((frames[-1].last_ns - LOOP_ZERO_NS) / 1e9, abs=1e-3)


def test_the_heart_goes_on_while_nobody_listens(tmp_path: Path) -> None:
    async def scenario() -> World:
        async with world(tmp_path) as it:
            await it.hub.listen()
            await asyncio.sleep(10)
            assert it.link.link_loss(strap.ADDRESS) == 2
            await asyncio.sleep(10)
            connection = await it.hub.connect()
            await connection.encrypt()
            await it.hub.start()
            await asyncio.sleep(10)
            return it

    it = virtual_time.run(scenario())
    journal = read_journal(it.journal)
    assert len(journal.starts) == 1
    gaps = [after.last_ns - before.last_ns for before, after in pairwise(it.hub.frames)]
    assert [gap > 10 * 10**9 for gap in gaps].count(True) == 1
    assert [gap > 10**9 for gap in gaps].count(True) == 1
    last = it.hub.frames[-1]
    index = round((last.last_ns - journal.starts[0].script_start_ns) * 130.16e-9)
    assert last.samples == HEART.samples(index - 72, 73).tolist()
    starts_us = {event["script_start_us"] for event in it.events if event["event"] == "streaming"}
    assert starts_us == {(journal.starts[0].script_start_ns + 946_684_800 * 10**9) // 1000}


def test_the_journal_holds_what_was_sent_and_nothing_else(tmp_path: Path) -> None:
    async def scenario() -> World:
        async with world(tmp_path) as it:
            await it.hub.listen()
            await asyncio.sleep(5)
            await it.hub[pmd.DATA].unsubscribe()
            await asyncio.sleep(5)
            await it.hub[pmd.DATA].subscribe(lambda value: it.hub.frames.append(Frame.cut(now_s(), bytes(value))))
            await asyncio.sleep(5)
            return it

    it = virtual_time.run(scenario())
    written = [(frame.last_ns, frame.n) for frame in read_journal(it.journal).frames]
    assert written == [(frame.last_ns, len(frame.samples)) for frame in it.hub.frames]
    assert 10 * 130 / 73 - 4 < len(written) < 10 * 130.16 / 73 + 2
    assert it.events[-1]["event"] == "frames"
    assert it.events[-1]["sent_samples"] <= sum(n for _, n in written)


def test_the_heart_rate_carries_every_interval_once(tmp_path: Path) -> None:
    async def scenario() -> World:
        async with world(tmp_path) as it:
            await it.hub.listen()
            await asyncio.sleep(90)
            return it

    it = virtual_time.run(scenario())
    payloads = [payload for _, payload in it.hub.rates]
    ticks = [int.from_bytes(p[at : at + 2], "little") for p in payloads for at in range(2, len(p), 2)]
    beats = np.array(HEART.beats_s)
    assert ticks == [round(rr * 1024) for rr in np.diff(beats)][: len(ticks)]
    assert len(ticks) > 130
    assert {p[0] for p in payloads} == {0x16, 0x06}  # contact; intervals unless a pause lets a second go by without a beat
    assert all((p[0] == 0x06) == (len(p) == 2) for p in payloads)
    rates = {round(at): payload[1] for at, payload in it.hub.rates}
    assert rates[70] == pytest.approx(165, abs=3)
    assert rates[4] == pytest.approx(72, abs=4)
    assert np.diff([at for at, _ in it.hub.rates]) == pytest.approx(1.0)


def test_a_radio_that_goes_away_ends_the_strap_with_one_error(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world(tmp_path) as it:
            await it.hub.listen()
            await asyncio.sleep(3)
            it.strap.host.on_transport_lost()
            with pytest.raises(RadioError, match="radio is gone"):
                await it.running

    virtual_time.run(scenario())
