"""Tells from the acceleration of a sensor on the chest whether its wearer moves.

The measure is the mean amplitude deviation (MAD) of the magnitude: the mean of |r - mean(r)| over some seconds, r being the
length of the acceleration vector (Vähä-Ypyä et al., Clin Physiol Funct Imaging 35:64, 2015). Gravity and a constant error of
the sensor are in the mean and fall out. A change of posture turns the vector and keeps its length.
"""

from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

WINDOW_S: Final = 5.0
"""Shortest length of the windows that are judged one by one: some ten steps of a walk."""
MOVING_MAD_MG: Final = 47.7
"""From this MAD on a window is one of motion. It separates sitting, standing and lying from walking with a sensor on the chest
(sensitivity 98 %, specificity 100 %; BMC Sports Sci Med Rehabil 2024, doi 10.1186/s13102-024-00991-6: 47.73 mg). At the hip,
ENMO says light activity from 47 mg and moderate activity from 69 mg on (Hildebrand et al., Med Sci Sports Exerc 46:1816, 2014,
and Scand J Med Sci Sports 27:1814, 2017)."""
GRAVITY_RANGE_MG: Final = (500.0, 2000.0)
"""The mean magnitude of a window is that of gravity, 1000 mg, whatever its wearer does. Outside this range the sensor is
defective or saturated for most of the window, and nothing is concluded."""
MIN_KNOWN_SHARE: Final = 0.8
"""Share of a window's samples that must be valid numbers."""

MINUTE_S: Final = 60.0
MIN_MOVING_S: Final = 30.0
"""The wearer moves if at least this much of the last minute was motion. Turning over, sitting down or coughing takes less."""
MIN_SAMPLES: Final = 50
"""Fewest samples of a window: 10 a second, three times the rate of quick steps. The slowest stream has 25."""
MAX_PAUSE_S: Final = 5.0
"""After a longer pause between two frames, a window begins anew: it must not join what is far apart. A frame of the slowest
stream comes after 1.5 s."""


def mean_amplitude_deviation(mg: NDArray[np.float64]) -> float | None:
    """Return the MAD of a window in mg; None if too few samples are valid, or if they do not show gravity.

    `mg` are samples of three axes in mg (n, 3), NaN where one is missing.
    """
    magnitude = np.sqrt((mg * mg).sum(axis=1))
    known = np.isfinite(magnitude)
    if not known.any() or known.mean() < MIN_KNOWN_SHARE:
        return None
    mean = magnitude[known].mean()
    low, high = GRAVITY_RANGE_MG
    return float(np.abs(magnitude[known] - mean).mean()) if low <= mean <= high else None


class MotionWatch:
    """Follows the acceleration of one sensor.

    Times are those at which frames arrive, in seconds on any clock: the rate of a stream that another program started is not
    known. A clock that is set back makes what was known before unknown.
    """

    def __init__(self) -> None:
        self._begun: list[NDArray[np.float64]] = []
        """The frames of the window that is not complete."""
        self._since_s = self._last_s = 0.0
        """When that window began, and when the last frame came."""
        self._windows = deque[tuple[float, float, bool]](maxlen=round(MINUTE_S / WINDOW_S))
        """The latest windows that could be judged: the time of the end, the length, and whether it was one of motion."""

    def push(self, mg: NDArray[np.float64], at_s: float) -> None:
        """Process a frame of samples in mg (n, 3) that arrived at `at_s`."""
        if not 0.0 <= at_s - self._last_s <= MAX_PAUSE_S:
            self._begun, self._since_s = [], at_s
        self._last_s = at_s
        self._begun.append(mg)
        seconds = at_s - self._since_s
        if seconds < WINDOW_S:
            return
        samples = np.concatenate(self._begun)
        deviation = mean_amplitude_deviation(samples) if len(samples) >= MIN_SAMPLES else None
        if deviation is not None:
            self._windows.append((at_s, seconds, deviation >= MOVING_MAD_MG))
        self._begun, self._since_s = [], at_s

    def is_moving(self, at_s: float) -> bool | None:
        """Return whether the wearer moves; None while less than `MIN_MOVING_S` of the last minute is known."""
        recent = [(seconds, moves) for end_s, seconds, moves in self._windows if 0.0 <= at_s - end_s <= MINUTE_S]
        if sum(seconds for seconds, _ in recent) < MIN_MOVING_S:
            return None
        return sum(seconds for seconds, moves in recent if moves) >= MIN_MOVING_S
