"""Training data of `ecg_qrs`: noise and premature beats added to recordings."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.signal.resample import RATE_HZ
from training.cinc import CincRecording
from training.qrs_noise import LEVELS_DB, NoiseGenerator, constant_level, varying_level
from training.qrs_premature import AFTER, BEFORE, MIN_INTERVAL, RECORDING_SHARE, insert_premature_beats, repeat_recording

SAMPLES = 5000
BEATS = np.arange(50, SAMPLES - 50, 100)


def spikes() -> NDArray[np.float64]:
    """Return a signal with single samples of 1 mV, 75 times a minute."""
    mv = np.zeros(SAMPLES)
    mv[BEATS] = 1.0
    return mv


def insert_in_spikes(
    seeds: range, complexes: list[NDArray[np.float64]]
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    return [
        insert_premature_beats(spikes(), BEATS.astype(float), 1.0, complexes, np.random.default_rng(seed)) for seed in seeds
    ]


def test_every_kind_of_noise_has_power_one(data: Path) -> None:
    noise_generator = NoiseGenerator(data, np.random.default_rng(1))
    for _ in range(30):
        noise = noise_generator.draw(2500)
        assert noise.size == 2500
        assert np.mean(noise**2) == pytest.approx(1.0)


def test_noise_levels_stay_in_their_range() -> None:
    random = np.random.default_rng(1)
    highest = 10 ** (-(LEVELS_DB[0] - 8.0) / 20)
    for _ in range(20):
        assert np.ptp(constant_level(5000, random)) == 0
        changing = varying_level(5000, random)
        assert 0 < changing.min() <= changing.max() <= highest


def test_some_recordings_are_unchanged() -> None:
    same = [np.array_equal(mv, spikes()) and np.array_equal(peaks, BEATS) for mv, peaks in insert_in_spikes(range(200), [])]
    assert np.mean(same) == pytest.approx(1 - RECORDING_SHARE, abs=0.15)


def test_a_premature_beat_is_at_its_stated_r_peak() -> None:
    for mv, peaks in insert_in_spikes(range(40), []):
        assert np.all(np.diff(peaks) >= MIN_INTERVAL)
        assert np.all(peaks <= BEATS)
        assert mv[peaks.astype(int)] == pytest.approx(1.0, abs=0.1)
        assert np.count_nonzero(mv > 0.5) == BEATS.size


def test_a_ventricular_beat_has_the_shape_of_another_patient() -> None:
    hump = np.exp(-(((np.arange(BEFORE + 1 + AFTER) - BEFORE) / 8.0) ** 2))
    widths = [
        np.count_nonzero(np.abs(mv[round(at) - 12 : round(at) + 13]) > 0.2)
        for mv, peaks in insert_in_spikes(range(40), [hump])
        for at in peaks[peaks != BEATS]
    ]
    assert max(widths) > 10 * min(widths) > 0


def test_a_recording_is_repeated_without_a_jump() -> None:
    drift = spikes() + np.linspace(0, 3, SAMPLES)
    record = CincRecording("A", drift.astype(np.float32), BEATS / RATE_HZ, 0)
    mv, peaks = repeat_recording(record, 3)
    assert mv.size % 3 == 0
    assert peaks.size == 3 * (BEATS.size - 2)
    assert np.all(mv[np.round(peaks).astype(int)] > 0.7)
    assert np.sort(np.abs(np.diff(mv)))[-2 * peaks.size - 1] < 0.01
