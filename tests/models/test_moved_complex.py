"""QRS complexes whose R peak is found in one or the other of two deflections."""

import numpy as np
import pytest

from config.limits import DEFAULT_LIMITS
from models.inference.ecg_beat import SAMPLES_BEFORE_R, WAVE_SAMPLES
from models.moved_complex import has_shape, is_moved
from models.rules.wide_rhythm import WideRhythm, WideRhythmDetector
from models.run_shapes import RunShapes
from models.signal.filters import Samples
from models.signal.resample import RATE_HZ

PEAKS_S = 0.064
"""Distance of the two peaks of a notched complex of some 150 ms."""


def bell(at_s: float, width_s: float) -> Samples:
    return np.exp(-((((np.arange(WAVE_SAMPLES) - SAMPLES_BEFORE_R) / RATE_HZ - at_s) / width_s) ** 2) / 2)


def notched(r_peak: int = 0) -> Samples:
    """Return a notched complex in mV whose R peak is its first (0) or its second (1) deflection."""
    return bell(-PEAKS_S * r_peak, 0.016) + bell(PEAKS_S * (1 - r_peak), 0.016)


def test_a_notched_complex_has_its_shape_whichever_peak_is_the_r_peak() -> None:
    assert is_moved(notched(0), notched(1))
    assert is_moved(notched(1), notched(0))
    assert has_shape(notched(0), notched(1))


def test_a_complex_in_its_place_is_not_moved() -> None:
    assert not is_moved(notched(), notched())
    assert has_shape(notched(), notched())


@pytest.mark.parametrize("other", [bell(0.0, 0.01), bell(0.0, 0.05), -notched(), np.full(WAVE_SAMPLES, np.nan)])
def test_another_complex_is_another_one_wherever_its_r_peak_is(other: Samples) -> None:
    assert not has_shape(other, notched())


def test_a_run_goes_on_when_its_r_peaks_move() -> None:
    run = RunShapes(DEFAULT_LIMITS)
    run.start(notched(0))
    assert {run.relabel(0.45, notched(index % 3 == 0), "N", bell(0.0, 0.01), 0.95) for index in range(30)} == {"V"}


def find_wide(peaks: list[int]) -> WideRhythm | None:
    """Return the wide rhythm that beats 0.45 s apart show, whose R peak is each time the given one."""
    detector, found, times_s = WideRhythmDetector(DEFAULT_LIMITS), None, []
    for index, peak in enumerate(peaks):
        times_s.append(0.45 * index + PEAKS_S * peak)
        rr_s = times_s[-1] - times_s[-2] if index else None
        found = found or detector.on_beat(times_s[-1], rr_s, notched(peak), "N", in_af=False)
    return found


def test_a_wide_regular_rhythm_is_known_when_its_r_peaks_move() -> None:
    assert find_wide([0] * 20) is not None
    assert find_wide([0, 0, 1, 1, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 1, 0]) is not None
