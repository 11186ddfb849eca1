"""Keeps the labels of a ventricular tachycardia: its beats are V while they keep its shape and rate.

The beat classifier compares each beat with the patient's usual shapes. A tachycardia that lasts becomes usual, and its beats
would be labelled N. Here they are compared with the beats that began the run.
"""

from collections.abc import Iterable
from typing import Final

from config.limits import Limits
from models.moved_complex import has_shape
from models.qrs_shapes import SAME_SHAPE_COSINE, best_cosine, shift_qrs
from models.rules.ventricular import RUN_BEATS
from models.signal.filters import Samples, median_of
from models.signal.latest import Latest

MAX_SHAPES: Final = 3
"""Shapes of one run: beats alternate between two in a bidirectional tachycardia."""

RATE_INTERVALS: Final = 8
"""Intervals in the running median of the run's rate."""

SAME_RATE: Final = 0.25
"""Largest difference of an interval from the median, as a share of it, of a beat that keeps the rate."""

WINDOW_BEATS: Final = 3
"""The run has ended when two of three beats neither keep its shape and rate nor are labelled V."""

SLOW_INTERVALS: Final = 8
"""It has also ended, as a tachycardia, after this many consecutive intervals below its rate limit (`RunRule`)."""

CLEAR_PROBABILITY: Final = 0.7
"""A run is kept only if its first beats are V with this probability in the mean (our choice). After a tachycardia that has
become usual, the classifier doubts the sinus beats, and calls some of them V with less."""


class RunShapes:
    """The shapes and the rate of the ventricular tachycardia in progress.

    Attributes:
        is_open: whether one is in progress.
    """

    def __init__(self, limits: Limits) -> None:
        self._max_rr_s = 60.0 / limits.vt_rate.value
        self._pause_s = limits.pause.value
        self._streak: list[tuple[Samples, float]] = []
        self._shapes: list[Samples] = []
        self._rr_s = Latest[float](RATE_INTERVALS)
        self._kept = Latest[bool](WINDOW_BEATS)
        self.is_open = False

    def start(self, mean_mv: Samples) -> None:
        """Start a run of this shape."""
        self._start([mean_mv], [])

    def relabel(self, rr_s: float | None, wave_mv: Samples, label: str, usual_mv: Samples, probability: float) -> str:
        """Return the label of a beat, given that of the classifier.

        Args:
            rr_s: the interval that ends at the beat, None after a gap.
            wave_mv: the beat, as in `BeatContext`.
            label: the classifier's.
            usual_mv: the patient's usual beat, as in `BeatContext`.
            probability: of the label.
        """
        if not self.is_open:
            self._extend_streak(rr_s, wave_mv, label, usual_mv, probability)
            return label
        if rr_s is not None and rr_s >= self._pause_s:
            self.is_open = False
            return label
        is_kept = self._keeps_shape(wave_mv) and (rr_s is None or self._keeps_rate(rr_s))
        if label == "V" and not is_kept and not best_cosine(shift_qrs(wave_mv), usual_mv) >= SAME_SHAPE_COSINE:
            self._shapes = [*self._shapes, wave_mv][-MAX_SHAPES:]
        belongs = is_kept or label == "V"
        self._kept.append(belongs)
        if belongs and rr_s is not None:
            self._rr_s.append(rr_s)
        is_slow = len(self._rr_s) == RATE_INTERVALS and min(self._rr_s) > self._max_rr_s
        if list(self._kept).count(False) >= 2 or is_slow:
            self.is_open = False
        return "V" if belongs else label

    def _extend_streak(self, rr_s: float | None, wave_mv: Samples, label: str, usual_mv: Samples, probability: float) -> None:
        if label != "V" or (self._streak and (rr_s is None or rr_s > self._max_rr_s)):
            self._streak = []
        if label != "V":
            return
        self._streak.append((wave_mv, probability))
        if len(self._streak) >= RUN_BEATS:
            waves, probabilities = zip(*self._streak, strict=True)
            is_unusual = all(best_cosine(shift_qrs(wave), usual_mv) < SAME_SHAPE_COSINE for wave in waves)
            if is_unusual and sum(probabilities) >= CLEAR_PROBABILITY * len(probabilities):
                self._start([wave_mv], [] if rr_s is None else [rr_s])
            self._streak = self._streak[1:]

    def _start(self, shapes: list[Samples], rr_s: list[float]) -> None:
        self._shapes, self._streak = shapes, []
        self._rr_s.clear()
        self._rr_s.extend(rr_s)
        self._kept.clear()
        self.is_open = True

    def _keeps_shape(self, wave_mv: Samples) -> bool:
        """Return whether a beat has one of the shapes, wherever in the complex its R peak was found."""
        return any(has_shape(wave_mv, shape) for shape in self._shapes)

    def _keeps_rate(self, rr_s: float) -> bool:
        return not self._rr_s or is_in_time(rr_s, self._rr_s)


def is_in_time(rr_s: float, before_s: Iterable[float]) -> bool:
    """Return whether an interval keeps the rate of those before it."""
    median_s = median_of(before_s)
    return abs(rr_s - median_s) <= SAME_RATE * median_s
