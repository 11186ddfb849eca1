"""Measures how a few seconds of ECG oscillate, without looking for beats: their rate, and how slow they are."""

from typing import Final, NamedTuple

import numpy as np

from models.signal.filters import Samples, hann
from models.signal.resample import RATE_HZ

FASTEST_S: Final = 0.16
SLOWEST_S: Final = 1.3
"""Range of the periods, 46 to 375/min: three periods of the slowest fit into four seconds."""

SAME_SHARE: Final = 0.9
"""Every multiple of the period is nearly as similar as the period itself: the shortest lag with this share of the greatest
similarity is taken."""

SLOW_BAND_HZ: Final = (0.7, 2.0)
"""Most of the power of a broad rhythm below 120/min lies in this band. The baseline of a moving electrode lies below it."""
OSCILLATION_BAND_HZ: Final = (0.7, 12.0)

WAVE_HZ: Final = 0.75
"""Half the width of the band that holds one wave in four seconds: a taper spreads it by 0.5 Hz, and its rate varies."""
HARMONICS_BAND_HZ: Final = (0.7, 20.0)

_FIRST, _LAST = round(FASTEST_S * RATE_HZ), round(SLOWEST_S * RATE_HZ)


class Repetition(NamedTuple):
    """The period after which a signal repeats itself, and how similar it is then: 1 for an exact repetition."""

    period_s: float
    similarity: float

    @property
    def rate_bpm(self) -> float:
        """The rate in 1/min."""
        return 60.0 / self.period_s


def measure_slow_share(mv: Samples) -> float:
    """Return which part of the power from 0.7 to 12 Hz of (n,) samples at 125 Hz lies below 2 Hz; 0 without any power.

    The window is tapered (Hann), so that a frequency near the border of the band leaks little across it. After the spectral
    algorithm for ventricular fibrillation (Barro et al., J Med Eng Technol 13:46, 1989).
    """
    power = np.abs(np.fft.rfft(np.where(np.isnan(mv), 0.0, mv) * hann(mv.size), 2 * mv.size)) ** 2
    frequency_hz = np.arange(power.size) * RATE_HZ / (2 * mv.size)
    whole = _band_power(power, frequency_hz, OSCILLATION_BAND_HZ)
    return _band_power(power, frequency_hz, SLOW_BAND_HZ) / whole if whole > 0 else 0.0


class Wave(NamedTuple):
    """The strongest wave of a signal: its frequency in Hz, and its part of the power from 0.7 to 20 Hz."""

    wave_hz: float
    wave_share: float


def measure_wave(mv: Samples) -> Wave:
    """Return the strongest wave of (n,) samples at 125 Hz; its share is 0 without any power.

    The share is 1 for a sine and 0.99 for a triangle that goes up and down evenly. For complexes of 140 ms at 160 to
    280/min with a T wave it is at most 0.93; in the tachycardias of CinC 2015 at most 0.96.
    """
    power = np.abs(np.fft.rfft(np.where(np.isnan(mv), 0.0, mv) * hann(mv.size), 2 * mv.size)) ** 2
    frequency_hz = np.arange(power.size) * RATE_HZ / (2 * mv.size)
    whole = _band_power(power, frequency_hz, HARMONICS_BAND_HZ)
    first, last = np.searchsorted(frequency_hz, HARMONICS_BAND_HZ)
    strongest_hz = float(frequency_hz[first + np.argmax(power[first:last])])
    near = (max(strongest_hz - WAVE_HZ, HARMONICS_BAND_HZ[0]), strongest_hz + WAVE_HZ)
    return Wave(strongest_hz, _band_power(power, frequency_hz, near) / whole if whole > 0 else 0.0)


def measure_repetition(mv: Samples) -> Repetition:
    """Return the repetition of (n,) samples at 125 Hz without baseline; similarity 0 where there is none."""
    signal = np.where(np.isnan(mv), 0.0, mv)
    size = 1 << (2 * signal.size - 1).bit_length()
    spectrum = np.fft.rfft(signal, size)
    products = np.fft.irfft((spectrum * spectrum.conj()).real, size)[: _LAST + 2]
    energy = np.concatenate(([0.0], np.cumsum(signal**2)))
    lags = np.arange(_LAST + 2)
    both = np.sqrt(energy[signal.size - lags] * (energy[-1] - energy[lags]))
    similarity = np.divide(products, both, out=np.zeros(lags.size), where=both > 0)
    inner = similarity[_FIRST : _LAST + 1]
    is_peak = (inner >= similarity[_FIRST - 1 : _LAST]) & (inner >= similarity[_FIRST + 1 : _LAST + 2]) & (inner > 0)
    if not is_peak.any():
        return Repetition(SLOWEST_S, 0.0)
    chosen = int(np.flatnonzero(is_peak & (inner >= SAME_SHARE * inner[is_peak].max()))[0])
    return Repetition((chosen + _FIRST) / RATE_HZ, float(inner[chosen]))


def _band_power(power: Samples, frequency_hz: Samples, band_hz: tuple[float, float]) -> float:
    return float(power[(frequency_hz >= band_hz[0]) & (frequency_hz <= band_hz[1])].sum())
