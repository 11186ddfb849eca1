"""Augmentation of ECG training signals: noise, gaps, saturation, lead-off, polarity and gain.

All functions take and return windows (n, samples) of mV at 125 Hz, 0.5 to 40 Hz, NaN where samples are missing, as returned by
`models.signal.offline.condition`.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import scipy.io
from numpy.typing import NDArray

from models.signal.chain import remove_baseline
from models.signal.offline import resample_recording
from models.signal.resample import RATE_HZ

Windows = NDArray[np.float64]
Random = np.random.Generator

NOISE_RATE_HZ: Final = 360.0
KINDS: Final = ("BW", "EM", "MA")
"""Baseline wander, electrode motion, muscle artefact: MIT-BIH Noise Stress Test Database (Moody 1984)."""

TRAINING_CHANNEL: Final = 0
"""The other channel of the noise records is reserved for evaluation."""

SNR_DB: Final = (-6.0, 24.0)
"""Range of the signal-to-noise ratio."""

PACKET_SAMPLES: Final = round(73 / 130 * RATE_HZ)
"""Samples lost with one notification of a chest strap: 73 at 130 Hz."""


def load_noise(data: Path, channel: int = TRAINING_CHANNEL) -> dict[str, Windows]:
    """Return 30 s of each kind of noise at 125 Hz, conditioned like an ECG and scaled to power 1."""
    bank = {}
    for kind in KINDS:
        samples = scipy.io.loadmat(data / "noise" / f"{kind}.mat")[kind][:, 1 + channel].astype(np.float64)
        conditioned = remove_baseline(resample_recording(samples, NOISE_RATE_HZ))
        bank[kind] = conditioned / np.sqrt(np.mean(conditioned**2))
    return bank


class EcgAugmenter:
    """Draws random artefacts. The same seed draws the same ones."""

    def __init__(self, data: Path, random: Random, channel: int = TRAINING_CHANNEL) -> None:
        self._bank = list(load_noise(data, channel).values())
        self.random = self._random = random

    def draw_noise(self, count: int, samples: int) -> Windows:
        """Return noise of power 1, (count, samples).

        Recorded kinds are mixed, stretched and inverted, partly with synthetic muscle-like or mains-like noise.
        """
        random = self._random
        out = np.empty((count, samples))
        for row in out:
            shares = random.dirichlet(np.full(len(self._bank) + 2, 0.4))
            parts = [self._recorded(kind, samples) for kind in self._bank]
            parts += [random.normal(0, 1, samples), self._hum(samples)]
            row[:] = sum(np.sqrt(share) * part for share, part in zip(shares, parts, strict=True))
        out /= np.sqrt(np.mean(out**2, -1, keepdims=True))
        return out

    def draw_one_kind(self, samples: int) -> Windows:
        """Return one recorded kind alone, of power 1, stretched, inverted and of slowly varying level, (samples,)."""
        row = self._recorded(self._bank[self._random.integers(len(self._bank))], samples)
        normed: Windows = row / np.sqrt(np.mean(row**2))
        return normed

    def add_noise(self, mv: Windows, snr_db: NDArray[np.float64]) -> Windows:
        """Add noise at one signal-to-noise ratio per window, (n,) dB.

        The ratio is that of the Noise Stress Test Database, see `qrs_equivalent_power`.
        """
        scale = np.sqrt(qrs_equivalent_power(mv) / 10 ** (snr_db / 10))
        return mv + scale[:, None] * self.draw_noise(*mv.shape)

    def add_gaps(self, mv: Windows, share: float = 0.5) -> Windows:
        """Add gaps to this share of the windows.

        A gap consists of lost packets (up to a fifth of all, single or in a row), or is one of up to a third of the window.
        """
        random, (count, samples) = self._random, mv.shape
        out = mv.copy()
        for row_index in np.flatnonzero(random.random(count) < share):
            row = out[row_index]
            if random.random() < 0.6:
                lost = random.random(samples // PACKET_SAMPLES + 2) < random.uniform(0.01, 0.2)
                lost = np.repeat(lost, PACKET_SAMPLES)[random.integers(PACKET_SAMPLES) :][:samples]
                row[lost] = np.nan
            else:
                width = int(random.uniform(0.02, 0.33) * samples)
                start = random.integers(-width // 2, samples)
                row[max(start, 0) : start + width] = np.nan
        return out

    def saturate(self, mv: Windows, share: float = 0.1) -> Windows:
        """Clip this share of the windows below their highest peaks, on one side or both."""
        random, count = self._random, len(mv)
        top = np.nanmax(np.abs(np.nan_to_num(mv)), -1, keepdims=True) + 1e-6
        limit = top * random.uniform(0.35, 0.95, (count, 1))
        one_sided = random.random((count, 1)) < 0.5
        clipped = np.clip(mv, np.where(one_sided, -np.inf, -limit), limit)
        return np.where(random.random((count, 1)) < share, clipped, mv)

    def detach_electrode(self, mv: Windows, share: float = 0.1, max_share: float = 1.0) -> Windows:
        """Detach the electrode in this share of the windows, for up to `max_share` of their length.

        The signal is then flat, jumps from rail to rail, or is noise without a heartbeat.
        """
        random, (count, samples) = self._random, mv.shape
        out = mv.copy()
        for row in np.flatnonzero(random.random(count) < share):
            width = int(random.uniform(0.1, max_share) * samples)
            start = random.integers(0, samples - width + 1)
            out[row, start : start + width] = self._open_electrode(width)
        return out

    def flip_polarity(self, mv: Windows, share: float = 0.3) -> Windows:
        """Invert this share of the windows, as if the electrodes were swapped."""
        return np.where(self._random.random((len(mv), 1)) < share, -mv, mv)

    def scale_gain(self, mv: Windows, max_factor: float = 2.0) -> Windows:
        """Scale every window by a random factor between 1 / `max_factor` and `max_factor`."""
        return mv * np.exp(self._random.uniform(-np.log(max_factor), np.log(max_factor), (len(mv), 1)))

    def _recorded(self, kind: Windows, samples: int) -> Windows:
        random = self._random
        stretch = random.uniform(0.8, 1.25)
        positions = (random.uniform(0, kind.size) + np.arange(samples) * stretch) % kind.size
        row = np.interp(positions, np.arange(kind.size), kind, period=kind.size)
        swelling: Windows = row * random.choice((-1.0, 1.0)) * (1 + random.uniform(0, 1) * _swell(samples, random))
        return swelling

    def _hum(self, samples: int) -> Windows:
        random = self._random
        frequency = random.uniform(12, 40)
        phase = 2 * np.pi * frequency * np.arange(samples) / RATE_HZ + random.uniform(0, 2 * np.pi)
        return _sine(phase)

    def _open_electrode(self, width: int) -> Windows:
        random = self._random
        level = float(np.exp(random.uniform(np.log(1e-4), np.log(3.0))))
        match random.integers(3):
            case 0:
                return random.normal(0, level / 100, width)
            case 1:
                rails: Windows = level * np.sign(random.normal(0, 1, width // 25 + 1)).repeat(25)[:width]
                return rails
            case _:
                noise: Windows = level * self.draw_noise(1, width)[0]
                return noise


def qrs_equivalent_power(mv: Windows) -> NDArray[np.float64]:
    """Return the power of a sine wave as high as the QRS complexes, (n,): peak to peak squared over 8 (Moody 1984; WFDB `nst`).

    The peak-to-peak amplitude is the range of all but 0.4 % of the samples: two samples of a QRS complex every second.
    """
    known = np.where(np.isnan(mv), 0.0, mv)
    low, high = np.percentile(known, (0.4, 99.6), axis=-1)
    power: NDArray[np.float64] = (high - low) ** 2 / 8
    return power


def _swell(samples: int, random: Random) -> Windows:
    """Return a slow rise and fall between 0 and 2, because artefacts come and go."""
    period = random.uniform(2, 20) * RATE_HZ
    wave: Windows = 1 + _sine(2 * np.pi * np.arange(samples) / period + random.uniform(0, 2 * np.pi)) / np.sqrt(2)
    return wave


def _sine(phase: NDArray[np.floating[Any]]) -> Windows:
    """Return a sine wave of power 1."""
    wave: Windows = np.sqrt(2) * np.sin(phase)
    return wave
