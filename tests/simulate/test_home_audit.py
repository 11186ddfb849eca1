"""The audit of the demo's home: what counts as lost, as held twice, and as still in the sensor; and the demo's verdict."""

from typing import Any

import pytest

from gateway.simulate.audit import Audit
from gateway.simulate.demo_report import DemoResult, compare_home_alerts
from gateway.simulate.home_audit import IN_FLIGHT_US, SensorLog, audit_sensor
from gateway.simulate.peripherals.watch import STEPS

Json = dict[str, Any]
NO_LOSS = Audit(0, 0, 0, 0, 0, 0, 0)


def measured(log: SensorLog, payload: str | None, **values: float | str) -> None:
    """Let the cuff measure, and the hub confirm the result unless `payload` is None."""
    log.on_event({"event": "measured", "values": values}, 0)
    if payload is not None:
        log.on_event({"event": "confirmed", "characteristic": "2A35", "payload": payload}, 0)


def sent(log: SensorLog, characteristic: str, payload: bytes, at_us: int = 0) -> None:
    log.on_event({"event": "sent", "characteristic": characteristic, "payload": payload.hex()}, at_us)


def record(kind: str, value: float | str, group: int | None = None, sensor: str = "cuff") -> Json:
    origin = None if group is None else {"group": group}
    type_ = "status" if isinstance(value, str) else "vital"
    return {"type": type_, "sensor": sensor, "kind": kind, "value": value, "origin": origin}


def pressure(group: int, systolic: float, diastolic: float) -> list[Json]:
    """What the clinic holds of a result, with a kind that the audit does not know."""
    return [
        record("systolic", systolic, group),
        record("diastolic", diastolic, group),
        record("mean_pressure", 97.0, group),
    ]


@pytest.fixture
def log() -> SensorLog:
    """A cuff that measured twice and failed once; all three were confirmed."""
    log = SensorLog("2A35")
    measured(log, "aa", systolic=128, diastolic=82)
    measured(log, "bb", systolic=128, diastolic=82)
    measured(log, "cc", failed_measurement="blood_pressure")
    return log


FAILED = record("failed_measurement", "blood_pressure", 3)


def test_every_result_is_held_once(log: SensorLog) -> None:
    records = [
        *pressure(1, 128.0, 82.0),
        *pressure(2, 128.0, 82.0),
        FAILED,
        record("systolic", 1.0, 9, "other"),
        {"type": "gap"},
    ]
    result = audit_sensor(log, "cuff", records)
    assert (result.measured, result.in_sensor, result.stored, result.lost, result.repeated) == (3, 0, 3, 0, 0)
    assert result.passed


def test_a_confirmed_result_that_the_clinic_lacks_is_lost_and_an_unconfirmed_one_is_still_in_the_sensor(log: SensorLog) -> None:
    measured(log, None, systolic=131, diastolic=84)
    result = audit_sensor(log, "cuff", [*pressure(1, 128.0, 82.0), FAILED])
    assert (result.measured, result.in_sensor, result.stored, result.lost) == (4, 1, 2, 1)
    assert not result.passed


@pytest.mark.parametrize(
    "extra",
    [
        pressure(4, 128.0, 82.0),  # the same result as another group
        [record("systolic", 128.0, 1)],  # the same value of the same group
        pressure(4, 128.0, 83.0),  # never measured
    ],
)
def test_a_result_that_is_held_twice_or_was_never_measured_is_a_fault(log: SensorLog, extra: list[Json]) -> None:
    result = audit_sensor(log, "cuff", [*pressure(1, 128.0, 82.0), *pressure(2, 128.0, 82.0), FAILED, *extra])
    assert result.repeated == 1
    assert not result.passed


def test_continuous_values_are_compared_by_their_number() -> None:
    log = SensorLog()
    sent(log, "2A37", bytes((0, 72)))
    sent(log, "2A37", bytes((0, 72)))
    sent(log, "2A5F", bytes.fromhex("00 6100 4400"))
    sent(log, STEPS, (300).to_bytes(4, "little"))
    held = [record("heart_rate", 72.0), record("heart_rate", 72.0), record("spo2", 97.0), record("pulse_rate", 68.0)]
    held += [record("steps", 300.0), record("steps", 0.0)]  # the hub also reads the steps when it connects
    result = audit_sensor(log, "cuff", held)
    assert (result.values_sent, result.values_stored, result.values_lost, result.values_repeated) == (5, 6, 0, 0)
    assert audit_sensor(log, "cuff", held[1:]).values_lost == 1
    assert audit_sensor(log, "cuff", [*held, held[0]]).values_repeated == 1


@pytest.mark.parametrize(("age_us", "lost"), [(IN_FLIGHT_US, 0), (IN_FLIGHT_US + 1, 1)])
def test_a_value_that_was_sent_just_before_the_link_ended_may_be_missing(age_us: int, lost: int) -> None:
    log = SensorLog()
    sent(log, "2A37", bytes((0, 72)), at_us=1_000_000)
    log.on_event({"event": "disconnected"}, 1_000_000 + age_us)
    result = audit_sensor(log, "cuff", [])
    assert (result.values_lost, result.values_in_flight) == (lost, 1 - lost)


def test_a_severe_pressure_must_raise_an_alert_and_nothing_else_may() -> None:
    crisis, other = {"kind": "bp_crisis"}, {"kind": "spo2_low"}
    assert compare_home_alerts([crisis], 1).passed
    assert compare_home_alerts([], 0).passed
    assert [episode.kind for episode in compare_home_alerts([], 1).missed] == ["bp_crisis"]
    assert compare_home_alerts([crisis, other], 1).unexpected == (other,)
    assert compare_home_alerts([crisis], 0).unexpected == (crisis,)


def test_the_demo_fails_if_one_sensor_or_one_alert_does(log: SensorLog) -> None:
    whole = audit_sensor(log, "cuff", [*pressure(1, 128.0, 82.0), *pressure(2, 128.0, 82.0), FAILED])
    lossy = audit_sensor(log, "cuff", [])
    assert DemoResult(NO_LOSS, 0, {"cuff": whole}).passed
    assert "passed" in DemoResult(NO_LOSS, 0, {"cuff": whole}).format()
    failed = DemoResult(NO_LOSS, 0, {"cuff": lossy, "scale": whole})
    assert not failed.passed
    assert "cuff: 3 results measured, 0 at the clinic, 0 still in the sensor" in failed.format()
    assert "3 lost, 0 twice" in failed.format()
    assert failed.as_json()["sensors"]["cuff"]["lost"] == 3
    assert not DemoResult(NO_LOSS, 0, {}, compare_home_alerts([], 1)).passed
    assert not DemoResult(NO_LOSS, 1, {"cuff": whole}).passed
