"""Decides whether numbers without a title are RR intervals or samples of an ECG."""

from enum import Enum, auto
from typing import Final

import numpy as np

from captures.recording import Samples

_PLAUSIBLE_S: Final = (0.25, 2.5)
"""Heart rates of 24 to 240/min."""
_PLAUSIBLE_SHARE: Final = 0.95
"""Smallest share of intervals within these limits. Missed and false beats cause the others."""
_USUAL_S: Final = (0.3, 1.7)
"""Medians of 35 to 200/min."""
_FEW: Final = 300
"""Fewer numbers are not samples of an ECG: they would last less than 3 s."""
_REPEATED_SHARE: Final = 0.4
"""Largest share of intervals that repeat the one before; 0.35 in ltafdb and svdb, whose intervals have steps of 8 ms."""
_WINDOWS: Final = ((300, 0.06), (1_000, 0.05))
"""Lengths of windows, and the least step ratio of intervals in them.

By the annotations of mitdb, svdb, nsr2db, nsrdb, afdb and ltafdb, 70 % of the lists of intervals have more. Samples of mitdb
have at most 0.015 at 360 Hz and 0.035 at 120 Hz, noisy 10-bit samples at 1000 Hz 0.146 in the short and 0.05 in the long
windows.
"""
_SAMPLE_RATIO: Final = 0.02
"""Numbers with a step ratio up to this are samples."""
_MEDIAN: Final = 5


class NumberKind(Enum):
    """What numbers without a title can be."""

    INTERVALS = auto()
    SAMPLES = auto()
    EITHER = auto()


def classify_numbers(rr_s: Samples) -> NumberKind:
    """Classify numbers that may be RR intervals in seconds.

    An interval differs from the one before by a good part of their range. From sample to sample, an ECG changes little except
    in the QRS complexes, which make up its range. (10-bit counts around 512 are plausible as milliseconds.)
    """
    low, high = _PLAUSIBLE_S
    if not rr_s.size or not (rr_s > 0).all() or np.mean((rr_s >= low) & (rr_s <= high)) < _PLAUSIBLE_SHARE:
        return NumberKind.SAMPLES
    if not _USUAL_S[0] <= float(np.median(rr_s)) <= _USUAL_S[1]:
        return NumberKind.SAMPLES
    if rr_s.size < _FEW:
        return NumberKind.INTERVALS
    ratios = [(_step_ratio(rr_s, length), least) for length, least in _WINDOWS]
    if any(ratio <= _SAMPLE_RATIO for ratio, _ in ratios):
        return NumberKind.SAMPLES
    repeated = float(np.mean(np.diff(rr_s) == 0))
    return (
        NumberKind.INTERVALS
        if repeated <= _REPEATED_SHARE and all(ratio >= least for ratio, least in ratios)
        else NumberKind.EITHER
    )


def _step_ratio(values: Samples, length: int) -> float:
    """The usual step from value to value as a part of their range without single outliers: median over windows."""
    ratios: list[float] = []
    for at in range(0, max(1, values.size - length // 2), length):
        part = values[at : at + length]
        smooth = np.median(np.lib.stride_tricks.sliding_window_view(part, _MEDIAN), axis=1)
        span = float(np.ptp(smooth))
        ratios.append(float(np.median(np.abs(np.diff(part)))) / span if span > 0 else 0.0)
    return float(np.median(ratios))
