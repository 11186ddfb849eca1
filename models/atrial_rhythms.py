"""Recognises two rhythms of the atria by RR intervals alone: an abrupt run, and bigeminy.

In both, ectopic beats soon outnumber the others and look like the patient's usual beats. The model judges each beat for itself,
and whether it finds such a rhythm hangs on the first beats of it. Their intervals are as strict as no sinus rhythm is for long.
"""

from math import isnan
from typing import Final

from models.beat_history import BackgroundRhythm
from models.signal.filters import median_of
from models.signal.latest import Latest

RUN_INTERVALS: Final = 6
RUN_MAX_RR_S: Final = 0.6
"""100 beats a minute: a slower atrial rhythm is no tachycardia (ACC/AHA/HRS 2015 guideline on SVT, table 3)."""
RUN_MAX_RATIO: Final = 0.75
"""Longest interval of a run over the background interval. 36 settings of the run were compared (decision 32)."""
RUN_MAX_DEVIATION: Final = 0.10
"""Largest deviation from the median interval of the run, as a share of it. Atrial fibrillation varies more."""

BIGEMINY_INTERVALS: Final = 8
"""Four pairs of a short and a long interval."""
BIGEMINY_MAX_RATIO: Final = 0.9
"""Median of the short over that of the long intervals."""
BIGEMINY_MAX_DEVIATION: Final = 0.05
"""Largest deviation of an interval from the median of its four, as a share of it. Seven settings compared (decision 32)."""


class AtrialRhythms:
    """Follows the intervals of one stream."""

    def __init__(self) -> None:
        self._background = BackgroundRhythm()
        self._intervals = Latest[float](BIGEMINY_INTERVALS)
        self._heard_background = False
        """Whether the background rhythm was heard since the last gap. If not, nothing shows that a run began abruptly."""

    def push(self, rr_s: float) -> bool:
        """Add the interval that ends at a beat, NaN where unknown; return whether the beat is ectopic by these rhythms."""
        background_s = self._background.push(rr_s)
        if isnan(rr_s):
            self._intervals.clear()
            self._heard_background = False
            return False
        self._heard_background |= self._background.is_background
        self._intervals.append(rr_s)
        return (self._heard_background and _is_run(self._intervals, background_s)) or _is_bigeminy(self._intervals)


def _is_run(intervals: list[float], background_s: float) -> bool:
    latest = intervals[-RUN_INTERVALS:]
    if len(latest) < RUN_INTERVALS or max(latest) > min(RUN_MAX_RATIO * background_s, RUN_MAX_RR_S):
        return False
    return _is_regular(latest, RUN_MAX_DEVIATION)


def _is_bigeminy(intervals: list[float]) -> bool:
    """Return whether short and long intervals alternate and the latest is short."""
    if len(intervals) < BIGEMINY_INTERVALS:
        return False
    long, short = intervals[::2], intervals[1::2]
    if median_of(short) > BIGEMINY_MAX_RATIO * median_of(long):
        return False
    return _is_regular(short, BIGEMINY_MAX_DEVIATION) and _is_regular(long, BIGEMINY_MAX_DEVIATION)


def _is_regular(intervals: list[float], max_deviation: float) -> bool:
    median_s = median_of(intervals)
    return all(abs(rr_s - median_s) <= max_deviation * median_s for rr_s in intervals)
