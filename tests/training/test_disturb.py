"""What disturbances do to a window, and what they leave alone."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.signal.resample import RATE_HZ
from training.disturb import Disturber, noise_bank, signal_power

SAMPLES = 1250


def spikes(count: int) -> NDArray[np.float64]:
    """Three samples of 1 mV, 75 times a minute."""
    one = np.zeros(SAMPLES)
    for offset in range(3):
        one[10 + offset :: 100] = 1.0
    return np.tile(one, (count, 1))


@pytest.fixture
def disturber(data: Path) -> Disturber:
    return Disturber(data, np.random.default_rng(1))


def test_noise_has_power_one(disturber: Disturber) -> None:
    np.testing.assert_allclose(np.mean(disturber.noise(8, SAMPLES) ** 2, -1), 1.0, rtol=1e-9)


def test_the_bank_has_power_one_and_two_channels(data: Path) -> None:
    first, second = noise_bank(data, 0), noise_bank(data, 1)
    assert set(first) == {"BW", "EM", "MA"}
    for kind, wave in first.items():
        assert np.mean(wave**2) == pytest.approx(1.0)
        assert wave.size == pytest.approx(30 * RATE_HZ, abs=2)
        assert not np.array_equal(wave, second[kind])


def test_power_of_a_sine_is_its_own() -> None:
    """Peak to peak squared over 8 is the power of a sine, Moody 1984."""
    wave = 0.7 * np.sin(2 * np.pi * 1.0 * np.arange(SAMPLES) / RATE_HZ)[None]
    assert signal_power(wave)[0] == pytest.approx(np.mean(wave**2), rel=0.01)


@pytest.mark.parametrize("snr_db", [24.0, 6.0, -6.0])
def test_noise_at_a_ratio(disturber: Disturber, snr_db: float) -> None:
    mv = spikes(6)
    added = disturber.noisy(mv, np.full(6, snr_db)) - mv
    ratio_db = 10 * np.log10((1.0**2 / 8) / np.mean(added**2, -1))
    np.testing.assert_allclose(ratio_db, snr_db, atol=1e-6)


def test_gaps_take_samples_and_change_none(disturber: Disturber) -> None:
    mv = spikes(200)
    out = disturber.gaps(mv, 1.0)
    missing = np.isnan(out)
    assert np.array_equal(out[~missing], mv[~missing])
    assert 0 < missing.mean() < 0.35
    untouched = disturber.gaps(mv, 0.0)
    assert np.array_equal(untouched, mv)


def test_saturation_cuts_the_peaks_only(disturber: Disturber) -> None:
    mv = spikes(20) - 0.1
    out = disturber.saturated(mv, 1.0)
    assert (np.abs(out) <= np.abs(mv) + 1e-12).all()
    assert (out.max(-1) < 0.9).all()
    assert np.array_equal(disturber.saturated(mv, 0.0), mv)


def test_lead_off_replaces_one_stretch(disturber: Disturber) -> None:
    mv = spikes(40) + 0.01
    out = disturber.lead_off(mv, 1.0, longest=0.5)
    for row in out != mv:
        changed = np.flatnonzero(row)
        assert changed.size
        assert changed[-1] - changed[0] < SAMPLES // 2
    assert np.array_equal(disturber.lead_off(mv, 0.0), mv)


def test_polarity_and_gain(disturber: Disturber) -> None:
    mv = spikes(50)
    turned = disturber.polarity(mv, 0.5)
    signs = turned.sum(-1) / mv.sum(-1)
    assert set(signs.tolist()) == {-1.0, 1.0}
    scale = disturber.gain(mv, 2.0).max(-1)
    assert (scale >= 0.5).all()
    assert (scale <= 2.0).all()
    assert scale.std() > 0.1


def test_one_seed_one_disturbance(data: Path) -> None:
    first, second, third = (Disturber(data, np.random.default_rng(seed)).noise(2, SAMPLES) for seed in (5, 5, 6))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)
