"""Resamples recordings with scipy's polyphase filter, independent of the agent's own resampler."""

from fractions import Fraction

import numpy as np
import scipy.signal
from numpy.typing import NDArray

Samples = NDArray[np.float64]


def resampled(mv: Samples, from_hz: float, to_hz: float) -> Samples:
    """Returns samples (n,) at another rate over the same time; NaN where the nearest original sample is NaN."""
    ratio = Fraction(to_hz / from_hz).limit_denominator(1000)
    known = np.isfinite(mv)
    out: Samples = scipy.signal.resample_poly(np.where(known, mv, 0.0), ratio.numerator, ratio.denominator, padtype="line")
    nearest = np.minimum(np.round(np.arange(out.size) / float(ratio)).astype(np.int64), mv.size - 1)
    return np.where(known[nearest], out, np.nan)
