"""The clock inside a service: what is written, what is read, and a sensor that refuses."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.conversation import Context, Moment, RefusedError, Value, Write
from drivers.date_time import DATE_TIME, ClockConversation, decode_date_time, encode_local_time, set_clock
from drivers.readings import Status


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


def test_a_sensor_that_refuses_or_has_no_clock_costs_nothing() -> None:
    procedure = set_clock(moment("2026-08-11T16:31:00+00:00"))
    assert isinstance(next(procedure), Write)
    with pytest.raises(StopIteration):
        procedure.throw(RefusedError("the sensor has no such characteristic"))


def test_a_conversation_of_the_clock_writes_once_and_decodes_nothing() -> None:
    conversation = ClockConversation(Context())
    now = moment("2026-08-11T16:31:00+00:00")
    assert list(conversation.start(now)) == [Write(DATE_TIME, encode_local_time(now))]
    assert list(conversation.receive(Value(DATE_TIME, b"\0" * 7, now))) == []
    assert list(conversation.stop()) == []
