"""A sensor that only advertises: a virtual scale whose advertisements change."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from bleak import BleakScanner
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import BleakDBusError
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
from gateway.radio import Radio
from gateway.radio.virtual import VIRTUAL_HUB_ADDRESS, VirtualLink, make_device, open_in_process_radio
from gateway.sensor_events import Notification
from gateway.sensor_limits import BURST_OCTETS, RATE_OCTETS_PER_S, RESULT_OCTETS
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


@asynccontextmanager
async def run_session() -> AsyncIterator[tuple[BroadcastSession, Radio, asyncio.Task[None]]]:
    """Run a session that hears only what a test puts into its radio's scanner."""
    async with open_in_process_radio(VirtualLink(), VIRTUAL_HUB_ADDRESS) as radio:
        clock = VirtualClock(asyncio.get_running_loop(), START_US)
        settings = SensorSettings("scale", advertised_name="scale", is_broadcast=True)
        session = BroadcastSession(settings, radio, REGISTRY, clock, lambda *_: None)
        task = asyncio.create_task(session.run())
        try:
            await asyncio.sleep(1)
            yield session, radio, task
        finally:
            task.cancel()
            await asyncio.wait([task])


def test_a_flood_of_changing_advertisements_is_limited_and_remembered_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with run_session() as (session, radio, _):
            for number in range(20_000):  # a thousand a second
                weighing = {uuid16(0x181D): number.to_bytes(2, "little"), uuid16(number): b"x" * 20}
                data = AdvertisementData("scale", {number: b"y" * 20}, weighing, [], None, -60, ())
                radio.scanner._on_detection(BLEDevice(SENSOR, "scale", None), data)
                if number % 10 == 0:
                    await asyncio.sleep(0.01)
            events = session.events.drain(100_000)
            weighed = sum(isinstance(event, Notification) for event in events)
            assert 100 < weighed <= (BURST_OCTETS + 20 * RATE_OCTETS_PER_S) / RESULT_OCTETS
            assert len(session._last_payloads) == 1

    virtual_time.run(main())
    assert len([record for record in caplog.records if "what it broadcasts is left out" in record.getMessage()]) == 1


def test_a_scan_that_fails_is_started_again_and_ends_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with run_session() as (session, radio, task):
            error = BleakDBusError("org.bluez.Error.InProgress", ["Operation already in progress"])

            async def fail(_scanner: object) -> None:
                raise error

            with monkeypatch.context() as patched:
                patched.setattr(BleakScanner, "start", fail)
                radio.scanner._last_detection_s = -1_000.0  # the scan seems dead
                await asyncio.sleep(100)
                assert not task.done()
            await asyncio.sleep(100)
            data = AdvertisementData("scale", {}, {uuid16(0x181D): b"\x10\x27"}, [], None, -60, ())
            radio.scanner._on_detection(BLEDevice(SENSOR, "scale", None), data)
            assert any(isinstance(event, Notification) for event in session.events.drain(100))

    virtual_time.run(main())
    assert len([record for record in caplog.records if "cannot listen" in record.getMessage()]) == 1
