"""Rules on the vital signs of one patient's sensors: values in, findings out. Times in their findings are seconds UTC.

The rules process one value at a time, with the time at which it was measured; the time of arrival does not matter.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from config.limits import PLAUSIBLE, Limits
from drivers.kinds import NOT_MEASURED
from models.findings import Finding
from models.rules.pressure import Pressure, PressureRules
from models.rules.staleness import EpisodeWatch, from_state, to_state
from models.rules.threshold import Criterion, ThresholdRule
from models.rules.weight import Weight, WeightRule
from models.signal.latest import Latest

CONTINUOUS: Final = "continuous"
"""Flag of a value from a continuous sensor: an abnormal value must persist before it counts."""

IRREGULAR_PULSE: Final = "irregular_pulse"
"""Flag of a cuff that found the pulse irregular (Blood Pressure Service: measurement status, bit 2)."""

_POOR_MEASUREMENT: Final = frozenset(
    {
        *("body_movement", "cuff_too_loose", "improper_position", "no_contact", "age_unknown"),
        *("questionable", "poor_signal", "inadequate_signal", "erratic_signal", "low_perfusion"),
        *("nonpulsatile", "questionable_pulse", "signal_processing_irregularity", "sensor_interference"),
        *("sensor_unconnected", "sensor_displaced", "sensor_disconnected", "sensor_malfunction", "equipment_malfunction"),
    }
)
DOUBTFUL: Final = NOT_MEASURED | _POOR_MEASUREMENT
"""Flags of a doubtful value: it is kept, but it neither raises nor ends an episode."""

IRREGULAR_WINDOW: Final = 3
MIN_IRREGULAR: Final = 2
"""Two of the last three measurements with an irregular pulse: NICE MTG13 (cuffs that detect atrial fibrillation)."""

MAX_SEEN: Final = 64
"""Values remembered to recognise repeats: more than a cuff or scale stores between two connections."""

INCONCLUSIVE_FINDING_KINDS: Final[Mapping[str, str]] = {
    "systolic": "bp_crisis",
    "diastolic": "bp_crisis",
    "spo2": "spo2_low",
    "weight": "weight_gain",
    "temperature": "fever",
}
"""For each kind of value, the kind of the finding that reports it if it is inconclusive."""

_GROUPS: Final[Mapping[str, str]] = {"systolic": "pressure", "diastolic": "pressure"}
"""The group of values that one measurement yields, by kind; the other kinds are a group of their own."""

VitalRulesState = Mapping[str, Any]


class VitalRules:
    """Rules on blood pressure, oxygen saturation, weight and temperature."""

    def __init__(self, limits: Limits, state: VitalRulesState | None = None) -> None:
        """Start empty, or resume from the `state` of an earlier object. The episodes that were open then are lost."""
        past = state or {"pressure": [], "weight": []}
        lost = past.get("lost", {})
        self._watches = {
            group: EpisodeWatch(limits, from_state(lost.get(group, ())))
            for group in ("pressure", "spo2", "weight", "temperature")
        }
        self._limits = limits
        self._newest_us: dict[str, int] = {}
        self._earlier: VitalRules | None = None
        """The rules on results that arrive after later ones. The readings that they compare with are the same objects."""
        self._pressure = PressureRules(limits, [Pressure(*values) for values in past["pressure"]])
        self._weight = WeightRule(limits, [Weight(*values) for values in past["weight"]])
        self._spo2 = ThresholdRule(_spo2_criterion(limits))
        self._temperature = tuple(ThresholdRule(criterion) for criterion in _temperature_criteria(limits))
        self._irregular = Latest[bool](IRREGULAR_WINDOW)
        self._irregular_onset_s: float | None = None
        self._seen = Latest[tuple[str, int]](MAX_SEEN)

    def feed(self, kind: str, value: float, at_us: int, flags: tuple[str, ...] = ()) -> Iterator[Finding]:
        """Process one value in the unit of its kind, measured at `at_us` (UTC, microseconds since 1970).

        Other kinds are ignored, and so are repeats, because a sensor sends again what was not acknowledged. A value older than
        the last one is processed all the same: clocks are set back, and a value that has not been seen yet counts.
        """
        if kind not in PLAUSIBLE or (kind, at_us) in self._seen:
            return
        self._seen.append((kind, at_us))
        at_s = at_us / 1e6
        yield from self.advance_to(at_us)
        low, high = PLAUSIBLE[kind]
        if not low <= value <= high:
            yield self._inconclusive(kind, value, at_s, "out_of_distribution")
        elif DOUBTFUL & set(flags):
            yield self._inconclusive(kind, value, at_s, "noise")
        else:
            yield from self._follow(kind, value, at_s, flags)

    @property
    def waits(self) -> bool:
        """Whether an episode is open, which the passing of time makes stale."""
        return any(watch.waits for watch in self._watches.values())

    def advance_to(self, at_us: int) -> Iterator[Finding]:
        """Report as lost the episodes of which no newer value has come for too long at `at_us`."""
        for watch in self._watches.values():
            for finding in watch.advance_to(at_us / 1e6):
                self._forget(finding.kind)
                yield finding

    def feed_result(self, kind: str, value: float, at_us: int, now_us: int, flags: tuple[str, ...] = ()) -> Iterator[Finding]:
        """Process one value of a result, which may have been measured before results that were processed already.

        Such a value counts in means and comparisons. Its findings end at once: it neither begins nor ends an episode of later
        values. `now_us` is the hub's clock; after it was set back, what seems later is not.
        """
        newest_us = self._newest_us.get(kind, at_us)
        if not at_us < newest_us <= now_us:
            self._newest_us[kind] = at_us
            yield from self.feed(kind, value, at_us, flags)
            return
        if self._earlier is None or at_us < self._earlier._newest_us.get(kind, at_us):
            self._earlier = VitalRules(self._limits)
            self._earlier._pressure.readings = self._pressure.readings
            self._earlier._weight.readings = self._weight.readings
        self._earlier._newest_us[kind] = at_us
        for finding in self._earlier.feed(kind, value, at_us, flags):
            if not finding.lost and not finding.recovered:  # its episode was reported with an end
                yield finding if finding.end_s is not None else replace(finding, end_s=at_us / 1e6)

    def is_like_patient(self, values: Mapping[str, float]) -> bool | None:
        """Whether a result, its values by kind, can be this patient's by what was measured before; None: it does not tell."""
        if values.keys().isdisjoint({"weight", "systolic", "diastolic"}):
            return None
        return self._weight.is_like_patient(values.get("weight")) and self._pressure.is_like_patient(values)

    def state(self) -> VitalRulesState:
        """Return what must survive a restart, ready for JSON: the readings that means and comparisons are computed from."""
        return {
            "pressure": [[reading.at_s, reading.systolic, reading.diastolic] for reading in self._pressure.readings],
            "weight": [[reading.at_s, reading.kg] for reading in self._weight.readings],
            "lost": {group: to_state(watch.findings()) for group, watch in self._watches.items() if watch.findings()},
        }

    def _follow(self, kind: str, value: float, at_s: float, flags: tuple[str, ...]) -> Iterator[Finding]:
        """Apply the rules to a value, and end the lost episodes of which it is the first newer one."""
        watch = self._watches[_GROUPS.get(kind, kind)]
        yield from watch.follow(self._apply_rules(kind, value, at_s, flags), at_s, continuous=CONTINUOUS in flags)
        yield from watch.recover(self._kinds_within(kind), at_s)

    def _kinds_within(self, kind: str) -> tuple[str, ...]:
        """The kinds of findings of which the last values are within the limits."""
        match kind:
            case "diastolic":
                return self._pressure.kinds_within()
            case "spo2":
                return (self._spo2.kind,) if self._spo2.is_within else ()
            case "temperature":
                return tuple(rule.kind for rule in self._temperature if rule.is_within)
            case _:  # a weight is compared with earlier ones; a systolic pressure comes with a diastolic one
                return ()

    def _forget(self, kind: str) -> None:
        """Forget a stale episode."""
        match kind:
            case "irregular_pulse":
                self._irregular.clear()
                self._irregular_onset_s = None
            case "weight_gain" | "weight_trend":
                self._weight.forget(kind)
            case "bp_crisis" | "hypotension" | "bp_trend" | "bp_rise":
                self._pressure.forget(kind)
            case _:
                for rule in (self._spo2, *self._temperature):
                    if rule.kind == kind:
                        rule.forget()

    def _apply_rules(self, kind: str, value: float, at_s: float, flags: tuple[str, ...]) -> Iterator[Finding]:
        match kind:
            case "systolic":
                yield from self._pressure.add_value(kind, value, at_s)
                yield from self._check_pulse(at_s, IRREGULAR_PULSE in flags)
            case "diastolic":
                yield from self._pressure.add_value(kind, value, at_s)
            case "spo2":
                yield from self._spo2.add_value(at_s, value, continuous=CONTINUOUS in flags)
            case "weight":
                yield from self._weight.add_value(value, at_s)
            case _:
                for rule in self._temperature:
                    yield from rule.add_value(at_s, value, continuous=CONTINUOUS in flags)

    def _check_pulse(self, at_s: float, irregular: bool) -> Iterator[Finding]:
        """Process whether a cuff measurement reports an irregular pulse."""
        self._irregular.append(irregular)
        count = sum(self._irregular)
        measured = {"irregular": float(count), "readings": float(len(self._irregular))}
        if self._irregular_onset_s is None and count >= MIN_IRREGULAR:
            self._irregular_onset_s = at_s
            yield Finding("irregular_pulse", at_s, None, "rule:irregular_pulse", None, measured)
        elif self._irregular_onset_s is not None and count < MIN_IRREGULAR:
            yield Finding("irregular_pulse", self._irregular_onset_s, at_s, "rule:irregular_pulse", None, measured)
            self._irregular_onset_s = None

    def _inconclusive(self, kind: str, value: float, at_s: float, reason: str) -> Finding:
        rule = INCONCLUSIVE_FINDING_KINDS[kind]
        return Finding(rule, at_s, at_s, f"rule:{rule}", None, {_KEYS[kind]: value}, reason)


_KEYS: Final[Mapping[str, str]] = {
    "systolic": "systolic_mmhg",
    "diastolic": "diastolic_mmhg",
    "spo2": "spo2_percent",
    "weight": "weight_kg",
    "temperature": "temperature_celsius",
}
"""Names of the values in a finding's `measured`."""


def _spo2_criterion(limits: Limits) -> Criterion:
    return Criterion(
        "spo2_low",
        _KEYS["spo2"],
        "limit_percent",
        (limits.spo2_low.value, limits.spo2_very_low.value, limits.spo2_critical.value),
        above=False,
        hysteresis=limits.spo2_hysteresis.value,
        persistence_s=limits.spo2_persistence.value,
    )


def _temperature_criteria(limits: Limits) -> tuple[Criterion, Criterion]:
    hysteresis = limits.temperature_hysteresis.value
    persistence_s = limits.spo2_persistence.value
    high = (limits.fever.value, limits.high_fever.value)
    low = (limits.hypothermia.value,)
    key, limit_key = _KEYS["temperature"], "limit_celsius"
    return (
        Criterion("fever", key, limit_key, high, above=True, hysteresis=hysteresis, persistence_s=persistence_s),
        Criterion("hypothermia", key, limit_key, low, above=False, hysteresis=hysteresis, persistence_s=persistence_s),
    )
