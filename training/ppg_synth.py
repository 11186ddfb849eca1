"""Simulates PPG: heart rhythms, the shape of each pulse, and the effect of breathing on both.

A pulse is a sum of two to three Gaussian waves (Allen 2007, Physiol Meas 28:R1: systolic wave, reflected wave and the one after
the dicrotic notch), with the steep systolic rise that the detector looks for. At an early beat the ventricle is hardly filled:
its pulse is weak or missing (pulse deficit), the next one strong.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.signal.ppg import RATE_HZ

Samples = NDArray[np.float64]

RHYTHMS: Final = ("sinus", "sinus", "arrhythmia", "af", "af", "ectopic")
PALPABLE_SHARE: Final = 0.3
"""Share of the median height below which a pulse is optional: it is neither required nor counted as wrong."""


@dataclass(frozen=True, slots=True)
class SimulatedPpg:
    """A PPG at 50 Hz with the times at which its pulses rise; `faint_s` are the optional ones."""

    ppg: Samples
    pulses_s: Samples
    faint_s: Samples


def simulate_ppg(seconds: float, rng: np.random.Generator) -> SimulatedPpg:
    """Simulate one person at rest."""
    rr_s, heights = _rhythm(seconds + 4.0, rng)
    onset_s = np.cumsum(rr_s) - 3.0
    breath_hz, phase = rng.uniform(0.1, 0.4), rng.uniform(0, 2 * np.pi)
    breath = np.sin(2 * np.pi * breath_hz * onset_s + phase)
    heights = heights * (1 + rng.uniform(0, 0.25) * breath) * np.exp(rng.normal(0, 0.05, heights.size))
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    ppg = np.zeros(t.size)
    waves = _waves(rng)
    for at_s, rr, height in zip(onset_s, np.append(rr_s[1:], rr_s[-1]), heights, strict=True):
        first, last = (int(np.clip((at_s + d) * RATE_HZ, 0, t.size)) for d in (-0.6, 2.5))
        stretch = np.clip(rr / 0.85, 0.6, 1.25) ** 0.5
        for share, delay_s, rise_s, fall_s in waves:
            since = t[first:last] - at_s - delay_s * stretch
            ppg[first:last] += height * share * np.exp(-0.5 * (since / np.where(since < 0, rise_s, fall_s * stretch)) ** 2)
    ppg += rng.uniform(0, 0.4) * np.sin(2 * np.pi * breath_hz * t + phase + rng.uniform(0, 6))
    inside = (onset_s > 0) & (onset_s < seconds)
    upstroke_s = onset_s - waves[0][2]  # the steepest point of a Gaussian's flank
    strong = heights >= PALPABLE_SHARE * float(np.median(heights))
    return SimulatedPpg(ppg, upstroke_s[inside & strong], upstroke_s[inside & ~strong])


def _waves(rng: np.random.Generator) -> list[tuple[float, float, float, float]]:
    """Return, per wave: share of the height, delay after the systolic peak, standard deviations of its flanks (seconds)."""
    rise_s = rng.uniform(0.045, 0.085)
    systolic = (1.0, 0.0, rise_s, rng.uniform(0.09, 0.2))
    reflected = (rng.uniform(0.0, 0.5), rng.uniform(0.14, 0.22), 0.07, 0.12)
    dicrotic = (rng.uniform(0.0, 0.55), rng.uniform(0.28, 0.38), rng.uniform(0.06, 0.09), rng.uniform(0.15, 0.3))
    return [systolic, reflected, dicrotic]


def _rhythm(seconds: float, rng: np.random.Generator) -> tuple[Samples, Samples]:
    """Return RR intervals in seconds that fill the time, and the height of each pulse by the filling before it."""
    kind = RHYTHMS[rng.integers(len(RHYTHMS))]
    mean = 60 / rng.uniform(45, 130)
    count = int(seconds / mean * 1.6) + 8
    at_s = np.arange(count) * mean
    rr = mean * (1 + rng.normal(0, 0.012, count) + rng.uniform(0, 0.05) * np.sin(2 * np.pi * 0.1 * at_s))
    match kind:
        case "arrhythmia":
            rr *= 1 + rng.uniform(0.05, 0.18) * np.sin(2 * np.pi * rng.uniform(0.15, 0.35) * at_s)
        case "af":
            rr = np.clip(mean * np.exp(rng.normal(0, rng.uniform(0.15, 0.27), count)), 0.33, 1.9)
        case "ectopic":
            early = np.flatnonzero(rng.random(count - 2) < rng.choice([0.05, 0.15, 0.3])) + 1
            early = early[np.diff(early, prepend=-5) > 1]
            coupling = rng.uniform(0.5, 0.85)
            rr[early] = mean * coupling
            rr[early + 1] = mean * rng.choice([1.0, 2 - coupling])
        case _:
            pass
    filling = np.clip(rr / mean, 0.2, 1.6)
    heights = np.clip((filling - 0.3) / 0.7, 0.03, 1.4) ** rng.uniform(0.4, 1.2)
    included = np.cumsum(rr) < seconds
    return rr[included], heights[included]
