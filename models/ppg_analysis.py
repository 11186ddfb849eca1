"""Analysis of one PPG stream: takes samples, returns pulses, their intervals and findings.

Each second of stream time is analysed as soon as all signal that affects it has arrived, some six seconds later. The result is
therefore identical, byte for byte, for any chunk sizes.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from math import ceil
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from config.contexts import NO_CONTEXTS, Contexts
from config.limits import Limits
from models.findings import Finding
from models.inference.ppg_quality import FLAT_RATIO, MIN_KNOWN_SHARE, WINDOW_SAMPLES
from models.rules.af import AfRule, RhythmModel
from models.rules.exertion import ExertionRule
from models.rules.known_af import KNOWN_AF_KIND, MeanRateRule, limits_in
from models.rules.rates import RateRule
from models.signal.filters import median_of
from models.signal.ppg import RATE_HZ, PpgChain, Pulse
from models.signal.ppg_shape import is_symmetrical, repeats_in_pairs, stretch_halves

SECOND_SAMPLES: Final = round(RATE_HZ)
_SAMPLES_TO_WINDOW_END: Final = (WINDOW_SAMPLES + SECOND_SAMPLES) // 2
"""Samples from the start of a second to the end of the quality window around it."""

INCONCLUSIVE_WINDOW_S: Final = 60
"""A signal that is bad for this long is inconclusive for the rhythm: the window of the AF model is as long."""

MAX_GOOD_IN_WINDOW_S: Final = 6
"""Largest number of good seconds in an inconclusive minute: too few for the 24 intervals in which AF can be detected."""

RECOVERY_S: Final = 5
"""Consecutive good seconds that end an inconclusive stretch."""

FAST_INTERVAL_S: Final = 0.5
"""From 120/min on the quality model judges a pulse slowed down to half of its rate: it was trained at 40 to 140/min, and calls
faster ones noise. Of 203 faultless windows of monitors at 130 to 170/min (CinC 2015) it then accepts 94 %, not 65 %."""
RATE_S: Final = 5.0
"""The rate that this is decided by is that of the last pulses, within half of a quality window."""
MIN_RATE_PULSES: Final = 3

MAX_BRIDGED_AF_S: Final = 30
"""A longer bad stretch ends an episode of irregular pulse, like a gap of this length (`models.rules.af`)."""

MAX_BRIDGED_RATE_S: Final = 10
"""A longer bad stretch ends an episode of fast or slow pulse; this is the persistence time of these rules."""


class QualityModel(Protocol):
    """A model that classifies signal as good or bad, such as `models.inference.ppg_quality.PpgQuality`."""

    name: str
    version: str
    threshold: float

    def probability(self, ppg: NDArray[np.float64]) -> float:
        """Return the probability that the pulses in a window (500,) at 50 Hz are reliable."""
        ...


@dataclass(frozen=True, slots=True)
class AnalysedPulse:
    """A pulse with its interval and the quality of its signal.

    Attributes:
        t_s: in stream seconds.
        pp_s: the PP interval that ends at the pulse; None after a gap or polarity flip, and in or after a bad stretch.
        good: whether the signal around the pulse is good.
        after_gap: whether the pulse is the first one after a start, a gap or a polarity flip.
    """

    t_s: float
    pp_s: float | None
    good: bool
    after_gap: bool


@dataclass(frozen=True, slots=True)
class PpgStep:
    """The result of processing a chunk of signal.

    Attributes:
        pulses, findings: in order.
        good: whether each second analysed by this chunk is good; all steps together cover the stream from its first second.
    """

    pulses: tuple[AnalysedPulse, ...] = ()
    findings: tuple[Finding, ...] = ()
    good: tuple[bool, ...] = ()


class PpgAnalysis:
    """Signal chain, quality and rules of one PPG stream."""

    def __init__(
        self,
        rate_hz: float,
        limits: Limits,
        rr_model: RhythmModel | None = None,
        quality: QualityModel | None = None,
        contexts: Contexts = NO_CONTEXTS,
        brief_ages_s: Iterable[float] = (),
    ) -> None:
        """Start a stream. Without a quality model, every second that has a signal counts as good.

        `brief_ages_s` is what an earlier analysis of this sensor returned; see `add_time_away`.

        Raises:
            ValueError: the rate is outside 25 to 4000 Hz.
        """
        self.chain = PpgChain(rate_hz)
        self._max_chunk_samples = ceil(rate_hz)
        self._quality = quality
        limits = limits_in(limits, contexts)
        kind = KNOWN_AF_KIND if contexts.known_af else "irregular_pulse"
        self._af = AfRule(limits, rr_model, kind, brief_ages_s) if rr_model else None
        exertion = ExertionRule(limits, contexts.age_years)
        self._rates = (RateRule("tachycardia", limits, exertion), RateRule("bradycardia", limits))
        self._mean_rate = MeanRateRule(limits) if contexts.known_af else None
        self._pending = deque[Pulse]()
        self._recent_s = deque[float]()
        """The times of the pulses of the last seconds."""
        self._second = 0
        self._last_pulse_s: float | None = None
        self._bad_s = 0
        self._inconclusive = _InconclusiveMonitor(f"{quality.name}@{quality.version}" if quality else "rule:ppg_quality")

    def add_time_away(self, seconds: float) -> None:
        """Add the time between the end of the previous analysis and the first sample; call this before the first `push`."""
        if self._af:
            self._af.add_time_away(seconds)

    @property
    def brief_ages_s(self) -> list[float]:
        """How long ago the latest brief episodes of an irregular pulse ended."""
        return self._af.brief_ages_s(self.chain.end_s) if self._af else []

    def push(self, x: NDArray[np.float64]) -> PpgStep:
        """Process consecutive samples in any unit, NaN where one is missing."""
        step = _StepBuilder()
        for start in range(0, x.size, self._max_chunk_samples):
            self._pending += self.chain.push(x[start : start + self._max_chunk_samples])
            self._advance(step)
        return step.build()

    def gap(self, seconds: float) -> PpgStep:
        """Skip a gap of `seconds`: process everything pending. No PP interval spans the gap."""
        step = _StepBuilder()
        self._pending += self.chain.gap(seconds)
        self._advance(step)
        return step.build()

    def finish(self) -> PpgStep:
        """End the stream: process everything pending and close ongoing findings."""
        step = _StepBuilder()
        self._pending += self.chain.finish()
        end_s = self.chain.end_s
        while self._second < end_s:
            self._analyse_second(step)
        for rule in self._rates:
            step.findings += rule.on_gap(end_s)
        if self._mean_rate:
            step.findings += self._mean_rate.on_gap(end_s)
        if self._af:
            step.findings += self._af.on_gap(end_s, float("inf"))
        step.findings += self._inconclusive.end_episode(end_s)
        return step.build()

    def _advance(self, step: "_StepBuilder") -> None:
        """Analyse every second for which all signal has arrived."""
        end, horizon_s = self.chain.end, self.chain.horizon_s
        while self._second * SECOND_SAMPLES + _SAMPLES_TO_WINDOW_END <= end and self._second + 1 <= horizon_s:
            self._analyse_second(step)

    def _analyse_second(self, step: "_StepBuilder") -> None:
        second = self._second
        self._second += 1
        window = self.chain.window(second * SECOND_SAMPLES + _SAMPLES_TO_WINDOW_END, WINDOW_SAMPLES)
        reason = self._find_defect(window, second)
        step.good.append(reason is None)
        step.findings += self._end_doubtful_episodes(second, reason is None)
        step.findings += self._inconclusive.add_second(second, reason)
        while self._pending and self._pending[0].t_s < second + 1:
            pulse = self._pending.popleft()
            step.pulses.append(self._make_pulse(pulse, reason is None))
            if reason is None:
                step.findings += self._apply_rules(step.pulses[-1])
        if reason is not None:
            self._last_pulse_s = None

    def _is_fast(self, window: NDArray[np.float64], end_s: float) -> bool:
        """Return whether the last pulses before `end_s` are too fast for the quality model. All pulses before it are known."""
        recent_s = self._recent_s
        recent_s += [pulse.t_s for pulse in self._pending if end_s - 1.0 <= pulse.t_s < end_s]
        while recent_s and recent_s[0] < end_s - RATE_S:
            recent_s.popleft()
        if len(recent_s) < MIN_RATE_PULSES:
            return False
        interval_s = median_of([after - before for before, after in pairwise(recent_s)])
        pair_s = median_of([after - before for before, after in zip(recent_s, islice(recent_s, 2, None), strict=False)])
        return interval_s < FAST_INTERVAL_S and not repeats_in_pairs(window, interval_s, pair_s)

    def _find_defect(self, window: NDArray[np.float64], second: int) -> str | None:
        """Return why this second, the middle of a window, is bad, or None if it is good."""
        is_fast = self._is_fast(window, second + 1.0)
        middle = (WINDOW_SAMPLES - SECOND_SAMPLES) // 2
        known = np.isfinite(window)
        if not known[middle : middle + SECOND_SAMPLES].any() or known.mean() < MIN_KNOWN_SHARE:
            return "gaps"
        if np.ptp(window[known]) <= FLAT_RATIO * np.abs(window[known]).max():
            return "lead_off"
        if self._quality is None or self._is_good(self._quality, window, is_fast=is_fast):
            return None
        return "noise" if known.all() else "gaps"

    @staticmethod
    def _is_good(quality: QualityModel, window: NDArray[np.float64], *, is_fast: bool) -> bool:
        """Return whether a window holds pulses that can be trusted: by the model, and not those of a motion to and fro."""
        windows = stretch_halves(window) if is_fast else (window,)
        judged = [one for one in windows if np.isfinite(one).mean() >= MIN_KNOWN_SHARE]
        return all(quality.probability(one) >= quality.threshold for one in judged) and not is_symmetrical(window)

    def _make_pulse(self, pulse: Pulse, good: bool) -> AnalysedPulse:
        joined = good and self._last_pulse_s is not None and not pulse.after_gap
        pp_s = pulse.t_s - self._last_pulse_s if joined and self._last_pulse_s is not None else None
        self._last_pulse_s = pulse.t_s if good else None
        return AnalysedPulse(pulse.t_s, pp_s, good, pulse.after_gap)

    def _apply_rules(self, pulse: AnalysedPulse) -> Iterator[Finding]:
        if pulse.pp_s is not None:
            for rule in self._rates:
                yield from rule.on_beat(pulse.t_s, pulse.pp_s)
            if self._mean_rate:
                yield from self._mean_rate.on_beat(pulse.t_s, pulse.pp_s)
        if self._af:
            yield from self._af.on_beat(pulse.t_s, pulse.pp_s)

    def _end_doubtful_episodes(self, second: int, good: bool) -> Iterator[Finding]:
        """End episodes that a long bad stretch has made doubtful."""
        self._bad_s = 0 if good else self._bad_s + 1
        since_s = float(second + 1 - self._bad_s)
        if self._bad_s == MAX_BRIDGED_RATE_S + 1:
            for rule in self._rates:
                yield from rule.on_gap(since_s)
        if self._mean_rate:
            yield from self._mean_rate.on_gap(since_s, float(self._bad_s))
        if self._af and self._bad_s == MAX_BRIDGED_AF_S + 1:
            yield from self._af.on_gap(since_s, float(self._bad_s))


class _InconclusiveMonitor:
    """Reports stretches in which the signal is bad for a minute, with the reason."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._reasons = deque[str | None](maxlen=INCONCLUSIVE_WINDOW_S)
        self._good_s = 0
        self._onset_s: float | None = None
        self._reason = "noise"

    def add_second(self, second: int, reason: str | None) -> Iterator[Finding]:
        """Add one second of signal; `reason` is why it is bad, None if it is good."""
        self._reasons.append(reason)
        self._good_s = self._good_s + 1 if reason is None else 0
        if self._onset_s is not None:
            if self._good_s >= RECOVERY_S:
                yield from self.end_episode(second + 1.0 - RECOVERY_S)
            return
        bad = [reason for reason in self._reasons if reason is not None]
        if reason is not None and len(bad) >= INCONCLUSIVE_WINDOW_S - MAX_GOOD_IN_WINDOW_S:
            first = next(index for index, reason in enumerate(self._reasons) if reason is not None)
            self._onset_s = float(second + 1 - len(self._reasons) + first)
            self._reason = max(sorted(set(bad)), key=bad.count)
            if second + 1 - self._onset_s >= INCONCLUSIVE_WINDOW_S - MAX_GOOD_IN_WINDOW_S:
                yield self._finding(None)

    def end_episode(self, t_s: float) -> Iterator[Finding]:
        """End an inconclusive stretch at `t_s`, because the signal is good again or ends."""
        if self._onset_s is not None:
            yield self._finding(max(t_s, self._onset_s))
        self._onset_s = None
        self._reasons.clear()

    def _finding(self, end_s: float | None) -> Finding:
        assert self._onset_s is not None
        measured = {"limit_s": float(INCONCLUSIVE_WINDOW_S)}
        return Finding("ppg_inconclusive", self._onset_s, end_s, self._source, None, measured, self._reason)


class _StepBuilder:
    """Collects the results of one step."""

    def __init__(self) -> None:
        self.pulses: list[AnalysedPulse] = []
        self.findings: list[Finding] = []
        self.good: list[bool] = []

    def build(self) -> PpgStep:
        return PpgStep(tuple(self.pulses), tuple(self.findings), tuple(self.good))
