"""Tells RR intervals from samples of an ECG where a list of numbers has no title."""

from enum import Enum, auto
from typing import Final

import numpy as np

from captures.recording import Samples

_PLAUSIBLE_S: Final = (0.25, 2.5)
"""Heart rates of 24 to 240/min."""
_PLAUSIBLE_SHARE: Final = 0.95
"""Intervals of a recording within these limits, at least. The others are missed and false beats."""
_USUAL_S: Final = (0.3, 1.7)
"""Medians of 35 to 200/min."""
_FEW: Final = 300
"""As few samples are not an ECG: they last less than 3 s."""
_STILL: Final = 0.4
"""Share of numbers that repeat the one before, at most; 0.35 in ltafdb and svdb, whose intervals have steps of 8 ms."""
_WINDOWS: Final = ((300, 0.06), (1_000, 0.05))
"""Lengths of windows, and the least step ratio of intervals in them.

By the annotations of mitdb, svdb, nsr2db, nsrdb, afdb and ltafdb, 70 % of the lists of intervals have more. Samples of mitdb
have at most 0.015 at 360 Hz and 0.035 at 120 Hz, noisy 10-bit samples at 1000 Hz 0.146 in the short and 0.05 in the long
windows.
"""
_SAMPLES_TO: Final = 0.02
_MEDIAN: Final = 5


class Likeness(Enum):
    """What numbers look like."""

    INTERVALS = auto()
    SAMPLES = auto()
    EITHER = auto()


def compare_with_intervals(rr_s: Samples) -> Likeness:
    """Compare numbers, taken for seconds, with RR intervals.

    An interval differs from the one before by a good part of their range. From sample to sample, an ECG changes little except
    in the QRS complexes, which make up its range. (10-bit counts around 512 are plausible as milliseconds.)
    """
    low, high = _PLAUSIBLE_S
    if not rr_s.size or not (rr_s > 0).all() or np.mean((rr_s >= low) & (rr_s <= high)) < _PLAUSIBLE_SHARE:
        return Likeness.SAMPLES
    if not _USUAL_S[0] <= float(np.median(rr_s)) <= _USUAL_S[1]:
        return Likeness.SAMPLES
    if rr_s.size < _FEW:
        return Likeness.INTERVALS
    ratios = [(_step_ratio(rr_s, length), least) for length, least in _WINDOWS]
    if any(ratio <= _SAMPLES_TO for ratio, _ in ratios):
        return Likeness.SAMPLES
    still = float(np.mean(np.diff(rr_s) == 0))
    return Likeness.INTERVALS if still <= _STILL and all(ratio >= least for ratio, least in ratios) else Likeness.EITHER


def _step_ratio(values: Samples, length: int) -> float:
    """The usual step from value to value as a part of their range without single outliers: median over windows."""
    ratios: list[float] = []
    for at in range(0, max(1, values.size - length // 2), length):
        part = values[at : at + length]
        smooth = np.median(np.lib.stride_tricks.sliding_window_view(part, _MEDIAN), axis=1)
        span = float(np.ptp(smooth))
        ratios.append(float(np.median(np.abs(np.diff(part)))) / span if span > 0 else 0.0)
    return float(np.median(ratios))
