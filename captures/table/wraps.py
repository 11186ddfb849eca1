"""Continues the times of a counter or clock that restarts: micros() at 2^32, a sample number at 256, midnight."""

from typing import Final

import numpy as np

from captures.recording import Samples
from captures.table.times import DAY_S

_COUNTERS: Final = (
    *((2.0**bits, 0.0) for bits in (8, 16, 24, 31, 32)),
    *((2.0**bits, -(2.0 ** (bits - 1))) for bits in (8, 16, 24, 32)),
)
"""Number of values of counters of whole numbers, and their smallest value."""
_SCALES: Final = (1.0, 1e3, 1e6, 1e9)
_CLOCKS: Final = (
    *((scale * limit, 0.0) for scale in _SCALES for limit in (1.0, DAY_S)),
    (2.0**32 / 1e3, 0.0),
    (2.0**32 / 1e6, 0.0),
)
"""The second and the day in s, ms, us and ns; and micros() in ms and s."""
_DENSEST: Final = 4000
"""Most steps in a second; a counter of fractions of a second has at most as many."""
_SECONDS: Final = tuple((scale, 0.0) for scale in _SCALES)
_NEAR: Final = 0.1
"""The counter must be within this share of its range before and after it restarts."""
_STEPS: Final = 1000
"""Largest number of steps that may be missing where a counter restarts."""


class Unwrapper:
    """Makes the times of a counter or clock continuous over all batches of a file.

    `step` is the usual step. `wrap_value` is the value at which the counter last restarted, 0 if it never did. `offset` is
    added to the times.
    """

    def __init__(self, step: float, is_clock: bool) -> None:
        self._step = step
        self._is_clock = is_clock
        self.offset = 0.0
        self._last = float("nan")
        self.wrap_value = 0.0

    def unwrap(self, times: Samples) -> Samples:
        """The times of the next rows without restarts."""
        known = np.flatnonzero(np.isfinite(times))
        if self._step <= 0 or not known.size:
            return times
        raw = np.concatenate(([self._last], times[known]))
        found = times.copy()
        for at in np.flatnonzero(np.diff(raw) < -2 * self._step).tolist():
            limit = self._find_limit(float(raw[at]), float(raw[at + 1]))
            if limit:
                self.wrap_value = limit
                found[known[at] :] += limit
        found += self.offset
        self.offset = float(found[known[-1]] - times[known[-1]])
        self._last = float(raw[-1])
        return found

    def _find_limit(self, before: float, after: float) -> float:
        """The range of a counter that steps from one value to the other by a restart; 0 if the step is not a restart."""
        if self._is_clock:
            limits = [
                limit for limit in (DAY_S, DAY_S / 2, 3600.0) if abs(after - before + limit - self._step) <= 2 * self._step
            ]
            return limits[0] if limits else DAY_S * (before - after > DAY_S / 2)
        is_whole = before.is_integer() and after.is_integer()
        for limit, low in (*(_COUNTERS if is_whole else ()), *_CLOCKS):
            if (limit, low) in _SECONDS and limit > _DENSEST * self._step:
                continue
            near = max(min(_NEAR * limit, _STEPS * self._step), 2 * self._step)
            if 4 * near <= limit and low + limit - near <= before < low + limit and low <= after < low + near:
                return limit
        return 0.0
