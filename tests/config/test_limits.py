from dataclasses import fields

import pytest

from config.limits import DEFAULT_LIMITS, PLAUSIBLE, Limit, LimitError

NAMES = [field.name for field in fields(DEFAULT_LIMITS)]


def test_a_patients_own_limit_replaces_the_default() -> None:
    limits = DEFAULT_LIMITS.with_values({"tachycardia_rate": 140, "weight_gain": 1.5})
    assert limits.tachycardia_rate.value == 140
    assert limits.weight_gain.value == 1.5
    assert limits.bradycardia_rate == DEFAULT_LIMITS.bradycardia_rate


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"tachycardia_rate": 300}, "tachycardia_rate = 300 /min is not allowed: set it between 80 and 220"),
        ({"pause": 0.1}, "pause = 0.1 s is not allowed"),
        ({"heart": 3}, "unknown limit heart: known are tachycardia_rate"),
        ({"short_pause": 3.5}, "short_pause = 3.5 s is not allowed: set it below pause = 3 s"),
        ({"spo2_very_low": 84}, "spo2_critical = 85 % is not allowed: set it below spo2_very_low = 84 %"),
        ({"spo2_low": float("nan")}, "spo2_low = nan % is not allowed"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_by_name(values: dict[str, float], complaint: str) -> None:
    with pytest.raises(LimitError, match=complaint.replace("(", r"\(")):
        DEFAULT_LIMITS.with_values(values)


def test_limits_that_belong_together_may_be_moved_together() -> None:
    limits = DEFAULT_LIMITS.with_values({"spo2_low": 85, "spo2_very_low": 83, "spo2_critical": 80})
    assert limits.spo2_low.value == 85


@pytest.mark.parametrize("name", NAMES)
def test_every_default_lies_in_its_own_bands_and_says_where_it_comes_from(name: str) -> None:
    limit: Limit = getattr(DEFAULT_LIMITS, name)
    assert limit.absolute[0] <= limit.usual[0] <= limit.value <= limit.usual[1] <= limit.absolute[1]
    assert limit.unit
    assert limit.source
    assert limit.requirement.startswith("R-RULE-")


def test_the_defaults_are_in_order() -> None:
    DEFAULT_LIMITS.check_order()


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("systolic", ("crisis_systolic", "hypotension_systolic", "home_systolic")),
        ("diastolic", ("crisis_diastolic", "home_diastolic")),
        ("spo2", ("spo2_low", "spo2_very_low", "spo2_critical")),
        ("temperature", ("fever", "high_fever", "hypothermia")),
    ],
)
def test_a_limit_can_be_reached_by_plausible_values_wherever_it_is_set(kind: str, names: tuple[str, ...]) -> None:
    low, high = PLAUSIBLE[kind]
    for name in names:
        limit: Limit = getattr(DEFAULT_LIMITS, name)
        assert low < limit.absolute[0] <= limit.absolute[1] < high
