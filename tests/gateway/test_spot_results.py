"""Results measured on demand in the pipeline: time, origin and repeats; whatever a sensor sends."""

import json
from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.validate import validate_record
from drivers.readings import Origin, Reading, Status, Vital
from gateway.spots import MAX_RESULTS
from gateway.timeline import Arrival
from sync.records import AlertRecord, FindingRecord, StatusRecord, VitalRecord
from tests.gateway.spot_pipeline import DAY, MIN, MINE, NOW, S, feed, origin, pipeline, pressure, values, weight


def test_a_result_has_its_own_time_and_origin() -> None:
    records = feed(pipeline(), pressure(NOW - 30 * S, user=MINE, record=7), NOW)
    assert values(records) == [("systolic", 120.0), ("diastolic", 80.0), ("pulse_rate", 66.0)]
    for record in records:
        assert isinstance(record, VitalRecord)
        assert (record.times.at_us, record.times.arrived_us) == (NOW - 30 * S, NOW)
        assert record.origin is not None
        assert (record.origin.time_source, record.origin.clock, record.origin.record, record.origin.user) == (
            "measured",
            "set",
            7,
            MINE,
        )
        assert record.origin.local_us == NOW - 30 * S


def test_a_continuous_value_has_the_time_of_arrival_and_no_origin() -> None:
    (record,) = feed(pipeline(), [Vital("pulse_rate", 60.0)], NOW)
    assert isinstance(record, VitalRecord)
    assert (record.times.at_us, record.origin) == (NOW, None)


def test_a_failed_measurement_has_an_origin_too() -> None:
    failed: list[Reading] = [Status("failed_measurement", "blood pressure", origin(NOW - DAY, user=MINE))]
    (record,) = feed(pipeline(), failed, NOW)
    assert isinstance(record, StatusRecord)
    assert record.times.at_us == NOW - DAY
    assert record.origin is not None


def test_a_date_beyond_the_clinics_times_is_left_out() -> None:
    far = Origin(1, datetime(9999, 1, 1), "set", user=MINE)  # noqa: DTZ001 - a sensor's time
    (record,) = feed(pipeline(), [Vital("weight", 80.0, (), far)], NOW)
    assert isinstance(record, VitalRecord)
    assert record.origin is not None
    assert (record.origin.local_us, record.origin.clock, record.origin.time_source) == (None, "invalid", "arrival")


def test_a_stored_result_is_taken_once_also_after_a_restart() -> None:
    pipe = pipeline()
    sent = pressure(NOW - DAY, user=MINE, is_stored=True)
    assert len(values(feed(pipe, sent, NOW))) == 3
    assert feed(pipe, sent, NOW + S) == ()
    again = pipeline(pipe.state())
    assert feed(again, sent, NOW + 9 * DAY) == ()
    assert again.spots.counters.repeats == 6
    assert len(values(feed(again, pressure(NOW - DAY + MIN, user=MINE), NOW + 9 * DAY))) == 3


def test_the_parts_of_a_result_may_arrive_one_after_the_other() -> None:
    pipe = pipeline()
    first, second, third = pressure(NOW - DAY, user=MINE)
    times = {
        record.times.at_us
        for i, part in enumerate((first, second, third))
        for record in feed(pipe, [part], NOW + i * S)
        if isinstance(record, VitalRecord)
    }
    assert times == {NOW - DAY}


def test_the_same_values_without_a_date_are_a_repeat_only_for_two_minutes() -> None:
    pipe, unknown = pipeline(), [Vital("weight", 80.0, (), Origin(5, None, "unknown"))]
    assert [len(feed(pipe, list(unknown), NOW + at)) for at in (0, S, 90 * S, 180 * S, DAY, DAY + S)] == [1, 0, 0, 0, 1, 0]


def test_a_date_that_stands_still_does_not_hide_a_new_measurement() -> None:
    """An oximeter whose clock was never set shows the same date each time it is switched on."""
    pipe, factory = pipeline(), datetime(2017, 1, 1)  # noqa: DTZ001 - a sensor's time
    live: list[Reading] = [Vital("spo2", 97.0, (), Origin(5, factory, "not_set"))]
    stored: list[Reading] = [Vital("spo2", 97.0, (), Origin(6, factory, "not_set", is_stored=True))]
    assert [len(feed(pipe, live, NOW + at)) for at in (0, S, DAY)] == [1, 0, 1]
    assert [len(feed(pipe, stored, NOW + at)) for at in (0, S, DAY)] == [1, 0, 0]


def test_two_values_of_a_kind_in_one_result_are_both_taken() -> None:
    result: list[Reading] = [Vital("spo2", 97.0, ("fast",), origin(NOW)), Vital("spo2", 96.0, ("slow",), origin(NOW))]
    pipe = pipeline()
    assert values(feed(pipe, result, NOW)) == [("spo2", 97.0), ("spo2", 96.0)]
    assert feed(pipe, result, NOW + S) == ()


def test_the_memory_of_results_is_bounded_and_holds_a_whole_scale() -> None:
    pipe = pipeline()
    stored = [weight(NOW - i * DAY // 4, 80.0, user=MINE, is_stored=True) for i in range(MAX_RESULTS + 50)]
    for one in stored:
        feed(pipe, one, NOW + S)
    assert len(json.loads(json.dumps(pipe.state()))["spots"]["seen"]) == MAX_RESULTS
    assert all(feed(pipe, one, NOW + 2 * S) == () for one in stored[-240:])


def test_a_sensor_without_results_has_no_state_of_them() -> None:
    pipe = pipeline()
    feed(pipe, [Vital("heart_rate", 60.0), Status("battery", 80)], NOW)
    assert pipe.state()["spots"] is None


def test_what_a_sensor_says_of_its_clock_corrects_its_stored_results() -> None:
    pipe = pipeline()
    feed(
        pipe, [Status("sensor_time", datetime.fromtimestamp((NOW - 3600 * S) / 1e6, UTC).replace(tzinfo=None).isoformat())], NOW
    )
    record, *_ = feed(pipe, weight(NOW - DAY - 3600 * S, 80.0, is_stored=True), NOW + S)
    assert isinstance(record, VitalRecord)
    assert record.origin is not None
    assert (record.times.at_us, record.origin.time_source) == (NOW - DAY, "corrected")
    feed(pipe, [Status("sensor_clock_written", value=True)], NOW + 2 * S)
    record, *_ = feed(pipe, weight(NOW + DAY, 80.0), NOW + 2 * DAY)
    assert isinstance(record, VitalRecord)
    assert record.times.at_us == NOW + DAY


# Whatever a sensor sends


dates = st.none() | st.datetimes()
clocks = st.sampled_from([None, "set", "not_set", "unknown", "invalid"])
small = st.none() | st.integers(0, 255)
origins = st.builds(Origin, st.integers(0, 3), dates, clocks, small, small, st.booleans())
spot_vitals = st.builds(
    Vital,
    st.sampled_from(["systolic", "diastolic", "weight", "spo2", "temperature", "pulse_rate"]),
    st.floats(-1e3, 1e3),
    st.sampled_from([(), ("irregular_pulse",), ("body_movement",)]),
    origins,
)
others = st.sampled_from(
    [
        Status("sensor_time", "2026-01-01T00:00:00"),
        Status("sensor_clock_written", True),
        Status("failed_measurement", "x", Origin(1)),
    ]
)
batches = st.lists(
    st.tuples(
        st.lists(spot_vitals | others, max_size=4), st.integers(-900 * DAY, 900 * DAY), st.sampled_from([None, True, False])
    ),
    max_size=8,
)


def in_batch(reading: Reading, number: int) -> Reading:
    """The reading in a result of this batch: what belongs together arrives together, also at a restart."""
    if isinstance(reading, Vital | Status) and reading.origin is not None:
        return replace(reading, origin=replace(reading.origin, group=reading.origin.group + 4 * number))
    return reading


@settings(deadline=None)
@given(batches, st.sampled_from([None, (), (1,)]))
def test_the_clinic_accepts_every_record_and_a_restart_changes_nothing(
    fed: list[tuple[list[Reading], int, bool | None]], slots: tuple[int, ...] | None
) -> None:
    pipe, restarted = pipeline(slots=slots), pipeline(slots=slots)
    for number, (given_readings, after_us, answer) in enumerate(fed):
        now_us, readings = NOW + after_us, [in_batch(reading, number) for reading in given_readings]
        records = list(feed(pipe, readings, now_us))
        assert values(feed(restarted, readings, now_us)) == values(records)
        for held in pipe.spots.held if answer is not None else ():
            records += pipe.answer(held.id, Arrival(now_us, 0), is_patient=bool(answer)).records
            restarted.answer(held.id, Arrival(now_us, 0), is_patient=bool(answer))
        for record in records:
            validate_record(record)
            assert not isinstance(record, VitalRecord) or record.times.at_us <= record.times.arrived_us
        assert {type(record) for record in records} <= {VitalRecord, StatusRecord, AlertRecord, FindingRecord}
        restarted = pipeline(restarted.state(), slots=slots)
