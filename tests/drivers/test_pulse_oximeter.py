"""Oximeters: stored spot checks, repeats, late records, statuses, plausibility."""

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fuzz_inputs import kept_bytes
from config.limits import DEFAULT_LIMITS, PLAUSIBLE
from drivers.pulse_oximeter import (
    CONTINUOUS,
    DRIVER,
    FEATURES,
    MAX_REMEMBERED_RECORDS,
    SPOT_CHECK,
    decode_continuous,
    decode_spot_check,
)
from drivers.readings import Origin, Status, Vital
from models.rules.vitals import VitalRules
from tests.drivers.player import Player, connect, open_connection
from tests.drivers.record_sensor import RecordSensor

STORAGE: Final = bytes.fromhex("0C00")
"""The features of an oximeter that stores spot checks with their time."""


def spot(spo2: int, minute: int = 0, status: str = "0003") -> bytes:
    """A spot check at 08:00 and `minute` with SpO2 and a pulse of 72; `status` 0003 is fully qualified and from storage."""
    return bytes((0x03, spo2, 0, 72, 0)) + bytes.fromhex("E9070514") + bytes((8, minute, 0)) + bytes.fromhex(status)


def unmarked(spo2: int, minute: int = 0) -> bytes:
    """The same without a measurement status, as from a sensor that does not mark stored records."""
    return b"\x01" + spot(spo2, minute)[1:12]


def oximeter(*records: bytes, features: bytes = STORAGE, **behaviour: Any) -> RecordSensor:
    return RecordSensor(SPOT_CHECK, list(records), {FEATURES: features}, **behaviour)


def spo2(player: Player) -> list[tuple[float, bool]]:
    """The values of SpO2, and whether each comes from the sensor's memory."""
    found = [reading for reading in player.readings if isinstance(reading, Vital) and reading.kind == "spo2"]
    return [(reading.value, reading.origin is not None and reading.origin.is_stored) for reading in found]


@pytest.mark.parametrize("features", [bytes.fromhex("F300"), bytes.fromhex("0000"), b""])
def test_an_oximeter_without_a_memory_is_not_asked_for_records(features: bytes) -> None:
    assert connect(DRIVER, oximeter(features=features)).written == []


def test_an_oximeter_that_does_not_tell_its_features_is_not_asked_for_records() -> None:
    assert connect(DRIVER, RecordSensor(SPOT_CHECK)).written == []


def test_fetches_all_stored_spot_checks_and_remembers_them() -> None:
    player = connect(DRIVER, oximeter(spot(96, 1), spot(97, 2)))
    assert [payload for _, payload in player.written] == ["0101"]
    assert spo2(player) == [(96, True), (97, True)]
    assert player.readings[-1] == Status("record_access", "op=response operator=null request=report_stored result=success")
    assert player.memory is not None
    assert len(player.memory["records"]) == 2


def test_only_spot_checks_that_are_new_yield_readings() -> None:
    sensor = oximeter(spot(96, 1), spot(97, 2))
    first = connect(DRIVER, sensor)
    sensor.records.append(spot(95, 3))
    second = connect(DRIVER, sensor, first.memory)
    assert spo2(second) == [(95, True)]
    third = connect(DRIVER, sensor, second.memory)
    assert spo2(third) == []
    assert third.memory is None, "nothing new to remember"


def test_spot_checks_of_a_cleared_memory_with_a_new_clock_are_new() -> None:
    first = connect(DRIVER, oximeter(spot(96, 50), spot(97, 51)))
    assert spo2(connect(DRIVER, oximeter(spot(96, 1)), first.memory)) == [(96, True)]


def test_an_incomplete_transfer_is_repeated_without_repeating_readings() -> None:
    player = connect(DRIVER, oximeter(spot(96, 1), spot(97, 2), spot(95, 3), stops_after=2))
    assert [payload for _, payload in player.written] == ["0101", "0101"]
    assert spo2(player) == [(96, True), (97, True), (95, True)]


def test_what_came_before_a_time_out_is_remembered() -> None:
    first = connect(DRIVER, oximeter(spot(96, 1), loses_answer=True))
    assert [payload for _, payload in first.written] == ["0101", "0300"]
    assert spo2(connect(DRIVER, oximeter(spot(96, 1), spot(97, 2)), first.memory)) == [(97, True)]


def test_continuous_values_do_not_keep_a_transfer_alive_that_hangs() -> None:
    connection = open_connection(DRIVER, oximeter(loses_answer=True))
    for second in range(100):
        connection.send(CONTINUOUS, bytes.fromhex("0062004E00"), second)
    assert connection.start().written == [(0.0, "0101"), (30.0, "0300")]


def test_late_records_are_dropped_and_a_measurement_after_them_is_not() -> None:
    player = connect(DRIVER, oximeter(loses_answer=True, late=[(1.0, spot(80, 1))]))
    player.send(SPOT_CHECK, spot(98, 2, "2000"), after_s=5)
    player.play(10)
    assert spo2(player) == [(98, False)]
    assert spo2(connect(DRIVER, oximeter(spot(80, 1)), player.memory)) == [(80, True)]


def test_a_record_without_a_mark_counts_as_stored_while_it_is_asked_for() -> None:
    player = connect(DRIVER, oximeter(unmarked(96)))
    assert spo2(player) == [(96, True)]
    player.send(SPOT_CHECK, unmarked(99, 5))
    player.play(1)
    assert spo2(player) == [(96, True), (99, False)]


def test_a_measurement_has_the_same_group_when_it_is_sent_again_from_storage() -> None:
    live, stored = decode_spot_check(spot(96, 1, "2000")), decode_spot_check(spot(96, 1, "0003"))
    assert {reading.origin and reading.origin.group for reading in (*live, *stored)} == {
        live[0].origin and live[0].origin.group
    }
    others = [spot(95, 1), spot(96, 2), spot(96, 1)[:3] + b"\x49" + spot(96, 1)[4:]]
    assert len({decode_spot_check(other)[0].origin for other in (spot(96, 1), *others)}) == 4


def test_the_memory_keeps_the_newest_records_only() -> None:
    assert MAX_REMEMBERED_RECORDS == 1000
    records = [spot(96)[:3] + number.to_bytes(2, "little") + spot(96)[5:] for number in range(1, 1002)]
    player = connect(DRIVER, oximeter(*records))
    assert player.memory is not None
    assert len(player.memory["records"]) == MAX_REMEMBERED_RECORDS
    assert len(spo2(connect(DRIVER, oximeter(*records), player.memory))) == 1


def test_records_without_end_do_not_accumulate_in_a_conversation() -> None:
    player = open_connection(DRIVER, oximeter())
    kept = []
    for number in range(1, 5 * MAX_REMEMBERED_RECORDS):
        player.send(SPOT_CHECK, spot(96)[:3] + number.to_bytes(2, "little") + spot(96)[5:])
        player.play(0.1)
        if number % MAX_REMEMBERED_RECORDS == 0:
            kept.append(kept_bytes(player.conversation))
    assert kept[-1] <= kept[2] * 1.1


def test_an_old_record_that_the_sensor_still_has_stays_remembered() -> None:
    records = [spot(96)[:3] + number.to_bytes(2, "little") + spot(96)[5:] for number in range(1, 1001)]
    first = connect(DRIVER, oximeter(*records))
    sensor = oximeter(records[0], spot(97))
    second = connect(DRIVER, sensor, first.memory)
    assert spo2(second) == [(97, True)]
    assert spo2(connect(DRIVER, sensor, second.memory)) == []


def test_a_malformed_record_does_not_stop_the_transfer() -> None:
    player = connect(DRIVER, oximeter(b"\x01\x60", spot(97, 2)))
    assert spo2(player) == [(97, True)]


def test_a_spot_check_without_a_date_is_kept_with_the_state_of_its_clock() -> None:
    (reading, _) = decode_spot_check(bytes.fromhex("1161006000000000000A0A0A"))
    assert isinstance(reading.origin, Origin)
    assert (reading.value, reading.origin.measured, reading.origin.clock) == (97, None, "unknown")


@pytest.mark.parametrize(
    ("spo2_percent", "pulse", "implausible"),
    [
        (PLAUSIBLE["spo2"][0], 18, set()),
        (PLAUSIBLE["spo2"][1], 321, set()),
        (PLAUSIBLE["spo2"][0] - 1, 17, {"spo2", "pulse_rate"}),
        (PLAUSIBLE["spo2"][1] + 1, 322, {"spo2", "pulse_rate"}),
    ],
)
def test_values_outside_the_range_of_the_rules_or_of_any_oximeter_are_implausible(
    spo2_percent: float, pulse: int, implausible: set[str]
) -> None:
    pair = int(spo2_percent).to_bytes(2, "little") + pulse.to_bytes(2, "little")
    found = decode_continuous(b"\x02" + pair + pair)
    flagged = {reading.kind for reading in found if isinstance(reading, Vital) and "implausible" in reading.flags}
    assert flagged == implausible | {f"{kind}_slow" for kind in implausible}


@pytest.mark.parametrize(
    ("status", "alarms"), [("0001", True), ("0004", False), ("0008", False), ("0080", False), ("0040", False)]
)
def test_no_rule_alarms_on_data_that_are_for_demonstration_or_tests_or_invalid(status: str, *, alarms: bool) -> None:
    """Bits 8 (fully qualified), 10, 11, 15 and 14 of the measurement status, with an SpO2 of 70 %."""
    readings = decode_spot_check(bytes.fromhex("0246004800" + status))
    rules = VitalRules(DEFAULT_LIMITS)
    found = [finding for one in readings if isinstance(one, Vital) for finding in rules.feed(one.kind, one.value, 0, one.flags)]
    assert [finding.inconclusive is None for finding in found] == [alarms]


@given(st.binary(min_size=1, max_size=24))
def test_a_value_is_continuous_or_has_an_origin(payload: bytes) -> None:
    for decode, is_continuous in ((decode_spot_check, False), (decode_continuous, True)):
        try:
            readings = decode(payload)
        except ValueError:
            continue
        assert readings, "no measurement vanishes without a reading"
        for reading in readings:
            assert isinstance(reading, Vital | Status)
            assert (reading.origin is None) is is_continuous
            if isinstance(reading, Vital):
                assert ("continuous" in reading.flags) is is_continuous
