"""Lost links and cancelled connects and scans, over a virtual link on virtual time: the radio keeps working."""

import asyncio

import pytest
from bleak import BleakClient
from bleak.exc import BleakError

from gateway import virtual_time
from tests.radio.hub_actions import SENSOR, OpenTestbed, connect, find_sensor, ignore_disconnection


def test_a_lost_link_is_reported_once_and_can_be_reconnected(open_testbed: OpenTestbed) -> None:
    async def main() -> None:
        async with open_testbed() as testbed:
            lost: list[BleakClient] = []
            for losses in range(1, 21):
                client = await connect(testbed.radio, lost.append)
                await client.start_notify("2a37", lambda _sender, _value: None)
                assert testbed.link.simulate_link_loss(SENSOR) == 2
                await asyncio.sleep(1)
                assert len(lost) == losses
                assert not client.is_connected
                with pytest.raises(BleakError):
                    await client.read_gatt_char("2a38")
                await client.disconnect()
            assert len(lost) == 20

    virtual_time.run(main())


def test_a_disconnect_is_reported_once(open_testbed: OpenTestbed) -> None:
    async def main() -> None:
        async with open_testbed() as testbed:
            lost: list[BleakClient] = []
            client = await connect(testbed.radio, lost.append)
            await client.disconnect()
            await client.disconnect()
            assert lost == [client]

    virtual_time.run(main())


def test_a_pending_read_fails_with_a_bleak_error_when_the_link_is_lost(open_testbed: OpenTestbed) -> None:
    async def main() -> None:
        async with open_testbed() as testbed:
            client = await connect(testbed.radio)
            testbed.link.zombies.add(SENSOR)
            reading = asyncio.create_task(client.read_gatt_char("2a38"))
            await asyncio.sleep(1)
            testbed.link.simulate_link_loss(SENSOR)
            with pytest.raises(BleakError, match="the connection was lost"):
                await reading

    virtual_time.run(main())


def test_a_link_lost_during_discovery_fails_this_connect_but_no_later_one(open_testbed: OpenTestbed) -> None:
    async def main() -> None:
        async with open_testbed() as testbed:
            device = await find_sensor(testbed.radio)
            failed = 0
            for delay_s in (n * 0.01 for n in range(5, 105)):
                testbed.link.latency_s = 0.03
                client = testbed.radio.client(device, ignore_disconnection, 10)
                connecting = asyncio.create_task(client.connect())
                await asyncio.sleep(delay_s)
                testbed.link.simulate_link_loss(SENSOR)
                outcome = (await asyncio.gather(connecting, return_exceptions=True))[0]
                assert outcome is None or isinstance(outcome, BleakError), outcome
                failed += outcome is not None
                await client.disconnect()
                testbed.link.latency_s = 0
                await asyncio.sleep(1)
                await (await connect(testbed.radio)).disconnect()
            assert failed >= 50

    virtual_time.run(main())


def test_the_radio_works_after_a_connect_that_times_out_or_is_cancelled(open_testbed: OpenTestbed) -> None:
    async def main() -> None:
        async with open_testbed() as testbed:
            device = await find_sensor(testbed.radio)
            for _ in range(3):
                testbed.link.out_of_range.add(SENSOR)
                with pytest.raises(TimeoutError):
                    await testbed.radio.client(device, ignore_disconnection, 10).connect()
                cancelled = asyncio.create_task(testbed.radio.client(device, ignore_disconnection, 10).connect())
                await asyncio.sleep(5)
                cancelled.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await cancelled
                testbed.link.out_of_range.clear()
                await (await connect(testbed.radio)).disconnect()

    virtual_time.run(main())


def test_the_radio_works_after_a_connect_cancelled_at_any_moment(open_testbed: OpenTestbed) -> None:
    async def main() -> None:
        async with open_testbed() as testbed:
            device = await find_sensor(testbed.radio)
            testbed.link.latency_s = 0.01
            cancelled = 0
            for steps in range(0, 120, 3):
                connecting = asyncio.create_task(testbed.radio.client(device, ignore_disconnection, 10).connect())
                for _ in range(steps):
                    await asyncio.sleep(0.003)
                connecting.cancel()
                await asyncio.gather(connecting, return_exceptions=True)
                if connecting.cancelled():
                    cancelled += 1
                    client = testbed.radio.client(device, ignore_disconnection, 10)
                    await client.connect()
                    assert client.is_connected
                    await client.disconnect()
                else:
                    testbed.link.simulate_link_loss(SENSOR)
                await asyncio.sleep(0.5)
            assert cancelled > 10

    virtual_time.run(main())


def test_the_radio_works_after_a_scan_cancelled_at_any_moment(open_testbed: OpenTestbed) -> None:
    async def main() -> None:
        async with open_testbed() as testbed:
            for steps in range(40):
                scanning = asyncio.create_task(testbed.radio.find(lambda *_: False, 0))
                for _ in range(steps):
                    await asyncio.sleep(0)
                scanning.cancel()
                await asyncio.gather(scanning, return_exceptions=True)
                assert [device.address for device, _ in await testbed.radio.scan(0.3)] == [SENSOR]
                await asyncio.sleep(0.1)
                assert not testbed.radio.scanner_backend.central.device.is_scanning

    virtual_time.run(main())
