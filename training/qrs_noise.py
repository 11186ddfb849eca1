"""Training noise of `ecg_qrs`: recorded, mixed and synthetic.

The Noise Stress Test Database has only half a minute of each kind, which a network soon overfits.
"""

from pathlib import Path
from typing import Final

import numpy as np

from models.signal.filters import Samples
from models.signal.resample import RATE_HZ
from training.ecg_augmentation import EcgAugmenter, Random

SYNTHETIC_SHARE: Final = 0.35
MIXED_SHARE: Final = 0.4
ONE_KIND_SHARE: Final = 0.25
"""Shares of the recordings with synthetic noise, with recorded kinds mixed, and with one recorded kind."""

LEVELS_DB: Final = (-2.0, 18.0)
MAX_CHANGE_DB: Final = 8.0
SILENCE_DB: Final = 60.0
"""Range of the noise level, how much it changes from one segment to the next, and its level during a pause."""


class NoiseGenerator:
    """Draws noise of power 1."""

    def __init__(self, data: Path, random: Random) -> None:
        """Load the recorded noise from the folder `data`."""
        self.random = random
        self._augmenter = EcgAugmenter(data, random)

    def draw(self, samples: int) -> Samples:
        """Return noise that is synthetic, or recorded (mixed or of one kind) and filtered like other electrodes."""
        draws = (self._synthetic, self._mixed, self._one_kind)
        kind = self.random.choice(len(draws), p=(SYNTHETIC_SHARE, MIXED_SHARE, ONE_KIND_SHARE))
        return draws[kind](samples)

    def _synthetic(self, samples: int) -> Samples:
        return _synthetic(samples, self.random)

    def _mixed(self, samples: int) -> Samples:
        return self._filter_electrode(self._augmenter.draw_noise(1, samples)[0])

    def _one_kind(self, samples: int) -> Samples:
        return self._filter_electrode(self._augmenter.draw_one_kind(samples))

    def _filter_electrode(self, noise: Samples) -> Samples:
        filtered = np.concatenate(([1.0], self.random.normal(0, 0.4, self.random.integers(0, 5))))
        return _normalise_power(np.convolve(noise, filtered)[: noise.size])


def varying_level(samples: int, random: Random) -> Samples:
    """Return the factor of a noise that starts, changes and pauses, at once or within half a second, (samples,)."""
    low, high = LEVELS_DB
    typical_db = random.uniform(low, high - 2)
    snr_db = np.empty(samples)
    start = 0
    while start < samples:
        width = round(random.exponential(4.0) * RATE_HZ) + 30
        drawn = random.random()
        snr_db[start : start + width] = (
            typical_db
            if drawn < 0.5
            else SILENCE_DB
            if drawn < 0.65
            else typical_db + random.uniform(-MAX_CHANGE_DB, MAX_CHANGE_DB)
        )
        start += width
    half = int(random.choice((1, 5, 25, 60)))
    factor: Samples = 10 ** (-snr_db / 20)
    smooth: Samples = np.convolve(np.pad(factor, half, mode="edge"), np.ones(2 * half + 1) / (2 * half + 1), "valid")
    return smooth


def constant_level(samples: int, random: Random) -> Samples:
    """Return a constant factor, (samples,)."""
    return np.full(samples, 10 ** (-random.uniform(*LEVELS_DB) / 20))


def _synthetic(samples: int, random: Random) -> Samples:
    """Return noise with a random spectrum, partly with a hump like that of muscles, with swells and bursts."""
    hz = np.maximum(np.fft.rfftfreq(samples, 1 / RATE_HZ), 0.5)
    hump = random.uniform(0, 3) * np.exp(-(((hz - random.uniform(2, 40)) / random.uniform(2, 15)) ** 2))
    spectrum = np.fft.rfft(random.normal(0, 1, samples)) * hz ** -random.uniform(0, 1.2) * (0.3 + hump)
    every = round(random.uniform(0.1, 2.0) * RATE_HZ)
    knots = random.normal(0, random.uniform(0.1, 0.9), samples // every + 2)
    swelling = np.exp(np.interp(np.arange(samples) / every, np.arange(knots.size), knots))
    return _normalise_power(np.fft.irfft(spectrum, samples) * swelling)


def _normalise_power(noise: Samples) -> Samples:
    scaled: Samples = noise / np.sqrt(np.mean(noise**2))
    return scaled
