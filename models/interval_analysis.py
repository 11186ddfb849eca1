"""Analysis of a sensor without an ECG: takes the beat-to-beat intervals and heart rates that it sends, returns findings.

Times are seconds UTC. A sensor sends no time with an interval: the intervals follow each other, and their sum must agree with
the times at which they arrive. Where it does not, some are missing, and none is joined across the gap.

Neither kind of value shows a beat: the analysis never reports a pause, an asystole or a ventricular rhythm.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import inf
from typing import Final

from config.contexts import NO_CONTEXTS, Contexts
from config.limits import Limits
from drivers.heart_rate import LONGEST_TICKS, MAX_RATE, SHORTEST_TICKS
from drivers.readings import TICKS_PER_SECOND
from models.findings import STALE_REASON, Finding
from models.rules.af import AfRule, RhythmModel
from models.rules.af_tracker import MAX_UNKNOWN_S, NOTHING_OBSERVED, Burden
from models.rules.exertion import ExertionRule
from models.rules.known_af import KNOWN_AF_KIND, MeanRateRule, limits_in
from models.rules.rates import RateRule

SHORTEST_S: Final = SHORTEST_TICKS / TICKS_PER_SECOND
LONGEST_S: Final = LONGEST_TICKS / TICKS_PER_SECOND
"""Intervals outside this range are not valid; in a longer one, beats were missed (`drivers.heart_rate`)."""
MIN_RATE: Final = 60.0 / LONGEST_S
"""A rate below that of the longest interval is not valid either, nor is one above `MAX_RATE`: 0 and 255 stand for no rate."""

MAX_LAG_S: Final = 5.0
"""Largest difference between the sum of the intervals and their arrival. A frame comes once a second and ends with the last
complete interval, of at most 4 s. A later arrival shows that intervals are missing. An earlier one follows a delay of the
link, or is due to a sensor whose unit is not quite 1/1024 s."""
MAX_LEAD_S: Final = 30.0
"""Intervals that are further ahead of their arrival show that the hub's clock was set back. No link stores as much."""
SILENT_S: Final = 10.0
"""A heart rate that has not come for this long is no longer being received: a sensor sends one a second
(`drivers.heart_rate`)."""

INTERVALS_REASON: Final = "not_ecg.intervals"
"""The reason key of an alert from beat-to-beat intervals."""
RATE_REASON: Final = "not_ecg.heart_rate"
"""The reason key of an alert from the heart rates that a sensor sends."""
EXTREME_REASON: Final = "not_ecg.extreme_rate"
"""The reason key of an alert about a critical rate: no ECG confirms it. A sensor that misses or adds beats shows such rates,
too."""
WAVEFORM_REASON: Final = "ended.waveform"
"""The reason key of an alert that ended because a waveform of the sensor is received now."""


class IntervalAnalysis:
    """Rules on the intervals and heart rates of one sensor.

    The rate is judged by the heart rates where the sensor sends them, because it averages them over several beats; otherwise
    by the intervals. The rhythm is judged by the intervals.
    """

    def __init__(
        self,
        limits: Limits,
        rr_model: RhythmModel | None = None,
        contexts: Contexts = NO_CONTEXTS,
        brief_ends_s: Iterable[float] = (),
    ) -> None:
        """Start; `brief_ends_s` is what an earlier analysis of this sensor had."""
        limits = limits_in(limits, contexts)
        kind = KNOWN_AF_KIND if contexts.known_af else "irregular_pulse"
        self._af = AfRule(limits, rr_model, kind, [-end_s for end_s in brief_ends_s]) if rr_model else None
        self._mean_rate = MeanRateRule(limits) if contexts.known_af else None
        exertion = ExertionRule(limits, contexts.age_years)
        self._rates = (
            RateRule("tachycardia", limits, exertion, has_signal=False),
            RateRule("bradycardia", limits, has_signal=False),
        )
        self._end_s: float | None = None
        """The time of the last beat by the sum of the intervals; None before the first."""
        self._last_heart_rate_s = -inf
        """When the last valid heart rate came."""
        self._beats_due = 0.0
        """Beats since then by the heart rates, of which the rule on the mean rate has not been told."""
        self._last_rate_s: float | None = None
        """The time of the last rate that the rules have judged, from either kind of value."""
        self._rate_reason = INTERVALS_REASON

    def add_intervals(self, at_s: float, seconds: Sequence[float], *, measured: bool = True) -> Iterator[Finding]:
        """Process consecutive intervals that arrived at `at_s`; `measured`: whether the sensor has measured them."""
        total_s = sum(seconds)
        lag_s = inf if self._end_s is None else at_s - self._end_s - total_s
        if not -MAX_LEAD_S <= lag_s <= MAX_LAG_S:
            yield from self._start(at_s - total_s)
        for interval_s in seconds:
            assert self._end_s is not None
            self._end_s = min(self._end_s + interval_s, max(self._end_s, at_s + MAX_LAG_S))
            yield from self._judge(self._end_s, interval_s, valid=measured and SHORTEST_S <= interval_s <= LONGEST_S)

    def add_heart_rate(self, at_s: float, bpm: float) -> Iterator[Finding]:
        """Process a heart rate in 1/min that arrived at `at_s`. One that is no rate, as 0 or 255, is ignored."""
        if MIN_RATE <= bpm <= MAX_RATE:
            since_s = at_s - self._last_heart_rate_s
            self._last_heart_rate_s = at_s
            yield from self._judge_rate(at_s, 60.0 / bpm, RATE_REASON)
            self._beats_due += since_s * bpm / 60.0 if 0 <= since_s <= SILENT_S else 0.0
            while self._beats_due >= 1.0:
                self._beats_due -= 1.0
                yield from self._judge_mean_rate(at_s, 60.0 / bpm)

    def advance_to(self, at_s: float) -> Iterator[Finding]:
        """End the episodes of which no value has come for too long until `at_s`."""
        if self._last_rate_s is not None and at_s - self._last_rate_s > SILENT_S:
            yield from self._end_rates(STALE_REASON)
        if self._end_s is not None and at_s - self._end_s > MAX_UNKNOWN_S:
            yield from self._end_intervals(inf, STALE_REASON)

    def end(self, *reasons: str) -> Iterator[Finding]:
        """End all episodes as lost: no more values come, or they do not count any more. `reasons` say why."""
        yield from self._end_intervals(inf, *reasons)
        yield from self._end_rates(*reasons)

    @property
    def brief_ends_s(self) -> list[float]:
        """When the latest brief episodes of an irregular pulse ended."""
        return [-age_s for age_s in self._af.brief_ages_s(0.0)] if self._af else []

    def take_burden(self) -> Burden:
        """Return the time with an irregular pulse, and the time observed, that was labelled since the last call."""
        return self._af.take_burden() if self._af else NOTHING_OBSERVED

    def _start(self, start_s: float) -> Iterator[Finding]:
        """Begin a sequence of intervals at the beat at `start_s`, after a gap."""
        if self._end_s is not None:
            gap_s = start_s - self._end_s
            yield from self._end_intervals(gap_s if gap_s > 0 else inf, STALE_REASON)
        self._end_s = start_s
        if self._af:
            yield from self._mark_rhythm(self._af.on_beat(start_s, None))

    def _end_intervals(self, gap_s: float, *reasons: str) -> Iterator[Finding]:
        """End the sequence of intervals, before a gap of this length."""
        if self._af and self._end_s is not None:
            yield from self._mark_rhythm(self._af.on_gap(self._end_s, gap_s), *reasons, lost=True)
        self._end_s = None

    def _judge(self, end_s: float, interval_s: float, *, valid: bool) -> Iterator[Finding]:
        if self._af:
            yield from self._mark_rhythm(self._af.on_beat(end_s, interval_s if valid else None))
        if valid and end_s - self._last_heart_rate_s > SILENT_S:
            yield from self._judge_rate(end_s, interval_s, INTERVALS_REASON)
            yield from self._judge_mean_rate(end_s, interval_s)

    def _judge_mean_rate(self, at_s: float, interval_s: float) -> Iterator[Finding]:
        if self._mean_rate:
            yield from self._mark_rate(self._mean_rate.on_beat(at_s, interval_s))

    def _judge_rate(self, at_s: float, interval_s: float, reason: str) -> Iterator[Finding]:
        if self._last_rate_s is not None and abs(at_s - self._last_rate_s) > SILENT_S:
            yield from self._end_rates(STALE_REASON)
        self._last_rate_s, self._rate_reason = at_s, reason
        for rule in self._rates:
            yield from self._mark_rate(rule.on_beat(at_s, interval_s))

    def _end_rates(self, *reasons: str) -> Iterator[Finding]:
        """End the episodes of the rate at its last value."""
        if self._last_rate_s is not None:
            for rule in self._rates:
                yield from self._mark_rate(rule.on_gap(self._last_rate_s), *reasons)
            if self._mean_rate:
                yield from self._mark_rate(self._mean_rate.on_gap(self._last_rate_s), *reasons)
        self._last_rate_s = None

    def _mark_rate(self, findings: Iterable[Finding], *reasons: str) -> Iterator[Finding]:
        for finding in findings:
            extreme = (EXTREME_REASON,) if "critical_bpm" in finding.measured else ()
            measured = dict(finding.measured)
            if self._rate_reason == RATE_REASON:
                measured.pop("longest_s", None)  # a mean rate has no longest interval
            yield replace(finding, reasons=(self._rate_reason, *extreme, *reasons), measured=measured)

    @staticmethod
    def _mark_rhythm(findings: Iterable[Finding], *reasons: str, lost: bool = False) -> Iterator[Finding]:
        for finding in findings:
            yield replace(finding, reasons=(INTERVALS_REASON, *reasons), lost=lost)
