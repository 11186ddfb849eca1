"""The shape of a pulse wave: how it differs from the periodic motion of an arm, and how a fast pulse is slowed down."""

from typing import Final

import numpy as np

from models.signal.filters import Samples
from models.signal.ppg import RATE_HZ, slope_taps

SHAPE_TAPS: Final = slope_taps(0.03)
"""Slope filter that keeps what the resampler lets pass: the shorter, the more it shows of the steep rise of a fast pulse."""

MIN_SKEWNESS: Final = 0.2
"""Smallest skewness of a pulse's slope. Blood is ejected faster than it runs off, so the rise is steeper and shorter than the
fall; motion to and fro is symmetrical. Of 10 s in which each pulse was found, none had less than 0.28 (15 persons, 60 to
110/min, 1,166 windows). Published models of a pulse have 0.47 and more up to 200/min. A sine has 0.07, and 0.18 with noise of a
third of its amplitude."""
MIN_KNOWN_SLOPES: Final = 150
"""Fewer slopes, 3 s, say too little of the shape."""

BASELINE_TAPS: Final = np.full(51, 1 / 51)
"""Moving mean over 1 s, which leaves the pulse."""
LAG_TOLERANCE: Final = 0.08
"""Beside the interval, so much of it: respiration moves it."""
MIN_PAIR_GAIN: Final = 0.1
"""Smallest gain in correlation by which a wave repeats in pairs. Synthetic pulses of 130 to 200/min have 0.01 and less; of 60
to 90/min with dicrotic waves of 90 %, 0.14 and more. 95 % of 1,490 windows of monitors with a fast pulse had 0.1 and less."""


def is_symmetrical(ppg: Samples) -> bool:
    """Return whether a stretch (n,) at 50 Hz, NaN where samples are missing, is as steep in its rises as in its falls."""
    slope = np.convolve(ppg, SHAPE_TAPS, "valid")
    slope = slope[np.isfinite(slope)]
    if slope.size < MIN_KNOWN_SLOPES:
        return False
    slope = slope - slope.mean()
    slope = slope / max(float(np.abs(slope).max()), np.finfo(np.float64).tiny)
    power = float((slope**2).mean())
    return bool(abs(float((slope**3).mean())) <= MIN_SKEWNESS * power**1.5)


def stretch_halves(ppg: Samples) -> tuple[Samples, Samples]:
    """Return the two halves of a stretch (n,) with an even n, each slowed down to (n,): a pulse has half of its rate there."""
    middle = ppg.size // 2
    return _stretch(ppg[:middle]), _stretch(ppg[middle:])


def _stretch(ppg: Samples) -> Samples:
    """Double the number of samples: the new ones are the means of their neighbours, the last one is repeated."""
    following = np.append(ppg[1:], ppg[-1])
    stretched: Samples = np.stack((ppg, (ppg + following) / 2), axis=-1).reshape(-1)
    return stretched


def repeats_in_pairs(ppg: Samples, interval_s: float, pair_s: float) -> bool:
    """Return whether a stretch (n,) repeats itself better after two intervals of its peaks than after one.

    Every second peak is then a dicrotic wave. `interval_s` is the usual interval, and `pair_s` the usual sum of two.
    """
    known = np.isfinite(ppg)
    if not known.any():
        return False
    x = np.where(known, ppg - np.mean(ppg[known]), 0.0)
    x = np.where(known, x - np.convolve(x, BASELINE_TAPS, "same"), 0.0)
    return _similarity(x, pair_s) - _similarity(x, interval_s) > MIN_PAIR_GAIN


def _similarity(x: Samples, lag_s: float) -> float:
    """Return the largest correlation of a signal with itself after about this time."""
    lags = range(round((1 - LAG_TOLERANCE) * lag_s * RATE_HZ), round((1 + LAG_TOLERANCE) * lag_s * RATE_HZ) + 1)
    pairs = ((x[:-lag], x[lag:]) for lag in lags)
    return max(float(a @ b) / max(float(np.sqrt((a @ a) * (b @ b))), np.finfo(np.float64).tiny) for a, b in pairs)
