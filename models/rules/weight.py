"""Detects rapid weight gain, and a rising trend of weight: signs that the body retains fluid in heart failure."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from config.limits import Limits
from models.findings import Finding
from models.signal.filters import median_of
from models.signal.latest import Latest

DAY_S: Final = 86400.0
MAX_READINGS: Final = 128
"""Readings kept: seventeen days of seven a day."""
RECENT_DAYS: Final = 3
"""Days of the short mean of the trend, with today: one odd day moves it by a third."""
MIN_RECENT_DAYS: Final = 2
MIN_TREND_SHARE: Final = 0.5
"""Smallest share of the days of the long mean on which there must be a weight."""
MIN_CONFIRM_S: Final = 12 * 3600.0
"""A reading confirms an implausible one only after this time, so that it is from another visit to the scale, not from the same
person a second time."""


@dataclass(frozen=True, slots=True)
class Weight:
    """One reading of a scale in kg, at seconds UTC."""

    at_s: float
    kg: float


class WeightRule:
    """Reports a weight gain since the lightest of the last days, and a mean that rises above that of the weeks before.

    Days are compared by the median of their readings, so a second try in other clothes does not matter.

    A reading far from the last day's is probably another person's, or includes a bag: it is inconclusive and not kept. If the
    scale shows the same weight again half a day later, it has a new user or was moved, and the comparison starts over.
    """

    def __init__(self, limits: Limits, past: Sequence[Weight] = ()) -> None:
        """Start with the readings `past` of an earlier run."""
        self._limit = limits.weight_gain.value
        self._days = limits.weight_days.value
        self._hysteresis = limits.weight_hysteresis.value
        self._step = limits.weight_step.value
        self.readings = Latest[Weight](MAX_READINGS, past)
        self._trend_limit = limits.weight_trend.value
        self._trend_days = limits.weight_trend_days.value
        self._implausible: Weight | None = None
        self._onsets_s: dict[str, float] = {}
        """When each episode that is open began, by kind."""

    def add_value(self, kg: float, at_s: float) -> Iterator[Finding]:
        """Process one plausible reading."""
        reading = Weight(at_s, kg)
        by_day = self._daily_medians(at_s, self._days)
        if by_day and abs(kg - by_day[max(by_day)]) > self._step:
            if not self._is_confirmed(reading):
                self._implausible = self._implausible if self._matches_implausible(reading) else reading
                yield Finding("weight_gain", at_s, at_s, "rule:weight_gain", None, {"weight_kg": kg}, "out_of_distribution")
                return
            for kind in tuple(self._onsets_s):
                yield from self._end_episode(kind, at_s, {"weight_kg": kg})
            self.readings.clear()
        self._implausible = None
        self.readings.append(reading)
        yield from self._check_gain(at_s)
        yield from self._check_trend(at_s)

    def forget(self, kind: str) -> None:
        """Forget an episode, because it is not known any more whether it goes on."""
        self._onsets_s.pop(kind, None)

    def is_like_patient(self, kg: float | None) -> bool:
        """Whether a weight is near those of the last day with one. True without a weight to compare, or to compare with."""
        if kg is None or not self.readings:
            return True
        last_day = max(reading.at_s // DAY_S for reading in self.readings)
        last = median_of([reading.kg for reading in self.readings if reading.at_s // DAY_S == last_day])
        return abs(kg - last) <= self._step

    def _check_gain(self, at_s: float) -> Iterator[Finding]:
        by_day = self._daily_medians(at_s, self._days)
        today = at_s // DAY_S
        earlier = [kg for day, kg in by_day.items() if day < today]
        if not earlier:
            return
        gain = round(by_day[today] - min(earlier), 3)
        measured = {"gain_kg": gain, "weight_kg": round(by_day[today], 3), "days": self._days, "limit_kg": self._limit}
        yield from self._update_episode(
            "weight_gain", at_s, gain > self._limit, gain <= self._limit - self._hysteresis, measured
        )

    def _check_trend(self, at_s: float) -> Iterator[Finding]:
        """Compare the mean of the last days with that of the weeks before (moving average convergence divergence)."""
        by_day = self._daily_medians(at_s, RECENT_DAYS - 1 + self._trend_days)
        first_recent = at_s // DAY_S - (RECENT_DAYS - 1)
        recent = [kg for day, kg in by_day.items() if day >= first_recent]
        before = [kg for day, kg in by_day.items() if day < first_recent]
        if len(recent) < MIN_RECENT_DAYS or len(before) < MIN_TREND_SHARE * self._trend_days:
            return
        rise = round(sum(recent) / len(recent) - sum(before) / len(before), 3)
        limit = self._trend_limit
        measured = {"gain_kg": rise, "weight_kg": round(recent[-1], 3), "days": self._trend_days, "limit_kg": limit}
        yield from self._update_episode("weight_trend", at_s, rise >= limit, rise <= limit - self._hysteresis, measured)

    def _update_episode(
        self, kind: str, at_s: float, beyond: bool, within: bool, measured: dict[str, float]
    ) -> Iterator[Finding]:
        if kind not in self._onsets_s and beyond:
            self._onsets_s[kind] = at_s
            yield Finding(kind, at_s, None, f"rule:{kind}", None, measured)
        elif within:
            yield from self._end_episode(kind, at_s, measured)

    def _end_episode(self, kind: str, at_s: float, measured: dict[str, float]) -> Iterator[Finding]:
        onset_s = self._onsets_s.pop(kind, None)
        if onset_s is not None:
            yield Finding(kind, onset_s, at_s, f"rule:{kind}", None, measured)

    def _daily_medians(self, at_s: float, days: float) -> dict[float, float]:
        """Return the median of today and of each of the `days` before, by day number (UTC), in order."""
        by_day = defaultdict[float, list[float]](list)
        for reading in self.readings:
            if at_s // DAY_S - days <= reading.at_s // DAY_S <= at_s // DAY_S:
                by_day[reading.at_s // DAY_S].append(reading.kg)
        return {day: median_of(weights) for day, weights in sorted(by_day.items())}

    def _matches_implausible(self, reading: Weight) -> bool:
        return self._implausible is not None and abs(reading.kg - self._implausible.kg) <= self._limit

    def _is_confirmed(self, reading: Weight) -> bool:
        return (
            self._implausible is not None
            and self._matches_implausible(reading)
            and reading.at_s - self._implausible.at_s >= MIN_CONFIRM_S
        )
