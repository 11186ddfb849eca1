"""Sessions that hold conversations: a driver in the long form against a virtual sensor, and set-ups that fail."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from bumble.att import ATT_Error, Attribute, ErrorCode
from bumble.core import UUID, AdvertisingData
from bumble.device import Connection, Device
from bumble.gatt import Characteristic, CharacteristicValue, Service

from drivers.battery import DRIVER as BATTERY
from drivers.conversation import Consent
from drivers.device_information import DRIVER as DEVICE_INFORMATION
from drivers.readings import Quarantined, Reading, Status, Vital
from drivers.registry import build_registry
from gateway import virtual_time
from gateway.radio.virtual import VirtualLink, make_device
from gateway.sensor_memory import SensorMemory
from gateway.session import SensorSession
from tests.gateway.long_form_driver import ABORT, CONSENT, CONTROL, DATA, DONE, DRIVER, LAST, NEWS, REPORT, SERVICE
from tests.gateway.session_testbed import run_session, take_notifications
from tests.radio.hub_actions import SENSOR

CODE = Consent(1, 4711)
PROPERTIES = Characteristic.Properties


@dataclass
class Recorder:
    """A virtual sensor with stored results. After `silent_after` of them it does not answer; `refused` are its status codes."""

    results: dict[int, tuple[int, int, int]]
    silent_after: int | None = None
    refused: dict[int, int] = field(default_factory=dict)
    att_refusals: int = 0
    sleeps_at_identification: bool = False
    requests: list[bytes] = field(default_factory=list)
    has_consent: bool = False

    def __post_init__(self) -> None:
        encrypted = Attribute.WRITEABLE | Attribute.WRITE_REQUIRES_ENCRYPTION
        self.control = Characteristic(
            UUID(CONTROL), PROPERTIES.WRITE | PROPERTIES.INDICATE, encrypted, CharacteristicValue(write=self._on_write)
        )
        self.data = Characteristic(UUID(DATA), PROPERTIES.INDICATE, Attribute.Permissions(0), b"")
        self.device: Device | None = None

    def make(self, link: VirtualLink) -> Device:
        self.device = make_device(link, SENSOR, "cuff")
        level = Characteristic(UUID.from_16_bits(0x2A19), PROPERTIES.READ, Attribute.READABLE, bytes([80]))
        firmware = Characteristic(
            UUID.from_16_bits(0x2A26), PROPERTIES.READ, Attribute.READABLE, CharacteristicValue(read=self._on_identification)
        )
        self.device.add_services(
            [
                Service(UUID(SERVICE), [self.control, self.data]),
                Service(UUID.from_16_bits(0x180F), [level]),
                Service(UUID.from_16_bits(0x180A), [firmware]),
            ]
        )
        self.device.advertising_data = bytes(AdvertisingData([(AdvertisingData.COMPLETE_LOCAL_NAME, b"cuff")]))
        return self.device

    async def indicate(self, characteristic: Characteristic, payload: bytes) -> None:
        assert self.device is not None
        await self.device.indicate_subscribers(characteristic, payload)

    async def _on_identification(self, connection: Connection) -> bytes:
        if self.sleeps_at_identification:
            await self.send(7, (120, 80, 93))
            await connection.disconnect()
        return b"1.0"

    def _on_write(self, _connection: object, value: bytes) -> None:
        self.requests.append(value)
        if self.att_refusals:
            self.att_refusals -= 1
            raise ATT_Error(ErrorCode.WRITE_NOT_PERMITTED)
        asyncio.get_running_loop().create_task(self._answer(value))

    async def _answer(self, request: bytes) -> None:
        op = request[0]
        if op == CONSENT:
            self.has_consent = request == bytes((CONSENT, CODE.user)) + CODE.code.to_bytes(2, "little")
            self.refused[CONSENT] = 0 if self.has_consent else 5
        if op == REPORT and self.has_consent:
            after = int.from_bytes(request[1:3], "little")
            for count, (sequence, values) in enumerate(sorted(self.results.items())):
                if sequence > after:
                    if count == self.silent_after:
                        return
                    await self.send(sequence, values)
        await self.indicate(self.control, bytes((DONE, op, self.refused.get(op, 0))))

    async def send(self, sequence: int, values: Sequence[int]) -> None:
        for index, value in enumerate(values):
            last = LAST if index == len(values) - 1 else 0
            header = sequence.to_bytes(2, "little") + bytes((index | last,))
            await self.indicate(self.data, header + value.to_bytes(2, "little"))


@dataclass
class Outcome:
    readings: list[Reading]
    memories: list[Any]
    session: SensorSession


def run(
    sensor: Recorder, seconds: float = 30, memory: SensorMemory | None = None, after: Callable[[Recorder], Any] | None = None
) -> Outcome:
    """Run a session with the sensor for some virtual seconds."""

    async def main() -> Outcome:
        link = VirtualLink()
        registry, restored = build_registry([DRIVER, BATTERY, DEVICE_INFORMATION]), memory or SensorMemory()
        async with run_session(link, sensor.make(link), registry, memory=restored, consent=CODE) as session:
            await asyncio.sleep(seconds / 2)
            if after is not None:
                await after(sensor)
            await asyncio.sleep(seconds / 2)
        events = take_notifications(session)
        readings = [reading for event in events for reading in event.readings]
        return Outcome(readings, [event.memory for event in events if event.memory], session)

    return virtual_time.run(main())


def systolics(readings: list[Reading]) -> list[float]:
    return [reading.value for reading in readings if isinstance(reading, Vital) and reading.kind == "systolic"]


RESULTS = {1: (120, 80, 93), 2: (131, 84, 100), 3: (142, 90, 107)}


def test_a_conversation_gives_consent_and_fetches_the_results_after_the_last_it_remembers() -> None:
    sensor = Recorder(dict(RESULTS))
    outcome = run(sensor, memory=SensorMemory(drivers={"records": {"last": 1}}))
    assert systolics(outcome.readings) == [131, 142]
    assert sensor.requests == [bytes.fromhex("02016712"), bytes.fromhex("010100")]
    assert [memory["drivers"]["records"]["last"] for memory in outcome.memories] == [1, 2, 3]
    groups = {reading.origin.group for reading in outcome.readings if isinstance(reading, Vital) and reading.origin}
    assert len(groups) == 2


def test_a_sensor_that_reports_a_new_result_is_asked_again() -> None:
    async def measure(sensor: Recorder) -> None:
        sensor.results[4] = (150, 95, 113)
        await sensor.indicate(sensor.control, bytes((NEWS,)))

    outcome = run(Recorder(dict(RESULTS)), after=measure)
    assert systolics(outcome.readings) == [120, 131, 142, 150]


def test_a_transfer_that_stops_is_aborted_and_recorded() -> None:
    sensor = Recorder(dict(RESULTS), silent_after=2)
    outcome = run(sensor, seconds=100)
    assert systolics(outcome.readings) == [120, 131]
    assert [request[0] for request in sensor.requests] == [CONSENT, REPORT, ABORT]
    assert Status("failed_measurement", "transfer") in outcome.readings
    assert outcome.session.statistics.connects == 1


def test_a_lost_fragment_costs_its_result_only() -> None:
    async def measure(sensor: Recorder) -> None:
        await sensor.indicate(sensor.data, bytes.fromhex("0900017800"))
        await sensor.send(10, (110, 70, 83))

    outcome = run(Recorder({}), after=measure)
    assert systolics(outcome.readings) == [110]
    assert [reading.reason for reading in outcome.readings if isinstance(reading, Quarantined)] == [
        "fragment: one before it is missing"
    ]


@pytest.mark.parametrize("att_refusals", [1, 2])
def test_a_refused_set_up_costs_its_own_driver_and_is_repeated(att_refusals: int) -> None:
    outcome = run(Recorder(dict(RESULTS), att_refusals=att_refusals), seconds=90)
    assert systolics(outcome.readings) == [120, 131, 142]
    assert outcome.readings.count(Status("battery", 80)) == 1
    assert outcome.readings.count(Status("setup_failed", "records")) == 1
    assert (outcome.session.statistics.connects, outcome.session.statistics.failures) == (1, 0)


def test_a_sensor_that_sends_and_sleeps_before_it_is_identified_loses_nothing() -> None:
    outcome = run(Recorder({}, sleeps_at_identification=True), seconds=1)
    assert systolics(outcome.readings)[:1] == [120]
    assert outcome.session.statistics.connects == 0
