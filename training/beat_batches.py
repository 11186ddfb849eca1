"""Training batches of `ecg_beat`: beats of the training patients, with variations of patient and electrode."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from models.inference.ecg_beat import CLASSES, HISTORY_INTERVALS, MAX_NEXT_RR_S, RR_INPUTS, SAMPLES_BEFORE_R, N, S, V, features
from training.beat_cinc import AF, CincBeats
from training.beat_data import Beats, Labels, compare_with_template

BATCH: Final = 256
CLASS_SHARES: Final = (0.54, 0.20, 0.25, 0.01)
"""Share of each class in a batch. F can hardly be learnt (half of the patients have none, most F beats are of one patient), and
a larger share would reduce that of V."""

CINC_SHARES: Final = (0.4, 0.3, 0.3, 0.0)
"""Share of each class that is drawn from CinC 2017: thousands of patients, but labelled by rule."""

ATYPICAL_SHARE: Final = 0.5
"""Share of the normal beats that are early, late or of unusual shape. Most normal beats are neither, and contribute little to
training."""

TYPICAL_INTERVAL: Final = (0.92, 1.15)
TYPICAL_SIMILARITY: Final = 0.93
TYPICAL_HEIGHT: Final = (0.6, 1.6)
"""Limits of a typical beat, relative to the median interval and the template."""

AF_WEIGHT: Final = 3.0
"""Weight of beats in AF among those of CinC 2017: irregular, often noisy, never supraventricular ectopic."""

BORROWED_INTERVALS_SHARE: Final = 0.15
"""Share of the mitdb beats that borrow the intervals of an LTAFDB beat of the same class: shapes of 22 patients, rhythms of
64."""

NORMAL_SHAPE_SHARE: Final = 0.6
"""Share of the supraventricular beats with borrowed intervals that get the shape of a normal beat. Their QRS complex is the
patient's own, and 22 patients show too few forms of abnormal P waves."""

ESCAPE_SHARE: Final = 0.05
"""Share of the ventricular beats that get the intervals of an escape rhythm: slow, regular, after a pause. EC57 counts them as
ventricular; only one mitdb patient has them."""

PATIENT_POWER: Final = 0.5
"""A patient of mitdb with k beats of a class is drawn in proportion to k to this power."""

INVERTED_SHARE: Final = 0.3
MAX_STRETCH: Final = 0.15
GAIN_SD: Final = 0.3

DISTILLATION_WEIGHT: Final = 0.7
"""Weight of the teachers' predictions in a target; the rest is the label."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Beats to draw from.

    Attributes:
        beats: beats of mitdb.
        patients: the patient of each of them, (n,).
        rr_s, rr_labels: intervals of LTAFDB beats and their classes.
        cinc_beats: beats of CinC 2017.
    """

    beats: Beats
    patients: NDArray[np.int64]
    rr_s: NDArray[np.float32]
    rr_labels: Labels
    cinc_beats: CincBeats


@dataclass(frozen=True, slots=True)
class _WeightedPool:
    """Beats of one class and source, with the cumulative sum of their weights."""

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
        self._beats = Beats.concatenate([pool.beats, pool.cinc_beats.beats])
        self._mitdb_pools, self._cinc_pools = _build_pools(pool)
        self._lenders = [np.flatnonzero(pool.rr_labels == c) for c in range(len(CLASSES))]

    def stream(self, teachers: Sequence[Any] = ()) -> Iterator[tuple[Any, Any]]:
        """Yield inputs (n, 5, 104) without end, with classes (n,) or, with teachers, class probabilities (n, 4)."""
        while True:
            inputs, labels = (torch.from_numpy(array) for array in self.batch())
            yield inputs, _distil(teachers, inputs, labels) if teachers else labels

    def batch(self, count: int = BATCH) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return inputs (n, 5, 104) and classes (n,)."""
        random = self._random
        labels = random.choice(len(CLASSES), count, p=CLASS_SHARES)
        from_cinc = random.random(count) < np.array(CINC_SHARES)[labels]
        borrows = ~from_cinc & (random.random(count) < BORROWED_INTERVALS_SHARE)
        normal_shape = borrows & (labels == S) & (random.random(count) < NORMAL_SHAPE_SHARE)
        beats = self._beats.select(self._draw_indices(np.where(normal_shape, N, labels), from_cinc))
        beats = self._borrow_intervals(beats, labels, borrows)
        beats = _make_escape_rhythm(beats, (labels == V) & (random.random(count) < ESCAPE_SHARE), random)
        beats = _stretch_time(beats, random)
        sign = np.where(random.random((count, 1)) < INVERTED_SHARE, -1.0, 1.0)
        gain = np.exp(random.normal(0, GAIN_SD, (count, 1)))
        wave = beats.wave_mv * sign * gain * np.exp(random.normal(0, 0.05, (count, 1)))
        rr_s = beats.rr_s * np.exp(random.uniform(-0.15, 0.15, (count, 1))) + random.normal(0, 0.004, beats.rr_s.shape)
        inputs = features(wave, beats.template_mv * sign * gain, rr_s, beats.shape)
        return inputs, labels.astype(np.int64)

    def _draw_indices(self, labels: NDArray[np.int64], from_cinc: NDArray[np.bool_]) -> NDArray[np.int64]:
        atypical = (labels == N) & (self._random.random(labels.size) < ATYPICAL_SHARE)
        indices = np.empty(labels.size, np.int64)
        for pools, source in ((self._mitdb_pools, ~from_cinc), (self._cinc_pools, from_cinc)):
            for (label, is_atypical), pool in pools.items():
                wanted = source & (labels == label) & (atypical == is_atypical)
                indices[wanted] = pool.draw(int(wanted.sum()), self._random)
        return indices

    def _borrow_intervals(self, beats: Beats, labels: NDArray[np.int64], borrows: NDArray[np.bool_]) -> Beats:
        rr_s = beats.rr_s.copy()
        for row in np.flatnonzero(borrows).tolist():
            lenders = self._lenders[labels[row]]
            if lenders.size:
                rr_s[row] = self._pool.rr_s[lenders[self._random.integers(lenders.size)]]
        return replace(beats, rr_s=rr_s)


def _distil(teachers: Sequence[Any], inputs: Any, labels: Any) -> Any:
    """Return the weighted mean of the labels and of the geometric mean of the teachers' probabilities (Hinton 2015), (n, 4)."""
    with torch.no_grad():
        predictions = torch.stack([torch.log_softmax(teacher(inputs), -1) for teacher in teachers]).mean(0).softmax(-1)
    return DISTILLATION_WEIGHT * predictions + (1 - DISTILLATION_WEIGHT) * torch.nn.functional.one_hot(labels, len(CLASSES))


ClassPools = dict[tuple[int, bool], _WeightedPool]
"""Pools by class and by whether the beats are atypical."""


def _build_pools(pool: Pool) -> tuple[ClassPools, ClassPools]:
    """Return the pools of mitdb and of CinC 2017; the indices of CinC 2017 follow those of mitdb."""
    cinc_beats = pool.cinc_beats
    weights = np.where(cinc_beats.rhythms == AF, AF_WEIGHT, 1.0)
    of_mitdb = _class_pools(pool.beats, lambda indices: _patient_weights(pool.patients[indices]), 0)
    return of_mitdb, _class_pools(cinc_beats.beats, lambda indices: weights[indices], len(pool.beats))


def _class_pools(beats: Beats, weights_of: Any, offset: int) -> ClassPools:
    atypical = _is_atypical(beats)
    pools: ClassPools = {}
    for label in range(len(CLASSES)):
        for is_atypical in (False, True) if label == N else (False,):
            indices = np.flatnonzero((beats.labels == label) & (atypical | (not is_atypical)))
            if indices.size:
                pools[label, is_atypical] = _WeightedPool(indices + offset, np.cumsum(weights_of(indices)))
    return pools


def _is_atypical(beats: Beats) -> NDArray[np.bool_]:
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
        intervals[HISTORY_INTERVALS + 1 :] = sinus_s, slow_s if length > HISTORY_INTERVALS // 3 else sinus_s
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
