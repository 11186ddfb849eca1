"""A sensor that only advertises: a virtual scale whose advertisements change."""

import asyncio

from bumble.core import AdvertisingData
from bumble.device import Device

from config.settings import SensorSettings
from drivers.codec import Reader
from drivers.readings import Origin, Quarantined, Reading, Vital, group_of
from drivers.registry import build_registry
from drivers.spec import Broadcast, DriverSpec, uuid16
from gateway import virtual_time
from gateway.broadcast_session import BroadcastSession
from gateway.clock import VirtualClock
from gateway.link_states import LinkState
from gateway.radio.virtual import VIRTUAL_HUB_ADDRESS, VirtualLink, make_device, open_in_process_radio
from gateway.sensor_events import Notification
from tests.radio.hub_actions import SENSOR

START_US = 1_800_000_000_000_000


def decode_weight(payload: bytes) -> tuple[Reading, ...]:
    reader = Reader(payload)
    kg = reader.u16("weight") / 200
    reader.expect_end()
    return (Vital("weight", kg, (), Origin(group_of(payload))),)


REGISTRY = build_registry([DriverSpec("made", broadcasts=(Broadcast("service_data", uuid16(0x181D), decode_weight),))])


async def advertise(device: Device, weight: bytes, seconds: float) -> None:
    """Advertise a payload of service data for some seconds, many times."""
    data = AdvertisingData(
        [
            (AdvertisingData.COMPLETE_LOCAL_NAME, b"scale"),
            (AdvertisingData.SERVICE_DATA_16_BIT_UUID, b"\x1d\x18" + weight),
            (AdvertisingData.MANUFACTURER_SPECIFIC_DATA, b"\x57\x01\x01"),
        ]
    )
    await device.start_advertising(advertising_data=bytes(data), auto_restart=True)
    await asyncio.sleep(seconds)
    await device.stop_advertising()


def test_each_weighing_is_read_once_however_often_it_is_advertised() -> None:
    states: list[LinkState] = []

    async def main() -> list[Reading]:
        link = VirtualLink()
        device = make_device(link, SENSOR, "scale")
        await device.power_on()
        async with open_in_process_radio(link, VIRTUAL_HUB_ADDRESS) as radio:
            clock = VirtualClock(asyncio.get_running_loop(), START_US)
            settings = SensorSettings("scale", advertised_name="scale", is_broadcast=True)
            session = BroadcastSession(settings, radio, REGISTRY, clock, lambda _name, state: states.append(state))
            task = asyncio.create_task(session.run())
            await asyncio.sleep(1)
            for weight in ("1027", "1427", "14"):
                await advertise(device, bytes.fromhex(weight), 10)
            await asyncio.sleep(200)
            await advertise(device, bytes.fromhex("1027"), 5)
            task.cancel()
            await asyncio.wait([task])
        link.remove_device(SENSOR)
        events = session.events.drain(10_000)
        spot = [event.is_indicated for event in events if isinstance(event, Notification)]
        assert spot == [True, True, False, True]
        return [reading for event in events if isinstance(event, Notification) for reading in event.readings]

    readings = virtual_time.run(main())
    assert [reading.value for reading in readings if isinstance(reading, Vital)] == [50.0, 50.02, 50.0]
    assert [reading.payload for reading in readings if isinstance(reading, Quarantined)] == [b"\x14"]
    assert states == ["absent", "seen", "absent", "seen", "stopped"]
