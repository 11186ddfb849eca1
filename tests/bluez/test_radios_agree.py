"""The same bleak calls have the same results and error classes on the virtual radio and with bleak's BlueZ backend."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from bleak import BleakClient
from bleak.backends.device import BLEDevice
from bleak.exc import BleakCharacteristicNotFoundError, BleakError, BleakGATTProtocolError, BleakGATTProtocolErrorCode

from drivers.polar_pmd import CONTROL_POINT, DATA, SERVICE
from gateway.radio import Radio
from gateway.simulate import pmd
from gateway.simulate.strap import ADDRESS, NAME
from tests.bluez.testbed import OpenTestbed, StrapTestbed, refuse_reads, run_test, wait_until

START, STOP = bytes.fromhex("02 00 00 01 82 00 01 01 0E 00"), bytes.fromhex("03 00")
BATTERY, HEART_RATE, LOCATION, UNKNOWN = "2a19", "2a37", "2a38", "2aff"

FORWARDED_ATT_ERRORS = {*BleakGATTProtocolErrorCode, 0x80, 0x9F} - {0x05, 0x0C, 0x0F}
"""The errors of the Core Specification (5.4, volume 3, part F, 3.4.1.1) and its Supplement that do not lead to pairing, and two
application errors: a radio must forward them unchanged."""


@dataclass
class ConnectedClient:
    """A connected client, and its disconnection callbacks so far."""

    testbed: StrapTestbed
    client: BleakClient
    losses: list[BleakClient] = field(default_factory=list)


async def find_strap(radio: Radio) -> BLEDevice:
    device = await radio.find(lambda _, advertisement: advertisement.local_name == NAME, 5)
    assert device is not None
    return device


@asynccontextmanager
async def connect_client(open_testbed: OpenTestbed) -> AsyncIterator[ConnectedClient]:
    async with open_testbed() as testbed:
        losses: list[BleakClient] = []
        client = testbed.radio.client(await find_strap(testbed.radio), losses.append, 5)
        await client.connect()
        try:
            yield ConnectedClient(testbed, client, losses)
        finally:
            await client.disconnect()


def test_find_and_connect(open_either_testbed: OpenTestbed) -> None:
    async def main() -> None:
        async with connect_client(open_either_testbed) as connected:
            assert connected.client.is_connected
            assert (connected.client.address, connected.client.name) == (ADDRESS, NAME)
            service = connected.client.services.get_service(SERVICE)
            assert service is not None
            properties = {each.uuid: sorted(each.properties) for each in service.characteristics}
            assert properties == {CONTROL_POINT: ["indicate", "read", "write"], DATA: ["notify"]}
            for uuid, expected in ((BATTERY, ["notify", "read"]), (HEART_RATE, ["notify"]), (LOCATION, ["read"])):
                characteristic = connected.client.services.get_characteristic(uuid)
                assert characteristic is not None
                assert sorted(characteristic.properties) == expected
            with pytest.raises(BleakError, match="already connected"):
                await connected.client.connect()
            assert await connected.testbed.radio.find(lambda *_: True, 0.2) is None  # a connected strap does not advertise

    run_test(main())


def test_reads_writes_and_their_errors(open_either_testbed: OpenTestbed) -> None:
    async def main() -> None:
        async with connect_client(open_either_testbed) as connected:
            assert await connected.client.read_gatt_char(BATTERY) == bytes([87])
            assert await connected.client.read_gatt_char(CONTROL_POINT) == pmd.encode_features(
                pmd.H10
            )  # pairs: needs encryption
            assert len(await connected.testbed.strap.keystore.get_all()) == 1
            with pytest.raises(BleakCharacteristicNotFoundError):
                await connected.client.read_gatt_char(UNKNOWN)
            with pytest.raises(BleakGATTProtocolError) as refused:
                await connected.client.write_gatt_char(CONTROL_POINT, START, response=True)  # response not subscribed
            assert refused.value.code == BleakGATTProtocolErrorCode.CCCD_IMPROPERLY_CONFIGURED
            for code in FORWARDED_ATT_ERRORS:
                refuse_reads(connected.testbed.strap, 0x2A19, code)
                with pytest.raises(BleakGATTProtocolError) as refused:
                    await connected.client.read_gatt_char(BATTERY)
                assert refused.value.code == code

    run_test(main())


def test_subscriptions(open_either_testbed: OpenTestbed) -> None:
    async def main() -> None:
        async with connect_client(open_either_testbed) as connected:
            client, responses, frames = connected.client, list[bytes](), list[bytes]()
            for attempt in (client.start_notify(LOCATION, print), client.stop_notify(DATA)):
                with pytest.raises(BleakError):
                    await attempt
            await client.start_notify(CONTROL_POINT, lambda _, value: responses.append(bytes(value)))
            await client.start_notify(DATA, lambda _, value: frames.append(bytes(value)))
            await client.write_gatt_char(CONTROL_POINT, START, response=True)
            await wait_until(lambda: len(frames) == 1)
            assert len(frames[0]) == 10 + 3 * pmd.MAX_FRAME_SAMPLES
            await client.write_gatt_char(CONTROL_POINT, STOP, response=True)
            await wait_until(lambda: len(responses) == 2)
            assert responses == [bytes([0xF0, op, 0, pmd.SUCCESS, 0]) for op in (pmd.START, pmd.STOP)]
            for uuid in (CONTROL_POINT, DATA):
                await client.stop_notify(uuid)
                with pytest.raises(BleakError):
                    await client.stop_notify(uuid)
            await client.start_notify(DATA, lambda _, value: frames.append(bytes(value)))

    run_test(main())


@pytest.mark.parametrize("ended_by", ["hub", "strap", "loss"])
def test_a_disconnection_is_reported_once(open_either_testbed: OpenTestbed, ended_by: str) -> None:
    async def main() -> None:
        async with connect_client(open_either_testbed) as connected:
            if ended_by == "hub":
                await connected.client.disconnect()
            elif ended_by == "loss":
                assert connected.testbed.link.simulate_link_loss(ADDRESS) == 2
            else:
                (connection,) = connected.testbed.strap.connections.values()
                await connection.disconnect()
            await wait_until(lambda: bool(connected.losses))
            assert not connected.client.is_connected
            with pytest.raises(BleakError):
                await connected.client.read_gatt_char(BATTERY)
            await connected.client.disconnect()
            assert connected.losses == [connected.client]
            await connected.client.connect()
            assert await connected.client.read_gatt_char(BATTERY) == bytes([87])
            await connected.client.disconnect()
            assert connected.losses == [connected.client] * 2

    run_test(main())


def test_a_pending_read_fails_when_the_link_is_lost(open_either_testbed: OpenTestbed) -> None:
    async def main() -> None:
        async with connect_client(open_either_testbed) as connected:
            connected.testbed.link.zombies.add(ADDRESS)
            reading = asyncio.create_task(connected.client.read_gatt_char(BATTERY))
            done, _ = await asyncio.wait([reading], timeout=0.1)
            assert not done
            connected.testbed.link.simulate_link_loss(ADDRESS)
            with pytest.raises(BleakError):
                await reading

    run_test(main())


def test_a_connect_to_an_absent_strap_times_out_and_a_later_one_works(open_either_testbed: OpenTestbed) -> None:
    async def main() -> None:
        async with open_either_testbed() as testbed:
            device = await find_strap(testbed.radio)
            testbed.link.out_of_range.add(ADDRESS)
            losses: list[BleakClient] = []
            client = testbed.radio.client(device, losses.append, 0.3)
            with pytest.raises(TimeoutError):
                await client.connect()
            assert losses == []
            testbed.link.out_of_range.clear()
            await client.connect()
            assert await client.read_gatt_char(BATTERY) == bytes([87])
            await client.disconnect()

    run_test(main())
