"""Removes the spikes of a pacemaker before the signal is resampled, where the sampling rate shows them.

A pacing pulse lasts 0.1 to 2 ms (IEC 60601-2-27, 201.12.1.101.13). At 125 Hz it looks like a narrow QRS complex. At 250 Hz and
more it stands out: its fourth difference is high, a complex has little of it, and the signal around is smooth.
"""

from typing import Final

import numpy as np

from models.signal.filters import Samples, median

MIN_SPIKE_HZ: Final = 250.0
"""Sampling rate below which the pulse falls between two samples or is removed by the sensor's own filter."""

MIN_SPIKE_MV: Final = 0.15
"""Smallest fourth difference of a spike: five times that of noise of 20 uV rms. A lower spike is no beat at 125 Hz either."""

MAX_NEIGHBOUR_SHARE: Final = 0.25
"""Largest fourth difference around a spike as a share of its own: noise has many that are as high."""

MIN_OVER_MEDIAN: Final = 12.0
"""Smallest fourth difference of a spike as a multiple of the median in the half second before: 8 standard deviations of white
noise. In muscle noise, which has spikes of its own, few are higher, and earlier spikes hardly change the median."""

MIN_SHARPNESS: Final = 0.2
"""Smallest fourth difference of a spike as a share of its height over the signal 12 ms away: 0.33 for a pulse that lies across
two samples, but 0.13 for an R wave with a standard deviation of 5 ms, the narrowest."""

_LAG_S: Final = 0.004
"""Distance of the samples that the fourth difference compares."""

_HALF_WIDTH_S: Final = 0.003
"""Half of what is removed: a pulse of 2 ms, widened by the filter of the sensor."""

_HISTORY_S: Final = 0.5
"""How much of the signal before a spike tells the usual fourth difference."""

_BEFORE_S: Final = 0.03
_AFTER_S: Final = 0.004
"""How much of the signal around a spike must be smooth."""


class SpikeFilter:
    """Replaces each spike of one gap-free stretch by a straight line. The result does not depend on chunk sizes.

    Its outputs lag behind its inputs by 0.04 s.
    """

    def __init__(self, rate_hz: float) -> None:
        lag = round(_LAG_S * rate_hz)
        self._kernel = np.zeros(4 * lag + 1)
        self._kernel[::lag] = np.array([1.0, -4.0, 6.0, -4.0, 1.0]) / 6
        self._lag = lag
        self._half = round(_HALF_WIDTH_S * rate_hz)
        self._reach = 3 * lag + self._half
        """Distance from the highest fourth difference at which a spike does not change it any more."""
        self._before, self._after = round(_BEFORE_S * rate_hz) + self._reach, round(_AFTER_S * rate_hz) + self._reach
        self._changed = 2 * lag + self._half
        """Distance from the highest fourth difference at which samples are replaced."""
        self._history = round(_HISTORY_S * rate_hz)
        self._context = self._history + self._before + self._changed + 2 * lag
        self._delay = self._after + self._changed + 2 * lag
        self._pending: Samples = np.empty(0)
        """`_context` samples that have been returned, then those that have not."""

    def push(self, x: Samples) -> Samples:
        """Return the outputs that became final with `x`."""
        if x.size == 0:
            return x
        pending = self._pending if self._pending.size else np.full(self._context, x[0])
        joined = np.concatenate((pending, x))
        return self._advance(joined, max(joined.size - self._delay, self._context))

    def finish(self) -> Samples:
        """Return the outputs up to the last sample of the stretch."""
        if not self._pending.size:
            return self._pending
        end = self._pending.size
        return self._advance(np.concatenate((self._pending, np.full(self._delay, self._pending[-1]))), end)

    def _advance(self, joined: Samples, end: int) -> Samples:
        """Return the samples from `_context` to before `end`, without their spikes, and keep what later ones need."""
        start, before, after = self._context, self._before, self._after
        self._pending = joined[end - start :]
        if end == start:
            return np.empty(0)
        differences = np.correlate(joined[self._history : end + self._delay], self._kernel, "valid")
        if differences.dot(differences) < MIN_SPIKE_MV**2:  # faster than the maximum, and true of most chunks
            return joined[start:end]
        level = np.abs(differences)
        near = level[before : level.size - after]
        if near.max() < MIN_SPIKE_MV:
            return joined[start:end]
        out = joined.copy()
        for index in np.flatnonzero(near >= MIN_SPIKE_MV).tolist():
            at = index + start - self._changed
            if self._stands_alone(level[index : index + before + after + 1]) and self._is_rare(joined[:at], float(near[index])):
                self._remove(joined, out, at, float(near[index]))
        return out[start:end]

    def _stands_alone(self, level: Samples) -> bool:
        """Return whether a fourth difference is the highest near it and the signal around is smooth."""
        left, right = self._before - self._reach, self._before + self._reach + 1
        around = max(float(level[:left].max()), float(level[right:].max()))
        return level[left:right].argmax() == self._reach and around <= MAX_NEIGHBOUR_SHARE * float(level[self._before])

    def _is_rare(self, before: Samples, difference: float) -> bool:
        """Return whether a fourth difference is far above those of the half second before it."""
        end = before.size - self._reach
        usual = np.abs(np.correlate(before[end - self._history : end], self._kernel, "valid"))
        return difference >= MIN_OVER_MEDIAN * median(usual)

    def _remove(self, joined: Samples, out: Samples, near: int, difference: float) -> None:
        """Replace the highest sample near `near`, and those beside it, unless it is an R wave by its fourth difference."""
        first, far = near - 2 * self._lag, 3 * self._lag
        part = joined[first - far : near + 2 * self._lag + far + 1]
        heights = np.abs(part[far:-far] - (part[: -2 * far] + part[2 * far :]) / 2)
        top = int(heights.argmax())
        if difference >= MIN_SHARPNESS * heights[top]:
            left, right = first + top - self._half - 1, first + top + self._half + 1
            out[left : right + 1] = np.linspace(joined[left], joined[right], right - left + 1)
