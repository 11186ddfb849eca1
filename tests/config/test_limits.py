import pytest

from config.limits import DEFAULT_LIMITS, LimitError


def test_a_patients_own_limit_replaces_the_default() -> None:
    limits = DEFAULT_LIMITS.with_values({"tachycardia_rate": 140})
    assert limits.tachycardia_rate.value == 140
    assert limits.bradycardia_rate == DEFAULT_LIMITS.bradycardia_rate


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"tachycardia_rate": 300}, "tachycardia_rate = 300 /min is not allowed: set it between 80 and 220"),
        ({"pause": 0.1}, "pause = 0.1 s is not allowed"),
        ({"heart": 3}, "unknown limit heart: known are tachycardia_rate"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_by_name(values: dict[str, float], complaint: str) -> None:
    with pytest.raises(LimitError, match=complaint.replace("(", r"\(")):
        DEFAULT_LIMITS.with_values(values)


def test_every_default_lies_in_its_own_bands() -> None:
    for name in ("tachycardia_rate", "bradycardia_rate", "rate_hysteresis", "rate_persistence", "pause", "af_duration"):
        limit = getattr(DEFAULT_LIMITS, name)
        assert limit.absolute[0] <= limit.usual[0] <= limit.value <= limit.usual[1] <= limit.absolute[1], name
        assert limit.source
        assert limit.requirement
