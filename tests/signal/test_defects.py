"""Defects of a signal that need no network, and its rate of repetition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rules.ventricular_episodes import PURE
from models.signal.defects import MainsMeter, find_still_defect
from models.signal.repetition import measure_repetition, measure_slow_share, measure_wave
from tests.signal.rhythms import SHAPES, regular

RATE_HZ = 125
SIZE = 4 * RATE_HZ
TIME_S = np.arange(SIZE) / RATE_HZ


def noise(rms_mv: float, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(3).normal(0, rms_mv, size)


class TestStillSignals:
    def test_an_exactly_flat_line_is_flat(self) -> None:
        assert find_still_defect(np.full(SIZE, 0.7)) == "flat"

    @pytest.mark.parametrize("level_mv", [-5.0, 4.0])
    def test_a_line_far_from_zero_is_a_rail(self, level_mv: float) -> None:
        assert find_still_defect(np.full(SIZE, level_mv)) == "rail"

    def test_jumps_between_the_rails_are_a_rail(self) -> None:
        assert find_still_defect(np.repeat(np.tile([-5.0, 5.0], 5), SIZE // 10)) == "rail"

    def test_ten_microvolts_of_noise_are_a_signal(self) -> None:
        assert find_still_defect(noise(0.01)) is None

    def test_a_short_still_stretch_is_tolerated(self) -> None:
        assert find_still_defect(np.concatenate((noise(0.05, SIZE // 2), np.zeros(SIZE // 2)))) is None

    def test_missing_samples_are_no_defect(self) -> None:
        assert find_still_defect(np.full(SIZE, np.nan)) is None


class TestMains:
    @pytest.mark.parametrize("rate_hz", [125.0, 130.0, 250.0, 360.0, 500.0])
    @pytest.mark.parametrize("mains_hz", [50.0, 60.0])
    def test_hum_that_covers_all_else_is_recognised(self, rate_hz: float, mains_hz: float) -> None:
        hop = round(0.2 * rate_hz)
        assert MainsMeter(rate_hz, hop).is_hum(np.sin(2 * np.pi * mains_hz * np.arange(hop) / rate_hz + 0.4) + 3.0)

    @pytest.mark.parametrize("wave_hz", [5.0, 20.0, 100.0])
    def test_other_frequencies_are_none(self, wave_hz: float) -> None:
        assert not MainsMeter(500.0, 100).is_hum(np.sin(2 * np.pi * wave_hz * np.arange(100) / 500))

    def test_the_hum_of_a_contact_with_skin_is_none(self) -> None:
        assert not MainsMeter(500.0, 100).is_hum(0.05 * np.sin(2 * np.pi * 50 * np.arange(100) / 500))

    def test_missing_samples_and_incomplete_hops_are_none(self) -> None:
        assert not MainsMeter(500.0, 100).is_hum(np.full(100, np.nan))
        assert not MainsMeter(500.0, 100).is_hum(np.sin(2 * np.pi * 50 * np.arange(60) / 500))


class TestRepetition:
    @given(st.floats(50, 360), st.floats(0.05, 5), st.floats(0, 6))
    def test_the_rate_of_a_sine(self, bpm: float, size_mv: float, phase: float) -> None:
        found = measure_repetition(size_mv * np.sin(2 * np.pi * bpm / 60 * TIME_S + phase))
        assert found.similarity > 0.97
        assert found.rate_bpm == pytest.approx(bpm, rel=0.03)

    @pytest.mark.parametrize("bpm", [60, 100, 180])
    def test_the_rate_of_pulses(self, bpm: float) -> None:
        beats_s = np.arange(0.2, 4, 60 / bpm)
        found = measure_repetition(np.exp(-0.5 * ((TIME_S[:, None] - beats_s) / 0.03) ** 2).sum(-1) - 0.1)
        assert found.similarity > 0.9
        assert found.rate_bpm == pytest.approx(bpm, rel=0.02)

    def test_noise_does_not_repeat_itself(self) -> None:
        assert measure_repetition(noise(1.0)).similarity < 0.4

    def test_a_flat_line_does_not_repeat_itself(self) -> None:
        assert measure_repetition(np.zeros(SIZE)).similarity == 0


class TestSlowShare:
    @pytest.mark.parametrize(("wave_hz", "low", "high"), [(1.3, 0.9, 1.0), (2.5, 0.0, 0.1), (4.0, 0.0, 0.01), (8.0, 0.0, 0.01)])
    def test_of_a_sine(self, wave_hz: float, low: float, high: float) -> None:
        assert low <= measure_slow_share(np.sin(2 * np.pi * wave_hz * TIME_S + 1)) <= high

    def test_of_two_equal_sines(self) -> None:
        waves = np.sin(2 * np.pi * 1.25 * TIME_S) + np.sin(2 * np.pi * 5 * TIME_S)
        assert measure_slow_share(waves) == pytest.approx(0.5, abs=0.02)

    def test_of_nothing(self) -> None:
        assert measure_slow_share(np.zeros(SIZE)) == 0


class TestStrongestWave:
    @pytest.mark.parametrize("wave_hz", [2.0, 2.5, 3.6, 5.0, 7.3, 9.0])
    def test_a_sine_is_one_wave(self, wave_hz: float) -> None:
        found = measure_wave(0.3 * np.sin(2 * np.pi * wave_hz * TIME_S) + noise(0.01))
        assert found.wave_hz == pytest.approx(wave_hz, abs=0.13)
        assert found.wave_share >= PURE

    @pytest.mark.parametrize("shape", [name for name, shape in SHAPES.items() if shape.is_wide])
    @pytest.mark.parametrize("per_minute", [130, 180, 220, 280])
    def test_complexes_are_not(self, shape: str, per_minute: int) -> None:
        rhythm = regular(shape, per_minute, seconds=4, rate_hz=125.0)
        assert measure_wave(rhythm.mv - rhythm.mv.mean()).wave_share < PURE

    def test_a_signal_without_power_has_none(self) -> None:
        assert measure_wave(np.zeros(SIZE)).wave_share == 0
