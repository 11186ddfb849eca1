"""The emulated watch as a hub sees it."""

import asyncio
from collections.abc import Awaitable, Callable

from gateway import virtual_time
from gateway.radio.virtual import VirtualLink
from gateway.simulate.peripherals.services import follow_loop
from gateway.simulate.peripherals.watch import MOTION, STEPS, Watch
from tests.simulate.plain_hub import SENSOR, START, PlainHub, att_error_of, make_sensor_device, run_sensor

RATE, BATTERY, TIME, FIRMWARE = "2A37", "2A19", "2A2B", "2A26"


def run_with_watch(scenario: Callable[[Watch, PlainHub], Awaitable[None]]) -> None:
    async def run() -> None:
        link = VirtualLink()
        watch = Watch(make_sensor_device(link), follow_loop(START))
        async with run_sensor(link, watch) as hub:
            await scenario(watch, hub)

    virtual_time.run(run())


def test_the_rate_has_neither_contact_nor_intervals_and_is_zero_without_a_pulse() -> None:
    async def scenario(watch: Watch, hub: PlainHub) -> None:
        await hub.connect()
        await hub.subscribe(RATE, indications=False)
        await asyncio.sleep(1.5)
        watch.find_pulse(68)
        await asyncio.sleep(2)
        watch.find_pulse(0)
        await asyncio.sleep(1)
        assert [value.hex() for value in hub.values(RATE)] == ["0000", "0044", "0044", "0000"]
        assert await hub.read(RATE) == b"\x00\x00"
        assert await hub.read(FIRMWARE) == b"1.14.0"

    run_with_watch(scenario)


def test_steps_are_counted_and_motion_is_notified() -> None:
    async def scenario(watch: Watch, hub: PlainHub) -> None:
        await hub.connect()
        await hub.subscribe(STEPS, MOTION, indications=False)
        await asyncio.sleep(3.5)
        assert hub.values(STEPS) == []
        watch.is_walking = True
        await asyncio.sleep(10)
        assert [int.from_bytes(value, "little") for value in hub.values(STEPS)] == [1, 3, 5, 7, 9, 10, 12, 14, 16, 18]
        assert await hub.read(STEPS) == bytes.fromhex("12000000")
        assert hub.values(MOTION)[0].hex() == "000000000004"
        assert hub.values(MOTION)[-1].hex() == "9600b0ff4c04"

    run_with_watch(scenario)


def test_the_battery_is_notified_when_it_changes() -> None:
    async def scenario(watch: Watch, hub: PlainHub) -> None:
        await hub.connect()
        await hub.subscribe(BATTERY, indications=False)
        await watch.use_battery(15)
        await asyncio.sleep(0.1)
        assert hub.values(BATTERY) == [b"\x0f"]
        assert await hub.read(BATTERY) == b"\x0f"

    run_with_watch(scenario)


def test_the_clock_takes_exactly_ten_octets() -> None:
    async def scenario(watch: Watch, hub: PlainHub) -> None:
        await hub.connect()
        for size in (7, 9, 11):
            assert await att_error_of(hub.write(TIME, bytes.fromhex("ea070b1e0c00000100010000")[:size])) == 0x0D
        await hub.write(TIME, bytes.fromhex("ea070b1e0c0000010001"))
        assert watch.clock.now() == START.replace(hour=12)

    run_with_watch(scenario)


def test_a_watch_with_its_screen_off_stays_connected_without_a_rate() -> None:
    async def scenario(watch: Watch, hub: PlainHub) -> None:
        watch.find_pulse(60)
        await hub.connect()
        await hub.subscribe(RATE, indications=False)
        watch.is_screen_off = True
        await asyncio.sleep(30)
        assert hub.values(RATE) == []
        watch.is_screen_off = False
        await asyncio.sleep(1.5)
        assert hub.values(RATE)
        assert not hub.disconnected.is_set()

    run_with_watch(scenario)


def test_a_lost_watch_advertises_again_but_a_silent_one_only_after_its_wearer_acts() -> None:
    async def scenario(watch: Watch, hub: PlainHub) -> None:
        await hub.connect()
        hub.link.simulate_link_loss(SENSOR)
        assert await hub.wait_advertisement() is not None
        await hub.connect()
        await watch.fall_silent()
        await asyncio.sleep(60)
        assert await hub.wait_advertisement() is None
        watch.toggle_bluetooth()
        assert await hub.wait_advertisement() is not None

    run_with_watch(scenario)
