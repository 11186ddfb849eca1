"""The clock inside a service: what is written, what is read, and a sensor that refuses."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.conversation import Context, Moment, Procedure, Read, RefusedError, Value, Write
from drivers.date_time import DATE_TIME, ClockConversation, decode_date_time, encode_local_time, set_clock
from drivers.readings import Quarantined, Status


def moment(utc: str, utc_offset_s: int = 0) -> Moment:
    return Moment(int(datetime.fromisoformat(utc).timestamp() * 1_000_000), utc_offset_s)


@pytest.mark.parametrize(
    ("now", "sent"),
    [
        # A&D UA-651BLE: obniz/obniz, documentation of the UA651
        (moment("2013-08-26T09:10:20+00:00"), "DD07081A090A14"),
        # The time stamp of a BM85 that was captured in Germany in summer: derdilla/blood-pressure-monitor-fl, pull 735
        (moment("2026-08-11T16:31:00.999999+00:00", 7200), "EA07080B121F00"),
        (moment("2026-01-01T03:00:00+00:00", -5 * 3600), "E9070C1F160000"),
        (moment("2028-02-28T18:15:00+00:00", 20_700), "EC07021D000000"),
    ],
)
def test_known_local_times(now: Moment, sent: str) -> None:
    assert encode_local_time(now).hex().upper() == sent


@given(
    utc=st.datetimes(datetime(2001, 1, 2), datetime(2099, 12, 30), timezones=st.just(UTC)),  # noqa: DTZ001  # Hypothesis asks so
    offset_min=st.integers(-12 * 60, 14 * 60),
)
def test_the_time_that_is_written_reads_as_the_patients_local_time(utc: datetime, offset_min: int) -> None:
    utc_us = (utc - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    local = (utc + timedelta(minutes=offset_min)).replace(tzinfo=None, microsecond=0)
    written = encode_local_time(Moment(utc_us, offset_min * 60))
    assert decode_date_time(written) == (Status("sensor_time", local.isoformat()),)


NOW = moment("2026-08-11T16:31:00+00:00", 7200)
LOCAL = Write(DATE_TIME, encode_local_time(NOW))
SHORT = "date and time at byte 0: needs 7 bytes, the payload ends after 6"


def run(procedure: Procedure, clock: bytes | None, is_refused: bool = False) -> list[object]:
    """The steps of a procedure with a sensor that has this clock."""
    steps: list[object] = []
    try:
        step = next(procedure)
        while True:
            steps.append(step)
            if isinstance(step, Write) and is_refused:
                step = procedure.throw(RefusedError("the sensor refuses a write"))
            else:
                step = procedure.send(clock if isinstance(step, Read) else None)
    except StopIteration:
        return steps


@pytest.mark.parametrize(
    ("clock", "time", "offset_s"),
    [
        ("EA07080B121F00", "2026-08-11T18:31:00", 0.0),
        ("EA07080B121E00", "2026-08-11T18:30:00", -60.0),
        ("EA07080B122000", "2026-08-11T18:32:00", 60.0),
    ],
)
def test_a_clock_that_is_right_is_left_alone(clock: str, time: str, offset_s: float) -> None:
    assert run(set_clock(NOW), bytes.fromhex(clock)) == [
        Read(DATE_TIME),
        Status("sensor_time", time),
        Status("sensor_clock_offset_s", offset_s),
    ]


@pytest.mark.parametrize(
    ("clock", "readings"),
    [
        ("EA07080B122001", [Status("sensor_time", "2026-08-11T18:32:01"), Status("sensor_clock_offset_s", 61.0)]),
        ("D0070101000500", [Status("sensor_time", "2000-01-01T00:05:00"), Status("sensor_clock_offset_s", -839_787_960.0)]),
        ("00000000000000", [Status("sensor_time", "unknown")]),
        ("EA070D0B122001", [Status("sensor_time", "invalid")]),
        ("EA07080B1220", [Quarantined(DATE_TIME, bytes.fromhex("EA07080B1220"), SHORT)]),
    ],
)
def test_a_clock_that_is_wrong_is_told_then_set(clock: str, readings: list[object]) -> None:
    assert run(set_clock(NOW), bytes.fromhex(clock)) == [
        Read(DATE_TIME),
        *readings,
        LOCAL,
        Status("sensor_clock_written", True),
    ]


def test_a_clock_that_can_only_be_written_is_set() -> None:
    assert run(set_clock(NOW), None) == [Read(DATE_TIME), LOCAL, Status("sensor_clock_written", True)]


def test_a_sensor_without_a_clock_costs_nothing() -> None:
    assert run(set_clock(NOW), None, is_refused=True) == [Read(DATE_TIME), LOCAL]


def test_a_sensor_that_refuses_keeps_its_clock() -> None:
    steps = run(set_clock(NOW), bytes.fromhex("EA07080B122100"), is_refused=True)
    assert steps[-3:] == [Status("sensor_clock_offset_s", 120.0), LOCAL, Status("sensor_clock_written", False)]


def test_a_conversation_of_the_clock_sets_it_and_decodes_nothing() -> None:
    conversation = ClockConversation(Context())
    assert run(conversation.start(NOW), None) == run(set_clock(NOW), None)
    assert list(conversation.receive(Value(DATE_TIME, b"\0" * 7, NOW))) == []
    assert list(conversation.stop()) == []


def test_a_hub_whose_clock_cannot_be_right_sets_no_clock() -> None:
    steps = run(set_clock(replace(NOW, is_plausible=False)), bytes.fromhex("E10701040B262D"))
    assert steps == [Read(DATE_TIME), Status("sensor_time", "2017-01-04T11:38:45")]
