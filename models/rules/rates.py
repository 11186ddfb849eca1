"""Sustained tachycardia and bradycardia."""

from collections import deque
from collections.abc import Iterator
from math import inf
from typing import Final

from config.limits import Limits
from models.findings import Finding
from models.signal.filters import median_of

SMOOTHED_BEATS: Final = 5
"""Intervals in the running median of the rate: two wrong ones (a premature beat and its pause) cannot move it."""


class RateRule:
    """Sustained tachycardia or bradycardia: the median rate of 5 intervals beyond its limit for the persistence time.

    A gap shorter than the persistence time changes nothing: an episode could not have ended in it and another been raised.
    """

    def __init__(self, kind: str, limits: Limits) -> None:
        self._kind = kind
        self._fast = kind == "tachycardia"
        self._limit = limits.tachycardia_rate.value if self._fast else limits.bradycardia_rate.value
        self._hysteresis = limits.rate_hysteresis.value
        self._persistence_s = limits.rate_persistence.value
        self._intervals: deque[tuple[float, float]] = deque(maxlen=SMOOTHED_BEATS)
        self._onset_s: float | None = None
        self._raised = False
        self._extreme = 0.0

    def beat(self, t_s: float, rr_s: float) -> Iterator[Finding]:
        """One beat with the interval that ends at it; not called for a beat after a gap, at which none does."""
        self._intervals.append((t_s, rr_s))
        if len(self._intervals) < SMOOTHED_BEATS:
            return
        rate = 60.0 / median_of(rr for _, rr in self._intervals)
        if self._onset_s is None:
            if self._beyond(rate, 0.0):
                self._onset_s = self._first_beyond()
                self._extreme = rate
        elif not self._beyond(rate, self._hysteresis):
            yield from self.end(self._first_within())
        if self._onset_s is not None:
            self._extreme = max(self._extreme, rate) if self._fast else min(self._extreme, rate)
            lasted = t_s - self._onset_s >= self._persistence_s and self._beyond(60.0 / rr_s, self._hysteresis)
            if lasted and not self._raised:
                self._raised = True
                yield self._finding(None)

    def end(self, t_s: float) -> Iterator[Finding]:
        """The episode, if one was raised, ended at `t_s`: by the rate, a gap or the end of the recording."""
        if self._onset_s is not None and self._raised:
            yield self._finding(t_s)
        self._onset_s, self._raised = None, False

    def gap(self, t_s: float, seconds: float = inf) -> Iterator[Finding]:
        """No signal from `t_s` on for so long."""
        if seconds >= self._persistence_s:
            yield from self.end(t_s)
            self._intervals.clear()

    def _beyond(self, rate: float, hysteresis: float) -> bool:
        return rate >= self._limit - hysteresis if self._fast else rate <= self._limit + hysteresis

    def _first_beyond(self) -> float:
        """The start of the oldest interval in the window that is itself beyond the limit."""
        return next(t - rr for t, rr in self._intervals if self._beyond(60.0 / rr, 0.0))

    def _first_within(self) -> float:
        """The end of the last interval of the episode: the start of the newest run of intervals that are not beyond."""
        end = self._intervals[-1][0]
        for t, rr in reversed(self._intervals):
            if self._beyond(60.0 / rr, self._hysteresis):
                break
            end = t - rr
        return end

    def _finding(self, end_s: float | None) -> Finding:
        assert self._onset_s is not None
        measured = {"rate_bpm": round(float(self._extreme), 1), "limit_bpm": self._limit}
        return Finding(self._kind, self._onset_s, end_s, f"rule:{self._kind}", None, measured)
