"""What each augmentation changes in a window, and what it leaves unchanged."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.signal.resample import RATE_HZ
from training.ecg_augmentation import EcgAugmenter, load_noise, qrs_equivalent_power

SAMPLES = 1250


def spikes(count: int) -> NDArray[np.float64]:
    """Return windows with peaks of three samples of 1 mV, 75 times a minute."""
    one = np.zeros(SAMPLES)
    for offset in range(3):
        one[10 + offset :: 100] = 1.0
    return np.tile(one, (count, 1))


@pytest.fixture
def augmenter(data: Path) -> EcgAugmenter:
    return EcgAugmenter(data, np.random.default_rng(1))


def test_noise_has_power_one(augmenter: EcgAugmenter) -> None:
    np.testing.assert_allclose(np.mean(augmenter.draw_noise(8, SAMPLES) ** 2, -1), 1.0, rtol=1e-9)


def test_recorded_noise_has_power_one_and_two_different_channels(data: Path) -> None:
    first, second = load_noise(data, 0), load_noise(data, 1)
    assert set(first) == {"BW", "EM", "MA"}
    for kind, wave in first.items():
        assert np.mean(wave**2) == pytest.approx(1.0)
        assert wave.size == pytest.approx(30 * RATE_HZ, abs=2)
        assert not np.array_equal(wave, second[kind])


def test_the_equivalent_power_of_a_sine_is_its_power() -> None:
    """The power of a sine is its peak-to-peak amplitude squared over 8 (Moody 1984)."""
    wave = 0.7 * np.sin(2 * np.pi * 1.0 * np.arange(SAMPLES) / RATE_HZ)[None]
    assert qrs_equivalent_power(wave)[0] == pytest.approx(np.mean(wave**2), rel=0.01)


@pytest.mark.parametrize("snr_db", [24.0, 6.0, -6.0])
def test_adds_noise_at_the_given_ratio(augmenter: EcgAugmenter, snr_db: float) -> None:
    mv = spikes(6)
    added = augmenter.add_noise(mv, np.full(6, snr_db)) - mv
    ratio_db = 10 * np.log10((1.0**2 / 8) / np.mean(added**2, -1))
    np.testing.assert_allclose(ratio_db, snr_db, atol=1e-6)


def test_gaps_remove_samples_and_change_no_others(augmenter: EcgAugmenter) -> None:
    mv = spikes(200)
    out = augmenter.add_gaps(mv, 1.0)
    missing = np.isnan(out)
    assert np.array_equal(out[~missing], mv[~missing])
    assert 0 < missing.mean() < 0.35
    unchanged = augmenter.add_gaps(mv, 0.0)
    assert np.array_equal(unchanged, mv)


def test_saturation_clips_only_the_peaks(augmenter: EcgAugmenter) -> None:
    mv = spikes(20) - 0.1
    out = augmenter.saturate(mv, 1.0)
    assert (np.abs(out) <= np.abs(mv) + 1e-12).all()
    assert (out.max(-1) < 0.9).all()
    assert np.array_equal(augmenter.saturate(mv, 0.0), mv)


def test_lead_off_replaces_one_segment(augmenter: EcgAugmenter) -> None:
    mv = spikes(40) + 0.01
    out = augmenter.detach_electrode(mv, 1.0, max_share=0.5)
    for row in out != mv:
        changed = np.flatnonzero(row)
        assert changed.size
        assert changed[-1] - changed[0] < SAMPLES // 2
    assert np.array_equal(augmenter.detach_electrode(mv, 0.0), mv)


def test_changes_polarity_and_gain(augmenter: EcgAugmenter) -> None:
    mv = spikes(50)
    flipped = augmenter.flip_polarity(mv, 0.5)
    signs = flipped.sum(-1) / mv.sum(-1)
    assert set(signs.tolist()) == {-1.0, 1.0}
    scale = augmenter.scale_gain(mv, 2.0).max(-1)
    assert (scale >= 0.5).all()
    assert (scale <= 2.0).all()
    assert scale.std() > 0.1


def test_the_same_seed_draws_the_same_noise(data: Path) -> None:
    first, second, third = (EcgAugmenter(data, np.random.default_rng(seed)).draw_noise(2, SAMPLES) for seed in (5, 5, 6))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)
