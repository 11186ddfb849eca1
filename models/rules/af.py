"""Detects episodes of atrial fibrillation, and measures its burden, from the model on RR or PP intervals."""

from collections import deque
from collections.abc import Iterator
from typing import Final, Protocol

import numpy as np

from config.limits import Limits
from models.findings import Finding
from models.rules.af_tracker import MAX_UNKNOWN_S, NOTHING_OBSERVED, STEP_BEATS, AfTracker, Burden, Episode

VENTRICULAR: Final = "V"
"""Label of beats that carry no information about the atria: the interval before such a beat (coupling) and the one after it
(compensatory pause) are not valid. Beats labelled S are kept: in AF every second beat seems early."""


class RhythmModel(Protocol):
    """A model that detects AF in RR intervals: `models.inference.rr_af.RrAf`."""

    name: str
    version: str
    window: int
    on_threshold: float

    def is_conclusive(
        self, rr_s: "np.ndarray[tuple[int], np.dtype[np.float64]]", valid: "np.ndarray[tuple[int], np.dtype[np.bool_]]"
    ) -> bool:
        """Return whether there are enough intervals, and few enough missed beats, to detect AF."""
        ...

    def probability(
        self, rr_s: "np.ndarray[tuple[int], np.dtype[np.float64]]", valid: "np.ndarray[tuple[int], np.dtype[np.bool_]]"
    ) -> float:
        """Return the probability of AF in at most `window` intervals, in seconds, oldest first."""
        ...


class AfRule:
    """Reports AF episodes of at least 30 s and the time in AF, from the model's probability for the last 64 intervals.

    For a pulse wave, or RR intervals without an ECG, use the kind `irregular_pulse`: AF can be diagnosed on an ECG only (ESC
    2024, section 3.2).
    """

    def __init__(self, limits: Limits, model: RhythmModel, kind: str = "af") -> None:
        self._kind = kind
        self._duration_s = limits.af_duration.value
        self._model = model
        self._tracker = AfTracker(model.on_threshold, self._duration_s)
        self._beat_times_s = deque[float](maxlen=model.window)
        self._intervals = deque[float](maxlen=model.window)
        self._valid = deque[bool](maxlen=model.window)
        self._beat_count = 0
        self._after_ventricular = False
        self._probability = 0.0
        self._rate_bpm = 0.0
        self._burden = NOTHING_OBSERVED

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

    def on_gap(self, t_s: float, seconds: float) -> Iterator[Finding]:
        """Process a gap of `seconds` that begins at `t_s`; infinite at the end of a recording."""
        if seconds > MAX_UNKNOWN_S and self._beat_times_s:
            yield from self._end_segment()

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
            self._probability = max(self._probability, probability) if self._tracker.has_open_episode else probability
        middle_s = self._beat_times_s[len(self._beat_times_s) // 2]
        for episode in self._tracker.add_window(self._beat_times_s[-1], self._beat_times_s[0], middle_s, probability):
            if episode.end_s is None:
                self._rate_bpm = self._mean_rate()
            yield self._finding(episode)
        self._collect_burden()

    def _end_segment(self) -> Iterator[Finding]:
        """Close the open episode and start over: later beats cannot be related to earlier ones."""
        for episode in self._tracker.end(self._beat_times_s[-1]):
            yield self._finding(episode)
        self._collect_burden()
        for history in (self._beat_times_s, self._intervals, self._valid):
            history.clear()
        self._beat_count, self._after_ventricular = 0, False

    def _collect_burden(self) -> None:
        for stretch in self._tracker.take_labelled():
            self._burden = self._burden.plus(stretch)

    def _mean_rate(self) -> float:
        """Return the mean heart rate, in beats per minute, in the window that raised the episode."""
        valid = [rr for rr, ok in zip(self._intervals, self._valid, strict=True) if ok]
        return round(float(60.0 * len(valid) / sum(valid)), 1)

    def _finding(self, episode: Episode) -> Finding:
        measured = {"rate_bpm": self._rate_bpm, "limit_s": self._duration_s}
        source = f"{self._model.name}@{self._model.version}"
        return Finding(self._kind, episode.onset_s, episode.end_s, source, round(self._probability, 3), measured)
