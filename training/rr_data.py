"""Training windows of `rr_af`: RR intervals with variations of rhythm and sensor, and folds by patient."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from captures.rhythms import AF, NO_INTERVAL, NOT_AF, UNUSED, WINDOW, Beats, Labels, Rhythm, majority
from drivers.readings import TICKS_PER_SECOND
from models.inference.rr_af import MIN_VALID, rr_features
from training.cinc import LABELS, CincRecording, load_cinc

Flags = NDArray[np.bool_]

FOLDS: Final = 5
SOURCE_LENGTH: Final = WINDOW + 40
"""Intervals drawn for one window, enough for 64 to remain after beats are missed."""

DATABASE_SHARES: Final[Sequence[Mapping[str, float]]] = (
    {"afdb": 0.35, "nsr2db": 0.25, "cinc2017 O": 0.2, "cinc2017 N": 0.1, "mitdb": 0.1},
    {"afdb": 0.6, "cinc2017 A": 0.3, "mitdb": 0.1},
)
"""Shares of the databases in windows without AF, and with AF. CinC 2017 adds patients (606 with AF), AFDB hours and
transitions."""

MIN_TRAINING_VALID: Final = MIN_VALID - 4
"""Least valid intervals in a training window."""

STEADY_SHARE: Final = 0.02
STEADY_BPM: Final = (35.0, 220.0)
STEADY_SD: Final = 0.01
"""Share of the windows without AF that become steady, at a rate in this range and with up to this spread: pacing, re-entry,
flutter with fixed conduction. Recordings at rest have hardly any such windows above 120 a minute."""

PULSE_JITTER_SHARE: Final = 0.15
"""Share of the windows with the jitter of pulse times instead of R peaks."""


def load_cinc_rhythms(data: Path, progress: Progress) -> list[Rhythm]:
    """Return CinC 2017 as beats found by the agent's own detector, one label and patient per recording.

    Noisy and very short recordings are left out.
    """
    used = (record for record in load_cinc(data, progress) if record.label < LABELS.index("~"))
    return [_to_rhythm(record) for record in used if len(record.beat_s) > MIN_VALID]


def _to_rhythm(record: CincRecording) -> Rhythm:
    label = LABELS[record.label]
    labels = np.full(len(record.beat_s), AF if label == "A" else NOT_AF, np.int8)
    return Rhythm(f"cinc2017 {label}", record.name, 0.001, record.beat_s, labels)


def split_folds(rhythms: Sequence[Rhythm]) -> list[list[Rhythm]]:
    """Return five groups of patients (one record each) with similar hours of AF.

    The records of each database are assigned by burden in serpentine order.
    """
    groups: list[list[Rhythm]] = [[] for _ in range(FOLDS)]
    for database in sorted({rhythm.database for rhythm in rhythms}):
        chosen = [rhythm for rhythm in rhythms if rhythm.database == database]
        ranked = sorted(chosen, key=lambda rhythm: (-np.mean(rhythm.labels == AF), rhythm.name))
        for rank, rhythm in enumerate(ranked):
            row, slot = divmod(rank, FOLDS)
            groups[slot if row % 2 == 0 else FOLDS - 1 - slot].append(rhythm)
    return groups


class Sampler:
    """Draws augmented windows, half of them AF.

    Databases are drawn by their share, patients by the square root of their number of windows. Beat times are dithered over
    their tick. Otherwise the network would recognise the databases by their sampling rates.
    """

    def __init__(self, rhythms: Sequence[Rhythm], seed: int) -> None:
        self._random = np.random.default_rng(seed)
        usable = [rhythm for rhythm in rhythms if len(rhythm.times_s) > MIN_VALID]
        # Padding before each record keeps windows of two patients apart, and makes partly filled windows possible.
        self._rr_s = np.concatenate([_pad_before(np.diff(rhythm.times_s), 1.0) for rhythm in usable])
        self._labels = np.concatenate([_pad_before(rhythm.labels[1:], NO_INTERVAL) for rhythm in usable])
        self._tick_s = np.concatenate([_pad_before(np.full(len(r.times_s) - 1, r.tick_s), 0.0) for r in usable])
        starts = np.cumsum([0, *(len(rhythm.times_s) - 1 + SOURCE_LENGTH for rhythm in usable)]) + SOURCE_LENGTH
        self._chances: list[NDArray[np.float64]] = []
        self._ends: list[list[NDArray[np.int64]]] = []
        for label, shares in zip((NOT_AF, AF), DATABASE_SHARES, strict=True):
            ends = [_ends(rhythm.labels[1:], label) + start for rhythm, start in zip(usable, starts, strict=False)]
            weights = np.sqrt([len(chosen) for chosen in ends])
            databases = np.array([rhythm.database for rhythm in usable])
            for database in set(databases.tolist()):
                chosen = databases == database
                weights[chosen] *= shares.get(database, 0.0) / max(weights[chosen].sum(), 1.0)
            self._ends.append(ends)
            self._chances.append(weights / weights.sum())

    def batch(self, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return features (n, 6, 64) and targets (n,).

        n is `size` less the few windows that are mostly flutter or hardly filled.
        """
        random = self._random
        rr_s, labels = self._draw(random.random(size) < 0.5)
        rr_s *= random.uniform(0.85, 1.2, (size, 1))
        is_not_af = ~((labels == AF) | (labels == UNUSED)).any(-1)
        rr_s[is_not_af] = vary_sinus_rhythm(rr_s[is_not_af], random)
        rr_s, valid, labels = simulate_sensor(rr_s, labels, random)
        label = majority(labels)
        used = (label != UNUSED) & (valid.sum(-1) >= MIN_TRAINING_VALID)
        return rr_features(rr_s[used], valid[used]), (label[used] == AF).astype(np.float32)

    def _draw(self, afib: Flags) -> tuple[Beats, Labels]:
        end = np.empty(len(afib), np.int64)
        for label in (NOT_AF, AF):
            rows = np.flatnonzero(afib == bool(label))
            records = self._random.choice(len(self._ends[label]), len(rows), p=self._chances[label])
            end[rows] = [self._random.choice(self._ends[label][record]) for record in records]
        index = end[:, None] + np.arange(1 - SOURCE_LENGTH, 1)
        dither = np.diff(self._random.uniform(-0.5, 0.5, (len(afib), SOURCE_LENGTH + 1)), axis=-1)
        return self._rr_s[index] + dither * self._tick_s[end][:, None], self._labels[index]


def _pad_before(values: NDArray[Any], filler: float) -> NDArray[Any]:
    return np.concatenate([np.full(SOURCE_LENGTH, filler, values.dtype), values])


def _ends(labels: Labels, label: int) -> NDArray[np.int64]:
    """Return the last intervals of the windows that have at least 24 intervals and mostly this label."""
    counts = {}
    for other in (NOT_AF, AF, UNUSED):
        total = np.cumsum(np.concatenate([np.zeros(WINDOW, np.int64), labels == other]))
        counts[other] = total[WINDOW:] - total[:-WINDOW]
    most = np.maximum(np.maximum(counts[NOT_AF], counts[AF]), counts[UNUSED])
    return np.flatnonzero((counts[label] == most) & (sum(counts.values()) >= MIN_VALID))


def vary_sinus_rhythm(rr_s: Beats, random: np.random.Generator) -> Beats:
    """Turn rhythms other than AF into the typical causes of false alarms.

    These are respiratory arrhythmia, patterns of ectopy and blocked beats. Takes and returns (windows, n) intervals in seconds.
    Nearly half of the windows stay as they are, a few become steady.
    """
    count, length = rr_s.shape
    beat = np.arange(length)
    changed = random.random((count, 1)) < 0.5
    breath = _draw_rows(random, count, 0.4) * random.uniform(0.02, 0.2, (count, 1))
    phase = random.uniform(0, 2 * np.pi, (count, 1)) + np.cumsum(random.normal(0, 0.15, rr_s.shape), -1)
    rr = rr_s * (1 + breath * np.sin(2 * np.pi * beat / random.uniform(3, 12, (count, 1)) + phase))
    early = draw_ectopic_beats(rr.shape, random) & _draw_rows(random, count, 0.75)
    coupling = np.clip(random.uniform(0.12, 0.45, (count, 1)) + random.normal(0, 0.03, rr.shape), 0.05, 0.55)
    advance = np.where(early, coupling, 0.0) * rr
    pause = np.roll(advance, 1, -1) * random.uniform(0, 1.1, (count, 1))
    pause[:, 0] = 0.0
    rr = rr - advance + pause
    blocked = (beat % random.integers(3, 7, (count, 1)) == 0) & _draw_rows(random, count, 0.08)
    rr = np.where(blocked, 2 * rr, rr)
    rr = np.where(changed, rr, rr_s)
    return np.where(_draw_rows(random, count, STEADY_SHARE), _steady_rhythm(rr.shape, random), rr)


def _steady_rhythm(shape: tuple[int, int], random: np.random.Generator) -> Beats:
    """Return the intervals of a pacemaker or a re-entrant tachycardia, (windows, n) in seconds."""
    interval_s = 60 / random.uniform(*STEADY_BPM, (shape[0], 1))
    spread = random.uniform(0, STEADY_SD, (shape[0], 1)) * random.normal(0, 1, shape)
    return np.asarray(interval_s * (1 + spread))


def draw_ectopic_beats(shape: tuple[int, int], random: np.random.Generator) -> Flags:
    """Return which beats come early, (windows, n): every 2nd to 5th, or scattered up to every sixth, also in couplets."""
    count, length = shape
    beat = np.arange(length)
    period = random.integers(2, 6, (count, 1))
    regular = (beat + random.integers(0, 5, (count, 1))) % period == 0
    start = random.integers(0, length, (count, 1)) * _draw_rows(random, count, 0.5)
    regular &= (beat >= start) & (beat < start + random.integers(12, length, (count, 1)))
    scattered = random.random(shape) < random.uniform(0.02, 0.17, (count, 1))
    scattered[:, 1:] &= ~scattered[:, :-1] | (random.random((count, length - 1)) < 0.2)
    kind = random.random((count, 1))
    return np.where(kind < 0.45, regular, np.where(kind < 0.85, scattered, regular | scattered))


def simulate_sensor(rr_s: Beats, labels: Labels, random: np.random.Generator) -> tuple[Beats, Flags, Labels]:
    """Simulate sensor and link: missed and false beats, jitter, ticks, lost intervals, a window that is only partly filled.

    Args:
        rr_s: (windows, n) seconds, n > 64.
        labels: (windows, n) of the beats that end them.
        random: the generator.

    Returns:
        RR in seconds, validity and labels of the last 64 intervals, each (windows, 64).
    """
    count = len(rr_s)
    times = np.cumsum(rr_s, -1)
    jitter_s = random.choice([0.001, 0.003, 0.006], (count, 1))
    jitter_s = np.where(_draw_rows(random, count, PULSE_JITTER_SHARE), random.uniform(0.008, 0.03, (count, 1)), jitter_s)
    times += random.normal(0, 1, times.shape) * jitter_s
    missed = random.random(times.shape) < _draw_rows(random, count, 0.3) * random.uniform(0, 0.06, (count, 1))
    false = random.random(times.shape) < _draw_rows(random, count, 0.3) * random.uniform(0, 0.05, (count, 1))
    between = times - rr_s * random.uniform(0.25, 0.75, times.shape)
    all_times = np.concatenate([np.where(missed, np.inf, times), np.where(false, between, np.inf)], -1)
    order = np.argsort(all_times, -1)
    all_times = np.take_along_axis(all_times, order, -1)
    labels = np.take_along_axis(np.concatenate([labels, labels], -1), order, -1)
    last = np.isfinite(all_times).sum(-1, keepdims=True) - 1
    index = np.maximum(last + np.arange(-WINDOW, 1), 0)
    rr = np.round(np.diff(np.take_along_axis(all_times, index, -1)) * TICKS_PER_SECOND) / TICKS_PER_SECOND
    labels = np.take_along_axis(labels, index[:, 1:], -1)
    valid = random.random(rr.shape) >= _draw_rows(random, count, 0.4) * random.uniform(0, 0.25, (count, 1))
    filled = np.where(random.random((count, 1)) < 0.5, WINDOW, random.integers(MIN_VALID, WINDOW + 1, (count, 1)))
    valid &= (np.arange(WINDOW) >= WINDOW - filled) & (labels != NO_INTERVAL)
    return rr, valid, np.where(valid, labels, NO_INTERVAL).astype(np.int8)


def _draw_rows(random: np.random.Generator, count: int, share: float) -> Flags:
    return random.random((count, 1)) < share
