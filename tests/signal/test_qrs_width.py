"""The width of QRS complexes of known shape."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.signal.filters import Samples
from models.signal.qrs_width import is_wide, measure_qrs_width_ms
from models.signal.resample import RATE_HZ

R_INDEX = 45
RR_S = 0.5
TIME_S = (np.arange(104) - R_INDEX) / RATE_HZ


def triangle(width_s: float, height_mv: float = 1.0) -> Samples:
    return height_mv * np.maximum(0.0, 1.0 - np.abs(TIME_S) / (width_s / 2))


def beats(shape_mv: Samples, noise_mv: float = 0.0, count: int = 9) -> Samples:
    return shape_mv + np.random.default_rng(5).normal(0, 1, (count, shape_mv.size)) * noise_mv


@settings(deadline=None)
@given(width_ms=st.integers(60, 220), height_mv=st.sampled_from([-3.0, 0.3, 1.0, 5.0]))
def test_a_triangle_has_its_width(width_ms: int, height_mv: float) -> None:
    measured_ms = measure_qrs_width_ms(beats(triangle(width_ms / 1000, height_mv)), R_INDEX)
    assert measured_ms == pytest.approx(width_ms, abs=32), "two samples on each side of a sharp corner"


def test_p_and_t_waves_do_not_count() -> None:
    p_and_t = 0.25 * np.exp(-(((TIME_S + 0.18) / 0.022) ** 2) / 2) + 0.5 * np.exp(-(((TIME_S - 0.28) / 0.045) ** 2) / 2)
    width_ms = measure_qrs_width_ms(beats(triangle(0.08) + p_and_t), R_INDEX)
    assert width_ms == pytest.approx(80, abs=24)


@pytest.mark.parametrize("noise_mv", [0.01, 0.02])
def test_noise_that_averages_out_does_not_widen_a_complex(noise_mv: float) -> None:
    width_ms = measure_qrs_width_ms(beats(triangle(0.09), noise_mv, 16), R_INDEX)
    assert width_ms == pytest.approx(90, abs=25)


def test_a_complex_in_too_much_noise_has_no_width() -> None:
    assert measure_qrs_width_ms(beats(triangle(0.09), 0.2), R_INDEX) is None
    assert not is_wide(beats(triangle(0.2), 0.3), R_INDEX, 120, RR_S)


@pytest.mark.parametrize(("width_s", "expected"), [(0.07, False), (0.09, False), (0.14, True), (0.16, True), (0.2, True)])
def test_wide_complexes_are_told_from_narrow_ones(width_s: float, expected: bool) -> None:
    assert is_wide(beats(triangle(width_s), 0.01), R_INDEX, 120, RR_S) is expected


def test_a_steep_p_wave_right_before_a_narrow_complex_does_not_make_it_wide() -> None:
    p_wave = 0.15 * np.exp(-(((TIME_S + 0.1) / 0.022) ** 2) / 2)
    beat = triangle(0.08) + p_wave
    width_ms = measure_qrs_width_ms(beats(beat), R_INDEX)
    assert width_ms is not None
    assert width_ms >= 120
    assert not is_wide(beats(beat), R_INDEX, 120, RR_S)


def test_a_wave_without_a_flat_part_is_as_wide_as_the_beat() -> None:
    width_ms = measure_qrs_width_ms(beats(np.sin(2 * np.pi * 4 * TIME_S)), R_INDEX)
    assert width_ms is not None
    assert width_ms > 200
