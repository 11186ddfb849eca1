"""Results measured on demand in the pipeline: whose they are, and the patient's answer."""

import json

import pytest

from drivers.readings import Origin, Reading, Status, Vital
from gateway.spots import MAX_HELD
from gateway.timeline import Arrival
from sync.records import CONFIRMED_KIND, UNCONFIRMED_FLAG, AlertRecord, FindingRecord, StatusRecord, VitalRecord
from tests.gateway.spot_pipeline import (
    DAY,
    MIN,
    MINE,
    NOW,
    S,
    alerts,
    feed,
    origin,
    pipeline,
    pressure,
    values,
    weight,
    with_history,
)


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
