"""Rules for a patient whose atrial fibrillation is known: not each episode matters, but its rate and its long pauses."""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from typing import Final

from config.contexts import Contexts
from config.limits import DEFAULT_LIMITS, Limits
from models.findings import Finding

KNOWN_AF_KIND: Final = "known_af"
"""The kind of an episode of AF in such a patient. It is recorded, counts for the burden, and raises no alert."""

MIN_KNOWN_SHARE: Final = 0.8
"""Share of the averaging time in which the intervals must be known."""


def limits_in(limits: Limits, contexts: Contexts) -> Limits:
    """Return the limits for a patient in these contexts. A limit that was set for the patient stays as it is.

    In known AF a pause is longer, and a tachycardia is told by the mean rate (`MeanRateRule`) unless it is critical.
    """
    if not contexts.known_af:
        return limits
    if limits.tachycardia_rate == DEFAULT_LIMITS.tachycardia_rate:
        limits = replace(limits, tachycardia_rate=limits.tachycardia_critical)
    if (limits.pause, limits.short_pause) == (DEFAULT_LIMITS.pause, DEFAULT_LIMITS.short_pause):
        longest_s = min(limits.pause_in_af.value, limits.asystole.value)
        limits = replace(limits, pause=replace(limits.pause_in_af, value=longest_s), short_pause=limits.pause)
    return limits


class MeanRateRule:
    """Reports a `tachycardia` when the mean rate over `af_mean_rate_time` reaches `af_mean_rate`, and again when it is worse.

    The rate is the number of intervals over their sum, as in a rhythm strip: a median would be too low in AF.
    """

    def __init__(self, limits: Limits) -> None:
        self._limit_bpm = limits.af_mean_rate.value
        self._worse_ratio = limits.worse_rate.value
        self._hysteresis_bpm = limits.rate_hysteresis.value
        self._time_s = limits.af_mean_rate_time.value
        self._intervals = deque[tuple[float, float]]()
        self._sum_s = 0.0
        self._onset_s: float | None = None
        self._highest_bpm = self._reported_bpm = 0.0

    def on_beat(self, t_s: float, rr_s: float) -> Iterator[Finding]:
        """Process one beat with the interval that ends at it. Do not call it for the first beat after a gap."""
        self._intervals.append((t_s, rr_s))
        self._sum_s += rr_s
        while self._intervals[0][0] <= t_s - self._time_s:
            self._sum_s -= self._intervals.popleft()[1]
        if self._sum_s < MIN_KNOWN_SHARE * self._time_s:
            return
        rate_bpm = 60.0 * len(self._intervals) / self._sum_s
        if self._onset_s is None:
            if rate_bpm >= self._limit_bpm:
                self._onset_s, self._highest_bpm = self._intervals[0][0], rate_bpm
                yield self._finding(self._onset_s, None)
            return
        self._highest_bpm = max(self._highest_bpm, rate_bpm)
        if rate_bpm < self._limit_bpm - self._hysteresis_bpm:
            yield from self._end(t_s)
        elif rate_bpm >= self._worse_ratio * self._reported_bpm:
            yield self._finding(self._onset_s, None)

    def on_gap(self, t_s: float, seconds: float = inf) -> Iterator[Finding]:
        """Process a gap of `seconds` that begins at `t_s`: a short one only lowers the share of known intervals."""
        if seconds >= (1 - MIN_KNOWN_SHARE) * self._time_s:
            yield from self._end(t_s, is_lost=True)
            self._intervals.clear()
            self._sum_s = 0.0

    def _end(self, t_s: float, *, is_lost: bool = False) -> Iterator[Finding]:
        if self._onset_s is not None:
            yield self._finding(self._onset_s, t_s, is_lost=is_lost)
        self._onset_s = None

    def _finding(self, onset_s: float, end_s: float | None, *, is_lost: bool = False) -> Finding:
        self._reported_bpm = self._highest_bpm
        measured = {"rate_bpm": round(self._highest_bpm, 1), "limit_bpm": self._limit_bpm, "mean_over_s": self._time_s}
        return Finding("tachycardia", onset_s, end_s, "rule:mean_rate", None, measured, lost=is_lost)
