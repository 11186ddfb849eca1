"""Augmentation of PPG training signals: artefacts of motion, contact, light and camera; noise, gaps, gain and polarity."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.signal.ppg import RATE_HZ

Samples = NDArray[np.float64]
Random = np.random.Generator


def augment(ppg: Samples, rng: Random) -> Samples:
    """Return a copy with the artefacts of a typical minute: mostly few, sometimes many. In units of the pulses' height."""
    x = ppg * float(np.exp(rng.normal(0, 0.1)))
    x = x + rng.normal(0, np.exp(rng.uniform(np.log(0.003), np.log(0.12))), x.size)
    if rng.random() < 0.5:
        x += rng.uniform(0.1, 1.5) * _wander(x.size, rng.uniform(0.05, 0.3), rng)
    for _ in range(rng.integers(0, 4)):
        first, last = _draw_stretch(x.size, rng)
        artefact = ARTEFACTS[rng.integers(len(ARTEFACTS))]
        x[first:last] = artefact(x[first:last], rng)
    if rng.random() < 0.3:
        x = _quantise(x, rng)
    if rng.random() < 0.3:
        x = add_gaps(x, rng)
    return np.asarray(x * rng.choice([-1.0, 1.0]))


def add_gaps(x: Samples, rng: Random) -> Samples:
    """Add gaps as by lost packets: NaN for 0.1 to 3 s, one to four times."""
    x = x.copy()
    for _ in range(rng.integers(1, 5)):
        first = int(rng.integers(0, x.size))
        x[first : first + int(rng.uniform(0.1, 3.0) * RATE_HZ)] = np.nan
    return x


def _draw_stretch(size: int, rng: Random) -> tuple[int, int]:
    length = int(np.exp(rng.uniform(np.log(0.5), np.log(15.0))) * RATE_HZ)
    first = int(rng.integers(0, max(size - length, 1)))
    return first, min(first + length, size)


def _wander(size: int, fastest_hz: float, rng: Random) -> Samples:
    """Return a random walk of unit range without components faster than this frequency."""
    width = max(int(RATE_HZ / fastest_hz / 2), 3)
    walk = np.convolve(rng.normal(0, 1, size + 2 * width), np.hanning(width), "valid")[:size]
    return np.asarray(walk / max(float(np.ptp(walk)), 1e-9))


def _movement(x: Samples, rng: Random) -> Samples:
    """Movement of the limb: swings in the pulses' frequency band."""
    return np.asarray(x + rng.uniform(0.3, 6.0) * _wander(x.size, rng.uniform(0.5, 5.0), rng))


def _periodic_movement(x: Samples, rng: Random) -> Samples:
    """Walking, tapping, tremor: nearly periodic, and easily mistaken for pulses."""
    t = np.arange(x.size) / RATE_HZ
    phase = 2 * np.pi * (rng.uniform(0.8, 4.0) * t + rng.uniform(0, 0.3) * _wander(x.size, 0.5, rng))
    sharp = rng.uniform(0, 0.6) * np.sin(2 * phase + rng.uniform(0, 6))
    return np.asarray(x * rng.uniform(0.0, 1.0) + rng.uniform(0.3, 3.0) * (np.sin(phase) + sharp))


def _step(x: Samples, rng: Random) -> Samples:
    """A sudden change of the finger's pressure or of the exposure."""
    after = np.arange(x.size) > rng.integers(0, max(x.size, 1))
    return np.asarray(x + rng.uniform(0.5, 8.0) * rng.choice([-1, 1]) * after)


def _bursts(x: Samples, rng: Random) -> Samples:
    """Single knocks."""
    x = x.copy()
    t = np.arange(x.size) / RATE_HZ
    for _ in range(rng.integers(1, 8)):
        at_s, width_s = rng.uniform(0, t[-1] + 0.01), rng.uniform(0.03, 0.3)
        x += rng.choice([-1, 1]) * rng.uniform(0.5, 8.0) * np.exp(-0.5 * ((t - at_s) / width_s) ** 2)
    return x


def _saturation(x: Samples, rng: Random) -> Samples:
    """Light too strong or too weak: one end is clipped."""
    limit = np.quantile(x, rng.uniform(0.1, 0.8))
    return np.minimum(x, limit) if rng.random() < 0.5 else np.maximum(x, limit)


def _finger_off(x: Samples, rng: Random) -> Samples:
    """No finger: ambient light and its noise, sometimes with aliased flicker."""
    t = np.arange(x.size) / RATE_HZ
    flicker = rng.uniform(0, 1) * (rng.random() < 0.4) * np.sin(2 * np.pi * rng.uniform(0.5, 8.0) * t)
    return np.asarray(rng.uniform(-6, 6) + flicker + rng.uniform(0, 0.6) * rng.normal(0, 1, x.size))


def _flicker(x: Samples, rng: Random) -> Samples:
    """Aliased flicker of lamps near the finger."""
    t = np.arange(x.size) / RATE_HZ
    return x + rng.uniform(0.1, 1.5) * np.sin(2 * np.pi * rng.uniform(1.0, 8.0) * t + rng.uniform(0, 6))


def _amplitude_collapse(x: Samples, rng: Random) -> Samples:
    """Finger pressed too hard or cold: hardly any pulse, with the same noise."""
    weaker = x * np.exp(rng.uniform(np.log(0.01), np.log(0.5)))
    return np.asarray(weaker + rng.uniform(0.01, 0.15) * rng.normal(0, 1, x.size))


def _camera_noise(x: Samples, rng: Random) -> Samples:
    """Noise of a camera in the dark or at a high frame rate."""
    coloured = np.convolve(rng.normal(0, 1, x.size + 4), np.ones(rng.integers(1, 6)), "same")[: x.size]
    return np.asarray(x + rng.uniform(0.1, 1.0) * coloured)


def _quantise(x: Samples, rng: Random) -> Samples:
    step = rng.uniform(0.02, 0.4)
    return np.asarray(np.round(x / step) * step)


ARTEFACTS: Final[tuple[Callable[[Samples, Random], Samples], ...]] = (
    _movement,
    _movement,
    _periodic_movement,
    _step,
    _bursts,
    _saturation,
    _finger_off,
    _flicker,
    _amplitude_collapse,
    _camera_noise,
)
"""Drawn with equal chance, so movement is twice as frequent as each of the others."""
