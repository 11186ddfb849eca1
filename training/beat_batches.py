"""Training batches of `ecg_beat`: beats of the training patients, with variations of patient and electrode."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from models.beat_history import SLOW_INTERVALS
from models.inference.ecg_beat import (
    BACKGROUND,
    CLASSES,
    HISTORY_INTERVALS,
    MAX_NEXT_RR_S,
    RR_INPUTS,
    SAMPLES_BEFORE_R,
    N,
    S,
    V,
    features,
)
from training.beat_data import Beats, Labels, compare_with_template

BATCH: Final = 256
DENSE_BATCH: Final = 1024
CLASS_SHARES: Final = (0.54, 0.20, 0.25, 0.01)
"""Share of each class in a batch. F can hardly be learnt (half of the patients have none, most F beats are of one patient), and
a larger share would reduce that of V."""

ATYPICAL_SHARE: Final = 0.5
"""Share of the normal beats that are early, late or of unusual shape. Most normal beats are neither, and contribute little to
training."""

TYPICAL_INTERVAL: Final = (0.92, 1.15)
TYPICAL_SIMILARITY: Final = 0.93
TYPICAL_HEIGHT: Final = (0.6, 1.6)
"""Limits of a typical beat, relative to the median interval and the template."""

BORROWED_INTERVALS_SHARE: Final = 0.15
"""Share of the expert-labelled beats that borrow the intervals of an LTAFDB beat of the same class: 42 more
rhythms."""

IMITATED_SHARE: Final = 0.15
"""Share of the expert-labelled normal beats that get the intervals of `training.beat_rhythms.imitate_ectopy`."""

NORMAL_SHAPE_SHARE: Final = 0.3
"""Share of the supraventricular beats with borrowed intervals that get the shape of a normal beat. Their QRS complex is the
patient's own."""

ESCAPE_SHARE: Final = 0.05
"""Share of the ventricular beats that get the intervals of an escape rhythm: slow, regular, after a pause. EC57 counts them as
ventricular; only one mitdb patient has them."""

PATIENT_POWER: Final = 0.5
"""A patient of mitdb with k beats of a class is drawn in proportion to k to this power."""

INVERTED_SHARE: Final = 0.3
MAX_STRETCH: Final = 0.15
GAIN_SD: Final = 0.3


@dataclass(frozen=True, slots=True)
class Pool:
    """Beats to draw from.

    Attributes:
        beats: beats labelled by experts.
        patients: the patient of each of them, (n,).
        rr_s, rr_labels: intervals of LTAFDB beats and their classes.
        imitations: intervals of early normal beats.
    """

    beats: Beats
    patients: NDArray[np.int64]
    rr_s: NDArray[np.float32]
    rr_labels: Labels
    imitations: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _WeightedPool:
    """Beats of one class, with the cumulative sum of their weights."""

    indices: NDArray[np.int64]
    cumulative_weights: NDArray[np.float64]

    def draw(self, count: int, random: np.random.Generator) -> NDArray[np.int64]:
        drawn = np.searchsorted(self.cumulative_weights, random.random(count) * self.cumulative_weights[-1], side="right")
        chosen: NDArray[np.int64] = self.indices[np.minimum(drawn, self.indices.size - 1)]
        return chosen


class Sampler:
    """Draws training batches. The same seed draws the same batches."""

    def __init__(self, pool: Pool, seed: int) -> None:
        self._pool = pool
        self._random = np.random.default_rng(seed)
        self._class_pools = _class_pools(pool)
        self._lenders = [np.flatnonzero(pool.rr_labels == c) for c in range(len(CLASSES))]

    def stream(self, size: int) -> Iterator[tuple[Any, Any]]:
        """Yield inputs (n, 5, 104) and classes (n,) without end."""
        while True:
            inputs, labels = (torch.from_numpy(array) for array in self.batch(size))
            yield inputs, labels

    def batch(self, count: int = BATCH) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return inputs (n, 5, 104) and classes (n,)."""
        random = self._random
        labels = random.choice(len(CLASSES), count, p=CLASS_SHARES)
        borrows = random.random(count) < BORROWED_INTERVALS_SHARE
        imitates = ~borrows & (labels == N) & (random.random(count) < IMITATED_SHARE)
        normal_shape = borrows & (labels == S) & (random.random(count) < NORMAL_SHAPE_SHARE)
        beats = self._pool.beats.select(self._draw_indices(np.where(normal_shape, N, labels), imitates))
        beats = self._borrow_intervals(beats, labels, borrows)
        beats.rr_s[imitates] = self._pool.imitations[random.integers(len(self._pool.imitations), size=imitates.sum())]
        beats = _make_escape_rhythm(beats, (labels == V) & (random.random(count) < ESCAPE_SHARE), random)
        beats = _stretch_time(beats, random)
        sign = np.where(random.random((count, 1)) < INVERTED_SHARE, -1.0, 1.0)
        gain = np.exp(random.normal(0, GAIN_SD, (count, 1)))
        wave = beats.wave_mv * sign * gain * np.exp(random.normal(0, 0.05, (count, 1)))
        rr_s = beats.rr_s * np.exp(random.uniform(-0.15, 0.15, (count, 1)))
        rr_s[:, : BACKGROUND + 1] += random.normal(0, 0.004, (count, BACKGROUND + 1))
        inputs = features(wave, beats.template_mv * sign * gain, rr_s, beats.shape)
        return inputs, labels.astype(np.int64)

    def _draw_indices(self, labels: NDArray[np.int64], imitates: NDArray[np.bool_]) -> NDArray[np.int64]:
        atypical = (labels == N) & ~imitates & (self._random.random(labels.size) < ATYPICAL_SHARE)
        indices = np.empty(labels.size, np.int64)
        for (label, is_atypical), pool in self._class_pools.items():
            wanted = (labels == label) & (atypical == is_atypical)
            indices[wanted] = pool.draw(int(wanted.sum()), self._random)
        return indices

    def _borrow_intervals(self, beats: Beats, labels: NDArray[np.int64], borrows: NDArray[np.bool_]) -> Beats:
        rr_s = beats.rr_s.copy()
        for row in np.flatnonzero(borrows).tolist():
            lenders = self._lenders[labels[row]]
            if lenders.size:
                rr_s[row] = self._pool.rr_s[lenders[self._random.integers(lenders.size)]]
        return replace(beats, rr_s=rr_s)


ClassPools = dict[tuple[int, bool], _WeightedPool]
"""Pools by class and by whether the beats are atypical."""


def _class_pools(pool: Pool) -> ClassPools:
    atypical = is_atypical(pool.beats)
    pools: ClassPools = {}
    for label in range(len(CLASSES)):
        for only_atypical in (False, True) if label == N else (False,):
            indices = np.flatnonzero((pool.beats.labels == label) & (atypical | (not only_atypical)))
            if indices.size:
                pools[label, only_atypical] = _WeightedPool(indices, np.cumsum(_patient_weights(pool.patients[indices])))
    return pools


def is_atypical(beats: Beats) -> NDArray[np.bool_]:
    """Return which beats are early or late, follow an early beat, or have an unusual shape, (n,)."""
    history = np.sort(beats.rr_s[:, : HISTORY_INTERVALS - 1], -1)
    count = np.isfinite(history).sum(-1)
    median = history[np.arange(len(history)), np.maximum(count - 1, 0) // 2]
    early, before = beats.rr_s[:, HISTORY_INTERVALS - 1] / median, beats.rr_s[:, HISTORY_INTERVALS - 2] / median
    similarity, height = compare_with_template(beats)
    on_time = (early >= TYPICAL_INTERVAL[0]) & (early <= TYPICAL_INTERVAL[1]) & (before >= TYPICAL_INTERVAL[0])
    atypical: NDArray[np.bool_] = (
        ~on_time | (similarity < TYPICAL_SIMILARITY) | (height < TYPICAL_HEIGHT[0]) | (height > TYPICAL_HEIGHT[1])
    )
    return atypical


def _patient_weights(patients: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the weight of each beat, (n,). The weights of a patient add up to its number of beats ** `PATIENT_POWER`."""
    _, inverse, counts = np.unique(patients, return_inverse=True, return_counts=True)
    weights: NDArray[np.float64] = counts[inverse].astype(np.float64) ** (PATIENT_POWER - 1.0)
    return weights


def _make_escape_rhythm(beats: Beats, chosen: NDArray[np.bool_], random: np.random.Generator) -> Beats:
    """Turn the chosen beats into part of an escape rhythm of 30 to 67 a minute that began up to 33 beats ago."""
    rr_s, shape = beats.rr_s.copy(), beats.shape.copy()
    similarity, _ = compare_with_template(beats)
    for row in np.flatnonzero(chosen).tolist():
        slow_s = float(np.exp(random.uniform(np.log(0.9), np.log(2.0))))
        sinus_s = max(slow_s * random.uniform(0.3, 0.85), 0.4)
        length = int(random.integers(1, HISTORY_INTERVALS + 1))
        intervals = np.full(RR_INPUTS, sinus_s) * np.exp(random.normal(0, 0.03, RR_INPUTS))
        intervals[HISTORY_INTERVALS - length : HISTORY_INTERVALS] = slow_s * np.exp(random.normal(0, 0.04, length))
        intervals[HISTORY_INTERVALS] = min(slow_s * float(np.exp(random.normal(0, 0.05))), MAX_NEXT_RR_S)
        intervals[HISTORY_INTERVALS + 1 : BACKGROUND] = sinus_s, slow_s if length > HISTORY_INTERVALS // 3 else sinus_s
        intervals[BACKGROUND] = sinus_s if length < SLOW_INTERVALS else slow_s
        intervals[BACKGROUND + 1 :] = 0.02 * sinus_s, 0.06 * sinus_s
        rr_s[row] = intervals
        shape[row, 1] = min(length * random.uniform(0.003, 0.02), 0.5)
        shape[row, 3:5] = np.log(slow_s / sinus_s) * random.uniform(0, 1)
        shape[row, 6] = similarity[row] if np.isfinite(similarity[row]) else 0.0
        if length > 1:
            shape[row, 2], shape[row, 5] = random.uniform(0.85, 1.0), shape[row, 6]
    return replace(beats, rr_s=rr_s, shape=shape)


def _stretch_time(beats: Beats, random: np.random.Generator) -> Beats:
    """Stretch beat and template in time by the same factor, and shift the beat slightly against the template."""
    count, samples = beats.wave_mv.shape
    factor = np.exp(random.uniform(-MAX_STRETCH, MAX_STRETCH, (count, 1)))
    positions = SAMPLES_BEFORE_R + (np.arange(samples, dtype=np.float64) - SAMPLES_BEFORE_R) * factor
    moved = positions + random.normal(0, 0.7, (count, 1))
    return replace(beats, wave_mv=_interpolate(beats.wave_mv, moved), template_mv=_interpolate(beats.template_mv, positions))


def _interpolate(wave: NDArray[Any], positions: NDArray[np.float64]) -> NDArray[Any]:
    """Interpolate samples (n, samples) linearly at these positions, clipped to the ends."""
    inside = np.clip(positions, 0, wave.shape[1] - 1.001)
    low = inside.astype(np.int64)
    share = (inside - low).astype(np.float32)
    before, after = np.take_along_axis(wave, low, 1), np.take_along_axis(wave, low + 1, 1)
    between: NDArray[Any] = before + share * (after - before)
    return between
