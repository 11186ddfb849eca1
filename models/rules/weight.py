"""Detects rapid weight gain, a sign that the body retains fluid in heart failure."""

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from config.limits import Limits
from models.findings import Finding
from models.signal.filters import median_of

DAY_S: Final = 86400.0
MAX_READINGS: Final = 128
"""Readings kept: two weeks of nine a day."""
MIN_CONFIRM_S: Final = 12 * 3600.0
"""A reading confirms an implausible one only after this time, so that it is from another visit to the scale, not from the same
person a second time."""


@dataclass(frozen=True, slots=True)
class Weight:
    """One reading of a scale in kg, at seconds UTC."""

    at_s: float
    kg: float


class WeightRule:
    """Reports a weight gain since the lightest of the last days.

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
        self.readings = deque[Weight](past, maxlen=MAX_READINGS)
        self._implausible: Weight | None = None
        self._onset_s: float | None = None

    def add_value(self, kg: float, at_s: float) -> Iterator[Finding]:
        """Process one plausible reading."""
        reading = Weight(at_s, kg)
        by_day = self._daily_medians(at_s)
        if by_day and abs(kg - by_day[max(by_day)]) > self._step:
            if not self._is_confirmed(reading):
                self._implausible = self._implausible if self._matches_implausible(reading) else reading
                yield Finding("weight_gain", at_s, at_s, "rule:weight_gain", None, {"weight_kg": kg}, "out_of_distribution")
                return
            yield from self._end_episode(at_s, {"weight_kg": kg})
            self.readings.clear()
        self._implausible = None
        self.readings.append(reading)
        yield from self._check_gain(at_s)

    def is_like_patient(self, kg: float | None) -> bool:
        """Whether a weight is near those of the last day with one. True without a weight to compare, or to compare with."""
        if kg is None or not self.readings:
            return True
        last_day = max(reading.at_s // DAY_S for reading in self.readings)
        last = median_of([reading.kg for reading in self.readings if reading.at_s // DAY_S == last_day])
        return abs(kg - last) <= self._step

    def _check_gain(self, at_s: float) -> Iterator[Finding]:
        by_day = self._daily_medians(at_s)
        today = at_s // DAY_S
        earlier = [kg for day, kg in by_day.items() if day < today]
        if not earlier:
            return
        gain = round(by_day[today] - min(earlier), 3)
        measured = {"gain_kg": gain, "weight_kg": round(by_day[today], 3), "days": self._days, "limit_kg": self._limit}
        if self._onset_s is None and gain > self._limit:
            self._onset_s = at_s
            yield Finding("weight_gain", at_s, None, "rule:weight_gain", None, measured)
        elif gain <= self._limit - self._hysteresis:
            yield from self._end_episode(at_s, measured)

    def _end_episode(self, at_s: float, measured: dict[str, float]) -> Iterator[Finding]:
        if self._onset_s is not None:
            yield Finding("weight_gain", self._onset_s, at_s, "rule:weight_gain", None, measured)
        self._onset_s = None

    def _daily_medians(self, at_s: float) -> dict[float, float]:
        """Return the median of today and of each earlier day that is compared, by day number (UTC)."""
        days = defaultdict[float, list[float]](list)
        for reading in self.readings:
            if at_s // DAY_S - self._days <= reading.at_s // DAY_S <= at_s // DAY_S:
                days[reading.at_s // DAY_S].append(reading.kg)
        return {day: median_of(weights) for day, weights in days.items()}

    def _matches_implausible(self, reading: Weight) -> bool:
        return self._implausible is not None and abs(reading.kg - self._implausible.kg) <= self._limit

    def _is_confirmed(self, reading: Weight) -> bool:
        return (
            self._implausible is not None
            and self._matches_implausible(reading)
            and reading.at_s - self._implausible.at_s >= MIN_CONFIRM_S
        )
