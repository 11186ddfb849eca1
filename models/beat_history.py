"""What a patient's last minutes say about the next beat: the background rhythm, how much it varies, and its P wave.

The history outlasts a run of ectopic beats. A long atrial run soon makes up the last intervals and the last shapes. Only the
rhythm before its abrupt onset still shows that its beats are early.
"""

from math import isnan, log
from typing import Final

import numpy as np

from models.inference.ecg_beat import P_FEATURES, QRS
from models.signal.filters import Samples, median_of
from models.signal.latest import Latest

BACKGROUND_RATIOS: Final = (0.82, 1.25)
"""An interval belongs to the background rhythm if it is within these multiples of the background interval before it. Sinus
rhythm changes less between two beats, except in marked respiratory arrhythmia; a premature beat or a pause changes more."""

BACKGROUND_INTERVALS: Final = 8
"""The background interval is the median of this many: about two breaths."""

SLOW_INTERVALS: Final = 4
"""This many slow intervals in a row are a new background rhythm. After a pause, or a blocked beat, fewer follow each other."""

P_WAVE: Final = slice(QRS.start - 21, QRS.start + 1)
"""Samples in which the P wave is compared: 0.26 to 0.09 s before the R peak."""

P_SHIFT_SAMPLES: Final = 3
"""Largest shift between two P waves that are compared: the PR interval and the R peak jitter by some 20 ms."""

P_BEATS: Final = 32
"""Effective number of beats averaged in the P wave."""

MIN_P_BEATS: Final = 4
_MIN_RESIDUAL_MV: Final = 0.002
_P_SAMPLES: Final = P_WAVE.stop - P_WAVE.start
_INDICES: Final = np.arange(-P_SHIFT_SAMPLES, P_SHIFT_SAMPLES + 1)[:, None] + np.arange(P_WAVE.start, P_WAVE.stop)
_RAMP: Final = np.arange(_P_SAMPLES) - (_P_SAMPLES - 1) / 2
_DETREND: Final = np.eye(_P_SAMPLES) - 1 / _P_SAMPLES - np.outer(_RAMP, _RAMP) / (_RAMP @ _RAMP)
"""Removes mean and slope of the samples: baseline and the end of the previous T wave."""


class BackgroundRhythm:
    """Follows the interval of the rhythm on which ectopic beats occur."""

    def __init__(self) -> None:
        self._intervals = Latest[float](BACKGROUND_INTERVALS)
        self._slow = Latest[float](SLOW_INTERVALS)
        self.is_background = False
        """Whether the latest interval belongs to the background rhythm."""

    def push(self, rr_s: float) -> float:
        """Add an interval, NaN where unknown, and return the background interval before it; NaN where unknown."""
        before_s = median_of(self._intervals) if self._intervals else np.nan
        self.is_background = False
        if isnan(rr_s):
            return before_s
        if not self._intervals:
            self._intervals.append(rr_s)
            return before_s
        ratio = rr_s / self._intervals[-1]
        self.is_background = BACKGROUND_RATIOS[0] <= ratio <= BACKGROUND_RATIOS[1]
        if self.is_background:
            self._intervals.append(rr_s)
        if ratio <= BACKGROUND_RATIOS[1]:
            self._slow.clear()
            return before_s
        self._slow.append(rr_s)
        if len(self._slow) == SLOW_INTERVALS:
            self._intervals.clear()
            self._intervals.extend(self._slow)
            self._slow.clear()
        return before_s


class PWaveHistory:
    """Compares the P wave of each beat with that of the background rhythm."""

    def __init__(self) -> None:
        self._template = np.zeros(_P_SAMPLES)
        self._count = 0
        self._log_residual = 0.0

    def compare(self, wave: Samples, is_background: bool) -> tuple[float, ...]:
        """Compare a beat (104,), then learn it if it belongs to the background rhythm.

        Returns:
            The P wave features of `models.inference.ecg_beat.features`.
        """
        rows = wave[_INDICES] @ _DETREND
        if isnan(float(np.add.reduce(rows, None))):
            return (0.0,) * P_FEATURES
        energy = np.vecdot(rows, rows)
        products = rows @ self._template
        size = float(self._template @ self._template)
        cosines = products / (np.sqrt(energy * size) + 1e-9)
        best = int(cosines.argmax())
        residual = max(float(energy[best] - 2 * products[best] + size) / _P_SAMPLES, _MIN_RESIDUAL_MV**2)
        log_residual = log(residual) / 2
        known = self._count >= MIN_P_BEATS
        clarity = log(max(size / _P_SAMPLES, _MIN_RESIDUAL_MV**2)) / 2 - self._log_residual
        found = (log_residual - self._log_residual, float(cosines[best]), clarity, 1.0) if known else (0.0,) * P_FEATURES
        if is_background:
            self._count += 1
            share = 1 / min(self._count, P_BEATS)
            self._template += share * (rows[P_SHIFT_SAMPLES] - self._template)
            self._log_residual += share * (log_residual - self._log_residual)
        return found


def measure_variation(rr_s: Samples) -> tuple[float, float]:
    """Return the median and the 0.9 quantile of the absolute changes between consecutive intervals, NaN where unknown.

    Args:
        rr_s: (256,) seconds, NaN where unknown.
    """
    changes = np.abs(rr_s[1:] - rr_s[:-1])
    changes = np.sort(changes[np.isfinite(changes)])
    if not changes.size:
        return np.nan, np.nan
    return float(changes[(changes.size - 1) // 2]), float(changes[int(0.9 * (changes.size - 1))])
