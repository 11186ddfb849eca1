"""Measures the width of a QRS complex by its slope, in the mean of several beats.

The complex reaches from where the slope last rises above a share of the steepest one to where it falls below it and stays there
(Laguna, Jané & Caminal, Comput Biomed Res 27:45, 1994). The mean of several beats is free of most noise, as in the
signal-averaged ECG.

A P wave or ST segment that is steep at a fast rate seems to belong to the complex. A complex is therefore wide only if its
core, where the slope is twice as steep, is also wide. At 200/min and more a T wave follows at once. A complex is narrow if its
steep part is short and the signal outside it is low.

On four leads of the 121 patients of LUDB whose complexes were marked by cardiologists, the width is 8 ms too small in the
median, with a standard deviation of 27 ms. Of the complexes of 140 ms or more 90 % are wide, of those of 120 ms or more 68 %,
of those below 110 ms 0.5 %. 37 settings of the constants were compared there.
"""

from math import ceil, floor, sqrt
from typing import Final, NamedTuple

import numpy as np

from models.signal.filters import Samples, median
from models.signal.resample import RATE_HZ

SLOPE_SHARE: Final = 0.1
"""Share of the steepest slope below which the signal is flat: between wave boundaries by eye and the level of ST segments."""

FLAT_SAMPLES: Final = 4
"""The complex ends where the slope is flat for so long: 32 ms, longer than the top of a wide deflection."""

CORE_SLOPE_SHARE: Final = 0.2
CORE_WIDTH_SHARE: Final = 0.8
"""The core of a wide complex, where the slope is at least this share of the steepest, is wider than this share of the limit."""

STEEP_SLOPE_SHARE: Final = 0.3
FAST_RR_S: Final = 0.35
"""The steep part of a narrow complex, where the slope is at least this share, is not: a T wave that follows at once at a fast
rate is less steep. Above 170/min the share rises as T waves become shorter, with the root of the rate (Bazett 1920)."""

WIDE_CORE_SHARES: Final = (0.9, 1.25)
MERGED_RR_S: Final = 60.0 / 240.0
"""The core of a complex that is certainly narrow is below this share of the limit. At 240/min and more a T wave follows so
closely that it may belong to the core; a wide rhythm cannot be told from flutter there."""

MAX_OUTSIDE_SHARE: Final = 0.6
"""Largest height of the signal outside a narrow complex as a share of the whole: a T wave of half of the complex. In the
fibrillation of cudb whose steep edges repeat regularly it is 0.7 and more, with one exception."""
MIN_OUTSIDE_SAMPLES: Final = 4

SEARCH_SAMPLES: Final = round(0.08 * RATE_HZ)
"""The steepest slope lies this close to the R peak."""

MIN_SLOPE_RATIO: Final = 2.0
"""The limit of the slope is at least this multiple of the standard error of the mean slope, otherwise noise seems steep."""


class _Reach(NamedTuple):
    """Where a complex begins and ends, in samples of the beat."""

    before: float
    after: float


def is_wide(beats_mv: Samples, r_index: int, limit_ms: float, rr_s: float) -> bool:
    """Return whether the mean of aligned beats is a wide complex; False if there is too much noise. Arguments: `is_narrow`."""
    width_ms = measure_qrs_width_ms(beats_mv, r_index)
    if width_ms is None or width_ms < limit_ms:
        return False
    core_ms = measure_qrs_width_ms(beats_mv, r_index, CORE_SLOPE_SHARE)
    is_broad = core_ms is not None and core_ms > CORE_WIDTH_SHARE * limit_ms
    return is_broad and not is_narrow(beats_mv, r_index, limit_ms, rr_s)


def is_narrow(beats_mv: Samples, r_index: int, limit_ms: float, rr_s: float) -> bool:
    """Return whether the mean of aligned beats is certainly a narrow complex, and most of what the signal shows.

    A wide complex or a wave of fibrillation may have one steep edge, which alone looks like a narrow complex. The signal then
    reaches its height also outside this edge.

    Args:
        beats_mv: the beats, (n, samples) at 125 Hz.
        r_index: the sample of the R peaks.
        limit_ms: the limit of a wide complex.
        rr_s: the interval between two beats, which the samples span.
    """
    if not _is_short_and_steep(beats_mv, r_index, limit_ms, rr_s):
        return False
    core_ms = measure_qrs_width_ms(beats_mv, r_index, CORE_SLOPE_SHARE)
    least, most = (share * limit_ms for share in WIDE_CORE_SHARES)
    return rr_s <= MERGED_RR_S or core_ms is None or not least < core_ms <= most


def _is_short_and_steep(beats_mv: Samples, r_index: int, limit_ms: float, rr_s: float) -> bool:
    """Return whether the steep part of the mean beat is as short as a narrow complex, and the signal outside it low."""
    shares = {STEEP_SLOPE_SHARE, STEEP_SLOPE_SHARE * max(1.0, sqrt(FAST_RR_S / rr_s))}
    reaches = (_find_reach(beats_mv, r_index, share) for share in sorted(shares))
    max_samples = CORE_WIDTH_SHARE * limit_ms * RATE_HZ / 1000.0
    mean, half = beats_mv.mean(axis=0), round(rr_s * RATE_HZ / 2)
    return any(
        reach is not None and reach.after - reach.before <= max_samples and _is_low_outside(mean, reach, half)
        for reach in reaches
    )


def _is_low_outside(mean_mv: Samples, part: _Reach, half: int) -> bool:
    """Return whether the interval of `half` samples on each side of a part of a beat is low outside this part."""
    first, last = floor(part.before), ceil(part.after)
    start = max((first + last) // 2 - half, 0)
    interval = mean_mv[start : start + 2 * half + 1]
    outside = np.concatenate((mean_mv[start : first + 1], mean_mv[last : start + 2 * half + 1]))
    return outside.size >= MIN_OUTSIDE_SAMPLES and float(np.ptp(outside)) <= MAX_OUTSIDE_SHARE * float(np.ptp(interval))


def measure_qrs_width_ms(beats_mv: Samples, r_index: int, slope_share: float = SLOPE_SHARE) -> float | None:
    """Return the width of the mean of aligned beats (n, samples) at 125 Hz, in ms; None if there is too much noise."""
    reach = _find_reach(beats_mv, r_index, slope_share)
    return None if reach is None else 1000.0 * (reach.after - reach.before) / RATE_HZ


def _find_reach(beats_mv: Samples, r_index: int, slope_share: float) -> _Reach | None:
    """Return where the slope of the mean beat is steeper than a share of the steepest; None if there is too much noise."""
    slopes = beats_mv[:, 2:] - beats_mv[:, :-2]
    mean = np.abs(slopes.mean(axis=0))
    first = max(r_index - 1 - SEARCH_SAMPLES, 0)
    steepest = first + int(mean[first : r_index + SEARCH_SAMPLES].argmax())
    limit = slope_share * float(mean[steepest])
    spread = slopes.std(axis=0)
    is_whole = not np.isnan(spread).any()  # not cut short by the next beat
    if is_whole and limit < MIN_SLOPE_RATIO * median(spread) / np.sqrt(len(slopes)):
        return None
    centre = steepest + 1
    before, after = _count_until_flat(mean[steepest::-1], limit), _count_until_flat(mean[steepest:], limit)
    return _Reach(centre - before, centre + after)


def _count_until_flat(slope: Samples, limit: float) -> float:
    """Return the samples until the slope falls below a limit, between two samples; all of them if it does not."""
    lasting = np.lib.stride_tricks.sliding_window_view(slope < limit, FLAT_SAMPLES).all(axis=1)
    if not lasting.any():
        return float(slope.size)
    flat = int(lasting.argmax())
    above = float(slope[flat - 1])
    return flat - 1 + (above - limit) / (above - float(slope[flat]))
