"""Clinical limits as data: every number that decides about a finding, with its unit, its bands and where it comes from."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Final


class LimitError(ValueError):
    """A limit that does not exist, or a value outside its absolute band."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One number with its two bands: outside `usual` it is questionable, outside `absolute` it is refused."""

    value: float
    unit: str
    usual: tuple[float, float]
    absolute: tuple[float, float]
    source: str
    requirement: str

    def changed(self, value: float, name: str) -> "Limit":
        """The same limit with another value.

        Raises:
            LimitError: the value is outside the absolute band.
        """
        low, high = self.absolute
        if not low <= value <= high:
            raise LimitError(
                f"limit {name} = {value:g} {self.unit} is not allowed: set it between {low:g} and {high:g} {self.unit}"
            )
        return replace(self, value=value)


@dataclass(frozen=True, slots=True)
class Limits:
    """Every limit of the ECG rules."""

    tachycardia_rate: Limit = Limit(
        131,
        "/min",
        (100, 150),
        (80, 220),
        "NEWS2 (Royal College of Physicians, 2017): 131/min or more scores 3, urgent",
        "R-RULE-1",
    )
    bradycardia_rate: Limit = Limit(
        40, "/min", (35, 55), (25, 60), "NEWS2 (Royal College of Physicians, 2017): 40/min or less scores 3, urgent", "R-RULE-2"
    )
    rate_hysteresis: Limit = Limit(
        5, "/min", (2, 10), (0, 20), "keeps an episode whole while the rate wavers by its respiratory variation", "R-RULE-3"
    )
    rate_persistence: Limit = Limit(
        10, "s", (5, 30), (3, 120), "IEC 60601-2-27:2011, 201.7.9.2.9.101: alarm within 10 s of the change of rate", "R-RULE-4"
    )
    pause: Limit = Limit(
        3.0,
        "s",
        (2.0, 4.0),
        (1.5, 6.0),
        "ACC/AHA/HRS 2018 bradycardia guideline, section 4.2: sinus pause of 3 s or more",
        "R-RULE-5",
    )
    af_duration: Limit = Limit(
        30, "s", (30, 120), (20, 600), "ESC 2024 atrial fibrillation guideline, section 3.2: at least 30 s of ECG", "R-RULE-6"
    )

    def with_values(self, values: Mapping[str, float]) -> "Limits":
        """These limits with a patient's own values put in.

        Raises:
            LimitError: an unknown name, or a value outside its absolute band.
        """
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise LimitError(f"unknown limit {', '.join(unknown)}: known are {', '.join(known)}")
        return replace(self, **{name: known[name].changed(value, name) for name, value in values.items()})


DEFAULT_LIMITS: Final = Limits()
