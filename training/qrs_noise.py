"""Noise that `ecg_qrs` learns in: recorded, mixed, and made up.

There is but half a minute of each kind of the Noise Stress Test Database, which a network knows by heart after a while.
"""

from pathlib import Path
from typing import Final

import numpy as np

from models.signal.filters import Samples
from models.signal.resample import RATE_HZ
from training.disturb import Disturber, Random

MADE_UP: Final = 0.35
MIXED: Final = 0.4
ONE_KIND: Final = 0.25
"""Shares of the recordings with noise that was never recorded, with recorded kinds mixed, and with one kind as recorded."""

LEVELS_DB: Final = (-2.0, 18.0)
CHANGE_DB: Final = 8.0
SILENCE_DB: Final = 60.0
"""Range of the noise's level, how far it changes from one stretch to the next, and its level where it pauses."""


class Noises:
    """Draws noise of power 1."""

    def __init__(self, data: Path, random: Random) -> None:
        """`data` is the folder that holds the noise."""
        self.random = random
        self._disturber = Disturber(data, random)

    def draw(self, samples: int) -> Samples:
        """Made up; or mixed or of one kind, and seen through other electrodes."""
        draws = (self._made_up, self._mixed, self._one_kind)
        place = self.random.choice(len(draws), p=(MADE_UP, MIXED, ONE_KIND))
        return draws[place](samples)

    def _made_up(self, samples: int) -> Samples:
        return _made_up(samples, self.random)

    def _mixed(self, samples: int) -> Samples:
        return self._electrode(self._disturber.noise(1, samples)[0])

    def _one_kind(self, samples: int) -> Samples:
        return self._electrode(self._disturber.one_kind(samples))

    def _electrode(self, noise: Samples) -> Samples:
        filtered = np.concatenate(([1.0], self.random.normal(0, 0.4, self.random.integers(0, 5))))
        return _of_power_1(np.convolve(noise, filtered)[: noise.size])


def level(samples: int, random: Random) -> Samples:
    """What to multiply noise by that comes, changes and goes, at once or within half a second."""
    low, high = LEVELS_DB
    usual_db = random.uniform(low, high - 2)
    snr_db = np.empty(samples)
    start = 0
    while start < samples:
        width = round(random.exponential(4.0) * RATE_HZ) + 30
        drawn = random.random()
        snr_db[start : start + width] = (
            usual_db if drawn < 0.5 else SILENCE_DB if drawn < 0.65 else usual_db + random.uniform(-CHANGE_DB, CHANGE_DB)
        )
        start += width
    half = int(random.choice((1, 5, 25, 60)))
    factor: Samples = 10 ** (-snr_db / 20)
    smooth: Samples = np.convolve(np.pad(factor, half, mode="edge"), np.ones(2 * half + 1) / (2 * half + 1), "valid")
    return smooth


def steady_level(samples: int, random: Random) -> Samples:
    """The same throughout."""
    return np.full(samples, 10 ** (-random.uniform(*LEVELS_DB) / 20))


def _made_up(samples: int, random: Random) -> Samples:
    """Noise of a random colour, some of it with a hump like that of muscles, which swells and bursts."""
    hz = np.maximum(np.fft.rfftfreq(samples, 1 / RATE_HZ), 0.5)
    hump = random.uniform(0, 3) * np.exp(-(((hz - random.uniform(2, 40)) / random.uniform(2, 15)) ** 2))
    spectrum = np.fft.rfft(random.normal(0, 1, samples)) * hz ** -random.uniform(0, 1.2) * (0.3 + hump)
    every = round(random.uniform(0.1, 2.0) * RATE_HZ)
    knots = random.normal(0, random.uniform(0.1, 0.9), samples // every + 2)
    swelling = np.exp(np.interp(np.arange(samples) / every, np.arange(knots.size), knots))
    return _of_power_1(np.fft.irfft(spectrum, samples) * swelling)


def _of_power_1(noise: Samples) -> Samples:
    scaled: Samples = noise / np.sqrt(np.mean(noise**2))
    return scaled
