"""Locates the R peak near a peak of the envelope, and interpolates a maximum between samples."""

from typing import Final

from models.signal.filters import Samples, bandpass, correlation_matrix
from models.signal.resample import RATE_HZ

PEAK_BAND: Final = bandpass(3.0, 25.0, RATE_HZ, half=round(0.128 * RATE_HZ))
"""The band in which the R peak is located: low enough for the top of a wide complex, free of baseline wander."""

_MARGIN: Final = PEAK_BAND.size // 2

R_PEAK_SEARCH_SAMPLES: Final = round(0.064 * RATE_HZ)
"""Largest distance of the R peak from the peak of the envelope, in samples."""

R_PEAK_CONTEXT_SAMPLES: Final = R_PEAK_SEARCH_SAMPLES + _MARGIN
"""Samples needed on each side of the envelope's peak to locate the R peak."""

FIRST_DEFLECTION_SHARE: Final = 0.88
"""The R peak is the first deflection that reaches this share of the highest one. A wide complex often has two deflections of
nearly equal height, and noise would decide between them. Chosen by scores on mitdb, where 0.8 to 0.9 score about the same."""

USUAL_DEFLECTION_SHARE: Final = 0.75
"""The R peak of a biphasic complex is the deflection of the same sign as in the beat before, if it reaches this share of the
highest one (our choice): otherwise noise would decide between two that are 30 ms apart."""

FAST_RR_SAMPLES: Final = round(0.3 * RATE_HZ)
"""At 200/min and more, R peaks are located at deflections of the same sign: two deflections of one complex lie 0.03 s apart,
which makes the interval irregular or as short as the refractory period."""

_BAND_MATRIX: Final = correlation_matrix(PEAK_BAND, 2 * R_PEAK_SEARCH_SAMPLES + 1)


def locate_r_peak(signal: Samples, usual_mv: float = 0.0) -> tuple[float, float]:
    """Locate the R peak in `R_PEAK_CONTEXT_SAMPLES` samples on each side of a peak of the envelope.

    `usual_mv` is the height of the R peak of the beat before; 0 if its sign does not matter.

    Returns:
        Its offset from the envelope's peak in samples, and its height over the median of the samples in mV.
    """
    banded: list[float] = signal.dot(_BAND_MATRIX).tolist()
    heights = [abs(value) for value in banded]
    top = _first_deflection(heights)
    if banded[top] * usual_mv < 0:
        same_sign = [abs(value) if value * usual_mv > 0 else 0.0 for value in banded]
        if max(same_sign[1:-1]) >= USUAL_DEFLECTION_SHARE * max(heights):
            top = _first_deflection([0.0, *same_sign[1:-1], 0.0])
    ordered = signal.copy()
    ordered.sort()
    amplitude_mv = signal.item(top + _MARGIN) - ordered.item(signal.size // 2)
    return top - R_PEAK_SEARCH_SAMPLES + parabola_offset(heights, top), amplitude_mv


def _first_deflection(heights: list[float]) -> int:
    """Return the index of the first maximum that reaches `FIRST_DEFLECTION_SHARE` of the highest value."""
    highest = max(heights)
    top, least = heights.index(highest), FIRST_DEFLECTION_SHARE * highest
    if top > 2 and max(heights[: top - 1]) >= least:
        for index in range(1, top - 1):
            if heights[index] >= least and heights[index - 1] < heights[index] > heights[index + 1]:
                return index
    return top


def parabola_offset(values: list[float], index: int) -> float:
    """Return the offset of the top of the parabola through a maximum and its two neighbours, in samples from the maximum."""
    if not 0 < index < len(values) - 1:
        return 0.0
    before, at, after = values[index - 1 : index + 2]
    return 0.5 * (before - after) / (before - 2 * at + after) if at > min(before, after) else 0.0
