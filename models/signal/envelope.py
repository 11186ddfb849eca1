"""The envelope of the QRS band, which has one bump a heart beat."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.signal.filters import Samples, bandpass, hann
from models.signal.resample import RATE_HZ

QRS_BAND: Final = bandpass(8.0, 22.0, RATE_HZ, half=round(0.096 * RATE_HZ))
"""Most of a QRS complex, little of P and T waves, wander and muscle noise."""

SMOOTHING: Final = hann(round(0.184 * RATE_HZ))
"""Joins the lobes of one complex; half its height is 92 ms wide, as a QRS is."""

_HALF: Final = QRS_BAND.size // 2
ENVELOPE_MARGIN: Final = _HALF + SMOOTHING.size // 2
"""Samples at either end that the envelope is shorter than the signal."""


def envelope(signal: NDArray[np.floating[Any]], before: int = 0, after: int = 0) -> Samples:
    """(n,) samples at 125 Hz to (n - 2 `ENVELOPE_MARGIN`,), or to none of fewer.

    So many samples `before` and `after` a stretch only continue it: what they hold of the band is no bump.
    """
    if signal.size <= 2 * ENVELOPE_MARGIN:
        return np.empty(0)
    level = np.abs(np.correlate(signal, QRS_BAND, "valid"))  # both filters are symmetric
    if before > _HALF:
        level[: before - _HALF] = level[before - _HALF]
    if after > _HALF:
        level[_HALF - after :] = level[_HALF - after - 1]
    return np.correlate(level, SMOOTHING, "valid")
