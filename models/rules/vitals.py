"""The rules on vitals of one patient's sensors: values in, findings out. Times in their findings are seconds UTC.

They see one value at a time, with the time at which it was measured; nothing depends on when it arrived.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final

from config.limits import PLAUSIBLE, Limits
from models.findings import Finding
from models.rules.pressure import Pressure, PressureRules
from models.rules.threshold import Criterion, Threshold
from models.rules.weight import Weight, WeightRule

CONTINUOUS: Final = "continuous"
"""Flag of a value from a sensor that measures by itself: it must last."""

IRREGULAR_PULSE: Final = "irregular_pulse"
"""Flag of a cuff that found the pulse irregular (Blood Pressure Service: measurement status, bit 2)."""

DOUBTFUL: Final = frozenset(
    {"body_movement", "cuff_too_loose", "improper_position", "poor_signal", "low_perfusion", "no_contact"}
)
"""Flags of a value that its sensor itself doubts: it is kept, but raises and ends nothing."""

IRREGULAR_OF: Final = 3
IRREGULAR_LEAST: Final = 2
"""Two of three measurements with an irregular pulse: NICE MTG13 (cuffs that look for atrial fibrillation)."""

SEEN_KEPT: Final = 64
"""Values of which it is remembered that they came: more than a cuff or scale stores between two connections."""

MAIN_RULE: Final[Mapping[str, str]] = {
    "systolic": "bp_crisis",
    "diastolic": "bp_crisis",
    "spo2": "spo2_low",
    "weight": "weight_gain",
    "temperature": "fever",
}
"""Under which kind an inconclusive value is told."""

State = Mapping[str, Any]


class VitalRules:
    """Blood pressure, oxygen saturation, weight and temperature."""

    def __init__(self, limits: Limits, state: State | None = None) -> None:
        """`state` is what an earlier one said last; the episodes that went on then have been ended by the restart."""
        past = state or {"pressure": [], "weight": []}
        self._pressure = PressureRules(limits, [Pressure(*values) for values in past["pressure"]])
        self._weight = WeightRule(limits, [Weight(*values) for values in past["weight"]])
        self._spo2 = Threshold(_spo2(limits))
        self._temperature = tuple(Threshold(criterion) for criterion in _temperature(limits))
        self._irregular = deque[bool](maxlen=IRREGULAR_OF)
        self._irregular_onset_s: float | None = None
        self._seen = deque[tuple[str, int]](maxlen=SEEN_KEPT)

    def feed(self, kind: str, value: float, at_us: int, flags: tuple[str, ...] = ()) -> Iterator[Finding]:
        """One value in the unit of its kind, measured at `at_us` (UTC, microseconds since 1970).

        Ignored are other kinds, and a value that comes again: a sensor repeats what was not acknowledged. One that is older
        than the last is judged all the same: clocks are set back, and what nobody has seen counts.
        """
        if kind not in PLAUSIBLE or (kind, at_us) in self._seen:
            return
        self._seen.append((kind, at_us))
        at_s = at_us / 1e6
        low, high = PLAUSIBLE[kind]
        if not low <= value <= high:
            yield self._inconclusive(kind, value, at_s, "out_of_distribution")
        elif DOUBTFUL & set(flags):
            yield self._inconclusive(kind, value, at_s, "noise")
        else:
            yield from self._judge(kind, value, at_s, flags)

    def state(self) -> State:
        """What must outlast a restart, ready for JSON: the readings that means and comparisons are made of."""
        return {
            "pressure": [[past.at_s, past.systolic, past.diastolic] for past in self._pressure.past],
            "weight": [[past.at_s, past.kg] for past in self._weight.past],
        }

    def _judge(self, kind: str, value: float, at_s: float, flags: tuple[str, ...]) -> Iterator[Finding]:
        match kind:
            case "systolic":
                yield from self._pressure.value(kind, value, at_s)
                yield from self._pulse(at_s, IRREGULAR_PULSE in flags)
            case "diastolic":
                yield from self._pressure.value(kind, value, at_s)
            case "spo2":
                yield from self._spo2.value(at_s, value, continuous=CONTINUOUS in flags)
            case "weight":
                yield from self._weight.value(value, at_s)
            case _:
                for rule in self._temperature:
                    yield from rule.value(at_s, value, continuous=CONTINUOUS in flags)

    def _pulse(self, at_s: float, irregular: bool) -> Iterator[Finding]:
        """The irregular pulse a cuff reports with its measurement."""
        self._irregular.append(irregular)
        count = sum(self._irregular)
        measured = {"irregular": float(count), "readings": float(len(self._irregular))}
        if self._irregular_onset_s is None and count >= IRREGULAR_LEAST:
            self._irregular_onset_s = at_s
            yield Finding("irregular_pulse", at_s, None, "rule:irregular_pulse", None, measured)
        elif self._irregular_onset_s is not None and count < IRREGULAR_LEAST:
            yield Finding("irregular_pulse", self._irregular_onset_s, at_s, "rule:irregular_pulse", None, measured)
            self._irregular_onset_s = None

    def _inconclusive(self, kind: str, value: float, at_s: float, why: str) -> Finding:
        rule = MAIN_RULE[kind]
        return Finding(rule, at_s, at_s, f"rule:{rule}", None, {_KEYS[kind]: value}, why)


_KEYS: Final[Mapping[str, str]] = {
    "systolic": "systolic_mmhg",
    "diastolic": "diastolic_mmhg",
    "spo2": "spo2_percent",
    "weight": "weight_kg",
    "temperature": "temperature_celsius",
}


def _spo2(limits: Limits) -> Criterion:
    return Criterion(
        "spo2_low",
        _KEYS["spo2"],
        "limit_percent",
        (limits.spo2_low.value, limits.spo2_very_low.value, limits.spo2_critical.value),
        above=False,
        hysteresis=limits.spo2_hysteresis.value,
        persistence_s=limits.spo2_persistence.value,
    )


def _temperature(limits: Limits) -> tuple[Criterion, Criterion]:
    hysteresis = limits.temperature_hysteresis.value
    persistence_s = limits.spo2_persistence.value
    high = (limits.fever.value, limits.high_fever.value)
    low = (limits.hypothermia.value,)
    key, limit_key = _KEYS["temperature"], "limit_celsius"
    return (
        Criterion("fever", key, limit_key, high, above=True, hysteresis=hysteresis, persistence_s=persistence_s),
        Criterion("hypothermia", key, limit_key, low, above=False, hysteresis=hysteresis, persistence_s=persistence_s),
    )
