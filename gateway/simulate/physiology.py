"""An ECG as a heart would make it: rhythms become beats, beats become waves, waves become millivolts.

The form is the dynamical model of McSharry et al. 2003 (IEEE Trans Biomed Eng 50:289-294): each beat is a sum of Gaussian P, Q,
R, S and T waves, QT follows the root of RR (Bazett), RR intervals vary with breathing (0.25 Hz) and the Mayer wave (0.1 Hz).
Wave widths are set in seconds, not in phase, because conduction does not slow with the heart; they are those of a healthy adult
(P 90 ms, PR 160 ms, QRS 90 ms, QT 400 ms at 60/min). Fibrillatory waves follow Stridh & Sörnmo 2001 (IEEE Trans Biomed Eng
48:105-111). Everything is drawn from one seeded generator: the same script and seed give the same samples.
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
"""Share of the sinus interval after which a ventricular beat comes; the next sinus beat keeps its time (full compensation)."""
_PAC_COUPLING: Final = 0.65
_PAC_RETURN: Final = 1.1
"""The atrial beat resets the sinus node: the interval after it, as a share of the sinus interval (no full compensation)."""
_SVT_RETURN: Final = 2.5
"""The sinus node wakes late after a tachycardia: the interval that ends it, as a share of the tachycardia's."""
_AF_VARIATION: Final = 0.23
"""Standard deviation of RR over its mean in untreated atrial fibrillation (0.2 to 0.25)."""
_AF_SHORTEST_S: Final = 0.36
_AF_LONGEST_S: Final = 1.05
_QT_MEMORY: Final = 0.3
"""Weight of the latest RR in the interval that QT follows: repolarisation adapts over several beats, not at once."""
_QT_LONGEST_RR_S: Final = 1.8


@dataclass(frozen=True, slots=True)
class Beat:
    """An R peak. `label` is N, V or S as in ANSI/AAMI EC57."""

    time_s: float
    label: str
    rhythm: Rhythm


@dataclass(frozen=True, slots=True)
class Rendering:
    """One period of a script: its samples in millivolts, its beats and its episodes, all in seconds of the script.

    The period is a ring: what follows the last sample is the first.
    """

    mv: Samples
    beats: tuple[Beat, ...]
    episodes: tuple[Episode, ...]
    rate_hz: float


@dataclass(frozen=True, slots=True)
class Wave:
    """A Gaussian: `peak_mv` at `at_s` from the R peak; its flanks' standard deviations are `rise_s` and `fall_s`."""

    peak_mv: float
    at_s: float
    rise_s: float
    fall_s: float


_P: Final = Wave(0.11, -0.165, 0.022, 0.022)
_QRS: Final = (Wave(-0.10, -0.028, 0.008, 0.008), Wave(1.15, 0.0, 0.0105, 0.0105), Wave(-0.22, 0.030, 0.010, 0.010))
_T: Final = Wave(0.28, 0.26, 0.055, 0.038)
_ECTOPIC_P: Final = Wave(0.07, -0.14, 0.018, 0.018)
_RETROGRADE_P: Final = Wave(-0.05, 0.085, 0.013, 0.013)
"""In nodal re-entry the atria are activated backwards: the P wave is inverted and hides in the end of the QRS complex."""
_VENTRICULAR_QRS: Final = (Wave(1.45, 0.0, 0.028, 0.032), Wave(-0.38, 0.085, 0.026, 0.030))
_VENTRICULAR_T: Final = Wave(-0.42, 0.32, 0.060, 0.045)


def render(script: Script, seed: int, rate_hz: float) -> Rendering:
    """One period of `script`, `round(period * rate_hz)` samples."""
    rng = np.random.default_rng(seed)
    beats = _beats(script, rng)
    mv = _complexes(beats, script.period_s, rate_hz, rng)
    for episode in script.episodes():
        if episode.kind == "af":
            _add_fibrillation(mv, episode, rate_hz, rng)
    mv += _baseline(mv.size, rate_hz, rng) + rng.normal(0.0, 0.008, mv.size)
    return Rendering(mv, beats, script.episodes(), rate_hz)


def _beats(script: Script, rng: np.random.Generator) -> tuple[Beat, ...]:
    beats: list[Beat] = []
    onset = 0.0
    for segment in script.segments:
        intervals, labels = _intervals(segment, onset, rng)
        times = onset + np.concatenate(([0.0], np.cumsum(intervals)[:-1]))
        beats += (Beat(float(time), label, segment.rhythm) for time, label in zip(times, labels, strict=True))
        onset += segment.duration_s
    return tuple(beats)


def _intervals(segment: Segment, onset_s: float, rng: np.random.Generator) -> tuple[Samples, list[str]]:
    """RR intervals that fill the segment exactly, and the label of the beat that opens each."""
    if segment.rhythm == "pause":
        return np.array([segment.duration_s]), ["N"]
    count = max(1, round(segment.duration_s * segment.rate_bpm / 60))
    match segment.rhythm:
        case "af":
            shares = _irregular(count, segment.rate_bpm, rng)
        case "svt":
            shares = 1 + rng.normal(0.0, 0.006, count - 1)
            shares[-1] = _SVT_RETURN
        case _:
            shares = _breathing(count, onset_s + np.arange(count) * 60 / segment.rate_bpm, rng)
    labels = ["S" if segment.rhythm == "svt" else "N"] * shares.size
    for at_s, label in [(at, "V") for at in segment.pvc_s] + [(at, "S") for at in segment.pac_s]:
        beat = min(max(1, round(at_s * segment.rate_bpm / 60)), count - 1)
        before, after = (_PVC_COUPLING, 2 - _PVC_COUPLING) if label == "V" else (_PAC_COUPLING, _PAC_RETURN)
        shares[beat - 1] *= before
        shares[beat] *= after
        labels[beat] = label
    return shares * (segment.duration_s / shares.sum()), labels


def _breathing(count: int, times: Samples, rng: np.random.Generator) -> Samples:
    """Sinus rhythm: respiratory arrhythmia, the slow vasomotor wave, and a little of its own."""
    breath = 0.035 * np.sin(2 * np.pi * _BREATH_HZ * times)
    mayer = 0.02 * np.sin(2 * np.pi * _MAYER_HZ * times)
    return np.asarray(1 + breath + mayer + rng.normal(0.0, 0.008, count))


def _irregular(count: int, rate_bpm: float, rng: np.random.Generator) -> Samples:
    """Atrial fibrillation: independent, right-skewed (log-normal) intervals between refractoriness and escape."""
    mean = 60 / rate_bpm
    sigma = np.sqrt(np.log1p(_AF_VARIATION**2))
    drawn = rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, 4 * count)
    kept = drawn[(drawn > _AF_SHORTEST_S) & (drawn < _AF_LONGEST_S)][:count]
    return np.asarray(kept / mean)


def _complexes(beats: tuple[Beat, ...], period_s: float, rate_hz: float, rng: np.random.Generator) -> Samples:
    mv = np.zeros(round(period_s * rate_hz))
    previous = beats[-1].time_s - period_s
    pace = beats[0].time_s - previous
    for beat in beats:
        pace += _QT_MEMORY * (min(beat.time_s - previous, _QT_LONGEST_RR_S) - pace)
        size = 1 + 0.05 * np.sin(2 * np.pi * _BREATH_HZ * beat.time_s) + rng.normal(0.0, 0.015)
        for wave in _waves(beat, pace):
            _add(mv, replace(wave, peak_mv=wave.peak_mv * size), beat.time_s, rate_hz)
        previous = beat.time_s
    return mv


def _waves(beat: Beat, pace_s: float) -> tuple[Wave, ...]:
    """The waves of a beat when the heart's recent RR is `pace_s`."""
    if beat.label == "V":
        return (*_VENTRICULAR_QRS, _stretched(_VENTRICULAR_T, pace_s))
    atrial: Mapping[Rhythm, tuple[Wave, ...]] = {"af": (), "svt": (_RETROGRADE_P,)}
    sinus = _ECTOPIC_P if beat.label == "S" else replace(_P, at_s=_P.at_s * pace_s ** (1 / 3))
    return (*atrial.get(beat.rhythm, (sinus,)), *_QRS, _stretched(_T, pace_s))


def _stretched(wave: Wave, pace_s: float) -> Wave:
    """A T wave where Bazett puts it: the table holds it at 60/min, and QT goes with the root of RR."""
    root = float(np.sqrt(pace_s))
    return Wave(wave.peak_mv, wave.at_s * root, wave.rise_s * root, wave.fall_s * root)


def _add(mv: Samples, wave: Wave, beat_s: float, rate_hz: float) -> None:
    centre = beat_s + wave.at_s
    first, last = np.floor((centre - 5 * wave.rise_s) * rate_hz), np.ceil((centre + 5 * wave.fall_s) * rate_hz)
    index = np.arange(int(first), int(last) + 1)
    offset = index / rate_hz - centre
    sigma = np.where(offset < 0, wave.rise_s, wave.fall_s)
    mv[index % mv.size] += wave.peak_mv * np.exp(-((offset / sigma) ** 2) / 2)


def _add_fibrillation(mv: Samples, episode: Episode, rate_hz: float, rng: np.random.Generator) -> None:
    """Stridh & Sörnmo's saw-tooth: a wandering fundamental of about 6 Hz and two harmonics. It ends before the first P wave."""
    first, last = round(episode.onset_s * rate_hz), round((episode.end_s - 0.3) * rate_hz)
    time = np.arange(last - first) / rate_hz
    fundamental = rng.uniform(5.5, 6.5)
    phase = 2 * np.pi * fundamental * time + (0.5 / 0.13) * np.sin(2 * np.pi * 0.13 * time + rng.uniform(0, 2 * np.pi))
    size = 0.075 + 0.025 * np.sin(2 * np.pi * 0.21 * time + rng.uniform(0, 2 * np.pi))
    saw = sum(np.sin(k * phase) / k for k in (1, 2, 3))
    ramp = np.clip(np.minimum(time, time[-1] - time) / 0.4, 0, 1)
    mv[first:last] -= size * ramp * saw


def _baseline(count: int, rate_hz: float, rng: np.random.Generator) -> Samples:
    """Wander from breathing and from slow drift of the electrodes, in whole turns a period so that the ring closes."""
    turn = 2 * np.pi * np.arange(count) / count
    wander = np.zeros(count)
    for frequency, peak_mv in ((_BREATH_HZ, 0.035), (0.11, 0.02), (0.04, 0.03)):
        wander += peak_mv * np.sin(max(1, round(frequency * count / rate_hz)) * turn + rng.uniform(0, 2 * np.pi))
    return wander
