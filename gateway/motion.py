"""Joins the three axes of a sensor's acceleration, and tells whether its wearer moves.

The acceleration is used here and not stored: nobody reads it at the clinic, and it would add half as much data as the ECG
(`docs/decisions/0036-motion.md`).
"""

from typing import Final

import numpy as np

from drivers.readings import Waveform
from models.signal.motion import MotionWatch

ACCELERATION: Final = ("acc_x", "acc_y", "acc_z")
"""The kinds of the three axes, in mg."""


class Motion:
    """Acceleration of one sensor in; whether its wearer moves out."""

    def __init__(self) -> None:
        self._watch = MotionWatch()
        self._axes: dict[str, Waveform] = {}
        """The axes of a frame that have come so far."""

    def add(self, wave: Waveform, at_us: int) -> None:
        """Process the samples of one axis that arrived at `at_us`. Those of a frame whose axes do not all come are ignored."""
        self._axes = {kind: axis for kind, axis in self._axes.items() if _is_same_frame(axis, wave)} | {wave.kind: wave}
        if len(self._axes) == len(ACCELERATION):
            mg = np.array([self._axes[kind].samples for kind in ACCELERATION], np.float64).T * wave.scale
            self._axes = {}
            self._watch.push(mg, at_us / 1e6)

    def is_moving(self, at_us: int) -> bool | None:
        """Whether the wearer moves; None if that is not known, as without an acceleration."""
        return self._watch.is_moving(at_us / 1e6)


def _is_same_frame(one: Waveform, other: Waveform) -> bool:
    return (one.last_ns, len(one.samples), one.scale) == (other.last_ns, len(other.samples), other.scale)
