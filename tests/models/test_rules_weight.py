"""The rules on weight: a gain within days, and a slow trend."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from models.findings import Finding
from tests.models.patient import DAY, START_S, Patient, episodes, kinds


def test_a_gain_of_more_than_2_kg_in_3_days_is_reported() -> None:
    patient = Patient()
    found = [f for day, kg in enumerate([80.0, 80.7, 81.4, 82.0]) for f in patient.measure(day * DAY, "weight", kg)]
    assert found == []
    (gained,) = patient.measure(3 * DAY + 60, "weight", 82.2)
    assert gained.measured["gain_kg"] == pytest.approx(2.1)
    assert episodes(patient.measure(4 * DAY, "weight", 82.0)) == [("weight_gain", 3 * DAY + 60, 4 * DAY)]


def test_a_weight_gain_ends_only_below_its_hysteresis() -> None:
    patient = Patient()
    for day in range(3):
        assert patient.measure(day * DAY, "weight", 80.0) == []
    assert episodes(patient.measure(3 * DAY, "weight", 82.2)) == [("weight_gain", 3 * DAY, None)]
    assert patient.measure(4 * DAY, "weight", 81.6) == []
    assert episodes(patient.measure(5 * DAY, "weight", 81.4)) == [("weight_gain", 3 * DAY, 5 * DAY)]


def test_the_same_gain_over_a_week_is_not_reported() -> None:
    patient = Patient()
    assert [f for day in range(8) for f in patient.measure(day * DAY, "weight", 80 + 0.4 * day)] == []


def test_one_heavy_reading_of_three_is_not_a_gain() -> None:
    patient = Patient()
    patient.measure(0, "weight", 80.0)
    found = [f for i, kg in enumerate([80.2, 83.0, 80.3]) for f in patient.measure(DAY + 60 * i, "weight", kg)]
    assert found == []


def test_another_persons_weight_is_inconclusive_and_not_kept() -> None:
    patient = Patient()
    patient.measure(0, "weight", 80.0)
    for at in (60, 120):
        (found,) = patient.measure(at, "weight", 62.0)
        assert found.inconclusive == "out_of_distribution"
    assert patient.measure(DAY, "weight", 80.2) == []


def test_the_comparison_starts_over_when_the_scale_has_a_new_user() -> None:
    patient = Patient()
    patient.measure(0, "weight", 80.0)
    assert [f.inconclusive for f in patient.measure(DAY, "weight", 62.0)] == ["out_of_distribution"]
    assert patient.measure(2 * DAY, "weight", 62.3) == []
    assert kinds(patient.measure(3 * DAY, "weight", 64.5)) == ["weight_gain"]


def weigh(patient: Patient, weights: Sequence[float], first_day: int = 0) -> list[Finding]:
    return [f for day, kg in enumerate(weights, first_day) for f in patient.measure(day * DAY, "weight", kg)]


def test_a_slow_gain_is_a_trend_where_no_three_days_show_it() -> None:
    patient = Patient()
    found = weigh(patient, [*[80.0] * 20, *(80 + day / 7 for day in range(1, 15))])
    assert kinds(found) == ["weight_trend"]
    (raised,) = found
    assert raised.onset_s - START_S == pytest.approx(30 * DAY, abs=2 * DAY)
    assert raised.measured["gain_kg"] >= 1
    assert episodes(weigh(patient, [80.0] * 5, 34))[-1][0] == "weight_trend"


def test_a_trend_needs_a_weight_on_half_of_the_days() -> None:
    assert weigh(Patient(), [80.0] * 6 + [81.9] * 3) == []
    assert kinds(weigh(Patient(), [80.0] * 8 + [81.9] * 3)) == ["weight_trend"]


def stable_weights(rng: np.random.Generator, days: int) -> NDArray[np.float64]:
    """90 kg that vary from day to day (SD 0.36 kg), with a weekly rhythm of 0.35 %, and drift by some 0.4 kg in two months.

    A third of all changes from day to day then are 0.5 kg and more (Edholm et al. 1974).
    """
    week = 0.16 * np.sin(2 * np.pi * np.arange(days) / 7)
    return np.asarray(90 + week + np.cumsum(rng.normal(0, 0.05, days)) + rng.normal(0, 0.36, days))


def test_a_stable_weight_has_a_false_trend_in_ten_years_at_most_and_a_rising_one_is_found() -> None:
    rng = np.random.default_rng(20_291)
    false = [f for _ in range(20) for f in weigh(Patient(), stable_weights(rng, 365).tolist()) if f.end_s is None]
    assert sum(f.kind == "weight_trend" for f in false) <= 2
    rise = np.concatenate((np.zeros(20), np.linspace(1 / 7, 2, 14), np.full(4, 2.0)))
    found = [{f.kind for f in weigh(Patient(), (stable_weights(rng, 38) + rise).tolist())} for _ in range(40)]
    assert sum("weight_trend" in one for one in found) >= 36
    assert sum("weight_gain" in one for one in found) <= 8, "the gain within three days is too small for the simple rule"
