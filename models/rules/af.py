"""Episodes of atrial fibrillation, from the model on RR intervals."""

from collections import deque
from collections.abc import Iterator
from typing import Final, Protocol

import numpy as np

from config.limits import Limits
from models.findings import Finding

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
