"""The limits of the rules on vital signs."""

from dataclasses import dataclass
from typing import Final

from config.limit import Limit

_NEWS2: Final = "NEWS2 (Royal College of Physicians, 2017): "
_KATO: Final = "Kato et al., Am J Hypertens 23:980 (2010): one person's pressure at home varies from day to day by "
_ESC_BP: Final = "ESC 2024 guideline on elevated blood pressure and hypertension: "


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
        90, "mmHg", (80, 100), (60, 110), _NEWS2 + "90 mmHg or less scores 3, urgent", "R-RULE-22"
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
        2,
        "%",
        (1, 3),
        (0, 5),
        "the accuracy (A_rms, ISO 80601-2-61:2017) that most oximeters state for 70 to 100 %: a smaller change may be an error",
        "R-RULE-27",
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
    weight_trend: Limit = Limit(
        1,
        "kg",
        (0.8, 1.5),
        (0.5, 5),
        "Zhang et al., Eur J Heart Fail 11:420 (2009): a gain of 0.9 kg (SD 2.1) in the 14 days before hospitalisation for"
        " heart failure; more than three standard deviations of this difference in a stable weight (docs/alerts.md)",
        "R-RULE-37",
    )
    weight_trend_days: Limit = Limit(
        14,
        "d",
        (14, 28),
        (7, 42),
        "Zhang et al. (2009): weight rises within 14 days; whole weeks, because weight has a weekly rhythm (Orsama et al., Obes"
        " Facts 7:36, 2014)",
        "R-RULE-37",
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
    stale_continuous: Limit = Limit(
        300,
        "s",
        (120, 900),
        (60, 3600),
        "our choice: a sensor that measures by itself sends every minute at least; a silent hub raises an alarm after as long",
        "R-RULE-36",
    )
    stale_on_demand: Limit = Limit(
        36 * 3600,
        "s",
        (24 * 3600, 72 * 3600),
        (3600, 14 * 86400),
        "our choice: pressure (ESH 2023) and weight (ESC 2021 heart failure guideline) are measured every day; after a day and"
        " a half one measurement is certainly missing",
        "R-RULE-36",
    )
    temperature_hysteresis: Limit = Limit(
        0.3, "°C", (0.1, 0.5), (0, 1), "ISO 80601-2-56:2017: a thermometer's error is at most 0.3 °C", "R-RULE-34"
    )
