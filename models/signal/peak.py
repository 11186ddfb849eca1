"""Where the top of a maximum lies, between samples, and the R peak around a peak of the envelope."""

from typing import Final

import numpy as np

from models.signal.filters import Samples, bandpass, windows
from models.signal.resample import RATE_HZ

PEAK_BAND: Final = bandpass(3.0, 25.0, RATE_HZ, half=round(0.128 * RATE_HZ))
"""What an R peak is found in: low enough for the summit of a wide complex, without wander."""

_MARGIN: Final = PEAK_BAND.size // 2

PEAK_REACH: Final = round(0.064 * RATE_HZ)
"""How far the R peak may lie from the envelope's."""

PEAK_NEEDS: Final = PEAK_REACH + _MARGIN
"""Samples on either side of the envelope's peak from which the R peak is found."""

_PLACES: Final = windows(PEAK_BAND, 2 * PEAK_REACH + 1)


def highest(signal: Samples) -> tuple[float, float]:
    """The R peak in `PEAK_NEEDS` samples on either side of an envelope's peak: how far from that, and its height in mV."""
    height = np.abs(signal.dot(_PLACES))
    top = int(height.argmax())
    ordered = signal.copy()
    ordered.sort()
    amplitude_mv = signal.item(top + _MARGIN) - ordered.item(signal.size // 2)
    return top - PEAK_REACH + summit(height.tolist(), top), amplitude_mv


def summit(values: list[float], place: int) -> float:
    """How far the top of the parabola through a maximum and its neighbours lies from it."""
    if not 0 < place < len(values) - 1:
        return 0.0
    before, at, after = values[place - 1 : place + 2]
    return 0.5 * (before - after) / (before - 2 * at + after) if at > min(before, after) else 0.0
