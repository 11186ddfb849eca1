"""Sessions with a virtual cuff: a result that comes before the model is known, its clock, and stored results in segments."""

import asyncio
from dataclasses import dataclass, field

from bumble.att import Attribute
from bumble.core import UUID, AdvertisingData
from bumble.device import Device
from bumble.gatt import Characteristic, CharacteristicValue, Service

from config.settings import SensorSettings
from drivers.blood_pressure import DRIVER as BLOOD_PRESSURE
from drivers.device_information import DRIVER as DEVICE_INFORMATION
from drivers.readings import Reading, Status, Vital
from drivers.registry import build_registry
from gateway import virtual_time
from gateway.clock import VirtualClock
from gateway.radio.virtual import VIRTUAL_HUB_ADDRESS, VirtualLink, make_device, open_in_process_radio
from gateway.session import SensorSession
from tests.gateway.session_testbed import START_US, run_session, take_notifications
from tests.radio.hub_actions import SENSOR

PROPERTIES = Characteristic.Properties
BM85 = bytes.fromhex("566A0047000000EA07080B121F00003F000000")
"""A capture: derdilla/blood-pressure-monitor-fl, pull 735."""
STORED = ("010700352A1E780050005D00E90705", "060700352A14081E004800010000")
"""A first and a last segment of record 7: 120/80/93 mmHg, 2025-05-20 08:30:00, 72/min, user 1."""


@dataclass
class Cuff:
    """Indicates `result` as soon as the hub subscribes, and notifies `segments` after it."""

    model: str
    result: bytes
    segments: tuple[str, ...] = ()
    clock: bytes = b""
    clock_set_to: list[bytes] = field(default_factory=list)

    def make(self, link: VirtualLink) -> Device:
        device = make_device(link, SENSOR, "cuff")
        none, read = Attribute.Permissions(0), PROPERTIES.READ
        measurement = Characteristic(UUID.from_16_bits(0x2A35), PROPERTIES.INDICATE, none, b"")
        record = Characteristic(UUID.from_16_bits(0x2B36), PROPERTIES.NOTIFY, none, b"")
        feature = Characteristic(UUID.from_16_bits(0x2A49), read, Attribute.READABLE, bytes.fromhex("1F00"))
        time = Characteristic(
            UUID.from_16_bits(0x2A08),
            read | PROPERTIES.WRITE,
            Attribute.READABLE | Attribute.WRITEABLE,
            CharacteristicValue(read=lambda _: self.clock, write=lambda _, value: self.clock_set_to.append(value)),
        )
        model = Characteristic(UUID.from_16_bits(0x2A24), read, Attribute.READABLE, self.model.encode())
        pressure = [measurement, record, feature, *([time] if self.clock else [])]
        device.add_services([Service(UUID.from_16_bits(0x1810), pressure), Service(UUID.from_16_bits(0x180A), [model])])
        device.advertising_data = bytes(AdvertisingData([(AdvertisingData.COMPLETE_LOCAL_NAME, b"cuff")]))
        tasks: set[asyncio.Task[None]] = set()

        async def send_segments() -> None:
            for segment in self.segments:
                await device.notify_subscribers(record, bytes.fromhex(segment))

        def on_measurement_subscription(*_: object) -> None:
            tasks.add(asyncio.create_task(device.indicate_subscribers(measurement, self.result)))

        def on_record_subscription(*_: object) -> None:
            tasks.add(asyncio.create_task(send_segments()))

        measurement.on(measurement.EVENT_SUBSCRIPTION, on_measurement_subscription)
        record.on(record.EVENT_SUBSCRIPTION, on_record_subscription)
        return device


def run(cuff: Cuff) -> list[Reading]:
    """The readings of a session with the cuff. Results must be stored at once."""

    async def main() -> list[Reading]:
        link = VirtualLink()
        async with run_session(link, cuff.make(link), build_registry([BLOOD_PRESSURE, DEVICE_INFORMATION])) as session:
            await asyncio.sleep(5)
        events = take_notifications(session)
        assert all(event.is_indicated for event in events if event.payload == cuff.result)
        return [reading for event in events for reading in event.readings]

    return virtual_time.run(main())


def vitals(readings: list[Reading]) -> list[tuple[str, float, int | None]]:
    return [(r.kind, r.value, r.origin.record if r.origin else None) for r in readings if isinstance(r, Vital)]


def statuses(readings: list[Reading]) -> dict[str, object]:
    return {reading.kind: reading.value for reading in readings if isinstance(reading, Status)}


def test_a_result_that_comes_before_the_model_is_known_is_read_as_the_model_sends_it() -> None:
    readings = run(Cuff("BM85", BM85))
    assert vitals(readings) == [("systolic", 106, None), ("diastolic", 71, None), ("pulse_rate_cuff", 63, None)]
    assert statuses(readings) == {"model": "BM85", "blood_pressure_feature": 31}


def test_a_wrong_clock_is_told_and_set_and_a_cuff_without_one_is_left_alone() -> None:
    cuff = Cuff("UA-651BLE", bytes.fromhex("00780050005D00"), clock=bytes.fromhex("EB07010F070000"))
    readings = run(cuff)
    assert statuses(readings)["sensor_time"] == "2027-01-15T07:00:00"
    (written,) = cuff.clock_set_to
    assert written[:6].hex().upper() == "EB07010F0800"
    assert statuses(readings)["sensor_clock_written"] is True
    assert not {"sensor_clock_written", "setup_failed"} & statuses(run(Cuff("BM96", cuff.result))).keys()


def test_the_clock_is_read_before_a_result_that_came_earlier_is_decoded() -> None:
    """The cuff indicates at its subscription. What its clock shows decides when that result was measured."""
    cuff = Cuff("UA-651BLE", bytes.fromhex("00780050005D00"), clock=bytes.fromhex("EB07010F070000"))
    kinds = [reading.kind for reading in run(cuff) if isinstance(reading, Vital | Status)]
    assert kinds.index("sensor_time") < kinds.index("sensor_clock_written") < kinds.index("systolic")
    assert kinds.count("sensor_time") == 1


def test_a_stored_result_is_joined_from_its_segments() -> None:
    readings = run(Cuff("BM96", bytes.fromhex("00780050005D00"), segments=STORED))
    stored = [vital for vital in vitals(readings) if vital[2] is not None]
    assert stored == [("systolic", 120, 7), ("diastolic", 80, 7), ("mean_pressure", 93, 7), ("pulse_rate_cuff", 72, 7)]


def test_a_search_for_a_cuff_that_is_away_goes_on_without_a_pause() -> None:
    states: list[str] = []

    async def main() -> None:
        async with open_in_process_radio(VirtualLink(), VIRTUAL_HUB_ADDRESS) as radio:
            clock = VirtualClock(asyncio.get_running_loop(), START_US)
            registry, settings = build_registry([BLOOD_PRESSURE]), SensorSettings("cuff", address=SENSOR)
            running = asyncio.create_task(
                SensorSession(settings, radio, registry, clock, lambda _name, state: states.append(state)).run()
            )
            await asyncio.sleep(600)
            assert states == ["absent"]
            running.cancel()
            await asyncio.wait([running])

    virtual_time.run(main())
