"""Compares the QRS complexes of beats: the cosine of two complexes at the shift at which they match best."""

from math import isnan
from typing import Final, NamedTuple

import numpy as np

from models.inference.ecg_beat import QRS
from models.signal.filters import Samples

MIN_KNOWN_SHARE: Final = 0.5
"""A complex is unknown if this share of its samples or less was received."""

SAME_SHAPE_COSINE: Final = 0.9
"""Cosine of two QRS complexes at and above which they have the same shape."""

MAX_SHIFT_SAMPLES: Final = 4
"""Largest shift between two QRS complexes that are compared, in samples: the R peak of a wide complex jitters."""

_SHIFTED_INDICES: Final = np.arange(-MAX_SHIFT_SAMPLES, MAX_SHIFT_SAMPLES + 1)[:, None] + np.arange(QRS.start, QRS.stop)
"""Sample indices of the QRS complex for each shift, (9, 32)."""
QRS_SAMPLES: Final = QRS.stop - QRS.start
_ALL_KNOWN: Final = np.ones(_SHIFTED_INDICES.shape)


class ShiftedQrs(NamedTuple):
    """A QRS complex at each shift.

    Attributes:
        rows: (9, 32) the complex minus its mean; 0 where it was not received.
        size: (9, 1) root of the sum of squares of each row.
        known: (9, 32) 1 where samples were received, otherwise 0.
        received: (9, 1) number of samples received.
    """

    rows: Samples
    size: Samples
    known: Samples
    received: Samples

    @property
    def is_complete(self) -> bool:
        """Whether all samples were received."""
        return self.known is _ALL_KNOWN


def shift_qrs(wave: Samples) -> ShiftedQrs | None:
    """Return the QRS complex at each shift, or None if too little of it, or of the samples around it, was received."""
    rows = wave[_SHIFTED_INDICES]
    known = _ALL_KNOWN
    if isnan(np.add.reduce(wave[QRS.start - MAX_SHIFT_SAMPLES : QRS.stop + MAX_SHIFT_SAMPLES])):
        known = np.isfinite(rows).astype(np.float64)
        rows[known == 0] = 0.0
    received = np.add.reduce(known, -1, keepdims=True)
    if received.min() <= MIN_KNOWN_SHARE * QRS_SAMPLES:
        return None
    rows -= known * (np.add.reduce(rows, -1, keepdims=True) / received)
    return ShiftedQrs(rows, np.sqrt(np.vecdot(rows, rows))[:, None], known, received)


def best_cosine(shifted: ShiftedQrs | None, other: Samples) -> float:
    """Return the largest cosine of two QRS complexes over all shifts; 0 if the first is unknown."""
    return float(best_cosines(shifted, other[None])[0][0]) if shifted else 0.0


def best_cosines(shifted: ShiftedQrs, means: Samples) -> tuple[Samples, Samples]:
    """Return the largest cosine of a QRS complex with each template (k, 104), and the shift at which it occurs.

    Only received samples count. The mean over these samples is subtracted from both complexes.
    """
    shapes = means[:, QRS].T
    power = shifted.known @ (shapes * shapes) - (shifted.known @ shapes) ** 2 / shifted.received
    cosine = shifted.rows @ shapes / (shifted.size * np.sqrt(np.maximum(power, 0.0)) + 1e-9)
    best = cosine.argmax(0)
    return np.maximum.reduce(cosine, 0), best - MAX_SHIFT_SAMPLES
