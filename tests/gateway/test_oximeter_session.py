"""Sessions with a virtual oximeter: stored spot checks, a transfer that hangs beside a continuous stream, the clock."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bumble.att import ATT_Error, Attribute, ErrorCode
from bumble.core import UUID, AdvertisingData
from bumble.device import Device
from bumble.gatt import Characteristic, CharacteristicValue, Service

from drivers.current_time import DRIVER as CURRENT_TIME
from drivers.current_time import encode_current_time
from drivers.pulse_oximeter import DRIVER as PULSE_OXIMETER
from drivers.readings import Reading, Status, Vital
from drivers.registry import build_registry
from gateway import virtual_time
from gateway.radio.virtual import VirtualLink, make_device
from gateway.sensor_link import moment_of
from gateway.sensor_memory import SensorMemory
from gateway.timeline import Arrival
from tests.gateway.session_testbed import START_US, run_session, take_notifications
from tests.radio.hub_actions import SENSOR

PROPERTIES = Characteristic.Properties
CONTINUOUS_VALUE = bytes.fromhex("0062004E00")


def stored(spo2: int, minute: int) -> bytes:
    """A stored spot check of 2025-05-20 at 08:00 and so many minutes."""
    return bytes((0x03, spo2, 0, 72, 0)) + bytes.fromhex("E907051408") + bytes((minute, 0)) + bytes.fromhex("0003")


@dataclass
class Oximeter:
    """Sends a continuous value every second, and its records when asked; `hangs`: it never answers."""

    records: list[bytes]
    hangs: bool = False
    clock: bytes = b""
    accepts_time: bool = True
    requests: list[tuple[float, str]] = field(default_factory=list)
    clock_set_to: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        indicate, none = PROPERTIES.INDICATE, Attribute.Permissions(0)
        self.spot = Characteristic(UUID.from_16_bits(0x2A5E), indicate, none, b"")
        self.continuous = Characteristic(UUID.from_16_bits(0x2A5F), PROPERTIES.NOTIFY, none, b"")
        self.control = Characteristic(
            UUID.from_16_bits(0x2A52),
            PROPERTIES.WRITE | indicate,
            Attribute.WRITEABLE,
            CharacteristicValue(write=self._on_write),
        )
        self.device: Device | None = None

    def make(self, link: VirtualLink) -> Device:
        self.device = make_device(link, SENSOR, "oximeter")
        features = Characteristic(UUID.from_16_bits(0x2A60), PROPERTIES.READ, Attribute.READABLE, bytes.fromhex("0C00"))
        time = Characteristic(
            UUID.from_16_bits(0x2A2B),
            PROPERTIES.READ | PROPERTIES.WRITE,
            Attribute.READABLE | Attribute.WRITEABLE,
            CharacteristicValue(read=lambda _: self.clock, write=self._on_time),
        )
        services = [Service(UUID.from_16_bits(0x1822), [self.spot, self.continuous, features, self.control])]
        if self.clock:
            services.append(Service(UUID.from_16_bits(0x1805), [time]))
        self.device.add_services(services)
        self.device.advertising_data = bytes(AdvertisingData([(AdvertisingData.COMPLETE_LOCAL_NAME, b"oximeter")]))
        return self.device

    async def run(self) -> None:
        """Measure."""
        assert self.device is not None
        while True:
            await asyncio.sleep(1.0)
            await self.device.notify_subscribers(self.continuous, CONTINUOUS_VALUE)

    def _on_write(self, _connection: object, value: bytes) -> None:
        self.requests.append((asyncio.get_running_loop().time(), value.hex().upper()))
        asyncio.get_running_loop().create_task(self._answer(value))

    async def _answer(self, request: bytes) -> None:
        assert self.device is not None
        if request[0] == 1:
            for record in self.records:
                await self.device.indicate_subscribers(self.spot, record)
            if self.hangs:
                return
        await self.device.indicate_subscribers(self.control, bytes((6, 0, request[0], 1)))

    def _on_time(self, _connection: object, value: bytes) -> None:
        self.clock_set_to.append(value)
        if not self.accepts_time:
            raise ATT_Error(ErrorCode.WRITE_NOT_PERMITTED)


@dataclass
class Outcome:
    readings: list[Reading]
    memory: Mapping[str, Any] | None

    def spo2(self) -> list[float]:
        """The values of SpO2 from the sensor's memory."""
        return [item.value for item in self.readings if isinstance(item, Vital) and item.kind == "spo2" and item.origin]

    def statuses(self) -> dict[str, Any]:
        return {item.kind: item.value for item in self.readings if isinstance(item, Status)}


def run(oximeter: Oximeter, seconds: float = 10, memory: Mapping[str, Any] | None = None) -> Outcome:
    """Run a session with the oximeter for some virtual seconds. `memory` is what the session before it left."""

    async def main() -> Outcome:
        link = VirtualLink()
        registry, restored = build_registry([PULSE_OXIMETER, CURRENT_TIME]), dict((memory or {}).get("drivers", {}))
        async with run_session(link, oximeter.make(link), registry, memory=SensorMemory(drivers=restored)) as session:
            measuring = asyncio.create_task(oximeter.run())
            await asyncio.sleep(seconds)
            measuring.cancel()
            await asyncio.wait([measuring])
        events = take_notifications(session)
        memories = [event.memory for event in events if event.memory]
        spots = [event for event in events if any(getattr(item, "origin", None) for item in event.readings)]
        assert all(event.is_indicated for event in spots), "a spot check is stored at once"
        return Outcome([item for event in events for item in event.readings], memories[-1] if memories else None)

    return virtual_time.run(main())


def test_stored_spot_checks_are_fetched_once() -> None:
    oximeter = Oximeter([stored(96, 1), stored(97, 2)])
    first = run(oximeter)
    assert first.spo2() == [96, 97]
    oximeter.records.append(stored(95, 3))
    second = run(Oximeter(oximeter.records), memory=first.memory)
    assert second.spo2() == [95]
    assert second.statuses()["record_access"] == "op=response operator=null request=report_stored result=success"


def test_a_transfer_that_hangs_is_aborted_although_continuous_values_go_on() -> None:
    oximeter = Oximeter([stored(96, 1)], hangs=True)
    outcome = run(oximeter, seconds=60)
    assert [request for _, request in oximeter.requests] == ["0101", "0300"]
    assert 30 <= oximeter.requests[1][0] - oximeter.requests[0][0] < 31
    assert outcome.spo2() == [96]
    assert outcome.readings.count(Vital("spo2", 98.0, ("continuous",))) > 40


def test_a_wrong_clock_is_set_before_records_are_asked_for() -> None:
    oximeter = Oximeter([stored(96, 1)], clock=bytes.fromhex("E1070101010000070000"))
    outcome = run(oximeter)
    statuses = outcome.statuses()
    assert statuses["sensor_time"] == "2017-01-01T01:00:00"
    assert statuses["sensor_clock_offset_s"] < -10 * 365 * 86400
    assert statuses["sensor_clock_written"] is True
    (written,) = oximeter.clock_set_to
    assert written[:5] == encode_current_time(moment_of(Arrival(START_US, 0)))[:5]
    kinds = [item.kind for item in outcome.readings if isinstance(item, Status | Vital)]
    assert kinds.index("sensor_clock_written") < kinds.index("record_access")


def test_a_clock_that_refuses_costs_nothing() -> None:
    outcome = run(Oximeter([stored(96, 1)], clock=bytes.fromhex("E1070101010000070000"), accepts_time=False))
    assert outcome.statuses()["sensor_clock_written"] is False
    assert outcome.spo2() == [96]
    assert "setup_failed" not in outcome.statuses()
