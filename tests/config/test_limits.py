from dataclasses import fields

import pytest

from config.limit import Limit, LimitError
from config.limits import DEFAULT_LIMITS, PLAUSIBLE

NAMES = [field.name for field in fields(DEFAULT_LIMITS)]


def test_a_patients_own_limit_replaces_the_default() -> None:
    limits = DEFAULT_LIMITS.with_values({"tachycardia_rate": 140, "weight_gain": 1.5})
    assert limits.tachycardia_rate.value == 140
    assert limits.weight_gain.value == 1.5
    assert limits.bradycardia_rate == DEFAULT_LIMITS.bradycardia_rate


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tachycardia_rate": 300}, "tachycardia_rate = 300 /min is not allowed: set it between 80 and 220"),
        ({"pause": 0.1}, "pause = 0.1 s is not allowed"),
        ({"heart": 3}, "unknown limit heart: use one of tachycardia_rate"),
        ({"short_pause": 3.5}, "short_pause = 3.5 s is not allowed: set it below pause = 3 s"),
        ({"spo2_very_low": 84}, "spo2_critical = 85 % is not allowed: set it below spo2_very_low = 84 %"),
        ({"spo2_low": float("nan")}, "spo2_low = nan % is not allowed"),
    ],
)
def test_rejects_an_invalid_limit_and_names_it(values: dict[str, float], message: str) -> None:
    with pytest.raises(LimitError, match=message.replace("(", r"\(")):
        DEFAULT_LIMITS.with_values(values)


def test_related_limits_may_be_changed_together() -> None:
    limits = DEFAULT_LIMITS.with_values({"spo2_low": 85, "spo2_very_low": 83, "spo2_critical": 80})
    assert limits.spo2_low.value == 85


@pytest.mark.parametrize("name", NAMES)
def test_every_default_lies_within_its_bands_and_names_its_source(name: str) -> None:
    limit: Limit = getattr(DEFAULT_LIMITS, name)
    assert limit.absolute[0] <= limit.typical[0] <= limit.value <= limit.typical[1] <= limit.absolute[1]
    assert limit.unit
    assert limit.source
    assert limit.requirement.startswith("R-RULE-")


def test_default_limits_are_in_order() -> None:
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
def test_plausible_values_extend_beyond_every_allowed_limit(kind: str, names: tuple[str, ...]) -> None:
    low, high = PLAUSIBLE[kind]
    for name in names:
        limit: Limit = getattr(DEFAULT_LIMITS, name)
        assert low < limit.absolute[0] <= limit.absolute[1] < high
