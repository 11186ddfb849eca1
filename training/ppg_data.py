"""Training windows of `ppg_quality`, labelled by whether the detector found every pulse, accurately in time, and no other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from captures.ppg import PpgRecording, find_ppg, read_ppg
from evaluation.pulse_reference import align_beats, compare_pulses, find_faultless
from models.inference.ppg_quality import MIN_KNOWN_SHARE, RATE_HZ, WINDOW_SAMPLES
from models.signal.ppg import PPG, PpgChain, Pulse
from models.signal.resample import Resampler
from training.ppg_augmentation import augment
from training.ppg_synth import simulate_ppg

Samples = NDArray[np.float64]
NO_TIMES_S: Final[Samples] = np.empty(0)
"""The times of faint pulses in a recording, where none are known."""

WINDOW_S: Final = WINDOW_SAMPLES / RATE_HZ
MINUTE_S: Final = 60.0
WINDOWS_PER_MINUTE: Final = 10
RECORDED_SHARE: Final = 0.5
"""Share of the minutes that come from recordings."""

UNCHANGED_SHARE: Final = 0.2
"""Share of the recorded minutes that get no artefacts."""

STRETCH: Final = (0.8, 1.25)
"""Range of the factor by which a recording is sped up or slowed down, for other heart rates and shapes."""

SIMULATED: Final = "simulated"
"""The origin of a simulated minute is this word, followed by the fold in which the minute is held out."""

FOLDS: Final = 5


@dataclass(frozen=True)
class Source:
    """A recording at 50 Hz in units of its pulses' height, and the expected times of its pulses in seconds."""

    name: str
    ppg: Samples
    expected_s: Samples


@dataclass(frozen=True)
class Windows:
    """Windows with their labels.

    Attributes:
        ppg: (n, 500) float32, NaN where missing.
        good: (n,) the label.
        origin: (n,) name of the source.
        augmented: (n,) whether artefacts were added.
    """

    ppg: NDArray[np.float32]
    good: NDArray[np.bool_]
    origin: NDArray[np.str_]
    augmented: NDArray[np.bool_]

    def select(self, chosen: NDArray[np.bool_]) -> "Windows":
        """Return the windows of a mask (n,)."""
        return Windows(self.ppg[chosen], self.good[chosen], self.origin[chosen], self.augmented[chosen])


def load_sources(data: Path) -> list[Source]:
    """Load every recording in the folder and its subfolders."""
    return [_prepare_source(read_ppg(path)) for path in find_ppg(data)]


def split_folds(sources: Sequence[Source]) -> list[list[str]]:
    """Return the origins of each fold; every person is in one fold."""
    names = sorted(source.name for source in sources)
    return [[*names[fold::FOLDS], f"{SIMULATED} {fold}"] for fold in range(FOLDS)]


def sample_windows(sources: Sequence[Source], minutes: int, seed: int) -> Windows:
    """Return windows from this many minutes, recorded and simulated, most of them with artefacts."""
    rng = np.random.default_rng(seed)
    parts = [_sample_minute(sources, rng) for _ in range(minutes)]
    return _concatenate([part for part in parts if part])


def windows_as_recorded(source: Source, step_s: float = 1.0) -> Windows:
    """Return the windows of a recording without artefacts, one every `step_s` seconds."""
    starts = np.arange(0, source.ppg.size - WINDOW_SAMPLES + 1, round(step_s * RATE_HZ))
    return _cut_windows(source.ppg, source.expected_s, NO_TIMES_S, starts, source.name, False)


def detect_pulses(ppg: Samples) -> list[Pulse]:
    """Return the pulses of a stretch at 50 Hz."""
    chain = PpgChain(RATE_HZ)
    return [*chain.push(ppg), *chain.finish()]


def _prepare_source(recording: PpgRecording) -> Source:
    ppg = recording.ppg
    if recording.rate_hz != RATE_HZ:
        resampler = Resampler(recording.rate_hz, 0.0, PPG)
        known = np.interp(np.arange(ppg.size), np.flatnonzero(np.isfinite(ppg)), ppg[np.isfinite(ppg)])
        ppg = np.concatenate((resampler.push(known), resampler.finish()))
    swings = [
        float(np.ptp(section)) for section in np.array_split(ppg, ppg.size // WINDOW_SAMPLES) if np.isfinite(section).all()
    ]
    ppg = (ppg - np.nanmedian(ppg)) / float(np.median(swings))
    pulses_s = np.array([pulse.t_s for pulse in detect_pulses(ppg)])
    return Source(recording.name, ppg, align_beats(recording.beats_s, pulses_s, recording.same_clock))


def _sample_minute(sources: Sequence[Source], rng: np.random.Generator) -> Windows | None:
    if rng.random() < RECORDED_SHARE:
        source = sources[int(rng.integers(len(sources)))]
        ppg, expected_s = _stretch_time(source, rng)
        augmented = rng.random() >= UNCHANGED_SHARE
        x = augment(ppg, rng) if augmented else ppg * rng.choice([-1.0, 1.0])
        return _cut_windows(x, expected_s, NO_TIMES_S, _draw_starts(x, rng), source.name, bool(augmented))
    simulated = simulate_ppg(MINUTE_S, rng)
    found_s = np.array([pulse.t_s for pulse in detect_pulses(simulated.ppg)])
    if simulated.pulses_s.size < 2 or found_s.size < 2:
        return None
    shift = float(np.median(align_beats(simulated.pulses_s - 0.3, found_s, True) - simulated.pulses_s))
    x = augment(simulated.ppg, rng)
    name = f"{SIMULATED} {rng.integers(FOLDS)}"
    return _cut_windows(x, simulated.pulses_s + shift, simulated.faint_s + shift, _draw_starts(x, rng), name, True)


def _stretch_time(source: Source, rng: np.random.Generator) -> tuple[Samples, Samples]:
    """Return a minute of a recording at another speed, with the expected pulses."""
    speed = float(np.exp(rng.uniform(*np.log(STRETCH))))
    first = int(rng.integers(0, max(source.ppg.size - int(MINUTE_S * RATE_HZ * speed), 1)))
    section = source.ppg[first : first + int(MINUTE_S * RATE_HZ * speed)]
    at = np.arange(int(section.size / speed)) * speed
    ppg = np.interp(at, np.arange(section.size), section)
    return ppg, (source.expected_s - first / RATE_HZ) / speed


def _draw_starts(x: Samples, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.sort(rng.integers(0, x.size - WINDOW_SAMPLES + 1, WINDOWS_PER_MINUTE))


def _cut_windows(
    x: Samples, expected_s: Samples, faint_s: Samples, starts: NDArray[np.int64], name: str, augmented: bool
) -> Windows:
    comparison = compare_pulses(expected_s, detect_pulses(x), x, RATE_HZ, faint_s)
    windows = x[starts[:, None] + np.arange(WINDOW_SAMPLES)]
    good = find_faultless(comparison.faults_s, starts / RATE_HZ, WINDOW_S)
    good &= np.diff(np.searchsorted(expected_s, np.stack((starts, starts + WINDOW_SAMPLES)) / RATE_HZ), axis=0)[0] >= 3
    known = np.isfinite(windows).mean(-1) >= MIN_KNOWN_SHARE
    return Windows(windows[known].astype(np.float32), good[known], np.full(known.sum(), name), np.full(known.sum(), augmented))


def _concatenate(parts: Sequence[Windows]) -> Windows:
    return Windows(
        np.concatenate([part.ppg for part in parts]),
        np.concatenate([part.good for part in parts]),
        np.concatenate([part.origin for part in parts]),
        np.concatenate([part.augmented for part in parts]),
    )
