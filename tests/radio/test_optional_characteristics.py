"""What a sensor is useful without never costs its connection: refused and unanswered reads, two battery services."""

import asyncio
from collections import Counter

from bumble.att import ATT_Error, Attribute, ErrorCode
from bumble.core import UUID, AdvertisingData
from bumble.device import Connection, Device
from bumble.gatt import Characteristic, CharacteristicValue, Service

from drivers.registry import load_drivers
from drivers.spec import uuid16
from gateway import virtual_time
from gateway.radio.virtual import VirtualLink, make_device
from gateway.session import SensorSession
from tests.gateway.session_testbed import run_session, take_notifications
from tests.radio.hub_actions import SENSOR

RATE, BATTERY, SERIAL, MODEL = (uuid16(number) for number in (0x2A37, 0x2A19, 0x2A25, 0x2A24))


def refuse(_connection: object) -> bytes:
    raise ATT_Error(ErrorCode.READ_NOT_PERMITTED)


async def never_answer(_connection: object) -> bytes:
    await asyncio.Event().wait()
    raise AssertionError


async def drop_the_link(connection: Connection) -> bytes:
    await connection.disconnect()
    return await never_answer(connection)


def readable(number: int, value: object) -> Characteristic:
    return Characteristic(UUID.from_16_bits(number), Characteristic.Properties.READ, Attribute.READABLE, value)


async def listen(*optional: Service, seconds: float) -> tuple[Counter[str], SensorSession]:
    """Runs a session with a heart rate sensor that also has these services; returns its values by characteristic."""
    link = VirtualLink()
    device: Device = make_device(link, SENSOR, "small")
    rate = Characteristic(UUID.from_16_bits(0x2A37), Characteristic.Properties.NOTIFY, Attribute.Permissions(0), b"")
    device.add_services([*optional, Service(UUID.from_16_bits(0x180D), [rate])])
    device.advertising_data = bytes(AdvertisingData([(AdvertisingData.COMPLETE_LOCAL_NAME, b"small")]))

    async def send_rates() -> None:
        while True:
            await asyncio.sleep(1)
            await device.notify_subscribers(rate, b"\x00\x3c")

    async with run_session(link, device, load_drivers()) as session:
        sending = asyncio.create_task(send_rates())
        await asyncio.sleep(seconds)
        sending.cancel()
        await asyncio.wait([sending])
    return Counter(event.characteristic for event in take_notifications(session)), session


def test_a_refused_read_costs_only_itself() -> None:
    information = Service(
        UUID.from_16_bits(0x180A), [readable(0x2A25, CharacteristicValue(read=refuse)), readable(0x2A24, b"H1")]
    )
    values, session = virtual_time.run(listen(information, seconds=30))
    assert (session.statistics.connects, session.statistics.failures) == (1, 0)
    assert values[RATE] > 20
    assert (values[MODEL], values[SERIAL]) == (1, 0)


def test_a_read_that_is_never_answered_costs_only_itself() -> None:
    information = Service(UUID.from_16_bits(0x180A), [readable(0x2A25, CharacteristicValue(read=never_answer))])
    values, session = virtual_time.run(listen(information, seconds=60))
    assert session.statistics.connects == 1
    assert values[RATE] > 40


def test_a_read_that_costs_the_link_is_left_out_after_two_attempts() -> None:
    information = Service(UUID.from_16_bits(0x180A), [readable(0x2A25, CharacteristicValue(read=drop_the_link))])
    values, session = virtual_time.run(listen(information, seconds=60))
    assert (session.statistics.connects, session.statistics.failures) == (1, 2)
    assert values[RATE] > 40


def test_the_first_of_two_batteries_is_read() -> None:
    batteries = [Service(UUID.from_16_bits(0x180F), [readable(0x2A19, bytes([percent]))]) for percent in (80, 20)]
    values, session = virtual_time.run(listen(*batteries, seconds=30))
    assert (session.statistics.connects, session.statistics.failures) == (1, 0)
    assert values[RATE] > 20
    assert values[BATTERY] == 1
