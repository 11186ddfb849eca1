"""P and T waves that are as high as a QRS complex: what tells them from one.

The envelope measures 8 to 22 Hz. A tall T wave or, when the threshold is low, a P wave may be high in it. Above 16 Hz only a
QRS complex has much, because only it is steep.
"""

from typing import Final, NamedTuple

import numpy as np

from models.signal.filters import Samples, bandpass, correlation_matrix
from models.signal.resample import RATE_HZ
from models.signal.shape import CONTEXT_SAMPLES, Match

STEEP_BAND: Final = bandpass(16.0, 36.0, RATE_HZ, half=round(0.064 * RATE_HZ))
"""Passes what is steep in a QRS complex; a T wave lasting 0.14 s has 1 % of its height in it."""

NEAR_SAMPLES: Final = round(0.064 * RATE_HZ)
"""The steepest part of a complex is at most this far from the peak of the envelope."""

T_WAVE_SAMPLES: Final = round(0.36 * RATE_HZ)
T_WAVE_HEIGHT_SHARE: Final = 0.5
"""A peak within this time after a beat and below this share of its height is the T wave: Pan & Tompkins, section III."""

MAX_T_NOISE_SHARE: Final = 0.3
"""A tall T wave counts as noise of at most this share of a beat, because a threshold above it would miss the beats."""

P_WAVE_SAMPLES: Final = round(0.24 * RATE_HZ)
"""A higher peak within this time after a low beat replaces it: the low one was a tall P wave. This is longer than the normal PR
interval of up to 0.2 s, because first-degree AV block is common."""

MIN_T_WAVE_SAMPLES: Final = round(0.12 * RATE_HZ)
MAX_T_WAVE_SAMPLES: Final = round(0.48 * RATE_HZ)
"""The peak of a T wave comes this long after the R peak: at a QT of 0.55 s after 0.45 s."""

EARLY_T_STEEPNESS_SHARE: Final = 0.5
LATE_T_STEEPNESS_SHARE: Final = 0.2
"""A peak after a beat is its T wave if its steepness is below this share of the beat's: half within `T_WAVE_SAMPLES` (Pan &
Tompkins, section III), a fifth later. In mitdb and svdb, 2 of the 347 beats that come within 0.36 s are below half, and 202 of
the 366 peaks there that are no beats: T waves of wide beats. Later, one in a thousand ventricular beats is below a fifth."""

MAX_P_ENVELOPE_MV: Final = 0.06
MAX_P_SHARE: Final = 0.5
"""A peak may be a P wave if it is below this height of the envelope and below this share of the patient's QRS complex. In LUDB
99 % of the P waves are below 0.026 mV; a sharp one of 0.25 mV reaches 0.05 mV."""

LOW_QRS_CORRELATION: Final = 0.95
LOW_QRS_STEEPNESS_SHARE: Final = 0.75
MIN_LOW_QRS_STEEPNESS: Final = 1.0
"""Such a low peak is a beat if it is this share as steep for its height as the patient's beats, and at least this steep: narrow
complexes have 1.5 times their envelope, P waves of 70 to 120 ms 0.9 to 0.3 times. In a pause it must also have their shape."""

FADING_SAMPLES: Final = round(300.0 * RATE_HZ)
"""Time in which the known height of a beat halves while there is none: after ten minutes a new place of the electrode, with low
and smooth complexes, is more probable than a patient who survives in asystole."""

MIN_PROMINENCE: Final = 2.0
"""A low complex is at least this many times as steep as the signal around it."""


class KnownBeat(NamedTuple):
    """The patient's QRS complex: peak-to-peak height in mV, and steepness as a share of its height in the envelope."""

    height_mv: float
    steepness: float


_MATRIX: Final = correlation_matrix(STEEP_BAND, 2 * (CONTEXT_SAMPLES - STEEP_BAND.size // 2) + 1)
_NEAR: Final = slice(_MATRIX.shape[1] // 2 - NEAR_SAMPLES, _MATRIX.shape[1] // 2 + NEAR_SAMPLES + 1)
_NEAR_MATRIX: Final = _MATRIX[:, _NEAR].copy()


def measure_steepness(context: Samples) -> float:
    """Return the largest value in `STEEP_BAND` near a peak, in mV; `context` is as `QrsShape.match` takes it."""
    near = context.dot(_NEAR_MATRIX)
    return max(float(near.max()), -float(near.min()))


def measure_prominent_steepness(context: Samples) -> float:
    """Return the steepness like `measure_steepness`; 0 if the signal around is more than half as steep, as in noise."""
    steep = np.abs(context.dot(_MATRIX))
    near, around = float(steep[_NEAR].max()), max(float(steep[: _NEAR.start].max()), float(steep[_NEAR.stop :].max()))
    return near if near >= MIN_PROMINENCE * around else 0.0


def is_t_wave(samples_after: int, steepness: float, beat_steepness: float) -> bool:
    """Return whether a peak this many samples after a beat is its T wave, however high it is, because it is too smooth."""
    share = EARLY_T_STEEPNESS_SHARE if samples_after < T_WAVE_SAMPLES else LATE_T_STEEPNESS_SHARE
    return MIN_T_WAVE_SAMPLES <= samples_after < MAX_T_WAVE_SAMPLES and steepness < share * beat_steepness


def is_p_wave(envelope_mv: float, context: Samples, match: Match, known: KnownBeat, since: float, in_pause: bool) -> bool:
    """Return whether a peak is a P wave, because it is low and unlike a QRS complex.

    Args:
        envelope_mv: its height in the envelope.
        context: the samples around it, as `QrsShape.match` takes them.
        match: its comparison with the patient's QRS complex.
        known: that complex.
        since: samples since the last beat.
        in_pause: whether a beat is long overdue.
    """
    if np.ptp(match.context) >= MAX_P_SHARE * known.height_mv * 0.5 ** (since / FADING_SAMPLES):
        return False
    least = max(LOW_QRS_STEEPNESS_SHARE * known.steepness, MIN_LOW_QRS_STEEPNESS) * envelope_mv
    unlike = in_pause and match.correlation < LOW_QRS_CORRELATION
    return unlike or measure_prominent_steepness(context) < least
