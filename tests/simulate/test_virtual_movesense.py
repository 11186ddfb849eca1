"""The emulated Movesense sensor as a hub sees it, by a plain central that parses packets itself."""

import asyncio
import struct
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from gateway import virtual_time
from gateway.radio.virtual import VirtualLink
from gateway.simulate.peripherals.movesense import COMMAND, DATA, Movesense, ecg_microvolts
from tests.simulate.plain_hub import SENSOR, PlainHub, make_sensor_device, run_sensor

ECG, IMU6, HR = b"Meas/Ecg/200/mV", b"Meas/IMU6/52", b"Meas/HR"


def run_with_movesense(scenario: Callable[[Movesense, PlainHub], Awaitable[None]], booted_ms: int = 0) -> None:
    async def run() -> None:
        link = VirtualLink()
        sensor = Movesense(make_sensor_device(link), booted_ms=booted_ms)
        async with run_sensor(link, sensor) as hub:
            await scenario(sensor, hub)

    virtual_time.run(run())


async def connect(hub: PlainHub) -> None:
    await hub.connect()
    await hub.subscribe(DATA, indications=False)


async def command(hub: PlainHub, op: int, reference: int, path: bytes = b"") -> int:
    """Return the status of the answer."""
    await hub.write(COMMAND, bytes((op, reference)) + path)
    await asyncio.sleep(0.01)
    (answer,) = [value for value in hub.values(DATA) if value[:2] == bytes((1, reference))][-1:]
    return int.from_bytes(answer[2:], "little")


def packets(hub: PlainHub, reference: int) -> list[bytes]:
    return [value[2:] for value in hub.values(DATA) if value[:2] == bytes((2, reference))]


def test_the_ecg_comes_without_a_gap_in_microvolts() -> None:
    async def scenario(_sensor: Movesense, hub: PlainHub) -> None:
        await connect(hub)
        assert await command(hub, 1, 7, ECG) == 200
        await asyncio.sleep(10)
        received = packets(hub, 7)
        assert len(received) == pytest.approx(125, abs=2)
        times = [int.from_bytes(packet[:4], "little") for packet in received]
        assert [after - before for before, after in pairwise(times)] == [80] * (len(times) - 1)
        first = times[0] // 5
        samples = [sample for packet in received for sample in struct.unpack("<16h", packet[4:])]
        assert samples == [ecg_microvolts(number) for number in range(first, first + len(samples))]
        assert await command(hub, 2, 7) == 200
        count = len(packets(hub, 7))
        await asyncio.sleep(2)
        assert len(packets(hub, 7)) == count

    run_with_movesense(scenario)


def test_motion_is_all_accelerations_then_all_rotations_and_may_come_in_two_values() -> None:
    async def scenario(_sensor: Movesense, hub: PlainHub) -> None:
        hub.mtu = 60
        await connect(hub)
        assert await command(hub, 1, 1, IMU6) == 200
        await asyncio.sleep(1)
        values = hub.values(DATA)[1:]
        assert [value[0] for value in values[:4]] == [2, 3, 2, 3]
        assert [len(value) for value in values[:2]] == [57, 2 + 100 - 55]
        floats = struct.unpack("<24f", (values[0][2:] + values[1][2:])[4:])
        assert floats[2:12:3] == pytest.approx([9.81] * 4)
        assert floats[14::3] == pytest.approx([-1.5] * 4)

    run_with_movesense(scenario)


def test_the_heart_rate_has_no_time() -> None:
    async def scenario(_sensor: Movesense, hub: PlainHub) -> None:
        await connect(hub)
        assert await command(hub, 1, 3, HR) == 200
        await asyncio.sleep(4)
        assert {struct.unpack("<fH", packet) for packet in packets(hub, 3)} == {(75.0, 800)}
        assert len(packets(hub, 3)) == 5

    run_with_movesense(scenario)


def test_commands_are_refused_with_a_status() -> None:
    async def scenario(_sensor: Movesense, hub: PlainHub) -> None:
        await connect(hub)
        assert await command(hub, 1, 1, b"Meas/IMU9/52") == 404
        assert await command(hub, 1, 1, b"/Meas/HR") == 404
        assert await command(hub, 2, 1) == 404
        assert await command(hub, 9, 1) == 400
        for reference in range(1, 5):
            assert await command(hub, 1, reference, HR) == 200
        assert await command(hub, 1, 4, HR) == 400
        assert await command(hub, 1, 5, HR) == 507
        await hub.write(COMMAND, b"\x01")
        await asyncio.sleep(0.01)
        assert hub.values(DATA)[-1].hex() == "01009001"

    run_with_movesense(scenario)


def test_a_subscription_outlives_the_connection_but_not_a_restart() -> None:
    async def scenario(sensor: Movesense, hub: PlainHub) -> None:
        await connect(hub)
        await command(hub, 1, 7, ECG)
        hub.link.simulate_link_loss(SENSOR)
        await hub.wait_disconnected()
        hub.received.clear()
        await connect(hub)
        await asyncio.sleep(1)
        assert packets(hub, 7)
        assert await command(hub, 1, 7, ECG) == 400
        sensor.restart()
        assert await command(hub, 1, 7, ECG) == 200
        await asyncio.sleep(1)
        assert int.from_bytes(packets(hub, 7)[-1][:4], "little") < 2000

    run_with_movesense(scenario)


def test_the_clock_wraps_after_32_bits() -> None:
    async def scenario(_sensor: Movesense, hub: PlainHub) -> None:
        await connect(hub)
        await command(hub, 1, 7, ECG)
        await asyncio.sleep(4)
        times = [int.from_bytes(packet[:4], "little") for packet in packets(hub, 7)]
        assert max(times) >= 2**32 - 80
        assert min(times) < 80

    run_with_movesense(scenario, booted_ms=2**32 - 2000)
