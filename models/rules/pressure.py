"""Blood pressure: a crisis, hypotension, and what the mean of a week at home says."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from config.limits import Limits
from models.findings import Finding
from models.rules.threshold import STALE_S, Criterion, Threshold

DAY_S: Final = 86400.0

LEAST_DAYS: Final = 3
"""A home mean needs readings of three days at least (ESH 2023)."""

KEPT: Final = 512
"""Readings: two weeks of 36 a day."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """One measurement by a cuff, in mmHg, at seconds UTC."""

    at_s: float
    systolic: float
    diastolic: float


class PressureRules:
    """Episodes `bp_crisis`, `hypotension`, `bp_trend` and `bp_rise`.

    A severe reading is told at once. The patient is asked to rest and to repeat it; a second severe one within the repeat time
    confirms it: it is told again, with the number of readings. It ends with the first measurement below both limits.
    """

    def __init__(self, limits: Limits, past: Sequence[Pressure] = ()) -> None:
        self._limits = limits
        self._hypotension = Threshold(
            Criterion(
                "hypotension",
                "systolic_mmhg",
                "limit_mmhg",
                (limits.hypotension_systolic.value,),
                above=False,
                hysteresis=limits.pressure_hysteresis.value,
                inclusive=False,
            )
        )
        self._crisis = _Crisis(limits)
        self._week = _HomeMean("bp_trend", limits)
        self._rise = _HomeMean("bp_rise", limits)
        self._values: dict[str, float] = {}
        self._at_s: float | None = None
        self.past = deque[Pressure](past, maxlen=KEPT)

    def value(self, kind: str, value: float, at_s: float) -> Iterator[Finding]:
        """One plausible value, `systolic` or `diastolic`; the two of a measurement have the same time."""
        if at_s != self._at_s:
            self._at_s, self._values = at_s, {}
        self._values[kind] = value
        if kind == "systolic":
            yield from self._hypotension.value(at_s, value)
        yield from self._crisis.values(self._values, at_s)
        if len(self._values) == 2:
            yield from self._trends(Pressure(at_s, self._values["systolic"], self._values["diastolic"]))

    def _trends(self, pressure: Pressure) -> Iterator[Finding]:
        self.past.append(pressure)
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
        yield from self._week.judge(pressure.at_s, above >= 0, above < -hysteresis, measured | limits)
        if before is None:
            return
        rise = now.systolic - before.systolic
        least = self._limits.home_rise.value
        told = measured | {"rise_mmhg": round(rise, 1), "limit_mmhg": least}
        yield from self._rise.judge(pressure.at_s, rise >= least, rise < least - hysteresis, told)

    def _mean(self, until_s: float, days: float) -> Pressure | None:
        """The mean of the days before, None where there are too few readings, or of too few days."""
        taken = [past for past in self.past if until_s - days * DAY_S < past.at_s <= until_s]
        if len(taken) < self._limits.home_readings.value or len({past.at_s // DAY_S for past in taken}) < LEAST_DAYS:
            return None
        n = len(taken)
        return Pressure(until_s, sum(past.systolic for past in taken) / n, sum(past.diastolic for past in taken) / n)


class _HomeMean:
    """An episode that goes on from one judgement of a mean to the next."""

    def __init__(self, kind: str, limits: Limits) -> None:
        self._kind = kind
        self._onset_s: float | None = None

    def judge(self, at_s: float, beyond: bool, within: bool, measured: dict[str, float]) -> Iterator[Finding]:
        if self._onset_s is None and beyond:
            self._onset_s = at_s
            yield Finding(self._kind, at_s, None, f"rule:{self._kind}", None, measured)
        elif self._onset_s is not None and within:
            yield Finding(self._kind, self._onset_s, at_s, f"rule:{self._kind}", None, measured)
            self._onset_s = None


class _Crisis:
    """A severe blood pressure, and its repeats."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._onset_s: float | None = None
        self._severe_s = 0.0
        self._readings = 0
        self._severe: dict[str, float] = {}

    def values(self, values: dict[str, float], at_s: float) -> Iterator[Finding]:
        """What is known of the measurement at `at_s`."""
        if self._onset_s is not None and at_s - self._severe_s > STALE_S:
            yield self._finding(self._severe_s)
            self._onset_s = None
        if self._above(values) >= 0:
            yield from self._again(values, at_s)
        elif self._onset_s is not None and len(values) == 2 and self._above(values) < -self._limits.pressure_hysteresis.value:
            yield self._finding(at_s)
            self._onset_s = None

    def _again(self, values: dict[str, float], at_s: float) -> Iterator[Finding]:
        if self._onset_s is None:
            self._onset_s, self._readings = at_s, 1
        elif at_s != self._severe_s:
            soon = abs(at_s - self._severe_s) <= self._limits.crisis_repeat.value
            self._readings = self._readings + 1 if soon else 1
        self._severe_s, self._severe = at_s, dict(values)
        yield self._finding(None)

    def _above(self, values: dict[str, float]) -> float:
        """By how much the worse of the two is beyond its limit."""
        limits = {"systolic": self._limits.crisis_systolic.value, "diastolic": self._limits.crisis_diastolic.value}
        return max(value - limits[kind] for kind, value in values.items())

    def _finding(self, end_s: float | None) -> Finding:
        assert self._onset_s is not None
        measured = {f"{kind}_mmhg": value for kind, value in self._severe.items()}
        measured |= {
            "readings": float(self._readings),
            "limit_systolic_mmhg": self._limits.crisis_systolic.value,
            "limit_diastolic_mmhg": self._limits.crisis_diastolic.value,
        }
        return Finding("bp_crisis", self._onset_s, end_s, "rule:bp_crisis", None, measured)
