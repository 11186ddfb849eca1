"""The rules on vital signs; the expected findings follow from the numbers in the guidelines."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.limits import DEFAULT_LIMITS, PLAUSIBLE
from models.findings import STALE_REASON, Finding
from models.rules.vitals import VitalRules
from tests.models.patient import DAY, HOUR, MINUTE, START_S, US_PER_S, Patient, episodes, kinds


@pytest.mark.parametrize(
    ("pressure", "severe"),
    [((179, 109), False), ((180, 100), True), ((150, 110), True), ((181, 111), True)],
)
def test_a_severe_pressure_is_reported_at_once(pressure: tuple[float, float], severe: bool) -> None:
    found = Patient().pressure(0, *pressure)
    assert set(kinds(found)) == ({"bp_crisis"} if severe else set())
    if severe:
        assert (found[-1].measured["systolic_mmhg"], found[-1].measured["diastolic_mmhg"]) == pressure
        assert found[-1].measured["readings"] == 1


def test_a_second_severe_reading_confirms_a_crisis_only_within_ten_minutes() -> None:
    patient = Patient()
    patient.pressure(0, 190, 100)
    assert patient.pressure(6 * MINUTE, 185, 100)[-1].measured["readings"] == 2
    assert patient.pressure(10 * HOUR, 185, 100)[-1].measured["readings"] == 1


def test_a_crisis_ends_when_both_pressures_are_clearly_below_their_limits() -> None:
    patient = Patient()
    patient.pressure(0, 190, 120)
    assert patient.pressure(300, 178, 100) == []
    assert patient.pressure(600, 150, 107) == []
    assert episodes(patient.pressure(900, 150, 90)) == [("bp_crisis", 0, 900)]
    assert patient.pressure(1200, 150, 90) == []


def test_hypotension_is_at_most_90_mmhg_as_news2_scores_it() -> None:
    patient = Patient()
    assert patient.pressure(0, 91, 60) == []
    assert episodes(patient.pressure(60, 90, 60)) == [("hypotension", 60, None)]
    assert patient.pressure(120, 95, 60) == []
    assert episodes(patient.pressure(180, 96, 60)) == [("hypotension", 60, 180)]


def measure_week(patient: Patient, first_day: int, systolic: float, diastolic: float) -> list[Finding]:
    """Take two readings each morning and evening for a week."""
    found = []
    for day in range(first_day, first_day + 7):
        for at in (0, 2 * MINUTE, 12 * HOUR, 12 * HOUR + 2 * MINUTE):
            found += patient.pressure(day * DAY + at, systolic, diastolic)
    return found


def test_the_home_mean_needs_twelve_readings() -> None:
    (found,) = measure_week(Patient(), 0, 136, 80)
    assert episodes([found]) == [("bp_trend", 2 * DAY + 12 * HOUR + 2 * MINUTE, None)]
    assert (found.measured["systolic_mmhg"], found.measured["days"]) == (136.0, 7)
    assert measure_week(Patient(), 0, 134, 84) == []
    assert kinds(measure_week(Patient(), 0, 120, 85)) == ["bp_trend"]


def test_readings_from_one_day_do_not_make_a_home_mean() -> None:
    patient = Patient()
    assert [f for i in range(20) for f in patient.pressure(i * MINUTE, 150, 95)] == []


def test_a_mean_that_rises_by_10_mmhg_in_a_week_is_reported_below_the_limit() -> None:
    patient = Patient()
    assert measure_week(patient, 0, 115, 70) == []
    (found,) = measure_week(patient, 7, 127, 75)
    assert found.kind == "bp_rise"
    assert 10 <= found.measured["rise_mmhg"] < 12
    assert episodes(measure_week(patient, 14, 115, 70)) == [
        (found.kind, found.onset_s - START_S, pytest.approx(17 * DAY, abs=4 * DAY))
    ]


def test_readings_survive_a_restart() -> None:
    patient = Patient()
    for i in range(11):
        assert patient.pressure(i * 8 * HOUR, 140, 80) == []
    patient.measure(0, "weight", 80.0)
    resumed = Patient()
    resumed.rules = VitalRules(DEFAULT_LIMITS, json.loads(json.dumps(patient.rules.state())))
    assert kinds(resumed.pressure(90 * HOUR, 140, 80)) == ["bp_trend"]
    assert kinds(resumed.measure(2 * DAY, "weight", 82.1)) == ["weight_gain"]


@pytest.mark.parametrize(("percent", "limit"), [(94, None), (93, 93), (92, 93), (91, 91), (86, 91), (85, 85)])
def test_a_single_low_saturation_is_reported_at_once_with_the_most_severe_limit_passed(
    percent: float, limit: float | None
) -> None:
    assert [f.measured["limit_percent"] for f in Patient().measure(0, "spo2", percent)] == ([limit] if limit else [])


def test_a_continuous_saturation_must_stay_low_to_be_reported() -> None:
    patient = Patient()
    found = [(at, f) for at in range(60) for f in patient.measure(at, "spo2", 90 if 10 <= at < 29 else 96, "continuous")]
    assert found == []
    found = [(at, f) for at in range(100, 160) for f in patient.measure(at, "spo2", 84 if at >= 130 else 92, "continuous")]
    assert [(at, f.measured["limit_percent"]) for at, f in found] == [(120, 93), (150, 85)]
    assert episodes(patient.measure(160, "spo2", 97, "continuous")) == [("spo2_low", 100, 160)]


def test_a_low_saturation_ends_only_above_its_hysteresis() -> None:
    patient = Patient()
    assert episodes(patient.measure(0, "spo2", 93)) == [("spo2_low", 0, None)]
    assert patient.measure(60, "spo2", 95) == []
    assert episodes(patient.measure(120, "spo2", 96)) == [("spo2_low", 0, 120)]


def test_low_values_before_and_after_a_gap_do_not_add_up() -> None:
    patient = Patient()
    for at in (*range(15), *range(100, 115)):
        assert patient.measure(at, "spo2", 90, "continuous") == []


def test_limits_for_spo2_scale_2_can_be_set() -> None:
    scale_2 = DEFAULT_LIMITS.with_values({"spo2_low": 85, "spo2_very_low": 83, "spo2_critical": 80})
    assert Patient(scale_2).measure(0, "spo2", 88) == []
    assert kinds(Patient(scale_2).measure(0, "spo2", 84)) == ["spo2_low"]


def test_an_episode_without_a_newer_value_is_lost_after_a_day_and_a_half() -> None:
    patient = Patient()
    patient.pressure(0, 85, 60)
    assert list(patient.rules.advance_to(round((START_S + 36 * HOUR) * US_PER_S))) == []
    (lost,) = patient.rules.advance_to(round((START_S + 36 * HOUR + 1) * US_PER_S))
    assert episodes([lost]) == [("hypotension", 0, 0)]
    assert (lost.lost, lost.reasons) == (True, (STALE_REASON,))
    assert list(patient.rules.advance_to(round((START_S + 99 * DAY) * US_PER_S))) == [], "it is said once"


def test_a_continuous_value_is_stale_after_five_minutes() -> None:
    patient = Patient()
    found = [f for at in range(30) for f in patient.measure(at, "spo2", 80, "continuous")]
    assert found[-1].measured["limit_percent"] == 85
    (lost,) = patient.rules.advance_to(round((START_S + 29 + 301) * US_PER_S))
    assert (lost.kind, lost.end_s, lost.lost) == ("spo2_low", START_S + 29, True)
    assert patient.measure(400, "spo2", 84, "continuous") == [], "an abnormal value does not end it, but must persist"
    (recovered,) = patient.measure(401, "spo2", 97, "continuous")
    assert (recovered.onset_s, recovered.end_s) == (lost.onset_s, START_S + 401)
    assert (recovered.recovered, recovered.lost) == (True, False)


def test_the_value_after_a_stale_episode_is_judged_anew() -> None:
    patient = Patient()
    patient.pressure(0, 190, 100)
    patient.pressure(300, 190, 100)
    found = patient.pressure(3 * DAY, 185, 100)
    assert episodes(found)[0] == ("bp_crisis", 0, 300)
    assert [(f.lost, f.recovered) for f in found] == [(True, False), (False, False), (False, False)]
    assert (found[-1].onset_s - START_S, found[-1].measured["readings"]) == (3 * DAY, 1)
    normal = patient.pressure(6 * DAY, 130, 80)
    assert [(f.lost, f.recovered) for f in normal] == [(True, False), (False, True)]


def test_a_late_value_leaves_no_episode_that_could_become_stale() -> None:
    patient, now = Patient(), round((START_S + 20 * DAY) * US_PER_S)
    found: list[Finding] = []
    for at, systolic in ((20 * DAY, 120), (DAY, 85), (5 * DAY, 86), (9 * DAY, 120)):
        found += patient.rules.feed_result("systolic", systolic, round((START_S + at) * US_PER_S), now)
        found += patient.rules.feed_result("diastolic", 60, round((START_S + at) * US_PER_S), now)
    assert episodes(found) == [("hypotension", DAY, DAY), ("hypotension", 5 * DAY, 5 * DAY)]
    assert not any(finding.lost for finding in found)


def test_the_mean_of_a_week_is_stale_after_a_week() -> None:
    patient = Patient()
    measure_week(patient, 0, 150, 80)
    last = round((START_S + 6 * DAY + 12 * HOUR + 2 * MINUTE) * US_PER_S)
    assert list(patient.rules.advance_to(last + 7 * DAY * US_PER_S)) == []
    assert kinds(list(patient.rules.advance_to(last + 8 * DAY * US_PER_S))) == ["bp_trend"]


def test_what_was_open_at_a_restart_is_ended_by_a_normal_value() -> None:
    patient = Patient()
    patient.pressure(0, 190, 100)
    resumed = Patient()
    resumed.rules = VitalRules(DEFAULT_LIMITS, json.loads(json.dumps(patient.rules.state())))
    assert list(resumed.rules.advance_to(round((START_S + 9 * DAY) * US_PER_S))) == []
    (recovered,) = resumed.pressure(9 * DAY, 130, 80)
    assert episodes([recovered]) == [("bp_crisis", 0, 9 * DAY)]
    assert recovered.recovered
    assert "lost" not in resumed.rules.state() or not resumed.rules.state()["lost"]


@pytest.mark.parametrize(
    ("celsius", "kind", "limit"),
    [(37.9, None, 0), (38.0, "fever", 38.0), (39.1, "fever", 39.1), (35.1, None, 0), (35.0, "hypothermia", 35.0)],
)
def test_temperatures_are_reported_at_the_news2_limits(celsius: float, kind: str | None, limit: float) -> None:
    found = Patient().measure(0, "temperature", celsius)
    assert [(f.kind, f.measured["limit_celsius"]) for f in found] == ([(kind, limit)] if kind else [])


def test_a_rising_fever_is_one_episode() -> None:
    patient = Patient()
    found = [f for hour, c in enumerate([38.2, 39.2, 38.0, 37.8, 37.6]) for f in patient.measure(hour * HOUR, "temperature", c)]
    assert episodes(found) == [("fever", 0, None), ("fever", 0, None), ("fever", 0, 4 * HOUR)]
    assert found[-1].measured["temperature_celsius"] == 39.2


def test_an_irregular_pulse_in_two_of_three_cuff_readings_is_reported() -> None:
    patient = Patient()
    flags = ["irregular_pulse", "", "irregular_pulse", "", ""]
    found = [f for i, flag in enumerate(flags) for f in patient.pressure(i * HOUR, 120, 80, *filter(None, [flag]))]
    assert episodes(found) == [("irregular_pulse", 2 * HOUR, None), ("irregular_pulse", 2 * HOUR, 3 * HOUR)]


@pytest.mark.parametrize("kind", PLAUSIBLE)
def test_an_implausible_value_is_inconclusive_and_changes_nothing(kind: str) -> None:
    patient = Patient()
    for value in (PLAUSIBLE[kind][0] - 0.1, PLAUSIBLE[kind][1] + 0.1):
        (found,) = VitalRules(DEFAULT_LIMITS).feed(kind, value, START_S * US_PER_S)
        assert found.inconclusive == "out_of_distribution"
    patient.pressure(0, 190, 120)
    assert [f.inconclusive for f in patient.measure(60, "systolic", 30)] == ["out_of_distribution"]
    assert patient.pressure(120, 190, 120)[-1].measured["readings"] == 2


def test_a_value_that_its_sensor_flags_as_doubtful_is_inconclusive() -> None:
    assert [f.inconclusive for f in Patient().pressure(0, 200, 130, "body_movement")] == ["noise", "noise"]


def test_a_reversed_pressure_raises_no_alarm() -> None:
    assert [f.inconclusive for f in Patient().pressure(0, 120, 190, "implausible")] == ["noise", "noise"]


def test_a_repeated_reading_counts_once() -> None:
    patient = Patient()
    patient.pressure(0, 190, 120)
    assert patient.pressure(0, 190, 120) == []
    assert patient.measure(0, "heart_rate", 300) == []


def test_rules_continue_after_the_clock_is_set_back() -> None:
    patient = Patient()
    assert patient.pressure(5 * HOUR, 120, 80) == []
    assert set(kinds(patient.pressure(0, 190, 120))) == {"bp_crisis"}
    for at in (*range(100, 110), *range(15)):
        assert patient.measure(at, "spo2", 90, "continuous") == []
    assert [at for at in range(15, 25) if patient.measure(at, "spo2", 90, "continuous")] == [20]


values = st.tuples(st.sampled_from([*PLAUSIBLE, "battery"]), st.floats(-10, 400), st.integers(0, 3 * DAY), st.booleans())


@settings(deadline=None)
@given(st.lists(values, max_size=60))
def test_for_any_values_episodes_are_reported_before_they_end(measured: list[tuple[str, float, int, bool]]) -> None:
    patient, found = Patient(), []
    for kind, value, at, continuous in sorted(measured, key=lambda m: m[2]):
        found += patient.measure(at, kind, value, *(["continuous"] if continuous else []))
    ongoing, lost = set(), set()
    for finding in found:
        if finding.inconclusive:
            continue
        key = finding.kind, finding.onset_s
        if finding.end_s is None:
            ongoing.add(key)
            continue
        assert finding.end_s >= finding.onset_s
        (lost if finding.recovered else ongoing).remove(key)
        if finding.lost:
            lost.add(key)


@pytest.mark.parametrize("flag", ["demonstration", "testing", "invalid", "questionable", "nonpulsatile", "sensor_unconnected"])
def test_a_low_saturation_that_the_oximeter_does_not_vouch_for_neither_raises_nor_ends_an_episode(flag: str) -> None:
    patient = Patient()
    assert [f.inconclusive for f in patient.measure(0, "spo2", 70, flag)] == ["noise"]
    assert episodes(patient.measure(60, "spo2", 70, "validated", "from_storage")) == [("spo2_low", 60, None)]
    assert [f.inconclusive for f in patient.measure(120, "spo2", 99, flag)] == ["noise"]
    assert episodes(patient.measure(180, "spo2", 99, "validated")) == [("spo2_low", 60, 180)]


@pytest.mark.parametrize(
    ("kind", "key", "values", "told"),
    [
        ("spo2", "spo2_percent", (85, 84, 83, 88, 70, 71), [85, 83, 70]),  # 2 % is the hysteresis
        ("systolic", "systolic_mmhg", (88, 84, 83, 60), [88, 83, 60]),
        ("temperature", "temperature_celsius", (39.2, 39.4, 39.5, 40.2), [39.2, 39.5, 40.2]),
    ],
)
def test_an_open_episode_is_reported_again_with_a_value_that_is_worse_by_the_hysteresis(
    kind: str, key: str, values: tuple[float, ...], told: list[float]
) -> None:
    patient = Patient()
    found = [one for n, value in enumerate(values) for one in patient.measure(n * 10 * MINUTE, kind, value)]
    assert [one.measured[key] for one in found] == told
    assert {one.end_s for one in found} == {None}


def test_the_worse_value_of_a_continuous_sensor_must_persist() -> None:
    patient = Patient()
    low = [80.0] * 60 + [74.0] * 10 + [80.0] * 30 + [77.0] * 30
    found = [one for n, value in enumerate(low) for one in patient.measure(n, "spo2", value, "continuous")]
    assert [(one.measured["spo2_percent"], one.end_s) for one in found] == [(80.0, None), (74.0, None)]
    assert len(found) == 2
