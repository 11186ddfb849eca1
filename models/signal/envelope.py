"""The envelope of the QRS band, which has one peak per heart beat."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.signal.filters import Samples, bandpass, hann
from models.signal.resample import RATE_HZ

QRS_BAND: Final = bandpass(8.0, 22.0, RATE_HZ, half=round(0.096 * RATE_HZ))
"""Passes most of a QRS complex, but little of P and T waves, baseline wander and muscle noise."""

SMOOTHING: Final = hann(round(0.184 * RATE_HZ))
"""Merges the lobes of one complex; 92 ms wide at half height, like a QRS complex."""

_HALF: Final = QRS_BAND.size // 2
ENVELOPE_MARGIN: Final = _HALF + SMOOTHING.size // 2
"""Samples at each end by which the envelope is shorter than the signal."""


def envelope(signal: NDArray[np.floating[Any]], padding_before: int = 0, padding_after: int = 0) -> Samples:
    """Return the envelope of (n,) samples at 125 Hz, (n - 2 `ENVELOPE_MARGIN`,).

    It is empty if the signal is not longer than the two margins.

    The first `padding_before` and the last `padding_after` samples are padding. They cause no peak in the envelope.
    """
    if signal.size <= 2 * ENVELOPE_MARGIN:
        return np.empty(0)
    level = np.abs(np.correlate(signal, QRS_BAND, "valid"))  # both filters are symmetric
    if padding_before > _HALF:
        level[: padding_before - _HALF] = level[padding_before - _HALF]
    if padding_after > _HALF:
        level[_HALF - padding_after :] = level[_HALF - padding_after - 1]
    return np.correlate(level, SMOOTHING, "valid")
