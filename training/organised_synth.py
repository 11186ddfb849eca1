"""Synthetic rhythms and noise for the training of `ecg_organised`: what the recordings hold too little of.

Every function returns one stretch (samples,) in mV at 125 Hz, as it would come from the resampler.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.signal.resample import RATE_HZ
from models.signal.rhythm_window import ASYSTOLE, NOISE, ORGANISED, VF, VT
from training.organised_data import possible

Samples = NDArray[np.float64]
Random = np.random.Generator

NARROW_S: Final = (0.04, 0.10)
WIDE_S: Final = (0.13, 0.24)
"""Width of a QRS complex: narrow up to 100 ms; wide from 120 ms, with a margin (ACC/AHA/HRS 2017, ventricular arrhythmias)."""

FAST_BPM: Final = 120.0
MERGED_BPM: Final = 220.0
"""A wide regular rhythm from 120/min is a ventricular tachycardia; from 220/min flutter cannot be told apart from it."""

FIBRILLATION_HZ: Final = (2.5, 9.0)


def draw_rhythm(random: Random, samples: int) -> tuple[Samples, int]:
    """Return a regular or irregular rhythm of one QRS shape, and its possible classes."""
    is_wide = random.random() < 0.4
    width_s = random.uniform(*(WIDE_S if is_wide else NARROW_S))
    fastest = min(300.0, 60.0 / (1.4 * width_s))
    bpm = float(np.exp(random.uniform(np.log(25.0), np.log(fastest))))
    jitter = 0.01 if is_wide and bpm >= FAST_BPM else random.choice((0.01, 0.03, 0.12))
    mv = _beats(random, samples, bpm, width_s, jitter) + _background(random, samples)
    if not is_wide or bpm < FAST_BPM - 10:
        return mv, possible(ORGANISED)
    if bpm < FAST_BPM:
        return mv, possible(ORGANISED, VT)
    return mv, possible(VT) if bpm < MERGED_BPM else possible(VT, VF)


def draw_merged(random: Random, samples: int) -> tuple[Samples, int]:
    """Return a rhythm whose QRS complexes and T waves merge: flutter, or slow and broad as in severe hyperkalaemia.

    A slow one may be irregular, and the size of its waves may vary, as with ventricular ectopic beats.
    """
    is_slow = random.random() < 0.5
    bpm = random.uniform(40.0, FAST_BPM - 5) if is_slow else float(np.exp(random.uniform(np.log(FAST_BPM), np.log(350.0))))
    variation, swing = (random.choice((0.03, 0.15)), random.uniform(0.1, 0.5)) if is_slow else (0.03, 0.2)
    phase = 2 * np.pi * np.cumsum(bpm / 60 * np.exp(variation * _wander(random, samples, 0.7))) / RATE_HZ
    harmonics = np.arange(1, 5)
    sizes = random.uniform(0, 1, 4) / harmonics ** random.uniform(0.7, 2.0)
    sizes[0] = max(sizes[0], 0.3)
    offsets = random.uniform(0, 2 * np.pi, 4)
    wave = (sizes[:, None] * np.sin(harmonics[:, None] * phase + offsets[:, None])).sum(axis=0)
    wave *= np.clip(1 + swing * _wander(random, samples, 1.0), 0.3, None)
    mv = wave / np.ptp(wave) * np.exp(random.uniform(np.log(0.3), np.log(4.0))) + _background(random, samples)
    return mv, possible(ORGANISED) if is_slow else possible(VT, VF)


def draw_fibrillation(random: Random, samples: int) -> tuple[Samples, int]:
    """Return fibrillation, coarse or fine: oscillations of drifting rate and size, often more than one at a time."""
    total = np.zeros(samples)
    centre = random.uniform(*FIBRILLATION_HZ)
    for _ in range(random.integers(1, 4)):
        rate_hz = np.clip(centre * np.exp(random.normal(0, 0.15)) * (1 + 0.25 * _wander(random, samples, 1.0)), 1.8, 10.0)
        phase = 2 * np.pi * np.cumsum(rate_hz) / RATE_HZ + random.uniform(0, 2 * np.pi)
        size = np.clip(1 + 0.6 * _wander(random, samples, 1.5), 0.1, None)
        sharpness = random.uniform(0, 0.35)
        total += size * (np.sin(phase) + sharpness * np.sin(2 * phase + random.uniform(0, 2 * np.pi)))
    peak_to_peak = np.exp(random.uniform(np.log(0.12), np.log(3.0)))
    return total / np.ptp(total) * peak_to_peak + _background(random, samples, 0.01), possible(VF)


def draw_asystole(random: Random, samples: int) -> tuple[Samples, int]:
    """Return a signal without QRS complexes: drift and noise of a skin contact, at times with P waves."""
    mv = _background(random, samples) + random.uniform(0.02, 0.3) * _wander(random, samples, random.uniform(0.8, 3.0))
    if random.random() < 0.4:
        mv = mv + _beats(random, samples, random.uniform(40, 130), random.uniform(0.09, 0.13), 0.03, is_p_wave=True)
    return mv, possible(ASYSTOLE)


def draw_noise(random: Random, samples: int) -> tuple[Samples, int]:
    """Return broadband noise, hum, or what an open input shows."""
    match random.integers(4):
        case 0:
            mv = random.normal(0, 1, samples) * np.exp(random.uniform(np.log(0.1), np.log(2.0)))
        case 1:
            phase = 2 * np.pi * random.uniform(12, 40) * np.arange(samples) / RATE_HZ
            mv = np.sin(phase) * np.exp(random.uniform(np.log(0.05), np.log(3.0)))
        case 2:
            mv = random.normal(0, 1, samples) * (0.2 + np.abs(_wander(random, samples, 0.7))) * random.uniform(0.1, 1.0)
        case _:
            mv = draw_motion(random, samples) * np.exp(random.uniform(np.log(0.5), np.log(4.0)))
    return mv + _background(random, samples, 0.02), possible(NOISE)


def draw_motion(random: Random, samples: int) -> Samples:
    """Return the motion of an electrode, of power 1: steps that decay, and noise whose power falls with the frequency."""
    spectrum = np.fft.rfft(random.normal(0, 1, samples))
    frequency = np.fft.rfftfreq(samples, 1 / RATE_HZ)
    spectrum *= 1 / (0.5 + frequency) ** random.uniform(1.0, 2.2)
    mv = np.fft.irfft(spectrum, samples)
    mv /= np.std(mv) + 1e-9
    for _ in range(random.poisson(samples / RATE_HZ * 0.6)):
        at = random.integers(samples)
        decay = np.exp(-np.arange(samples - at) / (random.uniform(0.05, 0.6) * RATE_HZ))
        mv[at:] += random.normal(0, 2.5) * decay
    moved: Samples = mv / (np.std(mv) + 1e-9)
    return moved


def _beats(random: Random, samples: int, bpm: float, width_s: float, jitter: float, *, is_p_wave: bool = False) -> Samples:
    """Return QRS complexes (or P waves) with T waves where they fit."""
    rr_s = 60.0 / bpm
    count = int(samples / RATE_HZ / rr_s) + 3
    intervals_s = rr_s * np.clip(1 + jitter * random.normal(0, 1, count), 0.5, 2.0)
    beats_s = np.cumsum(intervals_s) - rr_s * random.uniform(0, 2)
    t = np.arange(samples) / RATE_HZ
    sigma = width_s / 4
    template: list[tuple[float, float, float]] = [(0.0, 1.0, sigma)]
    if is_p_wave:
        size = random.uniform(0.03, 0.2)
    else:
        size = float(np.exp(random.uniform(np.log(0.2), np.log(5.0))))
        template += [(-1.8 * sigma, random.uniform(-0.5, 0.2), sigma * 0.8), (1.8 * sigma, random.uniform(-0.8, 0.2), sigma)]
        t_s = min(0.3, 0.42 * rr_s) + random.uniform(-0.02, 0.02)
        template.append((t_s, random.uniform(-0.5, 0.6), min(0.05, 0.13 * rr_s)))
        if random.random() < 0.6 and rr_s > 0.5 and width_s < 0.13:
            template.append((-0.16, random.uniform(0.03, 0.2), 0.022))
    wave = np.zeros(samples)
    for beat_s in beats_s.tolist():
        if -1.0 < beat_s < samples / RATE_HZ + 1.0:
            for offset, height, spread in template:
                wave += height * np.exp(-0.5 * ((t - beat_s - offset) / spread) ** 2)
    beats: Samples = size * random.choice((-1.0, 1.0)) * wave
    return beats


def _background(random: Random, samples: int, most: float = 0.05) -> Samples:
    """Return the noise of an electrode on skin: up to 0.05 mV, partly smooth."""
    level = float(np.exp(random.uniform(np.log(0.003), np.log(most))))
    mv = level * random.normal(0, 1, samples) + random.uniform(0, 0.1) * _wander(random, samples, 2.0)
    return np.asarray(mv)


def _wander(random: Random, samples: int, period_s: float) -> Samples:
    """Return a smooth random course of power 1 that changes within about `period_s`."""
    knots = int(samples / RATE_HZ / period_s) + 4
    values = random.normal(0, 1, knots)
    positions = np.linspace(0, knots - 1, samples)
    low = np.minimum(positions.astype(np.int64), knots - 2)
    share = 0.5 - 0.5 * np.cos(np.pi * (positions - low))
    wave: Samples = values[low] * (1 - share) + values[low + 1] * share
    return wave


DRAWS: Final[tuple[Any, ...]] = (draw_rhythm, draw_merged, draw_fibrillation, draw_asystole, draw_noise)
