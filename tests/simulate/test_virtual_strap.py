"""The strap as a hub sees it: advertising, bonding, heart rate and ECG, over a virtual link on virtual time.

The hub is a plain Bumble device, and the tests parse payloads themselves: they use neither our drivers nor our backend, whose
errors could hide errors of the strap.
"""

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bumble.att import ATT_Error
from bumble.core import UUID, AdvertisingData, ProtocolError

from gateway import virtual_time
from gateway.errors import RadioError
from gateway.simulate import pmd, strap
from gateway.simulate.journal import read_journal
from tests.simulate.strap_testbed import (
    BATTERY,
    ECG,
    LOCATION,
    LOOP_ZERO_NS,
    MODEL,
    RATE,
    START_ACC,
    START_ECG,
    STOP_ACC,
    STOP_ECG,
    Frame,
    StrapTestbed,
    now_s,
    run_testbed,
)


def test_the_strap_advertises_its_name_and_the_heart_rate_service(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with run_testbed(tmp_path) as testbed:
            advertisements: asyncio.Queue[Any] = asyncio.Queue()
            testbed.hub.device.on("advertisement", advertisements.put_nowait)
            await testbed.hub.device.start_scanning()
            advertisement = await advertisements.get()
            assert advertisement.is_connectable
            assert advertisement.data.get(AdvertisingData.Type.COMPLETE_LOCAL_NAME) == "Virtual H10 0A1B2C3D"
            services = advertisement.data.get(AdvertisingData.Type.COMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS)
            assert services == [UUID.from_16_bits(0x180D)]
            assert len(testbed.strap.advertising_data) <= 31

    virtual_time.run(scenario())


def test_the_strap_publishes_its_device_information(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with run_testbed(tmp_path) as testbed:
            await testbed.hub.connect()
            assert await testbed.hub[LOCATION].read_value() == b"\x01"
            assert await testbed.hub[BATTERY].read_value() == b"\x57"
            assert await testbed.hub[MODEL].read_value() == b"Virtual H10"
            assert await testbed.hub["2A25"].read_value() == b"0A1B2C3D"

    virtual_time.run(scenario())


def test_only_a_bonded_hub_can_start_the_ecg(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with run_testbed(tmp_path) as testbed:
            connection = await testbed.hub.connect()
            control = testbed.hub[pmd.CONTROL_POINT]
            await control.subscribe(lambda _value: None, prefer_notify=False)
            for attempt in (control.read_value(), testbed.hub.request(START_ECG)):
                with pytest.raises((ATT_Error, ProtocolError)) as refused:
                    await attempt
                assert refused.value.error_code in (0x05, 0x0F)  # insufficient authentication or encryption
            await connection.pair()
            assert (await control.read_value()).hex(" ") == "0f 05" + " 00" * 15
            assert connection.sc

    virtual_time.run(scenario())


def test_a_bonded_hub_reconnects_without_pairing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with run_testbed(tmp_path) as testbed:
            await testbed.hub.stream_all()
            for _ in range(3):
                assert testbed.hub.connection is not None
                await testbed.hub.connection.disconnect()
                await asyncio.sleep(1)
                connection = await testbed.hub.connect()
                await connection.encrypt()
                await testbed.hub.start_ecg()
                await asyncio.sleep(1)
            assert testbed.hub.responses == ["f0 02 00 00 00"] * 4
            assert [event["event"] for event in testbed.events].count("advertising") == 4

    virtual_time.run(scenario())


def test_requests_are_answered_in_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with run_testbed(tmp_path) as testbed:
            await testbed.hub.stream_all()
            await testbed.hub.request(START_ECG)
            await testbed.hub.request(b"\x63\x00")
            await asyncio.sleep(1)
            await testbed.hub.request(STOP_ECG)
            frames_at_stop = len(testbed.hub.frames)
            await asyncio.sleep(5)
            assert testbed.hub.responses == ["f0 02 00 00 00", "f0 02 00 06", "f0 63 00 01", "f0 03 00 00 00"]
            assert frames_at_stop == len(testbed.hub.frames) > 0

    virtual_time.run(scenario())


def test_the_control_point_requires_indications(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with run_testbed(tmp_path) as testbed:
            connection = await testbed.hub.connect()
            await connection.pair()
            with pytest.raises((ATT_Error, ProtocolError)) as refused:
                await testbed.hub.request(START_ECG)
            assert refused.value.error_code == 0xFD  # CCC descriptor improperly configured

    virtual_time.run(scenario())


@pytest.mark.parametrize(("mtu", "count"), [(23, 3), (100, 29), (232, 73), (517, 73)])
def test_frames_contain_the_samples_of_the_ecg_and_the_time_of_the_last_one(tmp_path: Path, mtu: int, count: int) -> None:
    async def scenario() -> StrapTestbed:
        async with run_testbed(tmp_path) as testbed:
            await testbed.hub.stream_all(mtu)
            await asyncio.sleep(30)
            return testbed

    testbed = virtual_time.run(scenario())
    start_ns = read_journal(testbed.journal).starts[0].script_start_ns
    assert len(testbed.hub.frames) >= 30 * 130 // count - 2
    for frame in testbed.hub.frames:
        assert len(frame.samples) == count
        last = round((frame.last_ns - start_ns) * 130.16e-9)
        assert abs(frame.last_ns - start_ns - round(last / 130.16e-9)) <= 1
        assert frame.samples == ECG.microvolts[last - count + 1 : last + 1].tolist()
        assert frame.received_s == pytest.approx((frame.last_ns - LOOP_ZERO_NS) / 1e9, abs=1e-3)


def test_the_ecg_does_not_drift_in_twenty_minutes(tmp_path: Path) -> None:
    async def scenario() -> StrapTestbed:
        async with run_testbed(tmp_path) as testbed:
            await testbed.hub.stream_all()
            await asyncio.sleep(1200)
            return testbed

    frames = virtual_time.run(scenario()).hub.frames
    steps = {after.last_ns - before.last_ns for before, after in pairwise(frames)}
    assert len(frames) == pytest.approx(1200 * 130.16 / 73, abs=2)
    assert max(steps) - min(steps) <= 1
    assert frames[-1].received_s == pytest.approx((frames[-1].last_ns - LOOP_ZERO_NS) / 1e9, abs=1e-3)


def test_the_script_continues_while_no_hub_is_connected(tmp_path: Path) -> None:
    async def scenario() -> StrapTestbed:
        async with run_testbed(tmp_path) as testbed:
            await testbed.hub.stream_all()
            await asyncio.sleep(10)
            assert testbed.link.simulate_link_loss(strap.ADDRESS) == 2
            await asyncio.sleep(10)
            connection = await testbed.hub.connect()
            await connection.encrypt()
            await testbed.hub.start_ecg()
            await asyncio.sleep(10)
            return testbed

    testbed = virtual_time.run(scenario())
    journal = read_journal(testbed.journal)
    assert len(journal.starts) == 1
    gaps = [after.last_ns - before.last_ns for before, after in pairwise(testbed.hub.frames)]
    assert [gap > 10 * 10**9 for gap in gaps].count(True) == 1
    assert [gap > 10**9 for gap in gaps].count(True) == 1
    last = testbed.hub.frames[-1]
    index = round((last.last_ns - journal.starts[0].script_start_ns) * 130.16e-9)
    assert last.samples == ECG.samples(index - 72, 73).tolist()
    starts_us = {event["script_start_us"] for event in testbed.events if event["event"] == "streaming"}
    assert starts_us == {(journal.starts[0].script_start_ns + 946_684_800 * 10**9) // 1000}


def test_the_journal_contains_exactly_the_sent_frames(tmp_path: Path) -> None:
    async def scenario() -> StrapTestbed:
        async with run_testbed(tmp_path) as testbed:
            await testbed.hub.stream_all()
            await asyncio.sleep(5)
            await testbed.hub[pmd.DATA].unsubscribe()
            await asyncio.sleep(5)
            await testbed.hub[pmd.DATA].subscribe(lambda value: testbed.hub.frames.append(Frame.parse(now_s(), bytes(value))))
            await asyncio.sleep(5)
            return testbed

    testbed = virtual_time.run(scenario())
    written = [(frame.last_ns, frame.n) for frame in read_journal(testbed.journal).frames]
    assert written == [(frame.last_ns, len(frame.samples)) for frame in testbed.hub.frames]
    assert 10 * 130 / 73 - 4 < len(written) < 10 * 130.16 / 73 + 2
    assert testbed.events[-1]["event"] == "frames"
    reported = [event["sent_samples"] for event in testbed.events if event["event"] == "frames"]
    assert reported == np.cumsum([n for _, n in written]).tolist()


def test_the_heart_rate_carries_every_rr_interval_once(tmp_path: Path) -> None:
    async def scenario() -> StrapTestbed:
        async with run_testbed(tmp_path) as testbed:
            await testbed.hub.stream_all()
            await asyncio.sleep(90)
            return testbed

    testbed = virtual_time.run(scenario())
    payloads = [payload for _, payload in testbed.hub.heart_rates]
    ticks = [int.from_bytes(p[offset : offset + 2], "little") for p in payloads for offset in range(2, len(p), 2)]
    beats = np.array(ECG.beats_s)
    assert ticks == [round(rr * 1024) for rr in np.diff(beats)][: len(ticks)]
    assert len(ticks) > 130
    assert {p[0] for p in payloads} == {0x16, 0x06}  # contact; with intervals, except in a second without a beat
    assert all((p[0] == 0x06) == (len(p) == 2) for p in payloads)
    rates = {round(at_s): payload[1] for at_s, payload in testbed.hub.heart_rates}
    assert rates[70] == pytest.approx(165, abs=3)
    assert rates[4] == pytest.approx(72, abs=4)
    assert np.diff([at_s for at_s, _ in testbed.hub.heart_rates]) == pytest.approx(1.0)


def test_a_strap_that_is_taken_off_leaves_after_45_s_and_comes_back_when_it_is_worn(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with run_testbed(tmp_path) as testbed:
            disconnected: list[float] = []
            await testbed.hub.stream_all()
            assert testbed.hub.connection is not None
            testbed.hub.connection.on("disconnection", lambda _reason: disconnected.append(now_s()))
            await asyncio.sleep(10)
            off_s = now_s()
            testbed.sensor.take_off()
            await asyncio.sleep(600)
            assert disconnected == [pytest.approx(off_s + 45, abs=1.1)]
            assert testbed.hub.heart_rates[-1][0] <= off_s + 1
            assert testbed.events[-1] == {"event": "disconnected"}
            testbed.sensor.put_on()
            connection = await testbed.hub.connect()
            await connection.encrypt()
            count = len(testbed.hub.heart_rates)
            await testbed.hub[RATE].subscribe(lambda value: testbed.hub.heart_rates.append((now_s(), bytes(value))))
            await asyncio.sleep(5)
            rates = testbed.hub.heart_rates[count:]
            assert len(rates) >= 4
            assert all(len(value) <= 6 for _, value in rates)  # not the intervals of ten minutes

    virtual_time.run(scenario())


def test_frames_can_be_lost_before_the_radio_or_come_late(tmp_path: Path) -> None:
    async def scenario() -> StrapTestbed:
        async with run_testbed(tmp_path) as testbed:
            await testbed.hub.stream_all()
            await asyncio.sleep(5)
            testbed.sensor.faults.skip(2)
            await asyncio.sleep(5)
            testbed.sensor.faults.hold(4.0)
            await asyncio.sleep(10)
            return testbed

    testbed = virtual_time.run(scenario())
    frames = testbed.hub.frames
    assert sorted(round((after.last_ns - before.last_ns) / 1e9 / 0.56) for before, after in pairwise(frames))[-2:] == [1, 3]
    assert max(after.received_s - before.received_s for before, after in pairwise(frames)) == pytest.approx(4.5, abs=0.6)
    journal = read_journal(testbed.journal)
    assert [frame.last_ns for frame in journal.frames] == [frame.last_ns for frame in frames]  # a lost frame was not sent


def test_a_wrong_clock_is_sent_and_journaled_as_it_is(tmp_path: Path) -> None:
    async def scenario() -> StrapTestbed:
        async with run_testbed(tmp_path) as testbed:
            await testbed.hub.stream_all()
            await asyncio.sleep(5)
            testbed.sensor.clock_error.jump(100)
            await asyncio.sleep(5)
            return testbed

    testbed = virtual_time.run(scenario())
    steps_s = [(after.last_ns - before.last_ns) / 1e9 for before, after in pairwise(testbed.hub.frames)]
    assert sorted(steps_s)[-2:] == pytest.approx([0.56, 100.56], abs=0.01)
    assert [frame.last_ns for frame in read_journal(testbed.journal).frames] == [frame.last_ns for frame in testbed.hub.frames]


def test_the_acceleration_shows_whether_the_wearer_walks(tmp_path: Path) -> None:
    """At the rate that the hub chose, beside the ECG, in frames of 36 samples of three axes."""

    async def scenario() -> None:
        async with run_testbed(tmp_path) as testbed:
            hub, received = testbed.hub, list[tuple[float, bytes]]()
            connection = await hub.connect()
            await connection.pair()
            await hub[pmd.CONTROL_POINT].subscribe(lambda value: hub.responses.append(value.hex(" ")), prefer_notify=False)
            await hub[pmd.DATA].subscribe(lambda value: received.append((now_s(), bytes(value))))
            await hub.request(START_ECG)
            await hub.request(START_ACC)
            await asyncio.sleep(15)
            testbed.sensor.is_walking = True
            await asyncio.sleep(15)
            await hub.request(STOP_ACC)
            count = len(received)
            await asyncio.sleep(2)
            assert hub.responses == ["f0 02 00 00 00", "f0 02 02 00 00 01", "f0 03 02 00 00"]
            assert {value[0] for _, value in received[count:]} == {0}
            frames = [(at_s, value) for at_s, value in received if value[0] == 2]
            assert {(len(value), value[9]) for _, value in frames} == {(10 + 6 * 36, 1)}
            times_ns = [int.from_bytes(value[1:9], "little") for _, value in frames]
            assert {after - before for before, after in pairwise(times_ns)} == {36 * 40_000_000}
            assert times_ns[0] == pytest.approx(LOOP_ZERO_NS + frames[0][0] * 1e9, abs=1e6)
            heights = [np.abs(np.frombuffer(value[10:], "<i2").reshape(-1, 3)[:, 1] + 1000).max() for _, value in frames]
            assert max(heights[:9]) < 20
            assert min(heights[-9:]) > 200

    virtual_time.run(scenario())


def test_a_stream_that_starts_as_the_connection_ends_leaves_the_strap_running(tmp_path: Path) -> None:
    """The request and the end of the connection are handled in one turn of the event loop."""

    async def scenario() -> None:
        async with run_testbed(tmp_path) as testbed:
            await testbed.hub.stream_all()
            await asyncio.sleep(1)
            connection = testbed.sensor.connection
            assert connection is not None
            testbed.sensor._requests.put_nowait(START_ACC)
            asyncio.get_running_loop().call_soon(connection.emit, connection.EVENT_DISCONNECTION, 0x13)
            await asyncio.sleep(1)
            assert not testbed.running.done()
            assert testbed.sensor.connection is None

    virtual_time.run(scenario())


def test_a_lost_radio_ends_the_strap_with_one_error(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with run_testbed(tmp_path) as testbed:
            await testbed.hub.stream_all()
            await asyncio.sleep(3)
            testbed.strap.host.on_transport_lost()
            with pytest.raises(RadioError, match="lost its radio"):
                await testbed.running

    virtual_time.run(scenario())
