"""Adds noise of the MIT-BIH Noise Stress Test Database to a recording at a given SNR (Moody, Muldrow & Mark 1984).

The SNR is that of WFDB's `nst` and `sigamp`. S is the mean peak-to-peak amplitude of the QRS complexes, squared, over 8: the
power of a sine of this amplitude. N is the power of the noise about its mean in each second. `nst` adds noise in every other
two minutes; here it lasts throughout the record, so undisturbed stretches do not improve the figures.
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
"""Channel of the noise records; training uses channel 0."""

QRS_HALF_S: Final = 0.05
"""The amplitude of a QRS complex is measured within this time of its R peak, as in `sigamp`."""

TRIM: Final = 0.05
"""Share of the amplitudes that the trimmed mean leaves out at each end, as in `sigamp`."""


def load_noise(folder: Path) -> dict[str, Samples]:
    """Returns noise of power 1 at 360 Hz, by kind; its ends meet, so it can be repeated.

    Raises:
        OSError: a file is missing.
        ValueError: a file is damaged or does not hold noise of its kind.
    """
    import scipy.io  # noqa: PLC0415  an evaluation without noise works without scipy

    noise = {}
    for kind in KINDS:
        try:
            stored = scipy.io.loadmat(folder / f"{kind}.mat").get(kind)
        except scipy.io.matlab.MatReadError as error:
            raise ValueError(f"{kind}.mat: {error}") from error
        if stored is None or stored.ndim != 2 or stored.shape[1] <= 1 + CHANNEL or len(stored) < 2 * RATE_HZ:
            raise ValueError(
                f"{folder / kind}.mat does not hold the array {kind} with columns index, channel 0, channel 1 at 360 Hz"
            )
        samples = stored[:, 1 + CHANNEL].astype(np.float64)
        level = samples - np.linspace(samples[0], samples[-1], samples.size)
        noise[kind] = level / noise_rms(level, RATE_HZ)
    total: Samples = np.sum(list(noise.values()), axis=0)
    return noise | {MIX: total / noise_rms(total, RATE_HZ)}


def noise_rms(samples: Samples, rate_hz: float) -> float:
    """Returns the root mean square about the mean of each second, averaged over the seconds."""
    width = round(rate_hz)
    seconds = samples[: samples.size // width * width].reshape(-1, width)
    return _trimmed_mean(seconds.std(axis=1))


def qrs_amplitude(mv: Samples, rate_hz: float, beats_s: Samples) -> float:
    """Returns the mean peak-to-peak amplitude of the QRS complexes at these times, in mV; NaN if there are none."""
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
    """Returns a recording with noise throughout; the name of the recording seeds the start position in the noise.

    Args:
        mv: (n,) with NaN where samples are missing.
        rate_hz: sampling rate of the recording.
        noise: from `load_noise`.
        kind: one of its keys.
        snr_db: signal-to-noise ratio in dB.
        amplitude_mv: from `qrs_amplitude`.
        name: name of the recording; the same name gets the same noise.
    """
    power = amplitude_mv**2 / 8 / 10 ** (snr_db / 10)
    wave = _at_rate(noise[kind], rate_hz)
    start = np.random.default_rng(crc32(f"{name} {kind}".encode())).integers(wave.size)
    noisy: Samples = mv + np.sqrt(power) * wave[(start + np.arange(mv.size)) % wave.size]
    return noisy


def _at_rate(wave: Samples, rate_hz: float) -> Samples:
    """Returns the noise at the recording's rate; its ends still meet."""
    if rate_hz == RATE_HZ:
        return wave
    from evaluation.resampling import resampled  # noqa: PLC0415  needs scipy

    thrice = resampled(np.tile(wave, 3), RATE_HZ, rate_hz)
    third = round(wave.size / RATE_HZ * rate_hz)
    return thrice[third : 2 * third]


def _trimmed_mean(values: Samples) -> float:
    trimmed = int(values.size * TRIM)
    return float(np.sort(values)[trimmed : values.size - trimmed].mean())
