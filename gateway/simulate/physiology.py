"""A simulated ECG: rhythms become beats, beats become waves, waves become millivolts.

The model follows McSharry et al. 2003 (IEEE Trans Biomed Eng 50:289-294): each beat is a sum of Gaussian P, Q, R, S and T
waves, QT follows the square root of RR (Bazett), and RR intervals vary with breathing (0.25 Hz) and the Mayer wave (0.1 Hz).
Wave widths are set in seconds, not in phase, because conduction does not slow down when the heart rate falls. They are
those of a healthy adult: P 90 ms, PR 160 ms, QRS 90 ms, QT 400 ms at 60/min. Fibrillatory waves follow Stridh & Sörnmo 2001
(IEEE Trans Biomed Eng 48:105-111). All random numbers come from one seeded generator: the same script and seed give the same
samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.simulate.script import Episode, Rhythm, Script, Segment

Samples = NDArray[np.float64]

_BREATH_HZ: Final = 0.25
_MAYER_HZ: Final = 0.1
_PVC_COUPLING: Final = 0.60
"""Coupling interval of a ventricular beat as a share of the sinus interval; the pause after it is fully compensatory."""
_PAC_COUPLING: Final = 0.65
"""Coupling interval of an atrial beat as a share of the sinus interval."""
_PAC_RETURN: Final = 1.1
"""Interval after an atrial beat as a share of the sinus interval. The atrial beat resets the sinus node, so the pause
is not fully compensatory."""
_SVT_RETURN: Final = 2.5
"""Length of the interval that ends a tachycardia, in RR intervals of the tachycardia: the sinus node recovers late."""
_AF_RR_VARIATION: Final = 0.23
"""Coefficient of variation of RR in untreated atrial fibrillation (0.2 to 0.25)."""
_AF_MIN_RR_S: Final = 0.36
_AF_MAX_RR_S: Final = 1.05
_QT_RR_WEIGHT: Final = 0.3
"""Weight of the latest RR in the running mean that QT follows: repolarisation adapts over several beats."""
_QT_MAX_RR_S: Final = 1.8


@dataclass(frozen=True, slots=True)
class Beat:
    """An R peak. `label` is N, V or S as in ANSI/AAMI EC57."""

    time_s: float
    label: str
    rhythm: Rhythm


@dataclass(frozen=True, slots=True)
class Rendering:
    """One period of a script: samples in millivolts, and beats and episodes in seconds of the script.

    The period is cyclic: the first sample follows the last.
    """

    mv: Samples
    beats: tuple[Beat, ...]
    episodes: tuple[Episode, ...]
    rate_hz: float


@dataclass(frozen=True, slots=True)
class Wave:
    """A Gaussian: `peak_mv` at `at_s` from the R peak. The standard deviations of its flanks are `rise_s` and `fall_s`."""

    peak_mv: float
    at_s: float
    rise_s: float
    fall_s: float


_P: Final = Wave(0.11, -0.165, 0.022, 0.022)
_QRS: Final = (Wave(-0.10, -0.028, 0.008, 0.008), Wave(1.15, 0.0, 0.0105, 0.0105), Wave(-0.22, 0.030, 0.010, 0.010))
_T: Final = Wave(0.28, 0.26, 0.055, 0.038)
_ECTOPIC_P: Final = Wave(0.07, -0.14, 0.018, 0.018)
_RETROGRADE_P: Final = Wave(-0.05, 0.085, 0.013, 0.013)
"""In AV nodal re-entry the atria are activated retrogradely: the P wave is inverted and at the end of the QRS complex."""
_VENTRICULAR_QRS: Final = (Wave(1.45, 0.0, 0.028, 0.032), Wave(-0.38, 0.085, 0.026, 0.030))
_VENTRICULAR_T: Final = Wave(-0.42, 0.32, 0.060, 0.045)


def render_ecg(script: Script, seed: int, rate_hz: float) -> Rendering:
    """Render one period of `script`: `round(period * rate_hz)` samples."""
    rng = np.random.default_rng(seed)
    beats = _make_beats(script, rng)
    mv = _render_complexes(beats, script.period_s, rate_hz, rng)
    for episode in script.episodes():
        if episode.kind == "af":
            _add_fibrillation(mv, episode, rate_hz, rng)
    mv += _baseline_wander(mv.size, rate_hz, rng) + rng.normal(0.0, 0.008, mv.size)
    return Rendering(mv, beats, script.episodes(), rate_hz)


def _make_beats(script: Script, rng: np.random.Generator) -> tuple[Beat, ...]:
    beats: list[Beat] = []
    onset_s = 0.0
    for segment in script.segments:
        intervals, labels = _rr_intervals(segment, onset_s, rng)
        times_s = onset_s + np.concatenate(([0.0], np.cumsum(intervals)[:-1]))
        beats += (Beat(float(time_s), label, segment.rhythm) for time_s, label in zip(times_s, labels, strict=True))
        onset_s += segment.duration_s
    return tuple(beats)


def _rr_intervals(segment: Segment, onset_s: float, rng: np.random.Generator) -> tuple[Samples, list[str]]:
    """Return RR intervals that fill the segment exactly, in seconds, and the label of the beat at the start of each."""
    if segment.rhythm == "pause":
        return np.array([segment.duration_s]), ["N"]
    count = max(1, round(segment.duration_s * segment.rate_bpm / 60))
    match segment.rhythm:
        case "af":
            relative_rr = _relative_af_rr(count, segment.rate_bpm, rng)
        case "svt":
            relative_rr = 1 + rng.normal(0.0, 0.006, count - 1)
            relative_rr[-1] = _SVT_RETURN
        case _:
            relative_rr = _relative_sinus_rr(count, onset_s + np.arange(count) * 60 / segment.rate_bpm, rng)
    labels = ["S" if segment.rhythm == "svt" else "N"] * relative_rr.size
    for at_s, label in [(pvc_s, "V") for pvc_s in segment.pvc_s] + [(pac_s, "S") for pac_s in segment.pac_s]:
        beat = min(max(1, round(at_s * segment.rate_bpm / 60)), count - 1)
        before, after = (_PVC_COUPLING, 2 - _PVC_COUPLING) if label == "V" else (_PAC_COUPLING, _PAC_RETURN)
        relative_rr[beat - 1] *= before
        relative_rr[beat] *= after
        labels[beat] = label
    return relative_rr * (segment.duration_s / relative_rr.sum()), labels


def _relative_sinus_rr(count: int, times_s: Samples, rng: np.random.Generator) -> Samples:
    """Return RR intervals of sinus rhythm divided by their mean: respiratory arrhythmia, Mayer wave and noise."""
    breath = 0.035 * np.sin(2 * np.pi * _BREATH_HZ * times_s)
    mayer = 0.02 * np.sin(2 * np.pi * _MAYER_HZ * times_s)
    return np.asarray(1 + breath + mayer + rng.normal(0.0, 0.008, count))


def _relative_af_rr(count: int, rate_bpm: float, rng: np.random.Generator) -> Samples:
    """Return RR intervals of AF divided by their mean: independent, log-normal, from refractory period to escape interval."""
    mean_s = 60 / rate_bpm
    sigma = np.sqrt(np.log1p(_AF_RR_VARIATION**2))
    drawn_s = rng.lognormal(np.log(mean_s) - sigma**2 / 2, sigma, 4 * count)
    kept_s = drawn_s[(drawn_s > _AF_MIN_RR_S) & (drawn_s < _AF_MAX_RR_S)][:count]
    return np.asarray(kept_s / mean_s)


def _render_complexes(beats: tuple[Beat, ...], period_s: float, rate_hz: float, rng: np.random.Generator) -> Samples:
    mv = np.zeros(round(period_s * rate_hz))
    previous_s = beats[-1].time_s - period_s
    mean_rr_s = beats[0].time_s - previous_s
    for beat in beats:
        mean_rr_s += _QT_RR_WEIGHT * (min(beat.time_s - previous_s, _QT_MAX_RR_S) - mean_rr_s)
        amplitude = 1 + 0.05 * np.sin(2 * np.pi * _BREATH_HZ * beat.time_s) + rng.normal(0.0, 0.015)
        for wave in _waves(beat, mean_rr_s):
            _add_wave(mv, replace(wave, peak_mv=wave.peak_mv * amplitude), beat.time_s, rate_hz)
        previous_s = beat.time_s
    return mv


def _waves(beat: Beat, mean_rr_s: float) -> tuple[Wave, ...]:
    """Return the waves of a beat; the running mean of RR is `mean_rr_s`."""
    if beat.label == "V":
        return (*_VENTRICULAR_QRS, _stretch_t_wave(_VENTRICULAR_T, mean_rr_s))
    p_waves: Mapping[Rhythm, tuple[Wave, ...]] = {"af": (), "svt": (_RETROGRADE_P,)}
    sinus_p = _ECTOPIC_P if beat.label == "S" else replace(_P, at_s=_P.at_s * mean_rr_s ** (1 / 3))
    return (*p_waves.get(beat.rhythm, (sinus_p,)), *_QRS, _stretch_t_wave(_T, mean_rr_s))


def _stretch_t_wave(wave: Wave, mean_rr_s: float) -> Wave:
    """Return a T wave for this RR by Bazett's formula: QT grows with the square root of RR. `wave` is the one at 60/min."""
    scale = float(np.sqrt(mean_rr_s))
    return Wave(wave.peak_mv, wave.at_s * scale, wave.rise_s * scale, wave.fall_s * scale)


def _add_wave(mv: Samples, wave: Wave, beat_s: float, rate_hz: float) -> None:
    centre_s = beat_s + wave.at_s
    first, last = np.floor((centre_s - 5 * wave.rise_s) * rate_hz), np.ceil((centre_s + 5 * wave.fall_s) * rate_hz)
    index = np.arange(int(first), int(last) + 1)
    offset_s = index / rate_hz - centre_s
    sigma_s = np.where(offset_s < 0, wave.rise_s, wave.fall_s)
    mv[index % mv.size] += wave.peak_mv * np.exp(-((offset_s / sigma_s) ** 2) / 2)


def _add_fibrillation(mv: Samples, episode: Episode, rate_hz: float, rng: np.random.Generator) -> None:
    """Add Stridh & Sörnmo's sawtooth: a varying fundamental of about 6 Hz and two harmonics; ends before the first P wave."""
    first, last = round(episode.onset_s * rate_hz), round((episode.end_s - 0.3) * rate_hz)
    time_s = np.arange(last - first) / rate_hz
    fundamental_hz = rng.uniform(5.5, 6.5)
    phase = 2 * np.pi * fundamental_hz * time_s + (0.5 / 0.13) * np.sin(2 * np.pi * 0.13 * time_s + rng.uniform(0, 2 * np.pi))
    amplitude_mv = 0.075 + 0.025 * np.sin(2 * np.pi * 0.21 * time_s + rng.uniform(0, 2 * np.pi))
    sawtooth = sum(np.sin(k * phase) / k for k in (1, 2, 3))
    ramp = np.clip(np.minimum(time_s, time_s[-1] - time_s) / 0.4, 0, 1)
    mv[first:last] -= amplitude_mv * ramp * sawtooth


def _baseline_wander(count: int, rate_hz: float, rng: np.random.Generator) -> Samples:
    """Return baseline wander from breathing and electrode drift: sines with whole cycles per period, so it is cyclic."""
    angle = 2 * np.pi * np.arange(count) / count
    wander = np.zeros(count)
    for frequency_hz, peak_mv in ((_BREATH_HZ, 0.035), (0.11, 0.02), (0.04, 0.03)):
        wander += peak_mv * np.sin(max(1, round(frequency_hz * count / rate_hz)) * angle + rng.uniform(0, 2 * np.pi))
    return wander
