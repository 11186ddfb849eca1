"""The acceleration of a chest strap whose wearer stands or walks."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

STEP_HZ: Final = 1.8
"""Steps a second of a walk at a usual pace."""
_BREATH_HZ: Final = 0.25


def accelerate(times_s: NDArray[np.float64], *, is_walking: bool) -> NDArray[np.int64]:
    """Return the acceleration at these times in mg (n, 3): gravity along y, breathing and, in a walk, two steps a stride.

    The heights are our choice: 200 mg RMS along gravity, in the range of trunks in a walk.
    """
    breath = 8 * np.sin(2 * np.pi * _BREATH_HZ * times_s)
    phase = 2 * np.pi * STEP_HZ * times_s
    steps = float(is_walking)
    axes = [
        30 + steps * 120 * np.sin(phase / 2),
        -1000 + breath + steps * (250 * np.sin(phase) + 120 * np.sin(2 * phase)),
        -60 + breath + steps * 150 * np.cos(phase),
    ]
    return np.asarray(np.rint(np.stack(axes, axis=1)), dtype=np.int64)
