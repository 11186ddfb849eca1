"""The same bleak calls give the same values and classes of error on both radios: what is tested on one holds on the other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from bleak import BleakClient
from bleak.backends.device import BLEDevice
from bleak.exc import BleakCharacteristicNotFoundError, BleakError, BleakGATTProtocolError, BleakGATTProtocolErrorCode

from drivers.polar_pmd import CONTROL_POINT, DATA, DRIVER, SERVICE
from gateway.radio import Radio
from gateway.simulate import pmd
from gateway.simulate.strap import ADDRESS, NAME
from tests.bluez.rooms import OpenRoom, Room, refuse_reads, run, until

START, STOP = DRIVER.setup[0].payload, DRIVER.teardown[0].payload
BATTERY, HEART_RATE, LOCATION, UNKNOWN = "2a19", "2a37", "2a38", "2aff"

ATT_ERRORS = {*BleakGATTProtocolErrorCode, 0x80, 0x9F} - {0x05, 0x0C, 0x0F}
"""All that the Core Specification (5.4, volume 3, part F, 3.4.1.1) and its Supplement name and that ask for no pairing, and
two of those that are left to the application."""


@dataclass
class Link:
    """A connected client and how often it was told that its link had gone."""

    room: Room
    client: BleakClient
    losses: list[BleakClient] = field(default_factory=list)


async def find(radio: Radio) -> BLEDevice:
    device = await radio.find(lambda _, advertisement: advertisement.local_name == NAME, 5)
    assert device is not None
    return device


@asynccontextmanager
async def connected(open_room: OpenRoom) -> AsyncIterator[Link]:
    async with open_room() as room:
        losses: list[BleakClient] = []
        client = room.radio.client(await find(room.radio), losses.append, 5)
        await client.connect()
        try:
            yield Link(room, client, losses)
        finally:
            await client.disconnect()


def test_finding_and_connecting(either_room: OpenRoom) -> None:
    async def main() -> None:
        async with connected(either_room) as link:
            assert link.client.is_connected
            assert (link.client.address, link.client.name) == (ADDRESS, NAME)
            service = link.client.services.get_service(SERVICE)
            assert service is not None
            properties = {each.uuid: sorted(each.properties) for each in service.characteristics}
            assert properties == {CONTROL_POINT: ["indicate", "read", "write"], DATA: ["notify"]}
            for uuid, expected in ((BATTERY, ["notify", "read"]), (HEART_RATE, ["notify"]), (LOCATION, ["read"])):
                characteristic = link.client.services.get_characteristic(uuid)
                assert characteristic is not None
                assert sorted(characteristic.properties) == expected
            with pytest.raises(BleakError, match="already connected"):
                await link.client.connect()
            assert await link.room.radio.find(lambda *_: True, 0.2) is None  # who is connected does not advertise

    run(main())


def test_reads_and_writes_and_what_the_strap_refuses(either_room: OpenRoom) -> None:
    async def main() -> None:
        async with connected(either_room) as link:
            assert await link.client.read_gatt_char(BATTERY) == bytes([87])
            assert await link.client.read_gatt_char(CONTROL_POINT) == pmd.FEATURES  # needs an encrypted link: they pair
            assert len(await link.room.strap.keystore.get_all()) == 1
            with pytest.raises(BleakCharacteristicNotFoundError):
                await link.client.read_gatt_char(UNKNOWN)
            with pytest.raises(BleakGATTProtocolError) as refused:
                await link.client.write_gatt_char(CONTROL_POINT, START, response=True)  # nobody listens to the answer
            assert refused.value.code == BleakGATTProtocolErrorCode.CCCD_IMPROPERLY_CONFIGURED
            for code in ATT_ERRORS:
                refuse_reads(link.room.strap, 0x2A19, code)
                with pytest.raises(BleakGATTProtocolError) as refused:
                    await link.client.read_gatt_char(BATTERY)
                assert refused.value.code == code

    run(main())


def test_subscriptions(either_room: OpenRoom) -> None:
    async def main() -> None:
        async with connected(either_room) as link:
            client, answers, frames = link.client, list[bytes](), list[bytes]()
            for start in (client.start_notify(LOCATION, print), client.stop_notify(DATA)):
                with pytest.raises(BleakError):
                    await start
            await client.start_notify(CONTROL_POINT, lambda _, value: answers.append(bytes(value)))
            await client.start_notify(DATA, lambda _, value: frames.append(bytes(value)))
            await client.write_gatt_char(CONTROL_POINT, START, response=True)
            await until(lambda: len(frames) == 1)
            assert len(frames[0]) == 10 + 3 * pmd.FRAME_SAMPLES
            await client.write_gatt_char(CONTROL_POINT, STOP, response=True)
            await until(lambda: len(answers) == 2)
            assert answers == [bytes([0xF0, op, 0, pmd.SUCCESS, 0]) for op in (pmd.START, pmd.STOP)]
            for point in (CONTROL_POINT, DATA):
                await client.stop_notify(point)
                with pytest.raises(BleakError):
                    await client.stop_notify(point)
            await client.start_notify(DATA, lambda _, value: frames.append(bytes(value)))

    run(main())


@pytest.mark.parametrize("ended_by", ["hub", "strap", "loss"])
def test_the_end_of_a_link_is_told_once(either_room: OpenRoom, ended_by: str) -> None:
    async def main() -> None:
        async with connected(either_room) as link:
            if ended_by == "hub":
                await link.client.disconnect()
            elif ended_by == "loss":
                assert link.room.link.link_loss(ADDRESS) == 2
            else:
                (connection,) = link.room.strap.connections.values()
                await connection.disconnect()
            await until(lambda: bool(link.losses))
            assert not link.client.is_connected
            with pytest.raises(BleakError):
                await link.client.read_gatt_char(BATTERY)
            await link.client.disconnect()
            assert link.losses == [link.client]
            await link.client.connect()
            assert await link.client.read_gatt_char(BATTERY) == bytes([87])
            await link.client.disconnect()
            assert link.losses == [link.client] * 2

    run(main())


def test_a_link_lost_under_a_read_fails_it(either_room: OpenRoom) -> None:
    async def main() -> None:
        async with connected(either_room) as link:
            link.room.link.zombies.add(ADDRESS)
            reading = asyncio.create_task(link.client.read_gatt_char(BATTERY))
            done, _ = await asyncio.wait([reading], timeout=0.1)
            assert not done
            link.room.link.link_loss(ADDRESS)
            with pytest.raises(BleakError):
                await reading

    run(main())


def test_a_connect_to_what_has_gone_ends_in_time_and_wedges_nothing(either_room: OpenRoom) -> None:
    async def main() -> None:
        async with either_room() as room:
            device = await find(room.radio)
            room.link.out_of_range.add(ADDRESS)
            losses: list[BleakClient] = []
            client = room.radio.client(device, losses.append, 0.3)
            with pytest.raises(TimeoutError):
                await client.connect()
            assert losses == []
            room.link.out_of_range.clear()
            await client.connect()
            assert await client.read_gatt_char(BATTERY) == bytes([87])
            await client.disconnect()

    run(main())
