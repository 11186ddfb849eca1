"""Compares QRS complexes whose R peak was found in another place.

Where a complex has two deflections of nearly the same height, as in a bundle branch block, noise decides which is the R peak.
"""

from typing import Final

import numpy as np

from models.qrs_shapes import MAX_SHIFT_SAMPLES, SAME_SHAPE_COSINE, best_cosine, shift_qrs
from models.signal.filters import Samples

FAR_ROLLS: Final = (0, -MAX_SHIFT_SAMPLES, MAX_SHIFT_SAMPLES)
"""Samples by which a complex is moved before `best_cosine` moves it further: with it up to 64 ms, the distance of the two peaks
of a notched complex of 150 ms."""

SAME_WAVE_COSINE: Final = 0.95
"""Cosine at and above which a complex that was moved further is the other one. More is asked for than of one in its place,
because some other shapes fit better elsewhere."""


def has_shape(wave_mv: Samples, other_mv: Samples) -> bool:
    """Return whether the QRS complexes of two beats have the same shape, wherever in it the R peaks were found."""
    return best_cosine(shift_qrs(wave_mv), other_mv) >= SAME_SHAPE_COSINE or is_moved(wave_mv, other_mv)


def is_moved(wave_mv: Samples, other_mv: Samples) -> bool:
    """Return whether a complex is the other one, but seems to have another shape because its R peak was found elsewhere."""
    near, *far = (best_cosine(shift_qrs(np.roll(wave_mv, roll)), other_mv) for roll in FAR_ROLLS)
    return near < SAME_SHAPE_COSINE and max(far) >= SAME_WAVE_COSINE
