"""Links that break, and connects and scans that are given up, over a virtual link, on virtual time: nothing is left wedged."""

import asyncio

import pytest
from bleak import BleakClient
from bleak.exc import BleakError

from gateway import virtual_time
from tests.radio.hub import SENSOR, Room, connected, find, ignore


def test_a_lost_link_is_told_once_and_can_be_made_again(room: Room) -> None:
    async def main() -> None:
        async with room() as here:
            lost: list[BleakClient] = []
            for times in range(1, 21):
                client = await connected(here.radio, lost.append)
                await client.start_notify("2a37", lambda _sender, _value: None)
                assert here.link.link_loss(SENSOR) == 2
                await asyncio.sleep(1)
                assert len(lost) == times
                assert not client.is_connected
                with pytest.raises(BleakError):
                    await client.read_gatt_char("2a38")
                await client.disconnect()
            assert len(lost) == 20

    virtual_time.run(main())


def test_hanging_up_is_told_once(room: Room) -> None:
    async def main() -> None:
        async with room() as here:
            lost: list[BleakClient] = []
            client = await connected(here.radio, lost.append)
            await client.disconnect()
            await client.disconnect()
            assert lost == [client]

    virtual_time.run(main())


def test_a_read_under_way_when_the_link_breaks_fails_as_a_bleak_error(room: Room) -> None:
    async def main() -> None:
        async with room() as here:
            client = await connected(here.radio)
            here.link.zombies.add(SENSOR)
            reading = asyncio.create_task(client.read_gatt_char("2a38"))
            await asyncio.sleep(1)
            here.link.link_loss(SENSOR)
            with pytest.raises(BleakError, match="the connection was lost"):
                await reading

    virtual_time.run(main())


def test_a_link_that_breaks_during_discovery_fails_the_connect_and_no_later_one(room: Room) -> None:
    async def main() -> None:
        async with room() as here:
            device = await find(here.radio)
            failed = 0
            for delay_s in (n * 0.01 for n in range(5, 105)):
                here.link.latency_s = 0.03
                client = here.radio.client(device, ignore, 10)
                connecting = asyncio.create_task(client.connect())
                await asyncio.sleep(delay_s)
                here.link.link_loss(SENSOR)
                outcome = (await asyncio.gather(connecting, return_exceptions=True))[0]
                assert outcome is None or isinstance(outcome, BleakError), outcome
                failed += outcome is not None
                await client.disconnect()
                here.link.latency_s = 0
                await asyncio.sleep(1)
                await (await connected(here.radio)).disconnect()
            assert failed >= 50

    virtual_time.run(main())


def test_a_connect_that_times_out_or_is_cancelled_wedges_nothing(room: Room) -> None:
    async def main() -> None:
        async with room() as here:
            device = await find(here.radio)
            for _ in range(3):
                here.link.out_of_range.add(SENSOR)
                with pytest.raises(TimeoutError):
                    await here.radio.client(device, ignore, 10).connect()
                cancelled = asyncio.create_task(here.radio.client(device, ignore, 10).connect())
                await asyncio.sleep(5)
                cancelled.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await cancelled
                here.link.out_of_range.clear()
                await (await connected(here.radio)).disconnect()

    virtual_time.run(main())


def test_cancelling_a_connect_at_any_moment_wedges_nothing(room: Room) -> None:
    async def main() -> None:
        async with room() as here:
            device = await find(here.radio)
            here.link.latency_s = 0.01
            cut = 0
            for steps in range(0, 120, 3):
                connecting = asyncio.create_task(here.radio.client(device, ignore, 10).connect())
                for _ in range(steps):
                    await asyncio.sleep(0.003)
                connecting.cancel()
                await asyncio.gather(connecting, return_exceptions=True)
                if connecting.cancelled():
                    cut += 1
                    client = here.radio.client(device, ignore, 10)
                    await client.connect()
                    assert client.is_connected
                    await client.disconnect()
                else:
                    here.link.link_loss(SENSOR)
                await asyncio.sleep(0.5)
            assert cut > 10

    virtual_time.run(main())


def test_cancelling_a_scan_at_any_moment_wedges_nothing(room: Room) -> None:
    async def main() -> None:
        async with room() as here:
            for steps in range(40):
                scanning = asyncio.create_task(here.radio.find(lambda *_: False, 0))
                for _ in range(steps):
                    await asyncio.sleep(0)
                scanning.cancel()
                await asyncio.gather(scanning, return_exceptions=True)
                assert [device.address for device, _ in await here.radio.scan(0.3)] == [SENSOR]
                await asyncio.sleep(0.1)
                assert not here.radio.scanner_backend.central.device.is_scanning

    virtual_time.run(main())
