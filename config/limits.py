"""Clinical limits as data: every threshold of the rules, with its unit, bands, source and requirement."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Final

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

_NEWS2: Final = "NEWS2 (Royal College of Physicians, 2017): "
_KATO: Final = "Kato et al., Am J Hypertens 23:980 (2010): one person's pressure at home varies from day to day by "
_ESC_BP: Final = "ESC 2024 guideline on elevated blood pressure and hypertension: "


class LimitError(ValueError):
    """An unknown limit, a value outside its absolute band, or two limits in the wrong order."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One threshold with two bands: a value outside `typical` is unusual but allowed, one outside `absolute` is rejected."""

    value: float
    unit: str
    typical: tuple[float, float]
    absolute: tuple[float, float]
    source: str
    requirement: str

    def with_value(self, value: float, name: str) -> "Limit":
        """The same limit with another value; `name` is used in the error.

        Raises:
            LimitError: the value is outside the absolute band.
        """
        low, high = self.absolute
        if not low <= value <= high:
            raise LimitError(
                f"limit {name} = {value:g} {self.unit} is not allowed: set it between {low:g} and {high:g} {self.unit}"
            )
        return replace(self, value=value)


@dataclass(frozen=True)
class EcgLimits:
    """Limits of the rules on heart beats."""

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
        5, "/min", (2, 10), (0, 20), "keeps one episode from being split by respiratory variation of the rate", "R-RULE-3"
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
    short_pause: Limit = Limit(
        2.0,
        "s",
        (1.8, 2.5),
        (1.5, 5.0),
        "ESC 2021 pacing guideline: pauses over 2 s are assessed; common in sleep and in AF: raise it for such patients",
        "R-RULE-7",
    )
    v_run_beats: Limit = Limit(
        3, "beats", (3, 5), (3, 10), "AHA/ACC/HRS 2017 ventricular arrhythmia guideline: VT is 3 or more beats", "R-RULE-8"
    )
    vt_rate: Limit = Limit(
        100, "/min", (100, 120), (80, 150), "AHA/ACC/HRS 2017 ventricular arrhythmia guideline: VT is over 100/min", "R-RULE-8"
    )
    vt_high_beats: Limit = Limit(
        5,
        "beats",
        (3, 8),
        (3, 30),
        "PhysioNet/CinC Challenge 2015: the bedside alarm for VT is 5 or more ventricular beats over 100/min; VT reaches"
        " high priority long before it is sustained (30 s or more)",
        "R-RULE-9",
    )
    geminy_cycles: Limit = Limit(
        3,
        "cycles",
        (3, 10),
        (3, 60),
        "bigeminy and trigeminy: the pattern three times in a row, the convention of Holter reports",
        "R-RULE-10",
    )
    af_burden: Limit = Limit(
        11.4,
        "%",
        (5, 25),
        (0.1, 100),
        "KP-RHYTHM (Go et al., JAMA Cardiol 3:601, 2018): from 11.4 % of the observed time, the stroke rate triples",
        "R-RULE-11",
    )
    af_burden_observed: Limit = Limit(
        8,
        "h",
        (8, 16),
        (1, 24),
        "a third of a day; a shorter time does not represent the day (our choice, no guideline)",
        "R-RULE-11",
    )


@dataclass(frozen=True)
class VitalLimits:
    """Limits of the rules on vitals."""

    crisis_systolic: Limit = Limit(
        180, "mmHg", (160, 200), (140, 240), _ESC_BP + "180/110 mmHg or more is severe and may be an emergency", "R-RULE-20"
    )
    crisis_diastolic: Limit = Limit(
        110, "mmHg", (100, 120), (90, 150), _ESC_BP + "180/110 mmHg or more is severe and may be an emergency", "R-RULE-20"
    )
    crisis_confirmed: Limit = Limit(
        2,
        "readings",
        (1, 3),
        (1, 5),
        _ESC_BP + "repeat a severe reading before acting on it; a confirmed one has high priority",
        "R-RULE-21",
    )
    crisis_repeat: Limit = Limit(
        600,
        "s",
        (300, 900),
        (60, 3600),
        "ESH 2023: repeat after five minutes of rest; ten minutes leave time for the measurement itself",
        "R-RULE-21",
    )
    hypotension_systolic: Limit = Limit(
        90, "mmHg", (80, 100), (60, 110), "ESC 2021 heart failure guideline: systolic below 90 mmHg is hypotension", "R-RULE-22"
    )
    pressure_hysteresis: Limit = Limit(
        5, "mmHg", (3, 10), (0, 20), "ISO 81060-2:2018: the permitted mean error of a validated cuff", "R-RULE-23"
    )
    home_systolic: Limit = Limit(
        135, "mmHg", (125, 145), (110, 180), _ESC_BP + "a mean of 135/85 mmHg or more at home is hypertension", "R-RULE-24"
    )
    home_diastolic: Limit = Limit(
        85, "mmHg", (80, 95), (60, 110), _ESC_BP + "a mean of 135/85 mmHg or more at home is hypertension", "R-RULE-24"
    )
    home_readings: Limit = Limit(
        12,
        "readings",
        (12, 28),
        (6, 56),
        "ESH 2023: measure twice a day for 7 days (at least 3 days); at least 12 readings",
        "R-RULE-24",
    )
    home_days: Limit = Limit(7, "d", (3, 7), (3, 28), "ESC 2024 and ESH 2023: home means over 7 days, at least 3", "R-RULE-24")
    home_rise: Limit = Limit(
        10,
        "mmHg",
        (5, 20),
        (5, 60),
        "Ettehad et al., Lancet 387:957 (2016): systolic pressure 10 mmHg lower, a fifth fewer cardiovascular events",
        "R-RULE-25",
    )
    person_systolic: Limit = Limit(
        45,
        "mmHg",
        (30, 60),
        (20, 120),
        _KATO
        + "8.6 (SD 3.1) mmHg; three times the upper 2.5 % of that. A result further from the patient's usual is held until"
        " the patient says whose it is",
        "R-RULE-35",
    )
    person_diastolic: Limit = Limit(30, "mmHg", (20, 40), (15, 80), _KATO + "5.8 (SD 2.0) mmHg; as for systolic", "R-RULE-35")
    spo2_low: Limit = Limit(
        93,
        "%",
        (88, 94),
        (75, 96),
        _NEWS2 + "92 to 93 % scores 2; for patients on scale 2 (target 88 to 92 %) set spo2_low to 85, spo2_very_low to 83 and"
        " spo2_critical to 80",
        "R-RULE-26",
    )
    spo2_very_low: Limit = Limit(91, "%", (83, 92), (70, 94), _NEWS2 + "91 % or less scores 3, urgent", "R-RULE-26")
    spo2_critical: Limit = Limit(
        85,
        "%",
        (80, 88),
        (60, 90),
        "ISO 80601-2-61:2017: the default limit of the low-saturation alarm is at least 85 %",
        "R-RULE-26",
    )
    spo2_hysteresis: Limit = Limit(
        1, "%", (1, 2), (0, 5), "keeps one episode from being split by the resolution of 1 %", "R-RULE-27"
    )
    spo2_persistence: Limit = Limit(
        20,
        "s",
        (10, 60),
        (5, 300),
        "Görges et al., Anesth Analg 108:1546 (2009): a delay of 19 s removes two thirds of the ineffective or ignored alarms",
        "R-RULE-28",
    )
    weight_gain: Limit = Limit(
        2,
        "kg",
        (1, 3),
        (0.5, 6),
        "ESC 2021 heart failure guideline, self-care: an unexpected gain of more than 2 kg in 3 days",
        "R-RULE-29",
    )
    weight_days: Limit = Limit(
        3, "d", (2, 7), (1, 14), "ESC 2021 heart failure guideline, self-care: a gain within 3 days", "R-RULE-29"
    )
    weight_hysteresis: Limit = Limit(
        0.5, "kg", (0.2, 1), (0, 2), "day-to-day variation of an adult's weight on one scale, clothing included", "R-RULE-30"
    )
    weight_step: Limit = Limit(
        6,
        "kg",
        (4, 10),
        (3, 20),
        "a larger change in a day or two is treated as another person or a bag on the scale until a second reading confirms it",
        "R-RULE-31",
    )
    fever: Limit = Limit(
        38.0, "°C", (37.8, 38.5), (37.2, 40), "38.0 °C or more is fever; " + _NEWS2 + "scores from 38.1 °C", "R-RULE-32"
    )
    high_fever: Limit = Limit(39.1, "°C", (38.5, 39.5), (38, 41), _NEWS2 + "39.1 °C or more scores 2", "R-RULE-32")
    hypothermia: Limit = Limit(35.0, "°C", (34, 35.5), (30, 36), _NEWS2 + "35.0 °C or less scores 3, urgent", "R-RULE-33")
    temperature_hysteresis: Limit = Limit(
        0.3, "°C", (0.1, 0.5), (0, 1), "ISO 80601-2-56:2017: a thermometer's error is at most 0.3 °C", "R-RULE-34"
    )


@dataclass(frozen=True)
class AlertRepeatLimits:
    """How long after an alert further alerts of its kind are suppressed. High-priority alerts are never suppressed."""

    repeat_medium: Limit = Limit(
        300,
        "s",
        (60, 600),
        (0, 900),
        "IEC 60601-1-8:2020, 6.8 and Joint Commission NPSG.06.01.01 (alarm fatigue); 5 min, so that a"
        " suppressed episode is reported at most 5 min late",
        "R-RULE-40",
    )
    repeat_low: Limit = Limit(
        1800,
        "s",
        (600, 3600),
        (0, 86400),
        "IEC 60601-1-8:2020, table 1: low priority is for awareness, not for prompt response; twice an hour is enough",
        "R-RULE-40",
    )


@dataclass(frozen=True)
class Limits(AlertRepeatLimits, VitalLimits, EcgLimits):
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
    ("hypotension_systolic", "crisis_systolic"),
    ("spo2_critical", "spo2_very_low"),
    ("spo2_very_low", "spo2_low"),
    ("hypothermia", "fever"),
    ("fever", "high_fever"),
)
"""Pairs of limits; the first must be below the second."""

DEFAULT_LIMITS: Final = Limits()
