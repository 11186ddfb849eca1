"""Background rhythm, usual change of intervals and P wave: known sequences of intervals and waves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.beat_history import (
    BACKGROUND_INTERVALS,
    MIN_P_BEATS,
    P_WAVE,
    SLOW_INTERVALS,
    BackgroundRhythm,
    PWaveHistory,
    measure_variation,
)
from models.inference.ecg_beat import LONG_TERM_INTERVALS, P_FEATURES, WAVE_SAMPLES

Wave = NDArray[np.float64]


def follow(*intervals_s: float) -> BackgroundRhythm:
    rhythm = BackgroundRhythm()
    for rr_s in intervals_s:
        rhythm.push(rr_s)
    return rhythm


def p_wave(height_mv: float = 0.12, at: int = 25, seed: int = 1) -> Wave:
    """Return a beat whose P wave has this height and lies at this sample, with 5 µV of noise."""
    noise = 0.005 * np.random.default_rng(seed).standard_normal(WAVE_SAMPLES)
    return noise + height_mv * np.exp(-0.5 * ((np.arange(WAVE_SAMPLES) - at) / 3) ** 2)


class TestBackgroundRhythm:
    def test_it_outlasts_a_run_of_any_length(self) -> None:
        assert follow(*[0.8] * 20, *[0.42] * 2000).push(0.42) == pytest.approx(0.8)

    def test_it_follows_a_gradual_change(self) -> None:
        slow_to_fast = np.geomspace(1.0, 0.45, 30).tolist()
        assert follow(*slow_to_fast, *[0.45] * BACKGROUND_INTERVALS).push(0.45) == pytest.approx(0.45)

    def test_a_compensatory_pause_or_a_blocked_beat_does_not_change_it(self) -> None:
        assert follow(*[0.8] * 10, 0.5, 1.1, 0.8, 1.6, 0.8).push(0.8) == pytest.approx(0.8)

    def test_it_adopts_a_slower_rhythm_that_goes_on(self) -> None:
        rhythm = follow(*[0.42] * 40, *[0.8] * SLOW_INTERVALS)
        assert rhythm.push(0.8) == pytest.approx(0.8)
        assert rhythm.is_background

    @pytest.mark.parametrize(("rr_s", "expected"), [(0.8, True), (0.66, True), (0.64, False), (1.02, False), (np.nan, False)])
    def test_says_whether_the_latest_interval_belongs_to_it(self, rr_s: float, expected: bool) -> None:
        assert follow(*[0.8] * 10, rr_s).is_background is expected

    @given(st.lists(st.one_of(st.floats(0.2, 3.0), st.just(np.nan)), max_size=60))
    def test_it_lies_between_the_shortest_and_the_longest_interval(self, intervals_s: list[float]) -> None:
        known_s = [rr_s for rr_s in intervals_s if not np.isnan(rr_s)]
        background_s = follow(*intervals_s).push(np.nan)
        assert min(known_s) <= background_s <= max(known_s) if known_s else np.isnan(background_s)


class TestPWaveHistory:
    def learnt(self) -> PWaveHistory:
        history = PWaveHistory()
        for seed in range(20):
            history.compare(p_wave(seed=seed), is_background=True)
        return history

    def test_nothing_is_known_at_the_start(self) -> None:
        history = PWaveHistory()
        for seed in range(MIN_P_BEATS):
            assert history.compare(p_wave(seed=seed), is_background=True) == (0.0,) * P_FEATURES
        assert history.compare(p_wave(seed=9), is_background=True)[-1] == 1.0

    def test_the_usual_p_wave_fits_also_where_it_is_shifted_by_20_ms(self) -> None:
        for at in (23, 25, 27):
            residual, cosine, clarity, known = self.learnt().compare(p_wave(at=at, seed=99), is_background=False)
            assert residual < 0.7
            assert cosine > 0.95
            assert clarity > 1.0
            assert known == 1.0

    @pytest.mark.parametrize("height_mv", [0.0, -0.12])
    def test_a_missing_or_inverted_p_wave_does_not(self, height_mv: float) -> None:
        residual, cosine, _, _ = self.learnt().compare(p_wave(height_mv, seed=99), is_background=False)
        assert residual > 1.0
        assert cosine < 0.6

    def test_baseline_and_slope_do_not_matter(self) -> None:
        tilted = p_wave(seed=99) + 0.3 + 0.01 * np.arange(WAVE_SAMPLES)
        np.testing.assert_allclose(
            self.learnt().compare(tilted, is_background=False),
            self.learnt().compare(p_wave(seed=99), is_background=False),
            atol=1e-6,
        )

    def test_a_run_of_ectopic_beats_is_not_learnt(self) -> None:
        history = self.learnt()
        for seed in range(500):
            history.compare(p_wave(-0.12, seed=seed), is_background=False)
        assert history.compare(p_wave(seed=99), is_background=False) == self.learnt().compare(
            p_wave(seed=99), is_background=False
        )

    def test_a_beat_that_was_not_received_in_full_is_unknown(self) -> None:
        wave = p_wave()
        wave[P_WAVE.start] = np.nan
        assert self.learnt().compare(wave, is_background=True) == (0.0,) * P_FEATURES


def test_variation_is_measured_between_consecutive_intervals_only() -> None:
    rr_s = np.full(LONG_TERM_INTERVALS, np.nan)
    assert np.isnan(measure_variation(rr_s)).all()
    rr_s[-12:] = 0.8, 0.9, 0.8, 0.9, 0.8, 0.9, 0.8, 0.9, 0.8, 0.9, np.nan, 5.0
    assert measure_variation(rr_s) == pytest.approx((0.1, 0.1))
