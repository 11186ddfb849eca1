"""Rapid gain of weight: fluid that a failing heart holds back."""

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from config.limits import Limits
from models.findings import Finding
from models.signal.filters import median_of

DAY_S: Final = 86400.0
KEPT: Final = 128
"""Readings: two weeks of nine a day."""
ANOTHER_DAY_S: Final = 12 * 3600.0
"""A second reading that is to confirm a first one is made by another visit to the scale, not by the same person once more."""


@dataclass(frozen=True, slots=True)
class Weight:
    """One reading of a scale, in kg, at seconds UTC."""

    at_s: float
    kg: float


class WeightRule:
    """Gain since the lightest of the last days, by the median of each day: a second try in other clothes does not matter.

    A reading far from the last day's is another person's, or a bag: it is inconclusive and left out. Where the scale says the
    same again half a day later, it has a new user or was moved, and the comparison starts anew.
    """

    def __init__(self, limits: Limits, past: Sequence[Weight] = ()) -> None:
        self._limit = limits.weight_gain.value
        self._days = limits.weight_days.value
        self._hysteresis = limits.weight_hysteresis.value
        self._step = limits.weight_step.value
        self.past = deque[Weight](past, maxlen=KEPT)
        self._odd: Weight | None = None
        self._onset_s: float | None = None

    def value(self, kg: float, at_s: float) -> Iterator[Finding]:
        """One plausible reading."""
        reading = Weight(at_s, kg)
        by_day = self._by_day(at_s)
        if by_day and abs(kg - by_day[max(by_day)]) > self._step:
            if not self._confirmed(reading):
                self._odd = self._odd if self._close_to_odd(reading) else reading
                yield Finding("weight_gain", at_s, at_s, "rule:weight_gain", None, {"weight_kg": kg}, "out_of_distribution")
                return
            yield from self._end(at_s, {"weight_kg": kg})
            self.past.clear()
        self._odd = None
        self.past.append(reading)
        yield from self._judge(at_s)

    def _judge(self, at_s: float) -> Iterator[Finding]:
        by_day = self._by_day(at_s)
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
            yield from self._end(at_s, measured)

    def _end(self, at_s: float, measured: dict[str, float]) -> Iterator[Finding]:
        if self._onset_s is not None:
            yield Finding("weight_gain", self._onset_s, at_s, "rule:weight_gain", None, measured)
        self._onset_s = None

    def _by_day(self, at_s: float) -> dict[float, float]:
        """The median of today and of each of the days before that count, by day number (UTC)."""
        days = defaultdict[float, list[float]](list)
        for past in self.past:
            if at_s // DAY_S - self._days <= past.at_s // DAY_S <= at_s // DAY_S:
                days[past.at_s // DAY_S].append(past.kg)
        return {day: median_of(weights) for day, weights in days.items()}

    def _close_to_odd(self, reading: Weight) -> bool:
        return self._odd is not None and abs(reading.kg - self._odd.kg) <= self._limit

    def _confirmed(self, reading: Weight) -> bool:
        return self._odd is not None and self._close_to_odd(reading) and reading.at_s - self._odd.at_s >= ANOTHER_DAY_S
