"""Rules on heart beats: tachycardia, bradycardia, pause, and the episode logic around the AF model.

Every rule sees the beats one by one and never joins intervals across a gap. Times are stream seconds.
"""

from collections import deque
from collections.abc import Iterator
from statistics import median
from typing import Final, Protocol

import numpy as np

from config.limits import Limits
from models.findings import Finding

SMOOTHED_BEATS: Final = 5
"""Intervals in the running median of the rate: two wrong ones (a premature beat and its pause) cannot move it."""
LONGEST_BRIDGED_GAP_S: Final = 30.0
"""A gap longer than the shortest AF episode (ESC: 30 s) ends what was going on: nobody can say what happened in it."""


class RhythmModel(Protocol):
    """A model that tells AF from RR intervals: `models.inference.rr_af.RrAf`."""

    name: str
    version: str
    window: int
    min_valid: int
    on_threshold: float
    off_threshold: float

    def probability(
        self, rr_s: "np.ndarray[tuple[int], np.dtype[np.float64]]", valid: "np.ndarray[tuple[int], np.dtype[np.bool_]]"
    ) -> float:
        """The probability of AF, of at most `window` intervals in seconds, oldest first."""
        ...


class RateRule:
    """Sustained tachycardia or bradycardia: the median rate of 5 intervals beyond its limit for the persistence time."""

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
        """One beat with the interval that ends at it."""
        self._intervals.append((t_s, rr_s))
        if len(self._intervals) < SMOOTHED_BEATS:
            return
        rate = 60.0 / median(rr for _, rr in self._intervals)
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

    def gap(self, t_s: float) -> Iterator[Finding]:
        """No signal from `t_s` on."""
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


class PauseRule:
    """No beat for the limit, in a signal that could have shown one."""

    def __init__(self, limits: Limits) -> None:
        self._limit_s = limits.pause.value
        self._last_beat_s: float | None = None
        self._raised = False

    def beat(self, t_s: float) -> Iterator[Finding]:
        """One beat; ends a pause."""
        if self._last_beat_s is not None and t_s - self._last_beat_s >= self._limit_s:
            if not self._raised:
                yield self._finding(None, t_s)
            yield self._finding(t_s, t_s)
        self._last_beat_s, self._raised = t_s, False

    def quiet_until(self, t_s: float) -> Iterator[Finding]:
        """No beat up to `t_s`, in a usable signal."""
        if self._last_beat_s is not None and not self._raised and t_s >= self._last_beat_s + self._limit_s:
            self._raised = True
            yield self._finding(None, t_s)

    @property
    def last_beat_s(self) -> float | None:
        """The beat after which it is quiet, None where no pause can begin."""
        return self._last_beat_s

    def gap(self, t_s: float) -> Iterator[Finding]:
        """No usable signal from `t_s` on: an interval across it would be no pause."""
        if self._raised:
            yield self._finding(t_s, t_s)
        self._last_beat_s, self._raised = None, False

    def _finding(self, end_s: float | None, seen_until_s: float) -> Finding:
        assert self._last_beat_s is not None
        measured = {"pause_s": round(float(seen_until_s - self._last_beat_s), 2), "limit_s": self._limit_s}
        return Finding("pause", self._last_beat_s, end_s, "rule:pause", None, measured)


class AfRule:
    """AF episodes of at least 30 s, from the AF probability of the last 64 intervals."""

    def __init__(self, limits: Limits, model: RhythmModel) -> None:
        self._duration_s = limits.af_duration.value
        self._model = model
        self._ends = deque[float](maxlen=model.window)
        self._intervals = deque[float](maxlen=model.window)
        self._valid = deque[bool](maxlen=model.window)
        self._onset_s: float | None = None
        self._raised = False
        self._probability = 0.0
        self._rate_bpm = 0.0

    def beat(self, t_s: float, rr_s: float | None) -> Iterator[Finding]:
        """One beat with the interval that ends at it; None after a gap."""
        self._ends.append(t_s)
        self._intervals.append(rr_s or 0.0)
        self._valid.append(rr_s is not None)
        if sum(self._valid) < self._model.min_valid:
            return
        probability = self._model.probability(np.array(self._intervals), np.array(self._valid))
        if self._onset_s is None and probability >= self._model.on_threshold:
            self._onset_s = self._middle()
        elif self._onset_s is not None and probability < self._model.off_threshold:
            yield from self.end(self._middle())
        if self._onset_s is not None:
            self._probability = max(self._probability, probability)
            # A change between two regular rhythms looks like AF while the window holds both, and less so every beat.
            sure = probability >= self._model.on_threshold
            if sure and not self._raised and t_s - self._onset_s >= self._duration_s:
                self._raised = True
                self._rate_bpm = self._mean_rate()
                yield self._finding(None)

    def end(self, t_s: float) -> Iterator[Finding]:
        """The episode, if one was raised, ended at `t_s`."""
        if self._onset_s is not None and self._raised:
            yield self._finding(max(t_s, self._onset_s))
        self._onset_s, self._raised, self._probability = None, False, 0.0

    def gap(self, t_s: float, seconds: float) -> Iterator[Finding]:
        """No signal from `t_s` on for so long."""
        if seconds > LONGEST_BRIDGED_GAP_S:
            yield from self.end(t_s)
            for past in (self._ends, self._intervals, self._valid):
                past.clear()

    def _middle(self) -> float:
        """Where the rhythm changed: the model turns when about half of its intervals are of the new rhythm."""
        valid_ends = [t for t, valid in zip(self._ends, self._valid, strict=True) if valid]
        return valid_ends[len(valid_ends) // 2]

    def _mean_rate(self) -> float:
        """Beats a minute, of the window that decided."""
        valid = [rr for rr, ok in zip(self._intervals, self._valid, strict=True) if ok]
        return round(float(60.0 * len(valid) / sum(valid)), 1)

    def _finding(self, end_s: float | None) -> Finding:
        assert self._onset_s is not None
        measured = {"rate_bpm": self._rate_bpm, "limit_s": self._duration_s}
        source = f"{self._model.name}@{self._model.version}"
        return Finding("af", self._onset_s, end_s, source, round(self._probability, 3), measured)
