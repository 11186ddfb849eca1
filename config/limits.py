"""Clinical limits as data: every threshold of the rules, with its unit, bands, source and requirement."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Final

from config.alert_limits import AlertLimits
from config.ecg_limits import EcgLimits
from config.limit import LimitError
from config.vital_limits import VitalLimits

PLAUSIBLE: Final[Mapping[str, tuple[float, float]]] = {
    "systolic": (40, 300),
    "diastolic": (20, 200),
    "spo2": (40, 100),
    "weight": (20, 350),
    "temperature": (28, 43),
}
"""Plausible values of an adult at home, by kind and in its unit. A value outside is treated as a measurement error: it is
stored with an inconclusive finding that gives the reason, and it never raises or ends an alert.

Cuffs are validated from 40 to 280 mmHg (ISO 81060-2), oximeters from 70 to 100 % (ISO 80601-2-61). Nobody with an SpO2 below
40 % is able to take a measurement. 28 and 43 °C bound the survivable core temperatures."""


@dataclass(frozen=True)
class Limits(AlertLimits, VitalLimits, EcgLimits):
    """All limits."""

    def with_values(self, values: Mapping[str, float]) -> "Limits":
        """These limits with a patient's own values.

        Raises:
            LimitError: an unknown name, a value outside its absolute band, or two values in the wrong order.
        """
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise LimitError(f"unknown limit {', '.join(unknown)}: use one of {', '.join(known)}")
        limits = replace(self, **{name: known[name].with_value(value, name) for name, value in values.items()})
        limits.check_order()
        return limits

    def check_order(self) -> None:
        """Check that the lower limit of each related pair is below the upper one.

        Raises:
            LimitError: two values in the wrong order.
        """
        for lower_name, upper_name in _ORDERED_PAIRS:
            lower, upper = getattr(self, lower_name), getattr(self, upper_name)
            if lower.value >= upper.value:
                raise LimitError(
                    f"limit {lower_name} = {lower.value:g} {lower.unit} is not allowed:"
                    f" set it below {upper_name} = {upper.value:g} {upper.unit}"
                )


_ORDERED_PAIRS: Final = (
    ("bradycardia_rate", "tachycardia_rate"),
    ("short_pause", "pause"),
    ("no_beats", "no_beats_high"),
    ("hypotension_systolic", "crisis_systolic"),
    ("spo2_critical", "spo2_very_low"),
    ("spo2_very_low", "spo2_low"),
    ("hypothermia", "fever"),
    ("fever", "high_fever"),
)
"""Pairs of limits; the first must be below the second."""

DEFAULT_LIMITS: Final = Limits()
