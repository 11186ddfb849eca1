"""Noise of the MIT-BIH Noise Stress Test Database added to a recording at a stated ratio (Moody, Muldrow & Mark 1984).

The ratio is that of WFDB's `nst` and `sigamp`: S is the mean peak-to-peak amplitude of the QRS complexes, squared, over 8 (the
power of a sine so high); N is the power of the noise about its mean in each second. Unlike there the noise lasts throughout the
record, not every other two minutes, so that the figure is not diluted.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]

KINDS: Final = ("BW", "EM", "MA")
"""Baseline wander, electrode motion, muscle artefact."""
MIX: Final = "mix"
"""All three with equal power."""

SNR_DB: Final = (24, 18, 12, 6, 0, -6)

RATE_HZ: Final = 360
CHANNEL: Final = 1
"""Training draws from the other channel of the noise records."""

QRS_HALF_S: Final = 0.05
"""The amplitude of a QRS complex is taken so far around its R peak: `sigamp`."""

TRIM: Final = 0.05
"""Share of the amplitudes left out at either end of their mean: `sigamp`."""


def load_noise(folder: Path) -> dict[str, Samples]:
    """Noise of power 1 at 360 Hz, by kind; its ends meet, so that it can be repeated.

    Raises:
        OSError: a file is missing.
        ValueError: a file is damaged or holds something else.
    """
    import scipy.io  # noqa: PLC0415  an evaluation without noise goes without scipy

    noise = {}
    for kind in KINDS:
        try:
            stored = scipy.io.loadmat(folder / f"{kind}.mat").get(kind)
        except scipy.io.matlab.MatReadError as error:
            raise ValueError(f"{kind}.mat: {error}") from error
        if stored is None or stored.ndim != 2 or stored.shape[1] <= 1 + CHANNEL or len(stored) < 2 * RATE_HZ:
            raise ValueError(f"{folder / kind}.mat does not hold {kind}: number, channel 0, channel 1 at 360 Hz")
        samples = stored[:, 1 + CHANNEL].astype(np.float64)
        level = samples - np.linspace(samples[0], samples[-1], samples.size)
        noise[kind] = level / noise_rms(level, RATE_HZ)
    total: Samples = np.sum(list(noise.values()), axis=0)
    return noise | {MIX: total / noise_rms(total, RATE_HZ)}


def noise_rms(samples: Samples, rate_hz: float) -> float:
    """Root mean square about the mean of each second, averaged over the seconds."""
    width = round(rate_hz)
    seconds = samples[: samples.size // width * width].reshape(-1, width)
    return _trimmed_mean(seconds.std(axis=1))


def qrs_amplitude(mv: Samples, rate_hz: float, beats_s: Samples) -> float:
    """Mean peak-to-peak amplitude of the QRS complexes at these times, in mV; NaN if there are none."""
    half = round(QRS_HALF_S * rate_hz)
    if mv.size <= 2 * half:
        return float("nan")
    windows = np.lib.stride_tricks.sliding_window_view(mv, 2 * half + 1)
    places = np.round(beats_s * rate_hz).astype(np.int64) - half
    chosen = windows[places[(places >= 0) & (places < len(windows))]]
    amplitudes = np.ptp(chosen[np.isfinite(chosen).all(axis=1)], axis=1)
    return _trimmed_mean(amplitudes) if amplitudes.size else float("nan")


def add_noise(
    mv: Samples, rate_hz: float, noise: Mapping[str, Samples], kind: str, snr_db: float, amplitude_mv: float, name: str
) -> Samples:
    """A recording with noise throughout; where it begins in the noise is drawn from the recording's name.

    Args:
        mv: (n,) with NaN where samples are missing.
        rate_hz: of the recording.
        noise: as `load_noise` gives it.
        kind: one of its keys.
        snr_db: ratio.
        amplitude_mv: as `qrs_amplitude` gives it.
        name: of the recording; the same name gets the same noise.
    """
    power = amplitude_mv**2 / 8 / 10 ** (snr_db / 10)
    wave = _at_rate(noise[kind], rate_hz)
    start = np.random.default_rng(crc32(f"{name} {kind}".encode())).integers(wave.size)
    noisy: Samples = mv + np.sqrt(power) * wave[(start + np.arange(mv.size)) % wave.size]
    return noisy


def _at_rate(wave: Samples, rate_hz: float) -> Samples:
    """The noise at the recording's rate, its ends meeting still."""
    if rate_hz == RATE_HZ:
        return wave
    from evaluation.resampling import resampled  # noqa: PLC0415  needs scipy

    thrice = resampled(np.tile(wave, 3), RATE_HZ, rate_hz)
    third = round(wave.size / RATE_HZ * rate_hz)
    return thrice[third : 2 * third]


def _trimmed_mean(values: Samples) -> float:
    cut = int(values.size * TRIM)
    return float(np.sort(values)[cut : values.size - cut].mean())
