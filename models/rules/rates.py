"""Detects sustained tachycardia and bradycardia."""

from collections import deque
from collections.abc import Iterator
from math import inf
from typing import Final

from config.limits import Limits
from models.findings import Finding
from models.signal.filters import median_of

MEDIAN_INTERVALS: Final = 5
"""Intervals in the running median of the rate: two wrong ones (a premature beat and its pause) do not move it."""


class RateRule:
    """Reports sustained tachycardia or bradycardia.

    The median rate of 5 intervals must stay beyond its limit for the persistence time. A gap shorter than that time is ignored:
    an episode cannot have ended and another been raised within it.
    """

    def __init__(self, kind: str, limits: Limits) -> None:
        """Watch for `kind`, `tachycardia` or `bradycardia`."""
        self._kind = kind
        self._is_tachycardia = kind == "tachycardia"
        self._limit = limits.tachycardia_rate.value if self._is_tachycardia else limits.bradycardia_rate.value
        self._hysteresis = limits.rate_hysteresis.value
        self._persistence_s = limits.rate_persistence.value
        self._intervals: deque[tuple[float, float]] = deque(maxlen=MEDIAN_INTERVALS)
        self._onset_s: float | None = None
        self._raised = False
        self._extreme = 0.0

    def on_beat(self, t_s: float, rr_s: float) -> Iterator[Finding]:
        """Process one beat with the interval that ends at it. Do not call it for the first beat after a gap."""
        self._intervals.append((t_s, rr_s))
        if len(self._intervals) < MEDIAN_INTERVALS:
            return
        rate = 60.0 / median_of(rr for _, rr in self._intervals)
        if self._onset_s is None:
            if self._is_beyond(rate, 0.0):
                self._onset_s = self._first_beyond_s()
                self._extreme = rate
        elif not self._is_beyond(rate, self._hysteresis):
            yield from self.end_episode(self._first_within_s())
        if self._onset_s is not None:
            self._extreme = max(self._extreme, rate) if self._is_tachycardia else min(self._extreme, rate)
            lasted = t_s - self._onset_s >= self._persistence_s and self._is_beyond(60.0 / rr_s, self._hysteresis)
            if lasted and not self._raised:
                self._raised = True
                yield self._finding(None)

    def end_episode(self, t_s: float) -> Iterator[Finding]:
        """End the episode at `t_s`, because of the rate, a gap or the end; yield nothing if no episode was raised."""
        if self._onset_s is not None and self._raised:
            yield self._finding(t_s)
        self._onset_s, self._raised = None, False

    def on_gap(self, t_s: float, seconds: float = inf) -> Iterator[Finding]:
        """Process a gap of `seconds` that begins at `t_s`."""
        if seconds >= self._persistence_s:
            yield from self.end_episode(t_s)
            self._intervals.clear()

    def _is_beyond(self, rate: float, hysteresis: float) -> bool:
        return rate >= self._limit - hysteresis if self._is_tachycardia else rate <= self._limit + hysteresis

    def _first_beyond_s(self) -> float:
        """Return the start of the oldest interval in the window that is itself beyond the limit."""
        return next(t - rr for t, rr in self._intervals if self._is_beyond(60.0 / rr, 0.0))

    def _first_within_s(self) -> float:
        """Return the end of the episode's last interval, which is the start of the newest run of intervals within the limit."""
        end = self._intervals[-1][0]
        for t, rr in reversed(self._intervals):
            if self._is_beyond(60.0 / rr, self._hysteresis):
                break
            end = t - rr
        return end

    def _finding(self, end_s: float | None) -> Finding:
        assert self._onset_s is not None
        measured = {"rate_bpm": round(float(self._extreme), 1), "limit_bpm": self._limit}
        return Finding(self._kind, self._onset_s, end_s, f"rule:{self._kind}", None, measured)
