"""A sensor that sends more than it may costs itself its connection, and the others nothing."""

import asyncio
import logging

import pytest
from bumble.core import UUID
from bumble.device import Connection
from bumble.gatt import Characteristic, CharacteristicValue, Service

from benchmarks.fuzz_inputs import kept_bytes
from drivers.polar_pmd import CONTROL_POINT, DATA, SERVICE
from drivers.readings import Waveform
from gateway import virtual_time
from gateway.radio.subscriptions import EarlyValues
from gateway.sensor_limits import BURST_OCTETS, RATE_OCTETS_PER_S, RESULT_OCTETS, SAMPLE_OCTETS, SET_UP_LIMIT_S, VALUE_OCTETS
from tests.gateway.hostile_testbed import (
    ATTACKER,
    NOTIFY,
    PROPERTIES,
    TASKS_LIMIT,
    Attacker,
    attack,
    flood,
    readable,
    stream,
    uuid16,
    wait_subscribed,
    warnings_of,
)


@pytest.mark.parametrize("payload", [bytes([0, 60]), bytes(509)], ids=["pulses", "512 octets"])
def test_a_flood_of_notifications_ends_its_connection_and_is_backed_off(
    payload: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def serve(attacker: Attacker, connection: Connection) -> None:
        await flood(attacker, connection, 0x2A37, payload, 10_000, 10_000)

    attacker = Attacker([Service(uuid16(0x180D), [stream(0x2A37)])], serve)
    with caplog.at_level(logging.INFO):
        outcome = attack(attacker, 120)
    outcome.assert_honest_unharmed(120)
    cost = max(VALUE_OCTETS, len(payload))
    assert len(outcome.attacker.notifications) <= 120 * RATE_OCTETS_PER_S / cost + BURST_OCTETS / cost
    assert attacker.connections <= 3  # the first pause is a minute, ± 50 %
    assert outcome.tasks < TASKS_LIMIT
    assert len([text for text in warnings_of(caplog) if "sends more than 10 kB a second" in text]) == 1
    assert {event.reason for event in outcome.attacker.events if hasattr(event, "reason")} == {"the sensor exceeded its limits"}


def test_a_steady_stream_below_the_limit_goes_on() -> None:
    """The fastest known sensors stay connected: 80 values a second."""

    async def serve(attacker: Attacker, connection: Connection) -> None:
        await flood(attacker, connection, 0x2A37, bytes([0, 60]), 80 * 60, 80)

    attacker = Attacker([Service(uuid16(0x180D), [stream(0x2A37)])], serve)
    outcome = attack(attacker, 60)
    assert attacker.connections == 1
    assert len(outcome.attacker.notifications) > 80 * 50


def test_spot_results_without_end_are_limited_to_what_the_disk_can_take() -> None:
    """Each indicated result is made durable by itself."""

    async def serve(attacker: Attacker, connection: Connection) -> None:
        characteristic = await wait_subscribed(attacker, connection, 0x2A35)
        number = 0
        while True:
            number += 1
            payload = bytes([0, 120, 0, 80, 0, *(90 + number % 30).to_bytes(2, "little")])
            await attacker.device.indicate_subscriber(connection, characteristic, payload)

    attacker = Attacker([Service(uuid16(0x1810), [stream(0x2A35)])], serve)
    attacker.services[0].characteristics[0].properties = PROPERTIES.INDICATE
    outcome = attack(attacker, 120)
    outcome.assert_honest_unharmed(120)
    results = [each for each in outcome.attacker.notifications if each.is_indicated and each.readings]
    assert 100 < len(results) <= (BURST_OCTETS + 120 * RATE_OCTETS_PER_S) / RESULT_OCTETS
    assert attacker.connections <= 3


def test_stored_records_without_end_are_ended(caplog: pytest.LogCaptureFixture) -> None:
    """A transfer that never ends keeps its own set-up from ending, until the limit."""

    async def serve(attacker: Attacker, connection: Connection) -> None:
        records = await wait_subscribed(attacker, connection, 0x2A5E)
        while True:
            payload = bytes([0, *(0xF3D2).to_bytes(2, "little"), *(60).to_bytes(2, "little")])
            await attacker.device.notify_subscriber(connection, records, payload)
            await asyncio.sleep(1)

    control = Characteristic(uuid16(0x2A52), NOTIFY | PROPERTIES.WRITE, Characteristic.WRITEABLE, b"")
    features = readable(0x2A60, bytes([0x04, 0]))  # it has a memory
    attacker = Attacker([Service(uuid16(0x1822), [stream(0x2A5E), stream(0x2A5F), control, features])], serve)
    outcome = attack(attacker, SET_UP_LIMIT_S + 60)
    outcome.assert_honest_unharmed(SET_UP_LIMIT_S + 60)
    assert [text for text in warnings_of(caplog) if "its set-up did not end" in text] != []
    assert outcome.tasks < TASKS_LIMIT


def test_a_control_point_that_asks_for_procedures_for_ever_costs_only_itself() -> None:
    """Each report that the ECG stopped asks the hub to start it again."""
    writes = 0

    def on_write(_connection: Connection, value: bytes) -> None:
        nonlocal writes
        writes += 1
        parameters = bytes.fromhex("0000 00018200") if value[0] == 1 else b"\0\0"
        answer = bytes((0xF0, value[0], value[1])) + parameters
        asyncio.ensure_future(attacker.device.indicate_subscribers(control, answer))  # noqa: RUF006  it ends at once

    async def serve(attacker: Attacker, connection: Connection) -> None:
        await asyncio.sleep(3)
        while True:
            await attacker.device.indicate_subscriber(connection, control, b"\x01\x00")
            await attacker.device.notify_subscriber(connection, data, bytes.fromhex("000094357700000000000280FF028000"))
            await asyncio.sleep(0.02)

    control = Characteristic(
        UUID(CONTROL_POINT),
        PROPERTIES.INDICATE | PROPERTIES.READ | PROPERTIES.WRITE,
        Characteristic.READABLE | Characteristic.WRITEABLE,
        CharacteristicValue(read=lambda _connection: bytes.fromhex("0F01") + bytes(15), write=on_write),
    )
    data = Characteristic(UUID(DATA), PROPERTIES.NOTIFY, Characteristic.Permissions(0), b"")
    attacker = Attacker([Service(UUID(SERVICE), [control, data])], serve)
    outcome = attack(attacker, 120)
    outcome.assert_honest_unharmed(120)
    assert writes > 10
    assert outcome.tasks < TASKS_LIMIT
    assert len(outcome.attacker.notifications) <= 120 * RATE_OCTETS_PER_S / VALUE_OCTETS


def test_compressed_frames_with_more_samples_than_any_sensor_measures_are_limited() -> None:
    """A frame of 208 octets holds 1,500 samples, and each one would be analysed or sent."""
    reference, block = bytes(6), bytes((1, 250)) + bytes(94)  # three axes; 250 differences of one bit each
    frame = bytes.fromhex("020094357700000000 81") + reference + 2 * block

    async def serve(attacker: Attacker, connection: Connection) -> None:
        while True:
            await attacker.device.notify_subscribers(attacker.services[0].characteristics[1], frame)
            await asyncio.sleep(0.05)

    control = Characteristic(UUID(CONTROL_POINT), NOTIFY, Characteristic.Permissions(0), b"")
    data = Characteristic(UUID(DATA), PROPERTIES.NOTIFY, Characteristic.Permissions(0), b"")
    attacker = Attacker([Service(UUID(SERVICE), [control, data])], serve)
    outcome = attack(attacker, 120)
    outcome.assert_honest_unharmed(120)
    samples = sum(
        len(reading.samples)
        for each in outcome.attacker.notifications
        for reading in each.readings
        if isinstance(reading, Waveform)
    )
    assert 1_000 < samples <= (BURST_OCTETS + 120 * RATE_OCTETS_PER_S) / SAMPLE_OCTETS


def test_values_of_thousands_of_handles_before_any_subscription_are_limited() -> None:
    early = EarlyValues()

    async def main() -> None:
        early.begin(ATTACKER)
        for number in range(20_000):
            early.put(ATTACKER, str(number), bytes(512), is_indicated=True)

    virtual_time.run(main())
    assert kept_bytes(early) < 1_000_000
