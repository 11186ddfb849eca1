"""Tells RR intervals from samples of an ECG where a list of numbers has no title."""

from enum import Enum, auto
from typing import Final

import numpy as np

from captures.recording import Samples

_PLAUSIBLE_S: Final = (0.25, 2.5)
"""Heart rates of 24 to 240/min."""
_USUAL_S: Final = (0.3, 1.7)
"""Medians of 35 to 200/min."""
_FEW: Final = 100
"""As few samples are no ECG: they last less than a second."""
_WINDOW: Final = 300
"""Intervals of 4 minutes, or samples of 0.3 to 2.4 s: most windows of an ECG hold a beat."""
_INTERVALS_FROM: Final = 0.08
_SAMPLES_TO: Final = 0.03
_SHARE: Final = 0.25


class Likeness(Enum):
    """What numbers look like."""

    INTERVALS = auto()
    SAMPLES = auto()
    EITHER = auto()


def compare_with_intervals(rr_s: Samples) -> Likeness:
    """Compare numbers, taken for seconds, with RR intervals.

    An interval differs from the one before by a good part of their whole range. From sample to sample, an ECG changes little or
    not at all, except in the QRS complexes, which make up its range. (10-bit counts around 512 are plausible as milliseconds.)
    """
    low, high = _PLAUSIBLE_S
    if not rr_s.size or (rr_s < low).any() or (rr_s > high).any():
        return Likeness.SAMPLES
    if not _USUAL_S[0] <= float(np.median(rr_s)) <= _USUAL_S[1]:
        return Likeness.SAMPLES
    if rr_s.size < _FEW:
        return Likeness.INTERVALS
    steps = np.abs(np.diff(rr_s))
    still = float(np.mean(steps == 0))
    ratios = [_step_ratio(rr_s[at : at + _WINDOW]) for at in range(0, rr_s.size - _WINDOW // 2, _WINDOW)] or [_step_ratio(rr_s)]
    ratio = float(np.median(ratios))
    if ratio >= _INTERVALS_FROM and still <= _SHARE:
        return Likeness.INTERVALS
    return Likeness.SAMPLES if ratio <= _SAMPLES_TO or still > 2 * _SHARE else Likeness.EITHER


def _step_ratio(values: Samples) -> float:
    """The median step from value to value, as a part of the range of the values."""
    span = float(np.ptp(values))
    return float(np.median(np.abs(np.diff(values)))) / span if span > 0 and values.size > 1 else 0.0
