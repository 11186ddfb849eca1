"""Windows of RR intervals for training `rr_af`: what hearts do, what sensors do to it, folds by patient."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from drivers.readings import TICKS_PER_SECOND
from models.inference.rr_af import MIN_VALID, rr_features
from models.recordings.rhythms import AF, NOT_AF, UNUSED, WINDOW, Beats, Labels, Rhythm, majority

Flags = NDArray[np.bool_]

FOLDS: Final = 5
SOURCE: Final = WINDOW + 40
"""Intervals drawn for one window: so many that 64 remain after beats are missed."""


def folds(rhythms: Sequence[Rhythm]) -> list[list[Rhythm]]:
    """Five groups of patients (one record each), alike in hours of AF: by burden in serpentine order, every database apart."""
    groups: list[list[Rhythm]] = [[] for _ in range(FOLDS)]
    for database in sorted({rhythm.database for rhythm in rhythms}):
        of_it = [rhythm for rhythm in rhythms if rhythm.database == database]
        ranked = sorted(of_it, key=lambda rhythm: (-np.mean(rhythm.labels == AF), rhythm.name))
        for place, rhythm in enumerate(ranked):
            turn, slot = divmod(place, FOLDS)
            groups[slot if turn % 2 == 0 else FOLDS - 1 - slot].append(rhythm)
    return groups


class Sampler:
    """Draws augmented windows: half AF, half not; patients weighted by the square root of what they have of the class.

    Beat times are dithered over their tick, or the network would know the databases apart by their sampling rates.
    """

    def __init__(self, rhythms: Sequence[Rhythm], seed: int) -> None:
        self._rhythms = [rhythm for rhythm in rhythms if len(rhythm.times_s) > SOURCE + 1]
        self._random = np.random.default_rng(seed)
        self._starts = [[_starts(rhythm, label) for rhythm in self._rhythms] for label in (NOT_AF, AF)]

    def batch(self, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Features (n, 6, 64) and targets (n,); n is `size` less the few windows that are mostly flutter."""
        random = self._random
        afib = random.random(size) < 0.5
        rr_s, labels = self._draw(afib)
        rr_s *= random.uniform(0.85, 1.2, (size, 1))
        heart = ~(labels != NOT_AF).any(-1)
        rr_s[heart] = sinus_variants(rr_s[heart], random)
        rr_s, valid, labels = radio(rr_s, labels, random)
        label = majority(labels)
        used = label != UNUSED
        return rr_features(rr_s[used], valid[used]), (label[used] == AF).astype(np.float32)

    def _draw(self, afib: Flags) -> tuple[Beats, Labels]:
        rr_s = np.empty((len(afib), SOURCE))
        labels = np.empty((len(afib), SOURCE), np.int8)
        for label in (NOT_AF, AF):
            starts = self._starts[label]
            weight = np.sqrt([len(of_record) for of_record in starts])
            rows = np.flatnonzero(afib == bool(label))
            for row, record in zip(rows, self._random.choice(len(starts), len(rows), p=weight / weight.sum()), strict=True):
                first = self._random.choice(starts[record])
                rhythm = self._rhythms[record]
                dither = self._random.uniform(-0.5, 0.5, SOURCE + 1) * rhythm.tick_s
                rr_s[row] = np.diff(rhythm.times_s[first : first + SOURCE + 1] + dither)
                labels[row] = rhythm.labels[first + 1 : first + SOURCE + 1]
        return rr_s, labels


def _starts(rhythm: Rhythm, label: int) -> NDArray[np.int64]:
    """First beats of stretches whose final window has this label in its middle."""
    first = np.arange(len(rhythm.times_s) - SOURCE)
    starts: NDArray[np.int64] = first[rhythm.labels[first + SOURCE - WINDOW // 2] == label]
    return starts


def sinus_variants(rr_s: Beats, random: np.random.Generator) -> Beats:
    """The classical false alarms, made from any rhythm but AF: respiratory arrhythmia, ectopy in patterns, blocked beats.

    Takes and returns (windows, n) intervals in seconds; half of the windows stay as they are.
    """
    count, length = rr_s.shape
    beat = np.arange(length)
    changed = random.random((count, 1)) < 0.5
    breath = _some(random, count, 0.4) * random.uniform(0.02, 0.2, (count, 1))
    phase = random.uniform(0, 2 * np.pi, (count, 1)) + np.cumsum(random.normal(0, 0.15, rr_s.shape), -1)
    rr = rr_s * (1 + breath * np.sin(2 * np.pi * beat / random.uniform(3, 12, (count, 1)) + phase))
    early = ectopic(rr.shape, random) & _some(random, count, 0.75)
    coupling = np.clip(random.uniform(0.12, 0.45, (count, 1)) + random.normal(0, 0.03, rr.shape), 0.05, 0.55)
    taken = np.where(early, coupling, 0.0) * rr
    given = np.roll(taken, 1, -1) * random.uniform(0, 1.1, (count, 1))
    given[:, 0] = 0.0
    rr = rr - taken + given
    blocked = (beat % random.integers(3, 7, (count, 1)) == 0) & _some(random, count, 0.08)
    rr = np.where(blocked, 2 * rr, rr)
    return np.where(changed, rr, rr_s)


def ectopic(shape: tuple[int, int], random: np.random.Generator) -> Flags:
    """Which beats come early, (windows, n): every 2nd to 5th in a stretch, or scattered up to every sixth, couplets too."""
    count, length = shape
    beat = np.arange(length)
    period = random.integers(2, 6, (count, 1))
    regular = (beat + random.integers(0, 5, (count, 1))) % period == 0
    begin = random.integers(0, length, (count, 1)) * _some(random, count, 0.5)
    regular &= (beat >= begin) & (beat < begin + random.integers(12, length, (count, 1)))
    scattered = random.random(shape) < random.uniform(0.02, 0.17, (count, 1))
    scattered[:, 1:] &= ~scattered[:, :-1] | (random.random((count, length - 1)) < 0.2)
    kind = random.random((count, 1))
    return np.where(kind < 0.45, regular, np.where(kind < 0.85, scattered, regular | scattered))


def radio(rr_s: Beats, labels: Labels, random: np.random.Generator) -> tuple[Beats, Flags, Labels]:
    """What sensors and links do: missed and false beats, jitter, ticks, lost intervals, a window that has only begun to fill.

    Args:
        rr_s: (windows, n) seconds, n > 64.
        labels: (windows, n) of the beats that end them.
        random: source of chance.

    Returns:
        RR in seconds, validity and labels of the last 64 intervals, each (windows, 64).
    """
    count = len(rr_s)
    times = np.cumsum(rr_s, -1)
    times += random.normal(0, 1, times.shape) * random.choice([0.001, 0.003, 0.006], (count, 1))
    missed = random.random(times.shape) < _some(random, count, 0.3) * random.uniform(0, 0.06, (count, 1))
    false = random.random(times.shape) < _some(random, count, 0.3) * random.uniform(0, 0.05, (count, 1))
    between = times - rr_s * random.uniform(0.25, 0.75, times.shape)
    everything = np.concatenate([np.where(missed, np.inf, times), np.where(false, between, np.inf)], -1)
    order = np.argsort(everything, -1)
    everything = np.take_along_axis(everything, order, -1)
    labels = np.take_along_axis(np.concatenate([labels, labels], -1), order, -1)
    last = np.isfinite(everything).sum(-1, keepdims=True) - 1
    index = last + np.arange(-WINDOW, 1)
    kept = np.round(np.diff(np.take_along_axis(everything, index, -1)) * TICKS_PER_SECOND) / TICKS_PER_SECOND
    valid = random.random(kept.shape) >= _some(random, count, 0.4) * random.uniform(0, 0.25, (count, 1))
    filled = np.where(random.random((count, 1)) < 0.5, WINDOW, random.integers(MIN_VALID, WINDOW + 1, (count, 1)))
    valid &= np.arange(WINDOW) >= WINDOW - filled
    return kept, valid, np.where(valid, np.take_along_axis(labels, index[:, 1:], -1), UNUSED + 1).astype(np.int8)


def _some(random: np.random.Generator, count: int, share: float) -> Flags:
    return random.random((count, 1)) < share
