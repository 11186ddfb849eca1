"""Counts on where the times of a counter or a clock begin again: micros() at 2^32, a sample number at 256, midnight."""

from typing import Final

import numpy as np

from captures.recording import Samples
from captures.table.times import DAY_S

_COUNTERS: Final = (
    *((2.0**bits, 0.0) for bits in (8, 16, 24, 31, 32)),
    *((2.0**bits, -(2.0 ** (bits - 1))) for bits in (8, 16, 24, 32)),
)
"""How far counters of whole numbers count, and their smallest values."""
_SCALES: Final = (1.0, 1e3, 1e6, 1e9)
_CLOCKS: Final = (
    *((scale * limit, 0.0) for scale in _SCALES for limit in (1.0, DAY_S)),
    (2.0**32 / 1e3, 0.0),
    (2.0**32 / 1e6, 0.0),
)
"""The second and the day in s, ms, us and ns; and micros() in ms and s."""
_DENSEST: Final = 4000
"""Most steps in a second: a counter of a part of a second has no more."""
_SECONDS: Final = tuple((scale, 0.0) for scale in _SCALES)
_NEAR: Final = 0.1
"""Share of the limit within which the counter must be before and after it begins again."""
_STEPS: Final = 1000
"""Steps that may be missing where a counter begins again."""


class Unwrapper:
    """Counts times on over all batches of a file.

    `step` is the usual step. `limit` is the value at which they began again, 0 before; `offset` is what is added to them.
    """

    def __init__(self, step: float, is_clock: bool) -> None:
        self._step = step
        self._is_clock = is_clock
        self.offset = 0.0
        self._last = float("nan")
        self.limit = 0.0

    def unwrap(self, times: Samples) -> Samples:
        """The times of the next rows, counted on."""
        known = np.flatnonzero(np.isfinite(times))
        if self._step <= 0 or not known.size:
            return times
        raw = np.concatenate(([self._last], times[known]))
        found = times.copy()
        for at in np.flatnonzero(np.diff(raw) < -2 * self._step).tolist():
            limit = self._find_limit(float(raw[at]), float(raw[at + 1]))
            if limit:
                self.limit = limit
                found[known[at] :] += limit
        found += self.offset
        self.offset = float(found[known[-1]] - times[known[-1]])
        self._last = float(raw[-1])
        return found

    def _find_limit(self, before: float, after: float) -> float:
        """How far the counter counts that steps from one value to the other; 0 if this is not the end of a counter."""
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
