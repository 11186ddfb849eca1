"""The emulated armband as a hub sees it, by a plain central with a decoder of its own for compressed frames."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gateway import virtual_time
from gateway.radio.virtual import VirtualLink
from gateway.simulate import pmd
from gateway.simulate.peripherals.armband import SIGNALS, Armband, make_offers
from gateway.simulate.playback import SensorClock
from gateway.simulate.pmd_compression import encode_compressed_frame
from tests.simulate.plain_hub import SENSOR, PlainHub, att_error_of, make_sensor_device, now_s, run_sensor

CONTROL, DATA, RATE = pmd.CONTROL_POINT, pmd.DATA, "2A37"
START_PPG = "02 01 00 01 37 00 01 01 16 00 04 01 04"
START_ACC = "02 02 00 01 34 00 01 01 10 00 02 01 08 00 04 01 03"
START_PPI = "02 03"
UNIX_NS = 1_764_000_000 * 10**9


def run_with_armband(scenario: Callable[[Armband, PlainHub], Awaitable[None]], offers: pmd.Offers | None = None) -> None:
    async def run() -> None:
        link = VirtualLink()
        armband = Armband(make_sensor_device(link), SensorClock.set_to(UNIX_NS, 0.0), offers=offers)
        async with run_sensor(link, armband) as hub:
            await scenario(armband, hub)

    virtual_time.run(run())


async def connect(hub: PlainHub, *, bonded: bool = False) -> None:
    connection = await hub.connect()
    await (connection.encrypt() if bonded else connection.pair())
    await hub.subscribe(CONTROL)
    await hub.subscribe(DATA, RATE, indications=False)


async def ask(hub: PlainHub, request: str) -> str:
    before = len(hub.values(CONTROL))
    await hub.write(CONTROL, bytes.fromhex(request))
    await asyncio.sleep(0.01)
    (answer,) = hub.values(CONTROL)[before:]
    return answer.hex(" ")


def decode_frame(frame: bytes, channels: int, reference_bytes: int) -> tuple[int, Any]:
    """Return the time of the last sample and all samples; the delta blocks are read bit by bit."""
    last_ns, at = int.from_bytes(frame[1:9], "little"), 10
    size = reference_bytes
    samples = [[int.from_bytes(frame[at + i * size : at + (i + 1) * size], "little", signed=True) for i in range(channels)]]
    at += channels * size
    while at < len(frame):
        width, count = frame[at], frame[at + 1]
        octets = -(-width * count * channels // 8)
        bits = "".join(f"{octet:08b}"[::-1] for octet in frame[at + 2 : at + 2 + octets])
        assert len(bits) >= width * count * channels
        for row in range(count):
            new = []
            for channel in range(channels):
                start = (row * channels + channel) * width
                value = int(bits[start : start + width][::-1], 2)
                new.append(samples[-1][channel] + (value - (1 << width) if value >> (width - 1) else value))
            samples.append(new)
        at += 2 + octets
    return last_ns, np.array(samples)


def frames(hub: PlainHub, measurement: int) -> list[tuple[float, bytes]]:
    return [(at_s, value) for at_s, uuid, value in hub.received if uuid == DATA and value[0] == measurement]


def test_the_features_and_settings_are_those_of_an_optical_sensor() -> None:
    async def scenario(armband: Armband, hub: PlainHub) -> None:
        await connect(hub)
        assert (await hub.read(CONTROL)).hex(" ") == "0f 0e" + " 00" * 15
        assert await ask(hub, "01 01") == "f0 01 01 00 00 00 01 37 00 01 01 16 00 04 01 04"
        assert await ask(hub, "01 02") == "f0 01 02 00 00 00 01 34 00 01 01 10 00 02 01 08 00 04 01 03"
        assert await ask(hub, "01 03") == "f0 01 03 00 00"
        assert await ask(hub, "01 00") == "f0 01 00 03"
        assert await ask(hub, START_PPG) == "f0 02 01 00 00 05 01 00 00 80 3f"

    run_with_armband(scenario)


@pytest.mark.parametrize(
    ("start", "answer"),
    [
        ("02 01 00 01 87 00 01 01 16 00 04 01 04", "f0 02 01 08"),
        ("02 01 00 01 37 00 01 01 18 00 04 01 04", "f0 02 01 07"),
        ("02 01 00 01 37 00 01 01 16 00 04 01 03", "f0 02 01 0b"),
        ("02 02 00 01 34 00 01 01 10 00 02 01 04 00 04 01 03", "f0 02 02 09"),
        ("02 01 00 01 37 00 01 01 16 00 04 01 04 00", "f0 02 01 04"),
        ("02 01 00 01 37 00 01 01 16 00 04 02 04", "f0 02 01 05"),
        ("02 01", "f0 02 01 04"),
        ("02 03 00", "f0 02 03 04"),
        ("03 01", "f0 03 01 06"),
    ],
)
def test_a_wrong_start_is_refused_with_a_reason(start: str, answer: str) -> None:
    async def scenario(armband: Armband, hub: PlainHub) -> None:
        await connect(hub)
        assert await ask(hub, start) == answer
        assert armband.running == frozenset()

    run_with_armband(scenario)


@pytest.mark.parametrize(
    ("start", "measurement", "channels", "reference_bytes", "kind"),
    [(START_PPG, pmd.PPG, 4, 3, 0x80), (START_ACC, pmd.ACCELERATION, 3, 2, 0x81)],
)
def test_compressed_frames_hold_every_sample_of_the_signal(
    start: str, measurement: int, channels: int, reference_bytes: int, kind: int
) -> None:
    async def scenario(armband: Armband, hub: PlainHub) -> None:
        await connect(hub)
        await ask(hub, start)
        await asyncio.sleep(30)
        signal = SIGNALS[measurement]
        received = frames(hub, measurement)
        assert len(received) == pytest.approx(30 * signal.rate_hz / 20, abs=1.5)
        numbers = []
        for at_s, frame in received:
            assert frame[9] == kind
            assert len(frame) <= 229
            last_ns, samples = decode_frame(frame, channels, reference_bytes)
            last_s = (last_ns + 946_684_800 * 10**9 - UNIX_NS) / 1e9
            assert at_s == pytest.approx(last_s, abs=1e-3)
            last = round(last_s * signal.rate_hz)
            numbers += range(last - len(samples) + 1, last + 1)
            assert (samples == signal.sample(np.arange(last - len(samples) + 1, last + 1))).all()
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert await ask(hub, f"03 0{measurement}") == f"f0 03 0{measurement} 00 00"
        count = len(frames(hub, measurement))
        await asyncio.sleep(5)
        assert len(frames(hub, measurement)) == count

    run_with_armband(scenario)


def test_pp_intervals_begin_after_25_s_carry_no_time_and_slow_the_heart_rate() -> None:
    async def scenario(armband: Armband, hub: PlainHub) -> None:
        await connect(hub)
        await ask(hub, START_PPI)
        started_s = now_s()
        await asyncio.sleep(31)
        armband.is_moving = True
        await asyncio.sleep(5)
        received = frames(hub, pmd.PP_INTERVAL)
        assert [at_s - started_s for at_s, _ in received] == pytest.approx([25, 30, 35], abs=0.1)
        still, _, moving = [frame for _, frame in received]
        assert still[:10].hex() == "03" + "00" * 9
        samples = [still[offset : offset + 6] for offset in range(10, len(still), 6)]
        assert [int.from_bytes(sample[1:3], "little") for sample in samples] == [821, 833, 845, 833, 821, 845]
        assert {(sample[0], sample[3], sample[5]) for sample in samples} == {(72, 10, 6)}
        assert moving[15] == 7
        rates = [at_s for at_s, uuid, _ in hub.received if uuid == RATE and at_s > started_s + 1]
        assert np.diff(rates) == pytest.approx(5.0)
        armband.is_worn = False
        await asyncio.sleep(5)
        assert hub.values(RATE)[-1].hex() == "0400"
        assert hub.values(RATE)[0].hex() == "0648"

    run_with_armband(scenario)


def test_a_small_mtu_is_refused_at_the_start() -> None:
    async def scenario(armband: Armband, hub: PlainHub) -> None:
        hub.mtu = 100
        await connect(hub)
        assert await ask(hub, START_PPG) == "f0 02 01 0a"

    run_with_armband(scenario)


def test_a_device_in_its_charger_stops_and_refuses() -> None:
    async def scenario(armband: Armband, hub: PlainHub) -> None:
        await connect(hub)
        await ask(hub, START_PPG)
        await ask(hub, START_PPI)
        await armband.put_in_charger()
        assert hub.values(CONTROL)[-1].hex(" ") == "01 01 03"
        assert await ask(hub, START_PPG) == "f0 02 01 0d"
        armband.take_out_of_charger()
        assert (await ask(hub, START_PPG)).startswith("f0 02 01 00")

    run_with_armband(scenario)


def test_a_stream_that_stops_by_itself_is_announced_and_can_be_started_again() -> None:
    async def scenario(armband: Armband, hub: PlainHub) -> None:
        await connect(hub)
        await ask(hub, START_PPG)
        await ask(hub, START_ACC)
        await asyncio.sleep(2)
        await armband.stop_unasked(pmd.PPG)
        counts = [len(frames(hub, measurement)) for measurement in (pmd.PPG, pmd.ACCELERATION)]
        await asyncio.sleep(2)
        assert len(frames(hub, pmd.PPG)) == counts[0]
        assert len(frames(hub, pmd.ACCELERATION)) > counts[1]
        assert hub.values(CONTROL)[-1].hex(" ") == "01 01"
        await ask(hub, START_PPG)
        await asyncio.sleep(2)
        assert len(frames(hub, pmd.PPG)) > counts[0]

    run_with_armband(scenario)


@pytest.mark.parametrize("keeps", [True, False])
def test_after_a_lost_link_a_stream_may_count_as_running(keeps: bool) -> None:
    async def scenario(armband: Armband, hub: PlainHub) -> None:
        armband.keeps_streams = keeps
        await connect(hub)
        await ask(hub, START_PPG)
        await asyncio.sleep(2)
        hub.link.simulate_link_loss(SENSOR)
        await hub.wait_disconnected()
        hub.received.clear()
        await connect(hub, bonded=True)
        answer = await ask(hub, START_PPG)
        assert answer == ("f0 02 01 06" if keeps else "f0 02 01 00 00 05 01 00 00 80 3f")
        await asyncio.sleep(2)
        assert len(frames(hub, pmd.PPG)) >= 4

    run_with_armband(scenario)


def test_skipped_frames_are_missing_and_held_ones_come_in_a_burst() -> None:
    async def scenario(armband: Armband, hub: PlainHub) -> None:
        await connect(hub)
        await ask(hub, START_PPG)
        await asyncio.sleep(2)
        armband.faults[pmd.PPG].skip(2)
        await asyncio.sleep(3)
        armband.faults[pmd.PPG].hold(4)
        await asyncio.sleep(10)
        received = frames(hub, pmd.PPG)
        steps_s = np.diff([decode_frame(frame, 4, 3)[0] for _, frame in received]) / 1e9
        assert sorted(np.round(steps_s * 55 / 20).tolist())[-2:] == [1.0, 3.0]
        arrivals_s = np.diff([at_s for at_s, _ in received])
        assert max(arrivals_s) == pytest.approx(4.2, abs=0.4)
        assert sum(step < 0.01 for step in arrivals_s) >= 10

    run_with_armband(scenario)


def test_old_firmware_states_a_wrong_rate() -> None:
    async def scenario(armband: Armband, hub: PlainHub) -> None:
        await connect(hub)
        assert await ask(hub, "01 01") == "f0 01 01 00 00 00 01 87 00 01 01 16 00 04 01 04"
        await ask(hub, "02 01 00 01 87 00 01 01 16 00 04 01 04")
        await asyncio.sleep(30)
        times = [decode_frame(frame, 4, 3)[0] for _, frame in frames(hub, pmd.PPG)]
        assert 20e9 * (len(times) - 1) / (times[-1] - times[0]) == pytest.approx(55, rel=1e-3)

    run_with_armband(scenario, make_offers(stated_ppg_rate_hz=135))


def test_nothing_works_without_a_bond() -> None:
    async def scenario(armband: Armband, hub: PlainHub) -> None:
        await hub.connect()
        for attempt in (hub.read(CONTROL), hub.subscribe(CONTROL), hub.write(CONTROL, bytes.fromhex(START_PPG))):
            assert await att_error_of(attempt) in (0x05, 0x0F)
        await hub.connection.pair()  # type: ignore[union-attr]
        assert await att_error_of(hub.write(CONTROL, bytes.fromhex(START_PPG))) == 0xFD

    run_with_armband(scenario)


@given(
    arrays(np.int64, st.tuples(st.integers(1, 30), st.integers(1, 4)), elements=st.integers(-(2**23), 2**23 - 1)),
)
def test_compression_loses_nothing(samples: Any) -> None:
    frame = encode_compressed_frame(1, 0, 5, samples, 3)
    last_ns, decoded = decode_frame(frame, samples.shape[1], 3)
    assert last_ns == 5
    assert (decoded == samples).all()


def test_a_known_frame_is_compressed_bit_by_bit() -> None:
    # Differences 1, -1 and 0, 2 need 3 bits each: 001, 111, 000, 010, packed from the least significant bit: 39 04.
    frame = encode_compressed_frame(2, 1, 1, np.array([[10, -20], [11, -21], [11, -19]]), 2)
    assert frame.hex(" ") == "02 01 00 00 00 00 00 00 00 81 0a 00 ec ff 03 02 39 04"
    assert list(itertools.chain(*decode_frame(frame, 2, 2)[1].tolist())) == [10, -20, 11, -21, 11, -19]
