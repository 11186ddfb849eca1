"""Synthetic rhythms with known truth: beats of any shape, tachycardia, standstill, fibrillation, flutter and pacing.

A beat is a sum of waves in continuous time, sampled at any rate. The QRS complex, the T wave and their distance shrink with the
RR interval as they do in life: QT follows the square root of RR (Bazett 1920), and a complex takes at most 0.4 of the interval.
All noise comes from seeded generators: the same arguments give the same samples.

    rhythm = regular("notched", per_minute=180, rate_hz=250, seconds=60)
    rhythm.mv, rhythm.rate_hz, rhythm.beats_s
    join(regular("narrow", 70, seconds=60), standstill(p_mv=0.15, seconds=120))

`REGULAR_CASES` is a Hypothesis strategy of regular rhythms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

Samples = NDArray[np.float64]

NOISE_MV: Final = 0.02
"""RMS of the white noise."""

MAX_QRS_SHARE: Final = 0.4
"""Longest QRS complex as a share of the RR interval: the T wave and some diastole must fit into the rest."""

WIDE_QRS_S: Final = 0.12
"""A complex of this length or longer is wide (Surawicz et al. 2009, JACC 53:976)."""

_QRS_MARGIN_S: Final = 0.25
"""Room for a complex on each side of its R peak."""


@dataclass(frozen=True, slots=True)
class Bump:
    """A Gaussian, or a triangle: height as a share of the amplitude; time of its top and width as shares of the QRS length.

    The width is the standard deviation of a Gaussian, and half the base of a triangle.
    """

    height: float
    at: float
    width: float
    triangle: bool = False

    def draw(self, t: Samples, qrs_s: float) -> Samples:
        distance = (t - self.at * qrs_s) / (self.width * qrs_s)
        return self.height * (np.maximum(1 - np.abs(distance), 0.0) if self.triangle else np.exp(-(distance**2) / 2))


@dataclass(frozen=True, slots=True)
class Shape:
    """A QRS complex of 1 mV: its length at slow rates in seconds, its waves, and the sign of its T wave."""

    qrs_s: float
    bumps: tuple[Bump, ...]
    t_sign: int = 1

    @property
    def is_wide(self) -> bool:
        return self.qrs_s >= WIDE_QRS_S


SHAPES: Final = {
    "narrow": Shape(0.09, (Bump(-0.1, -0.31, 0.09), Bump(1.0, 0.0, 0.12), Bump(-0.2, 0.33, 0.11))),
    "inverted": Shape(0.09, (Bump(0.1, -0.31, 0.09), Bump(-1.0, 0.0, 0.12), Bump(0.2, 0.33, 0.11)), -1),
    "qs": Shape(0.1, (Bump(-1.0, 0.0, 0.2),)),
    "biphasic": Shape(0.1, (Bump(1.0, -0.18, 0.15), Bump(-0.95, 0.18, 0.15))),
    "rsr": Shape(0.13, (Bump(0.3, -0.3, 0.09), Bump(-0.4, -0.08, 0.09), Bump(1.0, 0.22, 0.14)), -1),
    "notched": Shape(0.15, (Bump(0.95, -0.2, 0.15), Bump(1.0, 0.2, 0.15)), -1),
    "triangle": Shape(0.16, (Bump(1.0, 0.0, 0.5, triangle=True),), -1),
    "ventricular": Shape(0.18, (Bump(1.0, -0.15, 0.17), Bump(-0.26, 0.33, 0.16)), -1),
    "ventricular_qs": Shape(0.17, (Bump(-1.0, 0.0, 0.2),)),
}
"""Sinus rhythm in several leads, right and left bundle branch block, and ventricular beats."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """An ECG in mV with the times of its QRS complexes, in seconds from its first sample."""

    mv: Samples
    rate_hz: float
    beats_s: Samples

    @property
    def seconds(self) -> float:
        return self.mv.size / self.rate_hz


def regular(
    shape: str = "narrow",
    per_minute: float = 70.0,
    *,
    seconds: float = 60.0,
    rate_hz: float = 130.0,
    amplitude_mv: float = 1.0,
    p_mv: float | None = None,
    t_share: float = 0.25,
    noise_mv: float = NOISE_MV,
    seed: int = 1,
) -> Rhythm:
    """Return a regular rhythm. P waves, if not given, are those of sinus rhythm up to 130/min with a narrow complex."""
    rr_s = 60.0 / per_minute
    if p_mv is None:
        p_mv = 0.0 if SHAPES[shape].is_wide or per_minute > 130 else min(0.12 * amplitude_mv, 0.15)
    beats_s = np.arange(min(0.4 * rr_s, 0.5), seconds - 0.1, rr_s)
    return draw(
        shape,
        beats_s,
        rr_s=rr_s,
        seconds=seconds,
        rate_hz=rate_hz,
        amplitude_mv=amplitude_mv,
        p_mv=p_mv,
        t_share=t_share,
        noise_mv=noise_mv,
        seed=seed,
    )


def draw(
    shape: str,
    beats_s: Samples,
    *,
    rr_s: float,
    seconds: float,
    rate_hz: float = 130.0,
    amplitude_mv: float = 1.0,
    p_mv: float = 0.0,
    t_share: float = 0.25,
    noise_mv: float = NOISE_MV,
    seed: int = 1,
) -> Rhythm:
    """Return beats of one shape at any times; their lengths are those of the RR interval `rr_s`."""
    waves, mv = SHAPES[shape], noise(seconds, rate_hz, noise_mv, seed)
    qrs_s = min(waves.qrs_s, MAX_QRS_SHARE * rr_s)
    t_width_s = 0.05 * sqrt(min(rr_s, 1.2))
    t_at_s = max(0.28 * sqrt(min(rr_s, 1.2)) + (qrs_s - 0.09) / 2, qrs_s / 2 + 2 * t_width_s)
    t_at_s = min(t_at_s, rr_s - qrs_s / 2 - 1.5 * t_width_s)
    for beat_s in beats_s.tolist():
        near = _span(mv, rate_hz, beat_s - _QRS_MARGIN_S, beat_s + t_at_s + 4 * t_width_s)
        t = np.arange(near.start, near.stop) / rate_hz - beat_s
        for bump in waves.bumps:
            mv[near] += amplitude_mv * bump.draw(t, qrs_s)
        mv[near] += waves.t_sign * t_share * amplitude_mv * np.exp(-(((t - t_at_s) / t_width_s) ** 2) / 2)
    if p_mv:
        add_p_waves(mv, rate_hz, beats_s - 0.07 - qrs_s, p_mv)
    return Rhythm(mv, rate_hz, beats_s)


def standstill(
    p_mv: float = 0.15,
    p_per_minute: float = 75.0,
    *,
    p_width_s: float = 0.022,
    seconds: float = 60.0,
    rate_hz: float = 130.0,
    noise_mv: float = NOISE_MV,
    seed: int = 2,
) -> Rhythm:
    """Return P waves without QRS complexes: no beats. `p_width_s` is the standard deviation; a P wave lasts four of them."""
    mv = noise(seconds, rate_hz, noise_mv, seed)
    add_p_waves(mv, rate_hz, np.arange(0.4, seconds, 60.0 / p_per_minute), p_mv, p_width_s)
    return Rhythm(mv, rate_hz, np.empty(0))


def asystole(*, seconds: float = 60.0, rate_hz: float = 130.0, noise_mv: float = NOISE_MV, seed: int = 2) -> Rhythm:
    """Return noise and a slow drift of the baseline: no beats."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return Rhythm(noise(seconds, rate_hz, noise_mv, seed) + 0.05 * np.sin(2 * np.pi * 0.2 * t), rate_hz, np.empty(0))


def fibrillation(
    amplitude_mv: float = 0.5,
    low_hz: float = 4.0,
    high_hz: float = 7.0,
    *,
    seconds: float = 60.0,
    rate_hz: float = 130.0,
    noise_mv: float = NOISE_MV,
    seed: int = 3,
) -> Rhythm:
    """Return noise filtered to a band, whose amplitude waxes and wanes: coarse above 0.2 mV peak to peak, fine below.

    `amplitude_mv` is the mean peak-to-peak value.
    """
    count = round(seconds * rate_hz)
    rng = np.random.default_rng(seed)
    spectrum, hz = np.fft.rfft(rng.normal(size=count)), np.fft.rfftfreq(count, 1 / rate_hz)
    spectrum[(hz < low_hz) | (hz > high_hz)] = 0.0
    waves = np.fft.irfft(spectrum, count)
    waves *= amplitude_mv / (2 * sqrt(2) * waves.std())
    return Rhythm(waves + noise(seconds, rate_hz, noise_mv, seed + 1), rate_hz, np.empty(0))


def flutter(
    hz: float = 4.0,
    amplitude_mv: float = 1.0,
    *,
    seconds: float = 60.0,
    rate_hz: float = 130.0,
    noise_mv: float = NOISE_MV,
    seed: int = 4,
) -> Rhythm:
    """Return a sine, as ventricular flutter looks; `amplitude_mv` is its peak-to-peak value. It has no QRS complexes."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return Rhythm(amplitude_mv / 2 * np.sin(2 * np.pi * hz * t) + noise(seconds, rate_hz, noise_mv, seed), rate_hz, np.empty(0))


def paced(
    per_minute: float = 60.0,
    *,
    spike_mv: float = 5.0,
    spike_s: float = 0.002,
    captured: bool = True,
    delay_s: float = 0.04,
    seconds: float = 60.0,
    rate_hz: float = 250.0,
    amplitude_mv: float = 1.0,
    noise_mv: float = NOISE_MV,
    seed: int = 5,
) -> Rhythm:
    """Return ventricular pacing: spikes, each followed by a wide QRS complex after `delay_s`; spikes alone without capture."""
    spikes_s = np.arange(0.4, seconds - 0.6, 60.0 / per_minute)
    shape = SHAPES["ventricular_qs"]
    beats_s = spikes_s + delay_s + shape.qrs_s / 2 if captured else np.empty(0)
    rhythm = draw(
        "ventricular_qs",
        beats_s,
        rr_s=60.0 / per_minute,
        seconds=seconds,
        rate_hz=rate_hz,
        amplitude_mv=amplitude_mv,
        noise_mv=noise_mv,
        seed=seed,
    )
    add_spikes(rhythm.mv, rate_hz, spikes_s, spike_mv, spike_s)
    return rhythm


def join(*parts: Rhythm) -> Rhythm:
    """Return rhythms of one sampling rate one after the other."""
    (rate_hz,) = {part.rate_hz for part in parts}
    starts_s = np.cumsum([0.0, *(part.seconds for part in parts)])
    beats_s = np.concatenate([part.beats_s + start_s for part, start_s in zip(parts, starts_s[:-1], strict=True)])
    return Rhythm(np.concatenate([part.mv for part in parts]), rate_hz, beats_s)


def noise(seconds: float, rate_hz: float, noise_mv: float = NOISE_MV, seed: int = 1) -> Samples:
    """Return white noise."""
    return np.random.default_rng(seed).normal(0.0, noise_mv, round(seconds * rate_hz))


def add_p_waves(mv: Samples, rate_hz: float, at_s: Samples, p_mv: float, width_s: float = 0.022) -> None:
    """Add P waves to `mv`."""
    for p_s in at_s.tolist():
        near = _span(mv, rate_hz, p_s - 5 * width_s, p_s + 5 * width_s)
        mv[near] += p_mv * np.exp(-(((np.arange(near.start, near.stop) / rate_hz - p_s) / width_s) ** 2) / 2)


def add_spikes(mv: Samples, rate_hz: float, at_s: Samples, spike_mv: float, spike_s: float) -> None:
    """Add rectangular pulses to `mv`; each sample is the mean of the signal over one sampling interval."""
    for start_s in at_s.tolist():
        near = _span(mv, rate_hz, start_s - 2 / rate_hz, start_s + spike_s + 2 / rate_hz)
        left = (np.arange(near.start, near.stop) - 0.5) / rate_hz
        overlap_s = np.minimum(left + 1 / rate_hz, start_s + spike_s) - np.maximum(left, start_s)
        mv[near] += spike_mv * np.maximum(overlap_s, 0.0) * rate_hz


def _span(mv: Samples, rate_hz: float, start_s: float, end_s: float) -> slice:
    return slice(max(int(start_s * rate_hz), 0), min(max(int(end_s * rate_hz) + 1, 0), mv.size))


@dataclass(frozen=True, slots=True)
class RegularCase:
    """The arguments of a regular rhythm, as Hypothesis draws and prints them."""

    shape: str
    per_minute: float
    amplitude_mv: float
    rate_hz: float
    p_share: float
    t_share: float
    seed: int

    def rhythm(self, seconds: float, noise_mv: float = NOISE_MV) -> Rhythm:
        return regular(
            self.shape,
            self.per_minute,
            seconds=seconds,
            rate_hz=self.rate_hz,
            amplitude_mv=self.amplitude_mv,
            p_mv=min(self.p_share * self.amplitude_mv, 0.25) if self.per_minute <= 130 else 0.0,
            t_share=self.t_share,
            noise_mv=noise_mv,
            seed=self.seed,
        )


MAX_WIDE_PER_MINUTE: Final = 220
"""A wide rhythm at this rate or a higher one is flutter as well as tachycardia: its beats cannot be told apart."""


def _may_rate(case: RegularCase) -> bool:
    return not SHAPES[case.shape].is_wide or case.per_minute < MAX_WIDE_PER_MINUTE


REGULAR_CASES: Final = st.builds(
    RegularCase,
    shape=st.sampled_from(sorted(SHAPES)),
    per_minute=st.integers(30, 300).map(float),
    amplitude_mv=st.floats(-1.0, 1.0).map(lambda exponent: round(5.0**exponent, 2)),
    rate_hz=st.sampled_from([125.0, 128.0, 130.0, 130.16, 200.0, 250.0, 256.0, 300.0, 360.0, 500.0]),
    p_share=st.sampled_from([0.0, 0.1, 0.2]),
    t_share=st.sampled_from([0.1, 0.25, 0.4]),
    seed=st.integers(0, 2**16),
).filter(_may_rate)
"""Regular rhythms of 30 to 300/min and 0.2 to 5 mV, sampled at 125 to 500 Hz."""


def times_of(beats: Sequence[object]) -> Samples:
    """Return the times of detected or labelled beats."""
    return np.array([beat.t_s for beat in beats])  # type: ignore[attr-defined]
