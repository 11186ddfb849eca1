"""The bleak calls of the agent, over a virtual link, on virtual time."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from bleak.exc import BleakCharacteristicNotFoundError, BleakError, BleakGATTProtocolError

from gateway import virtual_time
from gateway.radio.virtual import SUPERVISION_TIMEOUT_S, VirtualLink, make_device, virtual_radio
from tests.radio.hub import HUB, OTHER_HUB, OTHER_SENSOR, SENSOR, Room, connected, ignore


def test_a_scan_shows_each_device_with_what_it_advertises(room: Room) -> None:
    async def main() -> None:
        async with room() as here:
            seen = await here.radio.scan(1)
            assert [(device.address, device.name) for device, _ in seen] == [(SENSOR, "small")]
            advertisement = seen[0][1]
            assert advertisement.service_uuids == [f"0000{u}-0000-1000-8000-00805f9b34fb" for u in ("180d", "1810")]
            assert advertisement.manufacturer_data == {0x006B: b"\x01\x02"}
            assert advertisement.tx_power == -4

    virtual_time.run(main())


def test_what_is_not_there_is_not_found_in_the_time_given(room: Room) -> None:
    async def main() -> None:
        async with room() as here:
            loop = asyncio.get_running_loop()
            start = loop.time()
            assert await here.radio.find(lambda _, advertisement: advertisement.local_name == "absent", 30) is None
            assert loop.time() - start == pytest.approx(30)

    virtual_time.run(main())


def test_connecting_exchanges_the_mtu_and_discovers_the_services(room: Room) -> None:
    async def main() -> None:
        async with room() as here:
            client = await connected(here.radio)
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


def test_reading_and_writing(room: Room) -> None:
    async def main() -> None:
        async with room() as here:
            client = await connected(here.radio)
            assert await client.read_gatt_char("2a38") == b"\x01"
            await client.write_gatt_char("2a39", b"\x01", response=True)
            assert here.sensor.written == [b"\x01"]
            with pytest.raises(BleakGATTProtocolError) as refused:
                await client.write_gatt_char("2a39", b"\x02", response=True)
            assert refused.value.args[0] == 0x80
            with pytest.raises(BleakCharacteristicNotFoundError):
                await client.read_gatt_char("2aff")

    virtual_time.run(main())


def test_notifications_arrive_in_order_and_indications_are_confirmed(room: Room) -> None:
    async def main() -> None:
        async with room() as here:
            client = await connected(here.radio)
            got: list[tuple[str, bytes]] = []
            for uuid in ("2a37", "2a35"):
                await client.start_notify(uuid, lambda sender, value: got.append((sender.uuid[4:8], bytes(value))))
            for rate in range(60, 160):
                await here.sensor.beat(rate)
            await here.sensor.device.indicate_subscribers(here.sensor.pressure, b"\x00\x80")  # returns on confirmation
            assert got == [("2a37", bytes([0, rate])) for rate in range(60, 160)] + [("2a35", b"\x00\x80")]

    virtual_time.run(main())


def test_one_subscription_at_a_time(room: Room) -> None:
    async def main() -> None:
        async with room() as here:
            client = await connected(here.radio)
            got: list[bytes] = []
            with pytest.raises(BleakError, match="does not notify"):
                await client.stop_notify("2a37")
            with pytest.raises(BleakError, match="neither notifies nor indicates"):
                await client.start_notify("2a38", lambda _, value: got.append(bytes(value)))
            for rate in (60, 61):
                await client.start_notify("2a37", lambda _, value: got.append(bytes(value)))
                with pytest.raises(BleakError, match="already notifies"):
                    await client.start_notify("2a37", lambda _, value: got.append(bytes(value)))
                await here.sensor.beat(rate)
                await asyncio.sleep(0.1)
                await client.stop_notify("2a37")
                await here.sensor.beat(200)
                await asyncio.sleep(0.1)
            assert got == [b"\x00\x3c", b"\x00\x3d"]

    virtual_time.run(main())


def test_a_characteristic_that_wants_encryption_gets_a_bond_that_outlives_the_radio(small_sensor: Any, tmp_path: Path) -> None:
    async def main() -> None:
        link = VirtualLink()
        sensor = small_sensor(make_device(link, SENSOR, "small", tmp_path / "sensor.json"))
        await sensor.start()
        for _ in range(3):
            async with virtual_radio(link, HUB, tmp_path / "hub.json") as radio:
                client = await connected(radio)
                assert await client.read_gatt_char("2a49") == b"\x1f\x00"
                await client.disconnect()
        assert sensor.pairings == 1
        link.remove(SENSOR)

    virtual_time.run(main())


@pytest.mark.parametrize("paired_before", [False, True])
def test_a_subscription_that_wants_encryption_delivers_each_value_once(room: Room, *, paired_before: bool) -> None:
    async def main() -> None:
        async with room() as here:
            client = await connected(here.radio)
            if paired_before:
                await client.pair()
            got: list[bytes] = []
            await client.start_notify("2a5f", lambda _, value: got.append(bytes(value)))
            await here.sensor.device.notify_subscribers(here.sensor.guarded, b"\x00\x61")
            await asyncio.sleep(0.1)
            assert got == [b"\x00\x61"]
            assert here.sensor.pairings == 1

    virtual_time.run(main())


def test_a_bond_that_the_sensor_has_forgotten_says_so_and_can_be_made_anew(room: Room) -> None:
    async def main() -> None:
        async with room() as here:
            client = await connected(here.radio)
            await client.pair()
            await client.disconnect()
            await here.sensor.device.keystore.delete_all()
            with pytest.raises(BleakError, match=r"forgotten the bond \(HCI 0x06\): unpair and pair again"):
                await client.connect()
            assert not client.is_connected
            await client.unpair()
            await client.connect()
            assert await client.read_gatt_char("2a49") == b"\x1f\x00"

    virtual_time.run(main())


def test_two_sensors_connect_at_the_same_time(room: Room, small_sensor: Any) -> None:
    async def main() -> None:
        async with room() as here:
            await small_sensor(make_device(here.link, OTHER_SENSOR, "other")).start()
            clients = [here.radio.client(address, ignore, 10) for address in (SENSOR, OTHER_SENSOR)]
            await asyncio.gather(*(client.connect() for client in clients))
            assert [client.is_connected for client in clients] == [True, True]

    virtual_time.run(main())


def test_a_sensor_belongs_to_the_first_hub_that_connects(room: Room) -> None:
    async def main() -> None:
        async with room() as here, virtual_radio(here.link, OTHER_HUB) as other_radio:
            clients = [radio.client(SENSOR, ignore, 5) for radio in (here.radio, other_radio)]
            outcomes = await asyncio.gather(*(client.connect() for client in clients), return_exceptions=True)
            assert Counter(type(outcome) for outcome in outcomes) == {type(None): 1, TimeoutError: 1}
            assert sorted(client.is_connected for client in clients) == [False, True]

    virtual_time.run(main())


def test_a_zombie_stays_connected_and_says_nothing(room: Room) -> None:
    async def main() -> None:
        async with room() as here:
            client = await connected(here.radio)
            got: list[bytes] = []
            await client.start_notify("2a37", lambda _, value: got.append(bytes(value)))
            here.link.zombies.add(SENSOR)
            for rate in range(60, 70):
                await here.sensor.beat(rate)
                await asyncio.sleep(60)
            assert client.is_connected
            assert got == []

    virtual_time.run(main())


def test_latency_delays_and_keeps_the_order(room: Room) -> None:
    async def main() -> None:
        async with room() as here:
            client = await connected(here.radio)
            loop = asyncio.get_running_loop()
            got: list[tuple[int, float]] = []
            await client.start_notify("2a37", lambda _, value: got.append((value[1], loop.time())))
            here.link.latency_s = 2.0
            sent_s = loop.time()
            for rate in range(100):
                await here.sensor.beat(rate)
            here.link.latency_s = 0.0
            await here.sensor.beat(100)
            await asyncio.sleep(5)
            assert [rate for rate, _ in got] == list(range(101))
            assert all(at_s - sent_s == pytest.approx(2.0, abs=0.01) for _, at_s in got)

    virtual_time.run(main())


def test_an_empty_battery_is_a_supervision_timeout(room: Room) -> None:
    async def main() -> None:
        async with room() as here:
            lost = asyncio.Event()
            await connected(here.radio, lambda _client: lost.set())
            loop = asyncio.get_running_loop()
            removed_s = loop.time()
            here.link.remove(SENSOR)
            await lost.wait()
            assert loop.time() - removed_s == pytest.approx(SUPERVISION_TIMEOUT_S)
            assert await here.radio.find(lambda device, _: device.address == SENSOR, 5) is None

    virtual_time.run(main())


def test_an_hour_with_a_loss_every_ten_minutes_loses_nothing_sent_while_connected(room: Room) -> None:
    async def main() -> tuple[int, int]:
        async with room() as here:
            sent, got = 0, 0

            def count(_sender: object, _value: bytearray) -> None:
                nonlocal got
                got += 1

            client = await connected(here.radio)
            await client.start_notify("2a37", count)
            for second in range(3600):
                if second % 600 == 599:
                    here.link.link_loss(SENSOR)
                    client = await connected(here.radio)
                    await client.start_notify("2a37", count)
                await here.sensor.beat(second % 256)
                sent += 1
                await asyncio.sleep(1)
            return sent, got

    sent, got = virtual_time.run(main())
    assert (sent, got) == (3600, 3600)
