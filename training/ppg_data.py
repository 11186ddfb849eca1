"""Windows of PPG with a label that a comparison decides: whether the detector found every pulse, in time, and no other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from captures.ppg import PpgRecording, find_ppg, read_ppg
from evaluation.pulse_reference import aligned, compared, faultless
from models.inference.ppg_quality import MIN_KNOWN_SHARE, RATE_HZ, WINDOW
from models.signal.ppg import PPG, PpgChain, Pulse
from models.signal.resample import Resampler
from training.ppg_disturb import disturbed
from training.ppg_synth import synthesised

Samples = NDArray[np.float64]
NONE: Final[Samples] = np.empty(0)

WINDOW_S: Final = WINDOW / RATE_HZ
MINUTE_S: Final = 60.0
PER_MINUTE: Final = 10
REAL: Final = 0.5
"""Share of the minutes that come from recordings."""

UNTOUCHED: Final = 0.2
"""Share of the recorded minutes that are left as they are."""

STRETCH: Final = (0.8, 1.25)
"""Time is stretched by a factor between these: other heart rates, other shapes."""

SIMULATED: Final = "simulated"
"""Origins of simulated minutes are this and the fold that they are held out of."""

FOLDS: Final = 5


@dataclass(frozen=True)
class Source:
    """A recording at 50 Hz in units of its pulses' height, and when its pulses are expected, in seconds."""

    name: str
    ppg: Samples
    expected_s: Samples


@dataclass(frozen=True)
class Windows:
    """`ppg` (n, 500) float32, NaN where missing; `good` (n,); `origin` (n,) source names; `touched` (n,) by disturbances."""

    ppg: NDArray[np.float32]
    good: NDArray[np.bool_]
    origin: NDArray[np.str_]
    touched: NDArray[np.bool_]

    def of(self, chosen: NDArray[np.bool_]) -> "Windows":
        """Those of a mask (n,)."""
        return Windows(self.ppg[chosen], self.good[chosen], self.origin[chosen], self.touched[chosen])


def load_sources(data: Path) -> list[Source]:
    """Every recording below the folder."""
    return [_source(read_ppg(path)) for path in find_ppg(data)]


def folds(sources: Sequence[Source]) -> list[list[str]]:
    """Origins of windows, every person in one fold."""
    names = sorted(source.name for source in sources)
    return [[*names[place::FOLDS], f"{SIMULATED} {place}"] for place in range(FOLDS)]


def drawn(sources: Sequence[Source], minutes: int, seed: int) -> Windows:
    """Windows out of so many minutes, recorded and simulated, most of them disturbed."""
    rng = np.random.default_rng(seed)
    parts = [_minute(sources, rng) for _ in range(minutes)]
    return _joined([part for part in parts if part])


def as_recorded(source: Source, step_s: float = 1.0) -> Windows:
    """Every window of a recording, one a second, untouched."""
    starts = np.arange(0, source.ppg.size - WINDOW + 1, round(step_s * RATE_HZ))
    return _cut(source.ppg, source.expected_s, NONE, starts, source.name, False)


def detected(ppg: Samples) -> list[Pulse]:
    """The pulses of a stretch at 50 Hz."""
    chain = PpgChain(RATE_HZ)
    return [*chain.push(ppg), *chain.finish()]


def _source(recording: PpgRecording) -> Source:
    ppg = recording.ppg
    if recording.rate_hz != RATE_HZ:
        resampler = Resampler(recording.rate_hz, 0.0, PPG)
        known = np.interp(np.arange(ppg.size), np.flatnonzero(np.isfinite(ppg)), ppg[np.isfinite(ppg)])
        ppg = np.concatenate((resampler.push(known), resampler.finish()))
    swings = [float(np.ptp(part)) for part in np.array_split(ppg, ppg.size // WINDOW) if np.isfinite(part).all()]
    ppg = (ppg - np.nanmedian(ppg)) / float(np.median(swings))
    pulses_s = np.array([pulse.t_s for pulse in detected(ppg)])
    return Source(recording.name, ppg, aligned(recording.beats_s, pulses_s, recording.same_clock))


def _minute(sources: Sequence[Source], rng: np.random.Generator) -> Windows | None:
    if rng.random() < REAL:
        source = sources[int(rng.integers(len(sources)))]
        ppg, expected_s = _stretched(source, rng)
        touched = rng.random() >= UNTOUCHED
        x = disturbed(ppg, rng) if touched else ppg * rng.choice([-1.0, 1.0])
        return _cut(x, expected_s, NONE, _starts(x, rng), source.name, bool(touched))
    truth = synthesised(MINUTE_S, rng)
    found_s = np.array([pulse.t_s for pulse in detected(truth.ppg)])
    if truth.pulses_s.size < 2 or found_s.size < 2:
        return None
    shift = float(np.median(aligned(truth.pulses_s - 0.3, found_s, True) - truth.pulses_s))
    x = disturbed(truth.ppg, rng)
    name = f"{SIMULATED} {rng.integers(FOLDS)}"
    return _cut(x, truth.pulses_s + shift, truth.faint_s + shift, _starts(x, rng), name, True)


def _stretched(source: Source, rng: np.random.Generator) -> tuple[Samples, Samples]:
    """A minute of a recording at another pace."""
    pace = float(np.exp(rng.uniform(*np.log(STRETCH))))
    first = int(rng.integers(0, max(source.ppg.size - int(MINUTE_S * RATE_HZ * pace), 1)))
    part = source.ppg[first : first + int(MINUTE_S * RATE_HZ * pace)]
    at = np.arange(int(part.size / pace)) * pace
    ppg = np.interp(at, np.arange(part.size), part)
    return ppg, (source.expected_s - first / RATE_HZ) / pace


def _starts(x: Samples, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.sort(rng.integers(0, x.size - WINDOW + 1, PER_MINUTE))


def _cut(x: Samples, expected_s: Samples, faint_s: Samples, starts: NDArray[np.int64], name: str, touched: bool) -> Windows:
    comparison = compared(expected_s, detected(x), x, RATE_HZ, faint_s)
    windows = x[starts[:, None] + np.arange(WINDOW)]
    good = faultless(comparison.faults_s, starts / RATE_HZ, WINDOW_S)
    good &= np.diff(np.searchsorted(expected_s, np.stack((starts, starts + WINDOW)) / RATE_HZ), axis=0)[0] >= 3
    known = np.isfinite(windows).mean(-1) >= MIN_KNOWN_SHARE
    return Windows(windows[known].astype(np.float32), good[known], np.full(known.sum(), name), np.full(known.sum(), touched))


def _joined(parts: Sequence[Windows]) -> Windows:
    return Windows(
        np.concatenate([part.ppg for part in parts]),
        np.concatenate([part.good for part in parts]),
        np.concatenate([part.origin for part in parts]),
        np.concatenate([part.touched for part in parts]),
    )
