"""Detects sustained tachycardia and bradycardia."""

from collections.abc import Iterator
from math import inf
from typing import Final

from config.limits import Limits
from models.findings import Finding
from models.rules.exertion import MOVING_REASON, ExertionRule
from models.signal.filters import median_of
from models.signal.latest import Latest

MEDIAN_INTERVALS: Final = 5
"""Intervals in the running median of the rate: two wrong ones (a premature beat and its pause) do not move it."""

MEAN_INTERVALS: Final = 4
MIN_SLOW_INTERVALS: Final = 2
"""A bradycardia may also be five beats whose mean rate is slow (PhysioNet/CinC Challenge 2015), as in a block where long and
short intervals alternate. At least two must be slow themselves: one pause is not a bradycardia."""

CRITICAL_INTERVALS: Final = 3
"""Consecutive intervals at a critically slow rate that are reported at once: the three QRS complexes that end a pause are then
already a bradycardia."""

LONGER_BY_S: Final = 1.0
"""A critical bradycardia is reported again when an interval is longer than all before by so much."""


class RateRule:
    """Reports sustained tachycardia or bradycardia.

    The median rate of 5 intervals (for bradycardia, or the mean rate of 4) must stay beyond its limit for the persistence time.
    It is reported again when it has also stayed beyond the critical limit for that time, or worse than reported by a stated
    step (`worse_rate`). Three intervals in a row at a critically slow rate are reported at once. A gap shorter than the
    persistence time is ignored: an episode cannot have ended and another been raised within it.
    """

    def __init__(self, kind: str, limits: Limits, exertion: ExertionRule | None = None, *, has_signal: bool = True) -> None:
        """Watch for `kind`, `tachycardia` or `bradycardia`.

        Args:
            kind: which of the two.
            limits: those of the patient.
            exertion: tells which tachycardias must wait.
            has_signal: the intervals come from a signal. Otherwise beats may have been missed: nothing is reported at once, and
                only the median counts.
        """
        self._kind, self._has_signal = kind, has_signal
        self._exertion = exertion
        self._is_tachycardia = kind == "tachycardia"
        if self._is_tachycardia:
            self._limit = limits.tachycardia_rate.value
            self._critical = max(limits.tachycardia_critical.value, self._limit)
        else:
            self._limit = limits.bradycardia_rate.value
            self._critical = min(limits.bradycardia_critical.value, self._limit)
        self._hysteresis = limits.rate_hysteresis.value
        self._persistence_s = limits.rate_persistence.value
        self._worse_ratio = limits.worse_rate.value if self._is_tachycardia else 1.0 / limits.worse_rate.value
        self._asystole_s = limits.asystole.value
        self._intervals = Latest[tuple[float, float]](MEDIAN_INTERVALS)
        self._seen = Latest[bool](MEDIAN_INTERVALS)
        """Whether the signal of each interval was seen to show no beat. A bradycardia is raised only where all were."""
        self._onset_s: float | None = None
        self._critical_since_s: float | None = None
        self._worse_since_s: float | None = None
        """Since when the rate has been worse than reported by the stated step."""
        self._raised = self._is_critical = self._in_motion = False
        self._extreme = self._longest_s = self._reported_s = self._reported_bpm = 0.0

    @property
    def is_critical(self) -> bool:
        """Whether an episode at a critical rate is open and its rate has not recovered."""
        return self._raised and self._is_critical and self._critical_since_s is not None

    def on_beat(self, t_s: float, rr_s: float, *, is_seen: bool = True) -> Iterator[Finding]:
        """Process one beat with the interval that ends at it. Do not call it for the first beat after a gap.

        `is_seen`: whether the signal of the interval could have shown a beat, and showed none.
        """
        if rr_s >= self._asystole_s:  # single beats in an asystole are not a rhythm
            self._intervals.clear()
            self._seen.clear()
        self._intervals.append((t_s, rr_s))
        if self._exertion:
            self._exertion.on_beat(t_s, rr_s)
        self._seen.append(is_seen)
        at_once = self._has_critical_intervals()
        if len(self._intervals) < MEDIAN_INTERVALS and not at_once:
            return
        rate = self._rate()
        if self._onset_s is None:
            if self._is_beyond(rate, self._limit):
                self._onset_s = self._first_beyond_s(self._limit)
                self._extreme, self._longest_s = self._limit, max(rr for t, rr in self._intervals if t > self._onset_s)
        elif not self._is_beyond(rate, self._limit, self._hysteresis):
            yield from self.end_episode(self._first_within_s())
        if self._onset_s is not None:
            yield from self._continue_episode(self._onset_s, t_s, rr_s, rate, at_once)

    def end_episode(self, t_s: float, *, is_lost: bool = False) -> Iterator[Finding]:
        """End the episode at `t_s`; yield nothing if no episode was raised. `is_lost`: only the signal ends."""
        if self._onset_s is not None and self._raised:
            yield self._finding(max(t_s, self._onset_s), is_lost=is_lost)
        self._onset_s = self._critical_since_s = self._worse_since_s = None
        self._raised = self._is_critical = self._in_motion = False

    def restart(self, t_s: float) -> Iterator[Finding]:
        """End the episode at `t_s`, where another rule reports what follows, and forget the intervals."""
        yield from self.end_episode(t_s)
        self._intervals.clear()
        self._seen.clear()

    def on_gap(self, t_s: float, seconds: float = inf) -> Iterator[Finding]:
        """Process a gap of `seconds` that begins at `t_s`."""
        self._seen.clear()
        if self._exertion:
            self._exertion.on_gap(seconds)
        if seconds >= self._persistence_s:
            yield from self.end_episode(t_s, is_lost=True)
            self._intervals.clear()

    def _continue_episode(self, onset_s: float, t_s: float, rr_s: float, rate: float, at_once: bool) -> Iterator[Finding]:
        is_worse = self._update_critical(t_s, rate, at_once) or self._is_worse_than_reported(t_s, rate)
        self._longest_s = max(self._longest_s, rr_s)
        if self._is_critical or not self._is_beyond(rate, self._critical):
            self._extreme = max(self._extreme, rate) if self._is_tachycardia else min(self._extreme, rate)
        if self._raised:
            is_longer = self._is_critical and not self._is_tachycardia and self._longest_s >= self._reported_s + LONGER_BY_S
            if is_worse or is_longer:
                yield self._finding(None)
        elif at_once or (
            self._has_lasted(onset_s, t_s)
            and self._is_beyond(60.0 / rr_s, self._limit, self._hysteresis)
            and not (self._exertion and self._exertion.explains(t_s))
        ):
            self._raised = True
            yield self._finding(None)

    def _update_critical(self, t_s: float, rate: float, at_once: bool) -> bool:
        """Follow the critical rate; return whether the episode has become critical now."""
        hysteresis = self._hysteresis if self._critical_since_s is not None else 0.0
        if not self._is_beyond(rate, self._critical, hysteresis):
            self._critical_since_s = None
        elif self._critical_since_s is None:
            self._critical_since_s = self._first_beyond_s(self._critical)
        has_lasted = self._critical_since_s is not None and self._has_lasted(self._critical_since_s, t_s)
        is_worse = not self._is_critical and (at_once or has_lasted)
        self._is_critical |= is_worse
        return is_worse

    def _is_worse_than_reported(self, t_s: float, rate: float) -> bool:
        """Process the rate; return whether it has been worse than reported by the stated step for long enough."""
        if not self._raised or not self._is_beyond(rate, self._worse_ratio * self._reported_bpm):
            self._worse_since_s = None
            return False
        self._worse_since_s = t_s if self._worse_since_s is None else self._worse_since_s
        return self._has_lasted(self._worse_since_s, t_s)

    def _rate(self) -> float:
        """Return the median rate; or the mean rate where that alone is slow, because slow intervals alternate with others."""
        intervals_s = [rr for _, rr in self._intervals]
        median = 60.0 / median_of(intervals_s)
        if self._is_tachycardia or not self._has_signal or self._is_beyond(median, self._limit):
            return median
        latest_s = intervals_s[-MEAN_INTERVALS:]
        slow = sum(self._is_beyond(60.0 / rr, self._limit) for rr in latest_s)
        return 60.0 * len(latest_s) / sum(latest_s) if slow >= MIN_SLOW_INTERVALS else median

    def _has_lasted(self, since_s: float, t_s: float) -> bool:
        """Return whether a rate has lasted long enough and, if slow, hides no beats."""
        return t_s - since_s >= self._persistence_s and (self._is_tachycardia or all(self._seen))

    def _has_critical_intervals(self) -> bool:
        return (
            self._has_signal
            and not self._is_tachycardia
            and all(self._critical * rr >= 60.0 for _, rr in self._intervals[-CRITICAL_INTERVALS:])
            and self._seen[-CRITICAL_INTERVALS:] == [True] * CRITICAL_INTERVALS
        )

    def _is_beyond(self, rate: float, limit: float, hysteresis: float = 0.0) -> bool:
        return rate >= limit - hysteresis if self._is_tachycardia else rate <= limit + hysteresis

    def _first_beyond_s(self, limit: float) -> float:
        """Return the start of the oldest interval in the window that is itself beyond the limit."""
        return next(t - rr for t, rr in self._intervals if self._is_beyond(60.0 / rr, limit))

    def _first_within_s(self) -> float:
        """Return the end of the episode's last interval, which is the start of the newest run of intervals within the limit."""
        end = self._intervals[-1][0]
        for t, rr in reversed(self._intervals):
            if self._is_beyond(60.0 / rr, self._limit, self._hysteresis):
                break
            end = t - rr
        return end

    def _finding(self, end_s: float | None, *, is_lost: bool = False) -> Finding:
        assert self._onset_s is not None
        self._reported_s, self._reported_bpm, self._worse_since_s = self._longest_s, self._extreme, None
        measured = {"rate_bpm": round(float(self._extreme), 1), "limit_bpm": self._limit}
        if self._is_critical:
            measured["critical_bpm"] = self._critical
            if not self._is_tachycardia:
                measured["longest_s"] = round(float(self._longest_s), 2)
        if end_s is None and self._exertion and self._exertion.is_moving:
            self._in_motion = True
        reasons = (MOVING_REASON,) if self._in_motion else ()
        return Finding(self._kind, self._onset_s, end_s, f"rule:{self._kind}", None, measured, lost=is_lost, reasons=reasons)
