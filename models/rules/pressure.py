"""Rules on blood pressure: hypertensive crisis, hypotension, and the mean of a week of home readings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from config.limits import Limits
from models.findings import Finding
from models.rules.threshold import Criterion, ThresholdRule
from models.signal.filters import median_of
from models.signal.latest import Latest

DAY_S: Final = 86400.0

MIN_DAYS: Final = 3
"""A home mean needs readings from at least three days (ESH 2023)."""

MAX_READINGS: Final = 512
"""Readings kept: two weeks of 36 a day."""

PERSON_READINGS: Final = 14
"""The last readings, whose median a new one is compared with to find out whether it is the patient's: a week of two a day."""
MIN_PERSON_READINGS: Final = 6
"""Fewer readings say too little of a person: three days of two a day (ESH 2023)."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """One cuff measurement in mmHg, at seconds UTC."""

    at_s: float
    systolic: float
    diastolic: float


class PressureRules:
    """Reports the episodes `bp_crisis`, `hypotension`, `bp_trend` and `bp_rise`.

    A severe reading is reported at once. The patient is asked to rest and to measure again. A second severe reading within the
    repeat time confirms the crisis and is reported with the number of readings. The crisis ends with the first measurement
    below both limits.
    """

    def __init__(self, limits: Limits, past: Sequence[Pressure] = ()) -> None:
        """Start with the readings `past` of an earlier run."""
        self._limits = limits
        self._hypotension = ThresholdRule(
            Criterion(
                "hypotension",
                "systolic_mmhg",
                "limit_mmhg",
                (limits.hypotension_systolic.value,),
                above=False,
                hysteresis=limits.pressure_hysteresis.value,
            )
        )
        self._crisis = _CrisisRule(limits)
        self._trend = _MeanEpisode("bp_trend")
        self._rise = _MeanEpisode("bp_rise")
        self._values: dict[str, float] = {}
        self._at_s: float | None = None
        self.readings = Latest[Pressure](MAX_READINGS, past)

    def add_value(self, kind: str, value: float, at_s: float) -> Iterator[Finding]:
        """Process one plausible value, `systolic` or `diastolic`; the two of a measurement have the same time."""
        if at_s != self._at_s:
            self._at_s, self._values = at_s, {}
        self._values[kind] = value
        if kind == "systolic":
            yield from self._hypotension.add_value(at_s, value)
        yield from self._crisis.update(self._values, at_s)
        if len(self._values) == 2:
            yield from self._update_means(Pressure(at_s, self._values["systolic"], self._values["diastolic"]))

    def kinds_within(self) -> tuple[str, ...]:
        """The kinds of which the values of the last measurement are within the limits."""
        kinds = ("hypotension",) if self._hypotension.is_within else ()
        return kinds if self._crisis.is_severe(self._values) else (*kinds, "bp_crisis")

    def forget(self, kind: str) -> None:
        """Forget an episode, because it is not known any more whether it goes on."""
        match kind:
            case "hypotension":
                self._hypotension.forget()
            case "bp_crisis":
                self._crisis.forget()
            case "bp_trend":
                self._trend.forget()
            case _:
                self._rise.forget()

    def is_like_patient(self, values: Mapping[str, float]) -> bool:
        """Whether a pressure, its values by kind, is near the patient's usual one or near the last.

        True where there are too few readings to compare with.
        """
        last = list(self.readings)[-PERSON_READINGS:]
        if len(last) < MIN_PERSON_READINGS:
            return True
        usual = Pressure(last[-1].at_s, median_of([one.systolic for one in last]), median_of([one.diastolic for one in last]))
        return any(
            abs(values.get("systolic", one.systolic) - one.systolic) <= self._limits.person_systolic.value
            and abs(values.get("diastolic", one.diastolic) - one.diastolic) <= self._limits.person_diastolic.value
            for one in (usual, last[-1])
        )

    def _update_means(self, pressure: Pressure) -> Iterator[Finding]:
        self.readings.append(pressure)
        days = self._limits.home_days.value
        now = self._mean(pressure.at_s, days)
        before = self._mean(pressure.at_s - days * DAY_S, days)
        if now is None:
            return
        hysteresis = self._limits.pressure_hysteresis.value
        high = self._limits.home_systolic.value, self._limits.home_diastolic.value
        above = max(now.systolic - high[0], now.diastolic - high[1])
        measured = {
            "systolic_mmhg": round(now.systolic, 1),
            "diastolic_mmhg": round(now.diastolic, 1),
            "days": days,
        }
        limits = {"limit_systolic_mmhg": high[0], "limit_diastolic_mmhg": high[1]}
        yield from self._trend.update(pressure.at_s, above >= 0, above < -hysteresis, measured | limits)
        if before is None:
            return
        rise = now.systolic - before.systolic
        limit = self._limits.home_rise.value
        rise_measured = measured | {"rise_mmhg": round(rise, 1), "limit_mmhg": limit}
        yield from self._rise.update(pressure.at_s, rise >= limit, rise < limit - hysteresis, rise_measured)

    def _mean(self, until_s: float, days: float) -> Pressure | None:
        """Return the mean of the days before `until_s`; None if there are too few readings, or readings from too few days."""
        used = [reading for reading in self.readings if until_s - days * DAY_S < reading.at_s <= until_s]
        if len(used) < self._limits.home_readings.value or len({reading.at_s // DAY_S for reading in used}) < MIN_DAYS:
            return None
        n = len(used)
        return Pressure(until_s, sum(reading.systolic for reading in used) / n, sum(reading.diastolic for reading in used) / n)


class _MeanEpisode:
    """An episode during which a mean stays beyond its limit."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._onset_s: float | None = None

    def forget(self) -> None:
        """Forget the episode."""
        self._onset_s = None

    def update(self, at_s: float, beyond: bool, within: bool, measured: dict[str, float]) -> Iterator[Finding]:
        if self._onset_s is None and beyond:
            self._onset_s = at_s
            yield Finding(self._kind, at_s, None, f"rule:{self._kind}", None, measured)
        elif self._onset_s is not None and within:
            yield Finding(self._kind, self._onset_s, at_s, f"rule:{self._kind}", None, measured)
            self._onset_s = None


class _CrisisRule:
    """Reports a severe blood pressure, and the readings that confirm it."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._onset_s: float | None = None
        self._last_severe_s = 0.0
        self._readings = 0
        self._severe_values: dict[str, float] = {}

    def update(self, values: dict[str, float], at_s: float) -> Iterator[Finding]:
        """Process the values known so far of the measurement at `at_s`."""
        if self.is_severe(values):
            yield from self._add_severe(values, at_s)
        elif self._onset_s is not None and len(values) == 2 and self._excess(values) < -self._limits.pressure_hysteresis.value:
            yield self._finding(at_s)
            self._onset_s = None

    def is_severe(self, values: dict[str, float]) -> bool:
        """Return whether one of the values is at or above its limit."""
        return self._excess(values) >= 0

    def forget(self) -> None:
        """Forget the episode."""
        self._onset_s = None

    def _add_severe(self, values: dict[str, float], at_s: float) -> Iterator[Finding]:
        if self._onset_s is None:
            self._onset_s, self._readings = at_s, 1
        elif at_s != self._last_severe_s:
            soon = abs(at_s - self._last_severe_s) <= self._limits.crisis_repeat.value
            self._readings = self._readings + 1 if soon else 1
        self._last_severe_s, self._severe_values = at_s, dict(values)
        yield self._finding(None)

    def _excess(self, values: dict[str, float]) -> float:
        """Return by how much the worse of the values exceeds its limit; negative below it."""
        limits = {"systolic": self._limits.crisis_systolic.value, "diastolic": self._limits.crisis_diastolic.value}
        return max(value - limits[kind] for kind, value in values.items())

    def _finding(self, end_s: float | None) -> Finding:
        assert self._onset_s is not None
        measured = {f"{kind}_mmhg": value for kind, value in self._severe_values.items()}
        measured |= {
            "readings": float(self._readings),
            "limit_systolic_mmhg": self._limits.crisis_systolic.value,
            "limit_diastolic_mmhg": self._limits.crisis_diastolic.value,
        }
        return Finding("bp_crisis", self._onset_s, end_s, "rule:bp_crisis", None, measured)
