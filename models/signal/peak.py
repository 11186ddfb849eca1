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

FIRST: Final = 0.88
"""Of deflections that reach this share of the highest, the first is the R peak: a wide complex often has two of nearly the same
height, and noise would choose between them. Chosen on mitdb, where 0.8 to 0.9 do about as well."""

_PLACES: Final = windows(PEAK_BAND, 2 * PEAK_REACH + 1)


def highest(signal: Samples) -> tuple[float, float]:
    """The R peak in `PEAK_NEEDS` samples on either side of an envelope's peak: how far from that, and its height in mV."""
    heights: list[float] = np.abs(signal.dot(_PLACES)).tolist()
    top = _first(heights)
    ordered = signal.copy()
    ordered.sort()
    amplitude_mv = signal.item(top + _MARGIN) - ordered.item(signal.size // 2)
    return top - PEAK_REACH + summit(heights, top), amplitude_mv


def _first(heights: list[float]) -> int:
    """The place of the first maximum that reaches `FIRST` of the highest value."""
    highest_value = max(heights)
    top, least = heights.index(highest_value), FIRST * highest_value
    if top > 2 and max(heights[: top - 1]) >= least:
        for place in range(1, top - 1):
            if heights[place] >= least and heights[place - 1] < heights[place] > heights[place + 1]:
                return place
    return top


def summit(values: list[float], place: int) -> float:
    """How far the top of the parabola through a maximum and its neighbours lies from it."""
    if not 0 < place < len(values) - 1:
        return 0.0
    before, at, after = values[place - 1 : place + 2]
    return 0.5 * (before - after) / (before - 2 * at + after) if at > min(before, after) else 0.0
