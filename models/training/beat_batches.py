"""Training batches of `ecg_beat`: beats of the training patients, changed as bodies and electrodes differ."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from models.inference.ecg_beat import BEFORE, CLASSES, N, S, features
from models.training.beat_data import Beats, Labels

BATCH: Final = 256
SHARES: Final = (0.50, 0.20, 0.26, 0.04)
"""Of the classes in a batch. F is rare (one patient of two has none, half of them are of one) and can hardly be learnt."""

LENT: Final = 0.15
"""Share of the beats whose intervals are lent by a beat of the same class of LTAFDB: shapes of 22 patients, rhythms of 64."""

BORROWED: Final = 0.6
"""Share of the supraventricular beats with lent intervals whose shape is that of a normal beat: their QRS complex is the
patient's own, and 22 patients show too few ways for a P wave to be odd."""

PATIENT_POWER: Final = 0.5
"""A patient with k beats of a class is drawn in proportion to k to this power."""

MIRRORED: Final = 0.3
STRETCH: Final = 0.15
GAIN: Final = 0.3


@dataclass(frozen=True, slots=True)
class Pool:
    """Beats to draw from: `patients` (n,) tells whose each is."""

    beats: Beats
    patients: NDArray[np.int64]
    rr_s: NDArray[np.float32]
    rr_labels: Labels


class Sampler:
    """Draws batches; the same seed draws the same ones."""

    def __init__(self, pool: Pool, seed: int) -> None:
        self._pool = pool
        self._random = np.random.default_rng(seed)
        self._of_class = [np.flatnonzero(pool.beats.labels == c) for c in range(len(CLASSES))]
        self._sums = [np.cumsum(_weights(pool.patients[places])) for places in self._of_class]
        self._lent = [np.flatnonzero(pool.rr_labels == c) for c in range(len(CLASSES))]

    def stream(self) -> Iterator[tuple[Any, Any]]:
        """Endless (n, 5, 104) and (n,)."""
        while True:
            inputs, labels = self.batch()
            yield torch.from_numpy(inputs), torch.from_numpy(labels)

    def batch(self, count: int = BATCH) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Inputs and classes."""
        random = self._random
        labels = random.choice(len(CLASSES), count, p=SHARES)
        lent = random.random(count) < LENT
        borrowed = lent & (labels == S) & (random.random(count) < BORROWED)
        places = np.array([self._draw(c) for c in np.where(borrowed, N, labels).tolist()])
        beats = self._lend(self._pool.beats.chosen(places), labels, lent)
        beats = _stretched(beats, random)
        sign = np.where(random.random((count, 1)) < MIRRORED, -1.0, 1.0)
        gain = np.exp(random.normal(0, GAIN, (count, 1)))
        wave = beats.wave_mv * sign * gain * np.exp(random.normal(0, 0.05, (count, 1)))
        rr_s = beats.rr_s * np.exp(random.uniform(-0.15, 0.15, (count, 1))) + random.normal(0, 0.004, beats.rr_s.shape)
        inputs = features(wave, beats.usual_mv * sign * gain, rr_s, beats.shape)
        return inputs, labels.astype(np.int64)

    def _draw(self, label: int) -> int:
        sums = self._sums[label]
        return int(self._of_class[label][np.searchsorted(sums, self._random.random() * sums[-1], side="right")])

    def _lend(self, beats: Beats, labels: NDArray[np.int64], lent: NDArray[np.bool_]) -> Beats:
        rr_s = beats.rr_s.copy()
        for row in np.flatnonzero(lent).tolist():
            lenders = self._lent[labels[row]]
            if lenders.size:
                rr_s[row] = self._pool.rr_s[lenders[self._random.integers(lenders.size)]]
        return replace(beats, rr_s=rr_s)


def _weights(patients: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each beat, so that a patient's add up to their number to the power of `PATIENT_POWER`."""
    _, inverse, counts = np.unique(patients, return_inverse=True, return_counts=True)
    weights: NDArray[np.float64] = counts[inverse].astype(np.float64) ** (PATIENT_POWER - 1.0)
    return weights


def _stretched(beats: Beats, random: np.random.Generator) -> Beats:
    """Beat and usual beat slower or faster by the same factor, and moved a little against each other."""
    count, samples = beats.wave_mv.shape
    factor = np.exp(random.uniform(-STRETCH, STRETCH, (count, 1)))
    places = BEFORE + (np.arange(samples, dtype=np.float64) - BEFORE) * factor
    moved = places + random.normal(0, 0.7, (count, 1))
    return replace(beats, wave_mv=_at(beats.wave_mv, moved), usual_mv=_at(beats.usual_mv, places))


def _at(wave: NDArray[Any], places: NDArray[np.float64]) -> NDArray[Any]:
    """Samples (n, samples) between samples; the ends go on."""
    inside = np.clip(places, 0, wave.shape[1] - 1.001)
    low = inside.astype(np.int64)
    share = (inside - low).astype(np.float32)
    before, after = np.take_along_axis(wave, low, 1), np.take_along_axis(wave, low + 1, 1)
    between: NDArray[Any] = before + share * (after - before)
    return between
