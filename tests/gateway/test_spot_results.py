"""Results measured on demand in the pipeline: repeats, time, whose they are, late alerts and the patient's answer."""

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.validate import validate_record
from config.limits import DEFAULT_LIMITS
from drivers.readings import Origin, Reading, Status, Vital
from gateway.models import LoadedModels
from gateway.pipeline import Pipeline
from gateway.spots import MAX_HELD, MAX_RESULTS
from gateway.timeline import Arrival
from sync.records import CONFIRMED_KIND, UNCONFIRMED_FLAG, AlertRecord, FindingRecord, Record, StatusRecord, VitalRecord

S, MIN, DAY = 1_000_000, 60_000_000, 86_400_000_000
NOW = round(datetime(2026, 7, 15, 8, 0, tzinfo=UTC).timestamp()) * S
MINE = 1


def pipeline(saved: Any = None, *, slots: Iterable[int] | None = (MINE,)) -> Pipeline:
    saved = json.loads(json.dumps(saved)) if saved else None
    return Pipeline("cuff", DEFAULT_LIMITS, LoadedModels(), saved, slots=slots and tuple(slots), zone=ZoneInfo("UTC"))


def origin(at_us: int, **changes: Any) -> Origin:
    measured = datetime.fromtimestamp(at_us / 1e6, UTC).replace(tzinfo=None)
    return replace(Origin(at_us // S, measured, "set"), **changes)


def pressure(at_us: int, systolic: float = 120.0, diastolic: float = 80.0, *flags: str, **changes: Any) -> list[Reading]:
    spot = origin(at_us, **changes)
    return [
        Vital("systolic", systolic, flags, spot),
        Vital("diastolic", diastolic, flags, spot),
        Vital("pulse_rate", 66.0, flags, spot),
    ]


def weight(at_us: int, kg: float, **changes: Any) -> list[Reading]:
    return [Vital("weight", kg, (), origin(at_us, **changes))]


def feed(pipe: Pipeline, readings: list[Reading], arrived_us: int) -> tuple[Record, ...]:
    return pipe.feed(readings, Arrival(arrived_us, arrived_us * 1000)).records


def values(records: Iterable[Record]) -> list[tuple[str, float]]:
    return [(record.kind, record.value) for record in records if isinstance(record, VitalRecord)]


def alerts(records: Iterable[Record]) -> list[AlertRecord]:
    return [record for record in records if isinstance(record, AlertRecord)]


def with_history(days: int = 8, **changes: Any) -> Pipeline:
    """A cuff that the patient has used twice a day, around 120/80 mmHg, with a scale's weights of 80 kg."""
    pipe = pipeline(**changes)
    for i in range(2 * days):
        at_us = NOW - (2 * days - i) * DAY // 2
        feed(pipe, pressure(at_us, 118.0 + i % 5, 79.0, user=MINE), at_us + 5 * S)
        feed(pipe, weight(at_us + MIN, 80.0 + i % 2 * 0.3, user=MINE), at_us + MIN + 5 * S)
    return pipe


# Times and repeats


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


# Late results


def test_a_late_alert_is_sent_and_marked() -> None:
    pipe = pipeline()
    (on_time,) = alerts(feed(pipe, pressure(NOW - 20 * S, 85.0, 50.0, user=MINE), NOW))
    assert on_time.reasons == ("hypotension.criterion",)
    (late,) = alerts(feed(pipe, pressure(NOW - DAY, 84.0, 50.0, user=MINE, is_stored=True), NOW + S))
    assert late.reasons == ("hypotension.criterion", "late.received")
    assert (late.onset_us, late.end_us, late.decided_us) == (NOW - DAY, NOW - DAY, NOW + S)


def test_late_alerts_are_not_suppressed_and_suppress_none() -> None:
    """Three severe results within five minutes, from the sensor's memory; then one that is measured now."""
    pipe = pipeline()
    normal = pressure(NOW - 2 * DAY + 90 * S, user=MINE)
    late = (
        [*pressure(NOW - 2 * DAY, 85.0, 50.0, user=MINE)],
        normal,
        [*pressure(NOW - 2 * DAY + 3 * MIN, 85.0, 50.0, user=MINE)],
    )
    onsets = {alert.onset_us for one in late for alert in alerts(feed(pipe, one, NOW))}
    assert onsets == {NOW - 2 * DAY, NOW - 2 * DAY + 3 * MIN}
    feed(pipe, pressure(NOW - 2 * DAY + 4 * MIN, user=MINE), NOW)
    assert len(alerts(feed(pipe, pressure(NOW, 85.0, 50.0, user=MINE), NOW + S))) == 1


def test_a_late_alert_of_low_priority_is_not_suppressed_either() -> None:
    """Two episodes of fever half an hour ago: the second would be suppressed for thirty minutes after the first."""
    pipe, found = pipeline(), list[AlertRecord]()
    for minutes, celsius in ((25, 38.2), (20, 36.9), (15, 38.3)):
        found += alerts(feed(pipe, [Vital("temperature", celsius, (), origin(NOW - minutes * MIN))], NOW))
    assert [alert.onset_us for alert in found if alert.end_us is None] == [NOW - 25 * MIN, NOW - 15 * MIN]
    assert all(alert.reasons == ("fever.criterion", "late.received") for alert in found)


def test_after_the_hubs_clock_was_set_back_results_are_no_earlier_ones() -> None:
    pipe = pipeline()
    feed(pipe, pressure(NOW + 300 * DAY, user=MINE), NOW + 300 * DAY + S)
    (alert,) = alerts(feed(pipe, pressure(NOW, 85.0, 50.0, user=MINE), NOW + S))
    assert alert.end_us is None


def test_an_earlier_result_does_not_end_an_episode_that_lasts() -> None:
    pipe = pipeline()
    (open_alert,) = alerts(feed(pipe, pressure(NOW - 20 * S, 85.0, 50.0, user=MINE), NOW))
    assert open_alert.end_us is None
    assert alerts(feed(pipe, pressure(NOW - DAY, user=MINE), NOW + S)) == []
    (end,) = alerts(feed(pipe, pressure(NOW + MIN, user=MINE), NOW + MIN + S))
    assert (end.id, end.end_us) == (open_alert.id, NOW + MIN)


def test_two_severe_results_from_the_memory_confirm_each_other() -> None:
    pipe = pipeline()
    feed(pipe, pressure(NOW, user=MINE), NOW + S)
    first = alerts(feed(pipe, pressure(NOW - DAY, 190.0, 115.0, user=MINE, is_stored=True), NOW + 2 * S))
    second = alerts(feed(pipe, pressure(NOW - DAY + 5 * MIN, 192.0, 116.0, user=MINE, is_stored=True), NOW + 3 * S))
    assert {alert.priority for alert in first} == {"medium"}
    assert second[-1].priority == "high"
    assert second[-1].id == first[0].id
    assert all(alert.end_us is not None and "late.received" in alert.reasons for alert in first + second)


def test_earlier_results_count_in_the_mean_of_the_week() -> None:
    pipe = pipeline()
    feed(pipe, pressure(NOW, 150.0, 95.0, user=MINE), NOW + S)
    found: list[AlertRecord] = []
    for i in range(12):
        found += alerts(feed(pipe, pressure(NOW - 3 * DAY + i * DAY // 4, 150.0, 95.0, user=MINE, is_stored=True), NOW + 2 * S))
    found += alerts(feed(pipe, pressure(NOW + MIN, 150.0, 95.0, user=MINE), NOW + MIN + S))
    assert {alert.kind for alert in found} == {"bp_trend"}
    feed(pipe, weight(NOW, 80.0, user=MINE), NOW + MIN + 2 * S)
    feed(pipe, weight(NOW - DAY, 79.0, user=MINE, is_stored=True), NOW + MIN + 3 * S)
    rules = pipe.state()["vitals"]["rules"]
    assert (len(rules["pressure"]), [kg for _, kg in rules["weight"]]) == (14, [80.0, 79.0])


def test_a_stored_result_without_a_time_raises_an_alert_but_counts_in_no_mean() -> None:
    pipe = with_history()
    before = pipe.state()["vitals"]
    undated = [replace(one, origin=Origin(9, None, "unknown", user=MINE, is_stored=True)) for one in pressure(NOW, 85.0, 50.0)]
    (alert,) = alerts(feed(pipe, undated, NOW))  # type: ignore[arg-type]
    assert alert.reasons == ("hypotension.criterion", "late.unknown_time")
    heavy: list[Reading] = [Vital("weight", 84.0, (), Origin(10, None, "unknown", user=MINE, is_stored=True))]
    assert alerts(feed(pipe, heavy, NOW)) == []
    assert pipe.state()["vitals"] == before


# Persons


@pytest.mark.parametrize("slots", [(2,), ()])
def test_another_persons_slot_is_counted_and_leaves_nothing(slots: tuple[int, ...]) -> None:
    pipe = pipeline(slots=slots)
    assert feed(pipe, pressure(NOW, 190.0, 115.0, user=MINE), NOW + S) == ()
    assert feed(pipe, [Status("failed_measurement", "blood pressure", origin(NOW + MIN, user=MINE))], NOW + MIN) == ()
    assert pipe.spots.counters.of_others == 2
    assert "190" not in json.dumps({name: part for name, part in pipe.state().items() if name != "spots"})
    assert pipe.state()["spots"]["held"] == []


def test_a_recording_has_one_person() -> None:
    assert len(values(feed(pipeline(slots=None), pressure(NOW, user=5), NOW))) == 3


@pytest.mark.parametrize(
    ("result", "is_held"),
    [
        (pressure(NOW, 160.0, 80.0), False),
        (pressure(NOW, 170.0, 80.0), True),
        (pressure(NOW, 120.0, 48.0), True),
        (pressure(NOW, 170.0, 80.0, user=MINE), False),
        (weight(NOW, 85.9), False),
        (weight(NOW, 62.0), True),
        (weight(NOW, 62.0, user=MINE), False),
        ([Vital("temperature", 36.5, (), origin(NOW))], False),
    ],
)
def test_an_implausible_result_without_a_slot_is_held(result: list[Reading], is_held: bool) -> None:
    pipe = with_history()
    records = feed(pipe, result, NOW + S)
    assert (records == ()) is is_held
    assert len(pipe.spots.held) == is_held


def test_without_a_history_nothing_is_implausible() -> None:
    assert feed(pipeline(), [*pressure(NOW, 170.0, 60.0), *weight(NOW + MIN, 50.0)], NOW + 2 * MIN) != ()


def test_a_held_result_becomes_an_ordinary_one_when_the_patient_says_yes() -> None:
    pipe = with_history()
    assert feed(pipe, weight(NOW, 87.0), NOW + S) == ()
    (held,) = pipe.spots.held
    pipe = pipeline(pipe.state())
    records = pipe.answer(held.id, Arrival(NOW + DAY, 0), is_patient=True).records
    (record,) = (record for record in records if isinstance(record, VitalRecord))
    assert (record.value, record.flags, record.times.at_us, record.times.arrived_us) == (87.0, (), NOW, NOW + S)
    assert pipe.spots.held == ()
    assert pipe.answer(held.id, Arrival(NOW + DAY, 0), is_patient=True).records == ()


def test_a_part_of_a_held_result_that_follows_is_held_with_it() -> None:
    """Also after a restart, and though a temperature alone is nobody's."""
    pipe = with_history()
    heavy = Vital("weight", 61.0, (), origin(NOW))
    part = Vital("temperature", 36.5, (), origin(NOW))
    feed(pipe, [heavy], NOW + S)
    pipe = pipeline(pipe.state())
    assert feed(pipe, [part], NOW + 2 * S) == ()
    (held,) = pipe.spots.held
    assert held.values == [("weight", 61.0, ()), ("temperature", 36.5, ())]


@pytest.mark.parametrize(("first", "is_taken"), [(weight(NOW, 61.0), False), (weight(NOW, 80.0), True)])
def test_a_body_composition_is_of_the_person_who_was_weighed_just_before(first: list[Reading], is_taken: bool) -> None:
    pipe = with_history()
    composition: list[Reading] = [Vital("body_fat", 31.0, (), Origin(99))]
    feed(pipe, first, NOW + S)
    assert (feed(pipe, composition, NOW + 2 * S) != ()) is is_taken
    assert len(pipe.spots.held) == (0 if is_taken else 2)
    later: list[Reading] = [Vital("body_fat", 32.0, (), Origin(100))]
    assert feed(pipe, later, NOW + DAY) != ()


def test_a_body_composition_after_another_users_weight_is_dropped() -> None:
    pipe = with_history()
    feed(pipe, weight(NOW, 80.0, user=2), NOW + S)
    assert feed(pipe, [Vital("body_fat", 31.0, (), Origin(99))], NOW + 2 * S) == ()
    assert (pipe.spots.counters.of_others, pipe.spots.held) == (2, ())


def test_a_held_result_of_another_person_is_deleted() -> None:
    pipe = with_history()
    rules = pipe.state()["vitals"]
    feed(pipe, weight(NOW, 61.4375), NOW + S)
    (held,) = pipe.spots.held
    assert "61.4375" in json.dumps(pipe.state())
    assert pipe.answer(held.id, Arrival(NOW + DAY, 0), is_patient=False).records == ()
    assert "61.4375" not in json.dumps(pipe.state())
    assert pipe.state()["vitals"] == rules
    assert pipe.spots.counters.rejected == 1
    assert feed(pipe, weight(NOW, 61.4375), NOW + DAY) == ()  # sent again
    assert pipe.spots.held == ()


def test_a_value_that_raises_an_alert_by_itself_is_sent_marked_and_not_in_the_means() -> None:
    pipe = with_history()
    rules = pipe.state()["vitals"]["rules"]
    records = feed(pipe, pressure(NOW, 210.0, 125.0, "irregular_pulse"), NOW + S)
    sent = [record for record in records if isinstance(record, VitalRecord)]
    assert [record.flags for record in sent] == [("irregular_pulse", UNCONFIRMED_FLAG)] * 3
    (*_, alert) = alerts(records)
    assert (alert.kind, alert.end_us) == ("bp_crisis", NOW)
    assert alert.reasons == ("bp_crisis.criterion", "person.unconfirmed")
    assert pipe.state()["vitals"]["rules"] == rules
    (held,) = pipe.spots.held
    status, *others = pipe.answer(held.id, Arrival(NOW + MIN, 0), is_patient=True).records
    assert isinstance(status, StatusRecord)
    assert (status.kind, status.value, status.origin) == (CONFIRMED_KIND, True, sent[0].origin)
    assert all(isinstance(record, AlertRecord | FindingRecord) for record in others)
    assert alerts(others)[-1].id == alert.id
    assert [NOW / 1e6, 210.0, 125.0] in pipe.state()["vitals"]["rules"]["pressure"]


def test_a_marked_value_of_another_person_is_corrected_at_the_clinic() -> None:
    pipe = with_history()
    feed(pipe, pressure(NOW, 210.0, 125.0), NOW + S)
    (held,) = pipe.spots.held
    (status,) = pipe.answer(held.id, Arrival(NOW + MIN, 0), is_patient=False).records
    assert isinstance(status, StatusRecord)
    assert (status.kind, status.value) == (CONFIRMED_KIND, False)


def test_after_a_yes_the_next_similar_result_is_not_held() -> None:
    pipe = with_history()
    feed(pipe, pressure(NOW, 170.0, 80.0), NOW + S)
    (held,) = pipe.spots.held
    pipe.answer(held.id, Arrival(NOW + MIN, 0), is_patient=True)
    assert len(values(feed(pipe, pressure(NOW + DAY, 168.0, 80.0), NOW + DAY + S))) == 3


def test_the_results_that_wait_are_bounded_and_counted() -> None:
    pipe = with_history()
    for day in range(MAX_HELD + 3):
        feed(pipe, weight(NOW + day * DAY, 61.0), NOW + day * DAY + S)
    assert len(pipe.spots.held) == MAX_HELD
    assert pipe.spots.counters.given_up == 3


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
