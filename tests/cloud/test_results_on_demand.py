"""Results that a person measured on demand at the clinic: their origin, and which of them is the latest."""

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from sqlalchemy import Engine

from cloud.api import queries
from cloud.api.results import MAX_RESULT_VALUES
from cloud.changes import SensorKey
from cloud.scope import EVERY_SUBJECT
from cloud.store import Store
from drivers.kinds import NOT_MEASURED
from sync.records import CONFIRMED_KIND, UNCONFIRMED_FLAG, SpotOrigin, StatusRecord, VitalRecord
from tests.clinic_testbed import Clinic, Hub, open_all
from tests.cloud.synthetic import START_US, heart_rate, times
from tests.databases import ON_BOTH

DATABASES = ON_BOTH

CUFF = SensorKey("subject-1", "hub-1", "cuff")
DAY_US = 86_400_000_000
ORIGIN = SpotOrigin(7, "corrected", is_stored=True, local_us=START_US, clock="set", record=3, user=1)


def pressure(at_us: int, value: float, *flags: str, received_us: int = START_US) -> VitalRecord:
    """A systolic pressure that reached the hub at `received_us`."""
    return VitalRecord("cuff", "systolic", replace(times(received_us), at_us=at_us), value, flags, replace(ORIGIN, group=at_us))


def read(engine: Engine) -> tuple[list[dict[str, object]], float]:
    found = queries.read_vitals(engine, EVERY_SUBJECT, CUFF, "systolic", 0, 2 * START_US)
    return found["vitals"], found["latest"]["value"]


def test_a_result_is_read_with_its_flags_and_origin(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    hub.send(store, "vital", pressure(START_US - DAY_US, 131.0, "irregular_pulse"), heart_rate(START_US, 60.0, "cuff"))
    open_all(store, engine, clinic)
    origin = {"group": START_US - DAY_US, "time_source": "corrected", "is_stored": True, "local_us": START_US}
    origin |= {"clock": "set", "record": 3, "user": 1}
    assert read(engine)[0] == [{"at_us": START_US - DAY_US, "value": 131.0, "flags": ["irregular_pulse"], "origin": origin}]
    continuous = queries.read_vitals(engine, EVERY_SUBJECT, CUFF, "heart_rate", 0, 2 * START_US)["vitals"]
    assert continuous == [{"at_us": START_US, "value": 60.0}]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_latest_result_is_the_last_that_was_measured(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic, order: tuple[int, ...]
) -> None:
    """Whatever a sensor sends from its memory afterwards, and in whatever order its blocks are opened."""
    sealed = [
        hub.seal_records("vital", pressure(START_US - age_us, value))
        for age_us, value in ((DAY_US, 121.0), (0, 122.0), (2 * DAY_US, 123.0))
    ]
    for number in order:
        hub.send_block(store, sealed[number])
        open_all(store, engine, clinic)
    assert read(engine)[1] == 122.0


def test_a_result_from_the_clinics_future_does_not_stay_the_latest(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic
) -> None:
    hub.send(store, "vital", pressure(START_US + 300 * DAY_US, 121.0))
    hub.send(store, "vital", pressure(START_US, 122.0))
    open_all(store, engine, clinic)
    assert read(engine)[1] == 122.0


@pytest.mark.parametrize("flag", sorted(NOT_MEASURED))
def test_a_number_that_is_no_measurement_is_not_the_latest(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic, flag: str
) -> None:
    no_pulse = replace(heart_rate(START_US + 1, 0.0, "cuff"), flags=(flag,))
    values = heart_rate(START_US, 60.0, "cuff"), no_pulse, pressure(START_US, 121.0), pressure(START_US + 1, 900.0, flag)
    hub.send(store, "vital", *values)
    open_all(store, engine, clinic)
    assert read(engine)[1] == 121.0
    found = queries.read_vitals(engine, EVERY_SUBJECT, CUFF, "heart_rate", 0, 2 * START_US)
    assert (found["latest"]["value"], found["vitals"][-1]) == (60.0, {"at_us": START_US + 1, "value": 0.0, "flags": [flag]})


def test_a_result_that_may_be_another_persons_is_not_the_latest(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    hub.send(store, "vital", pressure(START_US - DAY_US, 121.0), pressure(START_US, 212.0, UNCONFIRMED_FLAG))
    open_all(store, engine, clinic)
    vitals, latest = read(engine)
    assert ([vital["value"] for vital in vitals], latest) == ([121.0, 212.0], 121.0)


@pytest.mark.parametrize(("is_patient", "values", "latest"), [(True, [121.0, 212.0], 212.0), (False, [121.0], 121.0)])
def test_the_patients_answer_removes_the_mark_or_the_value(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic, is_patient: bool, values: list[float], latest: float
) -> None:
    unsure = pressure(START_US, 212.0, "irregular_pulse", UNCONFIRMED_FLAG)
    hub.send(store, "vital", pressure(START_US - DAY_US, 121.0), unsure)
    other_sensor = StatusRecord("scale", CONFIRMED_KIND, times(START_US), False, unsure.origin)
    other_result = StatusRecord("cuff", CONFIRMED_KIND, times(START_US), False, replace(ORIGIN, group=START_US // 10))
    hub.send(store, "vital", other_sensor, other_result)
    open_all(store, engine, clinic)
    assert read(engine)[1] == 121.0
    hub.send(store, "vital", StatusRecord("cuff", CONFIRMED_KIND, times(START_US), is_patient, unsure.origin))
    open_all(store, engine, clinic)
    vitals, found = read(engine)
    assert ([vital["value"] for vital in vitals], found) == (values, latest)
    assert all(UNCONFIRMED_FLAG not in vital.get("flags", ()) for vital in vitals)
    assert vitals[-1].get("flags") == (["irregular_pulse"] if is_patient else None)


def test_an_answer_does_not_touch_a_value_that_was_never_doubtful(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic
) -> None:
    sure = pressure(START_US, 121.0)
    hub.send(store, "vital", sure, StatusRecord("cuff", CONFIRMED_KIND, times(START_US), False, sure.origin))
    open_all(store, engine, clinic)
    assert read(engine)[1] == 121.0
    assert len(read(engine)[0]) == 1


def test_old_results_do_not_make_the_hubs_clock_look_wrong(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    failed = StatusRecord("cuff", "failed_measurement", replace(times(START_US), at_us=START_US - DAY_US), "x", ORIGIN)
    hub.send(store, "vital", heart_rate(START_US, 60.0, "cuff"))
    hub.send(store, "vital", pressure(START_US - 300 * DAY_US, 121.0), failed)
    open_all(store, engine, clinic)
    (sensor,) = queries.list_sensors(engine, EVERY_SUBJECT)
    assert sensor["last_data_us"] == times(START_US).arrived_us


def result(group: int, age_us: int, values: dict[str, float | str], *flags: str) -> list[VitalRecord | StatusRecord]:
    """The records of one result of the cuff. A text is a status."""
    at, origin = replace(times(START_US), at_us=START_US - age_us), replace(ORIGIN, group=group)
    return [
        StatusRecord("cuff", kind, at, value, origin)
        if isinstance(value, str)
        else VitalRecord("cuff", kind, at, value, flags, origin)
        for kind, value in values.items()
    ]


def read_sensor(engine: Engine) -> dict[str, Any]:
    (sensor,) = queries.list_sensors(engine, EVERY_SUBJECT)
    return dict(sensor)


def test_a_sensor_has_its_results_as_groups_the_last_measured_first(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic
) -> None:
    hub.send(store, "vital", *result(1, 0, {"systolic": 128.0, "diastolic": 82.0}, "irregular_pulse"))
    hub.send(store, "vital", *result(2, DAY_US, {"systolic": 131.0, "diastolic": 84.0}))
    hub.send(store, "vital", *result(3, DAY_US // 2, {"systolic": 190.0}, UNCONFIRMED_FLAG))
    hub.send(store, "vital", *result(4, DAY_US // 4, {"failed_measurement": "blood_pressure", "cuff_status": "body_movement"}))
    hub.send(store, "vital", StatusRecord("cuff", "link", times(START_US), "absent"), heart_rate(START_US, 60.0, "cuff"))
    open_all(store, engine, clinic)
    sensor = read_sensor(engine)
    results = sensor["results"]
    assert [one["group"] for one in results] == [1, 4, 3, 2]
    assert [[value["value"] for value in one["values"]] for one in results] == [[128.0, 82.0], [], [190.0], [131.0, 84.0]]
    assert [one["is_confirmed"] for one in results] == [True, True, False, True]
    assert [(one["failed"], one["reasons"]) for one in results[:2]] == [(None, []), ("blood_pressure", ["body_movement"])]
    assert results[0]["values"][0] == {
        **{"kind": "systolic", "title": "Systolic blood pressure", "unit": "mm[Hg]"},
        **{"value": 128.0, "flags": ["irregular_pulse"]},
    }
    assert results[2]["values"][0]["flags"] == []
    told = {"time_source": "corrected", "clock": "set", "is_stored": True, "local_us": START_US, "user": 1}
    assert results[3] | told == results[3]
    assert (sensor["is_on_demand"], sensor["link"]) == (True, "absent")
    assert [(value["kind"], value["value"]) for value in sensor["values"]] == [("heart_rate", 60.0)]


@pytest.mark.parametrize("is_patient", [True, False])
def test_the_patients_answer_confirms_a_result_or_removes_it(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic, is_patient: bool
) -> None:
    hub.send(store, "vital", *result(7, 0, {"systolic": 190.0, "diastolic": 121.0}, UNCONFIRMED_FLAG))
    hub.send(store, "vital", StatusRecord("cuff", CONFIRMED_KIND, times(START_US), is_patient, ORIGIN))
    open_all(store, engine, clinic)
    found = [(one["is_confirmed"], len(one["values"])) for one in read_sensor(engine)["results"]]
    assert found == ([(True, 2)] if is_patient else [])


def test_a_long_history_shows_whole_results_only(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    pressures = {"systolic": 128.0, "diastolic": 82.0, "mean_pressure": 97.0, "pulse_rate_cuff": 70.0, "heart_rate": 70.0}
    for number in range(20):
        hub.send(store, "vital", *result(number, number * DAY_US, pressures))
    open_all(store, engine, clinic)
    results = read_sensor(engine)["results"]
    assert [one["group"] for one in results] == list(range(MAX_RESULT_VALUES // 5))
    assert {len(one["values"]) for one in results} == {5}


def test_a_sensor_that_measures_by_itself_is_not_on_demand(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    newer = VitalRecord("cuff", "kind_of_a_newer_hub", times(START_US), 5.0)
    hub.send(store, "vital", heart_rate(START_US, 60.0, "cuff"), newer)
    open_all(store, engine, clinic)
    sensor = read_sensor(engine)
    assert (sensor["is_on_demand"], sensor["results"], sensor["link"]) == (False, [], None)
    assert [(value["kind"], value["title"], value["unit"]) for value in sensor["values"]] == [
        ("heart_rate", "Heart rate", "/min"),
        ("kind_of_a_newer_hub", None, None),
    ]
