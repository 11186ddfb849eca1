"""What the QRS detector learns from the first seconds of a signal: the height of the beats and the noise between them."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np

from models.signal.candidates import PeakCandidate
from models.signal.filters import Samples, median, median_of
from models.signal.resample import RATE_HZ
from models.signal.shape import MAX_SHIFT_SAMPLES, QRS_CORRELATION, band_of
from models.signal.waves import MAX_P_ENVELOPE_MV, is_t_wave, measure_steepness

MIN_REPEATED: Final = 4
"""Candidates of one shape that are beats, however much of the envelope they fill. Muscle noise does not repeat a shape of
0.2 s so often within two seconds."""

SAME_HEIGHT_SHARE: Final = 0.5
"""Smallest height of a repeated candidate as a share of the highest one: what is lower is a P or T wave."""

MAX_NOISE_SHARE: Final = 0.3
"""What lies between repeated complexes is noise of at most this share of their height: it may be tall T waves, and a threshold
above those would miss the beats."""

MIN_REPEATED_SHARE: Final = 0.75
MAX_FAST_RR_SAMPLES: Final = round(0.5 * RATE_HZ)
"""A fast rhythm has at least 120 beats a minute, and at least this share of the high candidates are its beats. P waves of a
standstill are slower, muscle noise and fibrillation repeat less."""

MIN_BEAT_TO_T_SHARE: Final = 0.2
"""A beat is at least this share as high as its T wave in the envelope, even if the T wave has twice its amplitude."""

QRS_PROMINENCE: Final = 3.0
"""Smallest height of a QRS complex as a multiple of the median of the envelope around it, unless it repeats. Noise reaches 2.5
times the median, fibrillation 2 times."""

MIN_NOISE_SHARE: Final = 1 / 8
"""The noise is at least this share of the height of a beat: P and T waves will come, even if none has been seen yet."""


LEARNING_SAMPLES: Final = round(2.0 * RATE_HZ)
"""Learning time after the first candidate: one RR interval at 30/min."""

MAX_LEARNING_SAMPLES: Final = 4 * LEARNING_SAMPLES
"""After this time, candidates among which no beat was found are forgotten; eight seconds hold four beats at 30/min."""

DECAY_AFTER_SAMPLES: Final = round(4.0 * RATE_HZ)
"""After this time without a beat the threshold decays: the electrode moved, or the last beats were artefacts."""

DECAY_FACTOR: Final = 4.0
"""The expected beat height is divided by this at each decay. P waves during a ventricular standstill are lower still."""

WATCH_NOISE_RATIO: Final = 0.3
MIN_FOUND_SHARE: Final = 0.75
"""Noise-to-beat ratio from which the detector looks for a fast rhythm among its candidates, and the share of its beats below
which it has missed so many that it learns their height anew."""


class Level(NamedTuple):
    """Height of the beats and of the noise between them, in mV of the envelope."""

    height: float
    noise: float


class Measured(NamedTuple):
    """A candidate with what `learn_level` compares: the samples around it in `SHAPE_BAND`, and its steepness in mV."""

    candidate: PeakCandidate
    banded: Samples
    steepness: float


def learn_level(candidates: Sequence[PeakCandidate], envelope: Samples, context: Callable[[int], Samples]) -> Level | None:
    """Return the level of a signal that may hold beats; None if it shows low noise alone.

    The highest candidate that is no T wave is a beat. The noise is the median of the envelope, because beats fill the smaller
    part of it. A fast rhythm fills all of it; it is known by complexes that repeat, and the noise is then what lies between.

    Args:
        candidates: of the signal, at least one.
        envelope: of the same signal.
        context: returns the samples around a candidate, as `QrsShape.match` takes them.
    """
    measured = [_measure(candidate, context(candidate.sample)) for candidate in candidates]
    beats = [one for one in measured if not any(_is_t_wave_of(one, other) for other in measured)]
    repeated = _find_repeated(beats)
    if repeated:
        return _level_of(repeated, measured)
    height, noise = max(one.candidate.height for one in beats), median(envelope)
    if height < min(QRS_PROMINENCE * noise, MAX_P_ENVELOPE_MV):
        return None
    return Level(height, max(noise, MIN_NOISE_SHARE * height))


class FastRhythmWatch:
    """Looks for a fast rhythm among the candidates of each two seconds in noise.

    Its beats may have raised the noise level above themselves, or noise before them has.
    """

    def __init__(self, context: Callable[[int], Samples]) -> None:
        """`context` returns the samples around a candidate, as `QrsShape.match` takes them."""
        self._context = context
        self._watched: list[PeakCandidate] = []
        self._beats = 0
        """Beats accepted since the first candidate watched."""

    def on_beat(self) -> None:
        """Note that a beat was accepted."""
        self._beats += 1

    def on_candidate(self, candidate: PeakCandidate) -> Level | None:
        """Watch a candidate; return the level of a fast rhythm if most of its beats were missed."""
        if self._watched and candidate.sample < self._watched[0].sample + LEARNING_SAMPLES:
            self._watched.append(candidate)
            return None
        watched, beats, self._watched, self._beats = self._watched, self._beats, [candidate], 0
        is_recent = len(watched) >= MIN_REPEATED and candidate.sample < watched[0].sample + 2 * LEARNING_SAMPLES
        return _find_fast_rhythm(watched, beats, self._context) if is_recent else None


def _find_fast_rhythm(candidates: Sequence[PeakCandidate], beats: int, context: Callable[[int], Samples]) -> Level | None:
    """Return the level of a fast rhythm, of which `beats` were found; None if there is none or if these are most of it."""
    measured = [_measure(candidate, context(candidate.sample)) for candidate in candidates]
    repeated = _find_repeated(measured)
    if not repeated or beats >= MIN_FOUND_SHARE * len(repeated):
        return None
    level = _level_of(repeated, measured)
    high = [one for one in measured if one.candidate.height >= SAME_HEIGHT_SHARE * level.height]
    rr = (repeated[-1].candidate.sample - repeated[0].candidate.sample) / (len(repeated) - 1)
    return level if rr <= MAX_FAST_RR_SAMPLES and len(repeated) >= MIN_REPEATED_SHARE * len(high) else None


def _level_of(repeated: Sequence[Measured], measured: Sequence[Measured]) -> Level:
    """Return the level of complexes that repeat, and of what lies between them."""
    height = max(one.candidate.height for one in repeated)
    beats = {one.candidate.sample for one in repeated}
    between = [one.candidate.height for one in measured if one.candidate.sample not in beats]
    noise = min(median_of(between), MAX_NOISE_SHARE * height) if between else 0.0
    return Level(height, max(noise, MIN_NOISE_SHARE * height))


def _measure(candidate: PeakCandidate, context: Samples) -> Measured:
    return Measured(candidate, band_of(context), measure_steepness(context))


def _is_t_wave_of(one: Measured, beat: Measured) -> bool:
    return beat.candidate.height >= MIN_BEAT_TO_T_SHARE * one.candidate.height and is_t_wave(
        one.candidate.sample - beat.candidate.sample, one.steepness, beat.steepness
    )


def _find_repeated(beats: Sequence[Measured]) -> list[Measured]:
    """Return the peaks that repeat the steepest of the high ones, with it; empty if fewer than `MIN_REPEATED`."""
    highest = max(one.candidate.height for one in beats)
    high = [one for one in beats if one.candidate.height >= SAME_HEIGHT_SHARE * highest]
    complex_ = max(high, key=lambda one: one.steepness).banded[MAX_SHIFT_SAMPLES:-MAX_SHIFT_SAMPLES]
    repeated = [one for one in high if _correlate(one.banded, complex_) >= QRS_CORRELATION]
    return repeated if len(repeated) >= MIN_REPEATED else []


def _correlate(samples: Samples, complex_: Samples) -> float:
    """Return the largest correlation of a complex with `COMPARE_SAMPLES` on each side of a candidate, over all shifts."""
    windows = np.lib.stride_tricks.sliding_window_view(samples, complex_.size)
    power = np.sqrt((windows * windows).sum(axis=1) * complex_.dot(complex_)) + 1e-12
    return float((windows.dot(complex_) / power).max())
