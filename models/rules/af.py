"""Detects episodes of atrial fibrillation, and measures its burden, from the model on RR or PP intervals."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final, Protocol

import numpy as np

from config.limits import Limits
from models.findings import Finding
from models.rules.af_repetition import MAYBE_AF_PROBABILITY, measure_repetition
from models.rules.af_tracker import MAX_UNKNOWN_S, NOTHING_OBSERVED, STEP_BEATS, AfTracker, Burden, Episode

VENTRICULAR: Final = "V"
"""Label of beats that carry no information about the atria: the interval before such a beat (coupling) and the one after it
(compensatory pause) are not valid. Beats labelled S are kept: in AF every second beat seems early."""


_Intervals = np.ndarray[tuple[int], np.dtype[np.float64]]
_Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]
_AnyFlags = np.ndarray[Any, np.dtype[np.bool_]]

RECENT_INTERVALS: Final = 26
"""The newest intervals, which show first that AF may have ended; the model needs 24 valid ones. At 131 changes to another
rhythm in afdb (held-out people) and ltafdb they did so after 15 s (median), and at 120 of them within 30 s (decision 35)."""

MAYBE_ENDED_PROBABILITY: Final = 0.1
"""AF may have ended when the probability in the newest intervals is below this: 3 to 5 times an hour in AF that
goes on (decision 35)."""

GOES_ON_PROBABILITY: Final = 0.5
"""AF goes on when this probability is reached again."""


class RhythmModel(Protocol):
    """A model that detects AF in RR intervals: `models.inference.rr_af.RrAf`."""

    name: str
    version: str
    window: int
    on_threshold: float

    def is_conclusive(self, rr_s: _Intervals, valid: _Flags) -> bool:
        """Return whether there are enough intervals, and few enough missed beats, to detect AF."""
        ...

    def probability(self, rr_s: _Intervals, valid: _Flags) -> float:
        """Return the probability of AF in at most `window` intervals, in seconds, oldest first."""
        ...


class EndWatch:
    """Says whether the AF of an open episode may have ended, by the model's probability in the newest intervals."""

    def __init__(self) -> None:
        """Start with an episode that goes on."""
        self.may_have_ended = False

    def add_probability(self, probability: float) -> bool:
        """Process the probability of AF in the newest intervals; return whether `may_have_ended` changed."""
        before = self.may_have_ended
        self.may_have_ended = probability < (GOES_ON_PROBABILITY if before else MAYBE_ENDED_PROBABILITY)
        return self.may_have_ended != before


def select_newest(valid: _AnyFlags) -> _AnyFlags:
    """Return which of the newest intervals are valid, (…, n), by the validity of all, (…, n), oldest first."""
    return np.asarray(valid & (np.arange(valid.shape[-1]) >= valid.shape[-1] - RECENT_INTERVALS))


class AfRule:
    """Reports AF episodes of at least 30 s and the time in AF, from the model's probability for the last 64 intervals.

    An episode whose newest intervals are not those of AF may have ended; it is reported again with `maybe_ended` in `measured`.
    Whether it has is decided some two minutes later.

    For a pulse wave, or RR intervals without an ECG, use the kind `irregular_pulse`: AF can be diagnosed on an ECG only (ESC
    2024, section 3.2).
    """

    def __init__(self, limits: Limits, model: RhythmModel, kind: str = "af", brief_ages_s: Iterable[float] = ()) -> None:
        """Start a stream at the time 0; `brief_ages_s`: as an earlier rule of this patient returned them at that time."""
        self._kind = kind
        self._duration_s = limits.af_duration.value
        self._model = model
        self._tracker = AfTracker(model.on_threshold, self._duration_s, brief_ages_s)
        self._beat_times_s = deque[float](maxlen=model.window)
        self._intervals = deque[float](maxlen=model.window)
        self._valid = deque[bool](maxlen=model.window)
        self._beat_count = 0
        self._after_ventricular = False
        self._probability = 0.0
        self._rate_bpm = 0.0
        self._burden = NOTHING_OBSERVED
        self._end_watch = EndWatch()

    def on_beat(self, t_s: float, rr_s: float | None, label: str = "N") -> Iterator[Finding]:
        """Process one beat.

        Args:
            t_s: its time.
            rr_s: the interval that ends at it, None after a gap.
            label: N, S, V or F.
        """
        if self._beat_times_s and t_s - self._beat_times_s[-1] > MAX_UNKNOWN_S:
            yield from self._end_segment()
            rr_s = None
        ventricular = label == VENTRICULAR
        self._beat_times_s.append(t_s)
        self._intervals.append(rr_s or 0.0)
        self._valid.append(rr_s is not None and not ventricular and not self._after_ventricular)
        self._after_ventricular = ventricular
        self._beat_count += 1
        if self._beat_count % STEP_BEATS == 0:
            yield from self._evaluate_window()
        yield from self._watch_end()

    def on_gap(self, t_s: float, seconds: float) -> Iterator[Finding]:
        """Process a gap of `seconds` that begins at `t_s`; infinite at the end of a recording."""
        if seconds > MAX_UNKNOWN_S and self._beat_times_s:
            yield from self._end_segment()

    def add_time_away(self, seconds: float) -> None:
        """Add the time between the end of an earlier stream and this one."""
        self._tracker.add_time_away(seconds)

    def brief_ages_s(self, now_s: float) -> list[float]:
        """Return how long ago the latest brief episodes ended: they let the next one wait, also after a restart."""
        return self._tracker.brief_ages_s(now_s)

    def take_burden(self) -> Burden:
        """Return the time in AF, and the time observed, that was labelled since the last call.

        Labels come some two minutes late.
        """
        taken, self._burden = self._burden, NOTHING_OBSERVED
        return taken

    def _evaluate_window(self) -> Iterator[Finding]:
        rr_s, valid = np.array(self._intervals), np.array(self._valid)
        probability = self._model.probability(rr_s, valid) if self._model.is_conclusive(rr_s, valid) else None
        if probability is not None:
            self._probability = max(self._probability, probability) if self._tracker.open_onset_s is not None else probability
        repetition = measure_repetition(rr_s, valid) if probability is not None and probability > MAYBE_AF_PROBABILITY else 1.0
        times_s = self._beat_times_s
        middle_s = times_s[len(times_s) // 2]
        for episode in self._tracker.add_window(times_s[-1], times_s[0], middle_s, probability, repetition):
            if episode.end_s is None:
                self._rate_bpm = self._mean_rate()
            yield self._finding(episode)
        self._collect_burden()

    def _watch_end(self) -> Iterator[Finding]:
        """Report an open episode again when it seems to have ended, or to go on: after each beat, as four may take 6 s."""
        open_onset_s = self._tracker.open_onset_s
        if open_onset_s is None:
            self._end_watch = EndWatch()
            return
        rr_s, newest = np.array(self._intervals), select_newest(np.array(self._valid))
        if self._model.is_conclusive(rr_s, newest) and self._end_watch.add_probability(self._model.probability(rr_s, newest)):
            yield self._finding(Episode(open_onset_s, None, self._beat_times_s[-1]))

    def _end_segment(self) -> Iterator[Finding]:
        """Close the open episode as lost and start over: later beats cannot be related to earlier ones."""
        for episode in self._tracker.end(self._beat_times_s[-1]):
            yield replace(self._finding(episode), lost=True)
        self._collect_burden()
        for history in (self._beat_times_s, self._intervals, self._valid):
            history.clear()
        self._beat_count, self._after_ventricular, self._end_watch = 0, False, EndWatch()

    def _collect_burden(self) -> None:
        for stretch in self._tracker.take_labelled():
            self._burden = self._burden.plus(stretch)

    def _mean_rate(self) -> float:
        """Return the mean heart rate, in beats per minute, in the window that raised the episode."""
        valid = [rr for rr, ok in zip(self._intervals, self._valid, strict=True) if ok]
        return round(float(60.0 * len(valid) / sum(valid)), 1)

    def _finding(self, episode: Episode) -> Finding:
        measured = {"rate_bpm": self._rate_bpm, "limit_s": self._duration_s}
        if self._end_watch.may_have_ended and episode.end_s is None:
            measured["maybe_ended"] = 1.0
        source = f"{self._model.name}@{self._model.version}"
        return Finding(self._kind, episode.onset_s, episode.end_s, source, round(self._probability, 3), measured)
