"""Recognises a wide, regular and fast rhythm whatever the labels of its beats.

Such a rhythm is treated as a ventricular tachycardia until the contrary is shown (ACC/AHA/HRS 2015 supraventricular tachycardia
guideline, section 3.2). Beat labels fail in it where it began before the first beat of the stream, because its shape is then
the usual one. The contrary is shown where this patient's slower sinus rhythm had the same shape: it is then conducted, with a
bundle branch block for example.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from config.limits import Limits
from models.inference.ecg_beat import QRS, SAMPLES_BEFORE_R, WAVE_SAMPLES
from models.moved_complex import FAR_ROLLS, SAME_WAVE_COSINE
from models.qrs_shapes import MAX_SHIFT_SAMPLES, SAME_SHAPE_COSINE, best_cosines, shift_qrs
from models.signal.filters import Samples, median_of
from models.signal.latest import Latest
from models.signal.qrs_width import is_narrow, is_wide
from models.signal.resample import RATE_HZ

WINDOW_BEATS: Final = 17
MIN_BEATS: Final = 9
MIN_WINDOW_S: Final = 4.0
"""A rhythm is judged by its last 9 to 17 beats: at least 4 s, which are 8 intervals at 120/min, or 17 beats above 240/min. With
the detector's learning time and the delay of the labels, a rhythm that begins with the stream is known within 10 s."""

RATE_TOLERANCE: Final = 0.01
"""A median rate below the limit by this share counts as at the limit: R peaks are located to some 4 ms."""

REGULAR_TOLERANCE: Final = 0.12
REGULAR_SHARE: Final = 0.9
"""In a regular rhythm so many intervals differ by less than this share from the median. The cycle length of a VT varies by less
than 20 ms in most patients, the measured R peak of a wide complex by some 20 ms; in atrial fibrillation, half of the intervals
differ by more."""

COHERENT_SHARE: Final = 0.75
"""So many beats of a window have one shape. Others are noise, or detected T waves."""

JUDGE_EVERY_BEATS: Final = 2
"""A fast rhythm is judged at every second beat, which saves time."""
MIN_WIDE: Final = 2
"""Consecutive judgements of a wide rhythm that confirm it."""
NARROW_LEAD: Final = 6
"""So many more are needed in a rhythm that was narrow, until its beats have another shape or rate: a complex of 100 ms may seem
wide now and then (our choice: the 12 beats of 3 s at 240/min)."""

KNOWN_COSINE: Final = 0.95
KNOWN_HEIGHTS: Final = (0.67, 1.5)
"""A beat is a conducted one if its complex fits that closely, and is so many times as high (our choice): more is asked for
than of one shape, because a wave of fibrillation resembles a wide complex."""
KNOWN_BEATS: Final = 9
KNOWN_SHARE: Final = 0.75
"""So many of the latest beats, and such a share of them, are conducted ones in a conducted rhythm, regular or not."""
KNOWN_RR_S: Final = (0.3, 0.6)
"""Its median interval: slower is no tachycardia. The AV node of an adult rarely conducts more than 200/min, and the waves of
fibrillation and flutter are faster."""

SLOW_RR_S: Final = (0.6, 1.5)
"""Intervals of a sinus rhythm at rest, 100 to 40/min."""
GRADUAL_CHANGE: Final = 0.2
"""Largest change between two intervals of a sinus rhythm, with respiratory arrhythmia."""
BLOCK_S: Final = 10.0
CONDUCTED_BLOCKS: Final = 3
"""So many blocks of a regular slow rhythm, whose mean beats have one shape, show that the shape is conducted: 30 s (our choice,
no guideline)."""
MAX_CONDUCTED: Final = 4
"""Conducted shapes that are kept: with and without a bundle branch block, and in two positions of the body."""
UPDATE_SHARE: Final = 0.25
"""Weight of a new mean beat in the conducted shape that it resembles."""
STORED: Final = slice(QRS.start - MAX_SHIFT_SAMPLES, QRS.stop + MAX_SHIFT_SAMPLES)
ROUND_DIGITS: Final = 3
"""Of a conducted shape the 40 samples around its QRS complex are stored, to 1 microvolt."""


@dataclass(frozen=True, slots=True)
class WideRhythm:
    """A wide, regular and fast rhythm: the time of its first beat that was judged, and its mean beat."""

    onset_s: float
    mean_mv: Samples


class _Aligned(NamedTuple):
    """Aligned beats of one shape, (n, samples), and by how much the time of each beat of the window changes, in seconds."""

    beats_mv: Samples
    moved_s: Samples


class WideRhythmDetector:
    """Learns the conducted shapes of a patient, and detects wide, regular and fast rhythms of another shape.

    Attributes:
        narrow_s: time of the latest beat if it ends a regular fast rhythm of narrow complexes of one shape; None otherwise.
        known_s: likewise of a fast rhythm, regular or not, of wide complexes that are known to be conducted.
    """

    def __init__(self, limits: Limits, conducted_mv: Iterable[Sequence[float]] = ()) -> None:
        """Start a stream; `conducted_mv` is what an earlier one returned from `conducted_mv`."""
        self._max_rr_s = 60.0 / limits.wide_rate.value * (1 + RATE_TOLERANCE)
        self._wide_ms = limits.wide_qrs.value
        self._conducted = [_complete(np.array(shape)) for shape in conducted_mv]
        self._beats = Latest[tuple[float, float, Samples]](WINDOW_BEATS)
        """Time, interval and waveform of the latest consecutive beats."""
        self._slow_s = 0.0
        self._blocks_mv: list[Samples] = []
        """Mean beats of the latest blocks of a slow rhythm, all of one shape."""
        self._count = self._wide_count = 0
        self._known = Latest[bool](KNOWN_BEATS)
        """Of the latest consecutive beats, whether each is a conducted one with a wide complex."""
        self._wide_conducted = self._select_wide()
        self.narrow_s: float | None = None
        self.known_s: float | None = None

    def conducted_mv(self) -> list[list[float]]:
        """Return the conducted shapes, ready for JSON."""
        return [np.round(shape[STORED], ROUND_DIGITS).tolist() for shape in self._conducted]

    def on_beat(self, t_s: float, rr_s: float | None, wave_mv: Samples, label: str, *, in_af: bool) -> WideRhythm | None:
        """Process one beat that does not belong to a known ventricular run; return a wide rhythm that it confirms.

        `wave_mv` are the samples of `BeatContext`. In atrial fibrillation no rhythm is regular except by chance.
        """
        if rr_s is None:
            self._beats.clear()
            self._known.clear()
        self._learn_slow(rr_s, label)
        self._beats.append((t_s, rr_s or 0.0, wave_mv))
        self._known.append(self.knows(wave_mv))
        is_known = self._known.count(True) >= KNOWN_SHARE * KNOWN_BEATS
        self.known_s = t_s if is_known and KNOWN_RR_S[0] <= self._median_rr_s() <= KNOWN_RR_S[1] else None
        self._count += 1
        if in_af or self._count % JUDGE_EVERY_BEATS:
            return None
        aligned, in_place = self._align_regular()
        self.narrow_s = t_s if aligned is not None and in_place and self._is_narrow(aligned) else None
        mean_mv = None if aligned is None or self.known_s is not None else self._wide_mean(aligned)
        if mean_mv is not None:
            self._wide_count += 1
        elif self.narrow_s is not None:
            self._wide_count = -NARROW_LEAD
        else:
            self._wide_count = 0 if aligned is None else min(self._wide_count, 0)
        return WideRhythm(self._beats[0][0], mean_mv) if mean_mv is not None and self._wide_count >= MIN_WIDE else None

    def start_run(self) -> None:
        """Forget the latest beats: a ventricular run has begun, and its shape is not conducted."""
        self._beats.clear()
        self._known.clear()
        self._blocks_mv, self._slow_s, self._wide_count = [], 0.0, 0
        self.narrow_s = self.known_s = None

    def knows(self, wave_mv: Samples) -> bool:
        """Return whether a beat has a wide complex that is known to be conducted, wherever in it the R peak was found."""
        return any(self._resembles_known(np.roll(wave_mv, roll)) for roll in FAR_ROLLS) if self._wide_conducted else False

    def _resembles_known(self, wave_mv: Samples) -> bool:
        shifted = shift_qrs(wave_mv)
        if shifted is None:
            return False
        cosines, _ = best_cosines(shifted, np.array(self._wide_conducted))
        height_mv, known_mv = np.ptp(wave_mv[QRS]), np.ptp(self._wide_conducted[int(cosines.argmax())][QRS])
        return bool(cosines.max() >= KNOWN_COSINE and KNOWN_HEIGHTS[0] * known_mv <= height_mv <= KNOWN_HEIGHTS[1] * known_mv)

    def _select_wide(self) -> list[Samples]:
        """Return the wide ones of the conducted shapes, judged as after a restart, when only the QRS complexes are known."""
        return [
            shape
            for shape in self._conducted
            if is_wide(_complete(shape[STORED])[None], SAMPLES_BEFORE_R, self._wide_ms, SLOW_RR_S[0])
        ]

    def _wide_mean(self, aligned: Samples) -> Samples | None:
        """Return the mean of the latest beats if it is wide and not conducted."""
        if not is_wide(aligned, SAMPLES_BEFORE_R, self._wide_ms, self._median_rr_s()):
            return None
        mean_mv: Samples = aligned.mean(axis=0)
        return None if self._is_conducted(mean_mv) else mean_mv

    def _is_narrow(self, aligned: Samples) -> bool:
        return is_narrow(aligned, SAMPLES_BEFORE_R, self._wide_ms, self._median_rr_s())

    def _median_rr_s(self) -> float:
        return median_of([rr for _, rr, _ in self._beats][1:])

    def _align_regular(self) -> tuple[Samples | None, bool]:
        """Return the latest beats, aligned, if they are a fast and regular rhythm of one shape.

        Where a complex has two deflections of nearly the same height, noise decides which is the R peak. The intervals are then
        those between the complexes after they were aligned. Also returned: whether the R peaks are in place. Only then
        may the rhythm be called narrow, because waves of fibrillation often fit after they were moved (cudb cu15).
        """
        if not self._is_fast():
            return None, False
        waves, times_s = [wave for _, _, wave in self._beats], np.array([t_s for t_s, _, _ in self._beats])
        for rolls in (FAR_ROLLS[:1], FAR_ROLLS):
            found = _align(waves, rolls)
            if found is not None and (_is_regular(times_s) or _is_regular(times_s + found.moved_s)):
                return found.beats_mv, rolls != FAR_ROLLS and _is_regular(times_s)
        return None, False

    def _is_fast(self) -> bool:
        if len(self._beats) < MIN_BEATS:
            return False
        is_long = len(self._beats) == WINDOW_BEATS or self._beats[-1][0] - self._beats[0][0] >= MIN_WINDOW_S
        return is_long and self._median_rr_s() <= self._max_rr_s

    def _is_conducted(self, mean_mv: Samples) -> bool:
        return bool(self._conducted) and bool(_is_same_shape(mean_mv, self._conducted).any())

    def _learn_slow(self, rr_s: float | None, label: str) -> None:
        """Add a beat's interval to the time in a regular slow rhythm; learn its shape when that is long enough."""
        if label == "V" or rr_s is None or not self._beats or not SLOW_RR_S[0] <= rr_s <= SLOW_RR_S[1]:
            return
        previous_s = self._beats[-1][1]
        if abs(rr_s - previous_s) > GRADUAL_CHANGE * previous_s:
            return
        self._slow_s += rr_s
        if self._slow_s < BLOCK_S:
            return
        self._slow_s = 0.0
        aligned = _align([wave for _, _, wave in self._beats][-MIN_BEATS:], FAR_ROLLS[:1])
        if aligned is None:
            return
        mean_mv = aligned.beats_mv.mean(axis=0)
        if self._blocks_mv and not _is_same_shape(mean_mv, self._blocks_mv).all():
            self._blocks_mv = []
        self._blocks_mv = [*self._blocks_mv, mean_mv][-CONDUCTED_BLOCKS:]
        if len(self._blocks_mv) == CONDUCTED_BLOCKS:
            self._learn(mean_mv)
            self._wide_conducted = self._select_wide()

    def _learn(self, mean_mv: Samples) -> None:
        shifted = shift_qrs(mean_mv)
        if shifted is None:
            return
        if self._conducted:
            cosines, shifts = best_cosines(shifted, np.array(self._conducted))
            nearest = int(cosines.argmax())
            if cosines[nearest] >= SAME_SHAPE_COSINE:
                known = self._conducted.pop(nearest)
                self._conducted.append(known + UPDATE_SHARE * (np.roll(mean_mv, -int(shifts[nearest])) - known))
                return
        self._conducted = [*self._conducted, mean_mv][-MAX_CONDUCTED:]


def _complete(stored_mv: Samples) -> Samples:
    """Return the waveform of a beat of which only the QRS complex is known: flat before and after it."""
    return np.pad(stored_mv, (STORED.start, WAVE_SAMPLES - STORED.stop), "edge")


def _is_same_shape(mean_mv: Samples, others_mv: list[Samples]) -> NDArray[np.bool_]:
    """Return which of the other beats have the same shape as a mean beat."""
    shifted = shift_qrs(mean_mv)
    if shifted is None:
        return np.zeros(len(others_mv), np.bool_)
    same: NDArray[np.bool_] = best_cosines(shifted, np.array(others_mv))[0] >= SAME_SHAPE_COSINE
    return same


def _is_regular(times_s: Samples) -> bool:
    """Return whether nearly all intervals between beats are of one length."""
    intervals_s = np.diff(times_s)
    median_s = median_of(intervals_s.tolist())
    regular = np.count_nonzero(np.abs(intervals_s - median_s) <= REGULAR_TOLERANCE * median_s)
    return bool(regular >= REGULAR_SHARE * intervals_s.size)


def _align(waves: list[Samples], rolls: tuple[int, ...]) -> _Aligned | None:
    """Return the complete beats of the same shape as the last one, aligned to it; None if too few have it.

    A beat that has not is tried again after each of the `rolls`, in samples.
    """
    shifted, stacked = shift_qrs(waves[-1]), np.array(waves)
    known = ~np.isnan(stacked).any(axis=1)
    if shifted is None or not known.any():
        return None
    moves, is_same = np.zeros(len(waves), np.int64), np.zeros(len(waves), np.bool_)
    for roll in rolls:
        rest = np.flatnonzero(known & ~is_same)
        if not rest.size:
            break
        cosines, shifts = best_cosines(shifted, np.roll(stacked[rest], roll, axis=1))
        fits = cosines >= (SAME_WAVE_COSINE if roll else SAME_SHAPE_COSINE)
        moves[rest[fits]], is_same[rest[fits]] = roll + shifts[fits], True
    if np.count_nonzero(is_same) < COHERENT_SHARE * len(waves):
        return None
    beats_mv = [np.roll(stacked[index], moves[index]) for index in np.flatnonzero(is_same).tolist()]
    return _Aligned(np.array(beats_mv), -moves / RATE_HZ)
