"""The agent's bleak calls over a virtual link, on virtual time."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from bleak.exc import BleakCharacteristicNotFoundError, BleakError, BleakGATTProtocolError

from gateway import virtual_time
from gateway.radio.virtual import SUPERVISION_TIMEOUT_S, VirtualLink, make_device, open_in_process_radio
from tests.radio.hub_actions import HUB, OTHER_HUB, OTHER_SENSOR, SENSOR, OpenTestbed, connect, ignore_disconnection


def test_a_scan_returns_each_device_with_its_advertising_data(open_testbed: OpenTestbed) -> None:
    async def main() -> None:
        async with open_testbed() as testbed:
            seen = await testbed.radio.scan(1)
            assert [(device.address, device.name) for device, _ in seen] == [(SENSOR, "small")]
            advertisement = seen[0][1]
            assert advertisement.service_uuids == [f"0000{uuid}-0000-1000-8000-00805f9b34fb" for uuid in ("180d", "1810")]
            assert advertisement.manufacturer_data == {0x006B: b"\x01\x02"}
            assert advertisement.tx_power == -4

    virtual_time.run(main())


def test_an_absent_device_is_searched_until_the_timeout(open_testbed: OpenTestbed) -> None:
    async def main() -> None:
        async with open_testbed() as testbed:
            loop = asyncio.get_running_loop()
            start = loop.time()
            assert await testbed.radio.find(lambda _, advertisement: advertisement.local_name == "absent", 30) is None
            assert loop.time() - start == pytest.approx(30)

    virtual_time.run(main())


def test_connecting_exchanges_the_mtu_and_discovers_the_services(open_testbed: OpenTestbed) -> None:
    async def main() -> None:
        async with open_testbed() as testbed:
            client = await connect(testbed.radio)
            assert client.is_connected
            assert client.mtu_size == 517
            heart_rate = client.services.get_service("180d")
            assert heart_rate is not None
            assert [(c.uuid[4:8], c.properties) for c in heart_rate.characteristics] == [
                ("2a37", ["notify"]),
                ("2a38", ["read"]),
                ("2a39", ["write"]),
            ]
            with pytest.raises(BleakError, match="already connected"):
                await client.connect()

    virtual_time.run(main())


def test_reading_and_writing(open_testbed: OpenTestbed) -> None:
    async def main() -> None:
        async with open_testbed() as testbed:
            client = await connect(testbed.radio)
            assert await client.read_gatt_char("2a38") == b"\x01"
            await client.write_gatt_char("2a39", b"\x01", response=True)
            assert testbed.sensor.written == [b"\x01"]
            with pytest.raises(BleakGATTProtocolError) as refused:
                await client.write_gatt_char("2a39", b"\x02", response=True)
            assert refused.value.args[0] == 0x80
            with pytest.raises(BleakCharacteristicNotFoundError):
                await client.read_gatt_char("2aff")

    virtual_time.run(main())


def test_notifications_arrive_in_order_and_indications_are_confirmed(open_testbed: OpenTestbed) -> None:
    async def main() -> None:
        async with open_testbed() as testbed:
            client = await connect(testbed.radio)
            received: list[tuple[str, bytes]] = []
            for uuid in ("2a37", "2a35"):
                await client.start_notify(uuid, lambda sender, value: received.append((sender.uuid[4:8], bytes(value))))
            for rate in range(60, 160):
                await testbed.sensor.notify_heart_rate(rate)
            await testbed.sensor.device.indicate_subscribers(testbed.sensor.pressure, b"\x00\x80")  # returns on confirmation
            assert received == [("2a37", bytes([0, rate])) for rate in range(60, 160)] + [("2a35", b"\x00\x80")]

    virtual_time.run(main())


def test_a_characteristic_has_one_subscription_at_a_time(open_testbed: OpenTestbed) -> None:
    async def main() -> None:
        async with open_testbed() as testbed:
            client = await connect(testbed.radio)
            received: list[bytes] = []
            with pytest.raises(BleakError, match="does not notify"):
                await client.stop_notify("2a37")
            with pytest.raises(BleakError, match="neither notifies nor indicates"):
                await client.start_notify("2a38", lambda _, value: received.append(bytes(value)))
            for rate in (60, 61):
                await client.start_notify("2a37", lambda _, value: received.append(bytes(value)))
                with pytest.raises(BleakError, match="already notifies"):
                    await client.start_notify("2a37", lambda _, value: received.append(bytes(value)))
                await testbed.sensor.notify_heart_rate(rate)
                await asyncio.sleep(0.1)
                await client.stop_notify("2a37")
                await testbed.sensor.notify_heart_rate(200)
                await asyncio.sleep(0.1)
            assert received == [b"\x00\x3c", b"\x00\x3d"]

    virtual_time.run(main())


def test_reading_an_encrypted_characteristic_creates_a_bond_that_outlives_the_radio(
    minimal_sensor: Any, tmp_path: Path
) -> None:
    async def main() -> None:
        link = VirtualLink()
        sensor = minimal_sensor(make_device(link, SENSOR, "small", tmp_path / "sensor.json"))
        await sensor.start()
        for _ in range(3):
            async with open_in_process_radio(link, HUB, tmp_path / "hub.json") as radio:
                client = await connect(radio)
                assert await client.read_gatt_char("2a49") == b"\x1f\x00"
                await client.disconnect()
        assert sensor.pairings == 1
        link.remove_device(SENSOR)

    virtual_time.run(main())


@pytest.mark.parametrize("paired_before", [False, True])
def test_an_encrypted_subscription_delivers_each_value_once(open_testbed: OpenTestbed, *, paired_before: bool) -> None:
    async def main() -> None:
        async with open_testbed() as testbed:
            client = await connect(testbed.radio)
            if paired_before:
                await client.pair()
            received: list[bytes] = []
            await client.start_notify("2a5f", lambda _, value: received.append(bytes(value)))
            await testbed.sensor.device.notify_subscribers(testbed.sensor.guarded, b"\x00\x61")
            await asyncio.sleep(0.1)
            assert received == [b"\x00\x61"]
            assert testbed.sensor.pairings == 1

    virtual_time.run(main())


def test_a_bond_that_the_sensor_lost_is_reported_and_can_be_created_again(open_testbed: OpenTestbed) -> None:
    async def main() -> None:
        async with open_testbed() as testbed:
            client = await connect(testbed.radio)
            await client.pair()
            await client.disconnect()
            await testbed.sensor.device.keystore.delete_all()
            with pytest.raises(BleakError, match=r"no longer knows this hub \(HCI 0x06\).*pulsegate pair"):
                await client.connect()
            assert not client.is_connected
            await client.unpair()
            await client.connect()
            assert await client.read_gatt_char("2a49") == b"\x1f\x00"

    virtual_time.run(main())


def test_two_sensors_connect_at_the_same_time(open_testbed: OpenTestbed, minimal_sensor: Any) -> None:
    async def main() -> None:
        async with open_testbed() as testbed:
            await minimal_sensor(make_device(testbed.link, OTHER_SENSOR, "other")).start()
            clients = [testbed.radio.client(address, ignore_disconnection, 10) for address in (SENSOR, OTHER_SENSOR)]
            await asyncio.gather(*(client.connect() for client in clients))
            assert [client.is_connected for client in clients] == [True, True]

    virtual_time.run(main())


def test_only_the_first_hub_connects_to_a_sensor(open_testbed: OpenTestbed) -> None:
    async def main() -> None:
        async with open_testbed() as testbed, open_in_process_radio(testbed.link, OTHER_HUB) as other_radio:
            clients = [radio.client(SENSOR, ignore_disconnection, 5) for radio in (testbed.radio, other_radio)]
            outcomes = await asyncio.gather(*(client.connect() for client in clients), return_exceptions=True)
            assert Counter(type(outcome) for outcome in outcomes) == {type(None): 1, TimeoutError: 1}
            assert sorted(client.is_connected for client in clients) == [False, True]

    virtual_time.run(main())


def test_a_zombie_stays_connected_but_sends_nothing(open_testbed: OpenTestbed) -> None:
    async def main() -> None:
        async with open_testbed() as testbed:
            client = await connect(testbed.radio)
            received: list[bytes] = []
            await client.start_notify("2a37", lambda _, value: received.append(bytes(value)))
            testbed.link.zombies.add(SENSOR)
            for rate in range(60, 70):
                await testbed.sensor.notify_heart_rate(rate)
                await asyncio.sleep(60)
            assert client.is_connected
            assert received == []

    virtual_time.run(main())


def test_latency_delays_values_without_reordering_them(open_testbed: OpenTestbed) -> None:
    async def main() -> None:
        async with open_testbed() as testbed:
            client = await connect(testbed.radio)
            loop = asyncio.get_running_loop()
            received: list[tuple[int, float]] = []
            await client.start_notify("2a37", lambda _, value: received.append((value[1], loop.time())))
            testbed.link.latency_s = 2.0
            sent_s = loop.time()
            for rate in range(100):
                await testbed.sensor.notify_heart_rate(rate)
            testbed.link.latency_s = 0.0
            await testbed.sensor.notify_heart_rate(100)
            await asyncio.sleep(5)
            assert [rate for rate, _ in received] == list(range(101))
            assert all(at_s - sent_s == pytest.approx(2.0, abs=0.01) for _, at_s in received)

    virtual_time.run(main())


def test_a_removed_battery_is_noticed_after_the_supervision_timeout(open_testbed: OpenTestbed) -> None:
    async def main() -> None:
        async with open_testbed() as testbed:
            lost = asyncio.Event()
            await connect(testbed.radio, lambda _client: lost.set())
            loop = asyncio.get_running_loop()
            removed_s = loop.time()
            testbed.link.remove_device(SENSOR)
            await lost.wait()
            assert loop.time() - removed_s == pytest.approx(SUPERVISION_TIMEOUT_S)
            assert await testbed.radio.find(lambda device, _: device.address == SENSOR, 5) is None

    virtual_time.run(main())


def test_no_value_sent_while_connected_is_lost_in_an_hour_with_a_link_loss_every_ten_minutes(open_testbed: OpenTestbed) -> None:
    async def main() -> tuple[int, int]:
        async with open_testbed() as testbed:
            sent, received = 0, 0

            def count(_sender: object, _value: bytearray) -> None:
                nonlocal received
                received += 1

            client = await connect(testbed.radio)
            await client.start_notify("2a37", count)
            for second in range(3600):
                if second % 600 == 599:
                    testbed.link.simulate_link_loss(SENSOR)
                    client = await connect(testbed.radio)
                    await client.start_notify("2a37", count)
                await testbed.sensor.notify_heart_rate(second % 256)
                sent += 1
                await asyncio.sleep(1)
            return sent, received

    sent, received = virtual_time.run(main())
    assert (sent, received) == (3600, 3600)
