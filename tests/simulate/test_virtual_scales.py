"""The emulated scales as a hub sees them, by a plain central that parses payloads itself."""

import asyncio
import struct
from collections.abc import Awaitable, Callable
from datetime import datetime

import pytest
from bumble.core import AdvertisingData

from gateway import virtual_time
from gateway.radio.virtual import VirtualLink
from gateway.simulate.peripherals.broadcast_scale import BroadcastScale
from gateway.simulate.peripherals.scale import Scale
from gateway.simulate.peripherals.services import follow_loop
from tests.simulate.plain_hub import START, PlainHub, att_error_of, make_sensor_device, run_sensor

WEIGHT, BODY, CONTROL, COUNTER, INDEX, HEIGHT, TIME = "2A9D", "2A9C", "2A9F", "2A99", "2A9A", "2A8E", "2A2B"
USERS = {1: 3752, 2: 1111}
CONSENT_1 = bytes.fromhex("02 01 a8 0e")


def run_with_scale(scenario: Callable[[Scale, PlainHub], Awaitable[None]]) -> None:
    async def run() -> None:
        link = VirtualLink()
        scale = Scale(make_sensor_device(link), follow_loop(START), dict(USERS))
        async with run_sensor(link, scale) as hub:
            await scenario(scale, hub)

    virtual_time.run(run())


async def connect(hub: PlainHub) -> None:
    connection = await hub.connect()
    await connection.pair()
    await hub.subscribe(CONTROL, WEIGHT, BODY)


async def ask(hub: PlainHub, request: bytes) -> str:
    before = len(hub.values(CONTROL))
    await hub.write(CONTROL, request)
    await asyncio.sleep(0.2)
    (answer,) = hub.values(CONTROL)[before:]
    return answer.hex()


def kilograms(payload: bytes) -> float:
    return float(struct.unpack_from("<H", payload, 1)[0]) / 200


def test_nothing_comes_without_consent() -> None:
    async def scenario(scale: Scale, hub: PlainHub) -> None:
        await scale.weigh(79.96)
        await connect(hub)
        assert await hub.read(INDEX) == b"\xff"
        for attempt in (hub.read(HEIGHT), hub.read(COUNTER), hub.write(COUNTER, bytes(4)), hub.write(HEIGHT, b"\xc0\x00")):
            assert await att_error_of(attempt) == 0x80
        assert await ask(hub, bytes.fromhex("02 01 00 00")) == "200205"
        assert await ask(hub, bytes.fromhex("02 03 a8 0e")) == "200205"
        assert await ask(hub, bytes.fromhex("02 01 a8")) == "200203"
        assert await ask(hub, bytes.fromhex("03")) == "200302"
        assert await ask(hub, b"") == "200002"
        await hub.wait_disconnected()
        assert hub.values(WEIGHT) == hub.values(BODY) == []

    run_with_scale(scenario)


def test_after_consent_stored_weighings_come_first_with_stubs_and_the_live_one_last() -> None:
    async def scenario(scale: Scale, hub: PlainHub) -> None:
        for kg in (80.5, 80.1):
            await scale.weigh(kg)
            await asyncio.sleep(86400)
        await scale.weigh(55.0, user=2)
        await scale.weigh(20.0, user=None)
        await scale.weigh(79.96)
        await connect(hub)
        await hub.write(TIME, bytes.fromhex("ea07 0c 02 08 00 00 03 00 01"))
        assert await ask(hub, CONSENT_1) == "200201"
        await hub.write(COUNTER, bytes.fromhex("01000000"))
        assert await hub.read(HEIGHT) == b"\xc0\x00"
        assert await hub.read(INDEX) == b"\x01"
        await hub.wait_disconnected()
        weights = hub.values(WEIGHT)
        assert [(kilograms(weight), weight[10]) for weight in weights] == [(80.5, 1), (80.1, 1), (20.0, 255), (79.96, 1)]
        assert weights[-1].hex() == "06783eea070c0208000001"
        stub = "9803000096230000000000000000"
        assert [body.hex() for body in hub.values(BODY)] == [*[stub] * 3, "9803c200df1a9701cc2fca21a811"]
        order = [uuid for _, uuid, _ in hub.received if uuid != CONTROL]
        assert order == [WEIGHT, BODY] * 4
        assert await hub.wait_advertisement() is None

    run_with_scale(scenario)


def test_without_the_profile_counter_the_live_weighing_has_a_stub_too() -> None:
    async def scenario(scale: Scale, hub: PlainHub) -> None:
        await scale.weigh(79.96)
        await connect(hub)
        await ask(hub, CONSENT_1)
        await hub.wait_disconnected()
        assert [body.hex() for body in hub.values(BODY)] == ["9803000096230000000000000000"]

    run_with_scale(scenario)


def test_consent_ends_with_the_connection_and_confirmed_weighings_come_once() -> None:
    async def scenario(scale: Scale, hub: PlainHub) -> None:
        await scale.weigh(79.96)
        await connect(hub)
        await ask(hub, CONSENT_1)
        await hub.wait_disconnected()
        await scale.weigh(None)
        connection = await hub.connect(discover=False)
        hub.listen(WEIGHT, BODY, CONTROL)
        await connection.encrypt()
        await asyncio.sleep(5)
        assert len(hub.values(WEIGHT)) == 1
        await hub.discover()
        await hub.write(CONTROL, CONSENT_1)
        await hub.wait_disconnected()
        assert hub.values(WEIGHT)[1][1:3] == b"\xff\xff"
        assert scale.sent.confirmed(WEIGHT) == hub.values(WEIGHT)

    run_with_scale(scenario)


def test_a_changed_battery_wipes_users_until_they_register_again() -> None:
    async def scenario(scale: Scale, hub: PlainHub) -> None:
        scale.change_battery()
        await scale.weigh(79.96)
        await connect(hub)
        assert await ask(hub, CONSENT_1) == "200205"
        assert await ask(hub, bytes.fromhex("01 a8 0e")) == "20010101"
        assert await ask(hub, CONSENT_1) == "200201"
        await hub.wait_disconnected()
        (weight,) = hub.values(WEIGHT)
        assert weight[3:7] == bytes.fromhex("e3070101")

    run_with_scale(scenario)


def test_the_scale_registers_at_most_eight_users() -> None:
    async def scenario(scale: Scale, hub: PlainHub) -> None:
        await scale.weigh(79.96)
        await connect(hub)
        answers = [await ask(hub, bytes.fromhex("01 01 00")) for _ in range(7)]
        assert answers == [f"200101{slot:02x}" for slot in range(3, 9)] + ["200104"]

    run_with_scale(scenario)


@pytest.mark.parametrize(
    ("in_pounds", "at", "impedance", "expected"),
    [
        (
            False,
            datetime(1970, 5, 4, 15, 2, 1),  # noqa: DTZ001
            428,
            ["0224b20705040f0201fdff8642", "0226b20705040f0201ac018642", "02a6b20705040f0201ac018642"],
        ),
        (False, None, None, ["0224ea070b1e080000fdff8642", "02a4ea070b1e080000fdff8642"]),
        (True, None, None, ["0324ea070b1e080000fdff5449", "03a4ea070b1e080000fdff5449"]),
    ],
)
def test_the_broadcast_scale_repeats_weight_then_impedance_then_removal(
    in_pounds: bool, at: datetime | None, impedance: int | None, expected: list[str]
) -> None:
    async def run() -> None:
        link = VirtualLink()
        scale = BroadcastScale(make_sensor_device(link), follow_loop(START), in_pounds=in_pounds)
        async with run_sensor(link, scale) as hub:
            heard: list[bytes] = []
            hub.device.on("advertisement", lambda advertisement: heard.append(service_data(advertisement)))
            await hub.device.start_scanning(legacy=True, filter_duplicates=False)
            weighing = asyncio.create_task(scale.weigh(85.15, impedance_ohm=impedance, at=at))
            await asyncio.sleep(60)
            assert weighing.done()
            distinct = list(dict.fromkeys(heard))
            assert distinct == scale.frames
            assert [frame.hex() for frame in distinct[3:]] == expected
            assert all(frame[1] & 0x20 == 0 for frame in distinct[:3])  # not yet stable
            assert all(heard.count(frame) > 10 for frame in distinct[3:])
            heard.clear()
            await asyncio.sleep(10)
            assert heard == []

    virtual_time.run(run())


def service_data(advertisement: object) -> bytes:
    fields = advertisement.data.ad_structures  # type: ignore[attr-defined]
    # A set: Bumble's scan response repeats the advertisement.
    (data,) = {bytes(value) for kind, value in fields if kind == AdvertisingData.SERVICE_DATA_16_BIT_UUID}
    assert data[:2] == b"\x1b\x18"
    return data[2:]
