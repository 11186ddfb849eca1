"""Training batches of `ecg_beat`: beats of the training patients, changed as bodies and electrodes differ."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from models.inference.ecg_beat import BEFORE, CLASSES, HISTORY, INTERVALS, MAX_NEXT_RR_S, N, S, V, features
from training.beat_data import Beats, Labels, against_usual
from training.beat_strips import AF, Strips

BATCH: Final = 256
SHARES: Final = (0.54, 0.20, 0.25, 0.01)
"""Of the classes in a batch. F can hardly be learnt (one patient of two has none, most known ones are of one) and takes from V
what it gets."""

OF_STRIPS: Final = (0.4, 0.3, 0.3, 0.0)
"""Share of each class that is drawn from CinC 2017: thousands of hearts, but labels by rule."""

ODD: Final = 0.5
"""Share of the normal beats that come early or late or look unusual: most do neither and teach nothing."""

ODD_EARLY: Final = (0.92, 1.15)
ODD_LIKENESS: Final = 0.93
ODD_HEIGHT: Final = (0.6, 1.6)
"""Against the median interval and the usual beat."""

AF_WEIGHT: Final = 3.0
"""Of beats in AF among the strips: irregular, often in noise, none of them supraventricular ectopic."""

LENT: Final = 0.15
"""Share of the beats of mitdb whose intervals are lent by a beat of the same class of LTAFDB: shapes of 22 patients, rhythms of
64."""

BORROWED: Final = 0.6
"""Share of the supraventricular beats with lent intervals whose shape is that of a normal beat: their QRS complex is the
patient's own, and 22 patients show too few ways for a P wave to be odd."""

ESCAPES: Final = 0.05
"""Share of the ventricular beats that get the intervals of an escape rhythm: slow, regular, after a pause (EC57 counts them as
ventricular; only one patient of mitdb has one)."""

PATIENT_POWER: Final = 0.5
"""A patient of mitdb with k beats of a class is drawn in proportion to k to this power."""

MIRRORED: Final = 0.3
STRETCH: Final = 0.15
GAIN: Final = 0.3

TAUGHT: Final = 0.7
"""Share of the teachers' opinion in a target, the rest is the label."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Beats to draw from: `patients` (n,) tells whose each is; intervals of LTAFDB and their classes; beats of CinC 2017."""

    beats: Beats
    patients: NDArray[np.int64]
    rr_s: NDArray[np.float32]
    rr_labels: Labels
    strips: Strips


@dataclass(frozen=True, slots=True)
class _Urn:
    """Beats of one class and source, and their running sum of weights."""

    places: NDArray[np.int64]
    sums: NDArray[np.float64]

    def draw(self, count: int, random: np.random.Generator) -> NDArray[np.int64]:
        drawn = np.searchsorted(self.sums, random.random(count) * self.sums[-1], side="right")
        chosen: NDArray[np.int64] = self.places[np.minimum(drawn, self.places.size - 1)]
        return chosen


class Sampler:
    """Draws batches; the same seed draws the same ones."""

    def __init__(self, pool: Pool, seed: int) -> None:
        self._pool = pool
        self._random = np.random.default_rng(seed)
        self._beats = Beats.joined([pool.beats, pool.strips.beats])
        self._of_mitdb, self._of_strips = _urns(pool)
        self._lent = [np.flatnonzero(pool.rr_labels == c) for c in range(len(CLASSES))]

    def stream(self, teachers: Sequence[Any] = ()) -> Iterator[tuple[Any, Any]]:
        """Endless (n, 5, 104) and (n,), or with teachers (n, 4) shares of classes."""
        while True:
            inputs, labels = (torch.from_numpy(array) for array in self.batch())
            yield inputs, _taught(teachers, inputs, labels) if teachers else labels

    def batch(self, count: int = BATCH) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Inputs and classes."""
        random = self._random
        labels = random.choice(len(CLASSES), count, p=SHARES)
        strips = random.random(count) < np.array(OF_STRIPS)[labels]
        lent = ~strips & (random.random(count) < LENT)
        borrowed = lent & (labels == S) & (random.random(count) < BORROWED)
        beats = self._beats.chosen(self._drawn(np.where(borrowed, N, labels), strips))
        beats = self._lend(beats, labels, lent)
        beats = _escaped(beats, (labels == V) & (random.random(count) < ESCAPES), random)
        beats = _stretched(beats, random)
        sign = np.where(random.random((count, 1)) < MIRRORED, -1.0, 1.0)
        gain = np.exp(random.normal(0, GAIN, (count, 1)))
        wave = beats.wave_mv * sign * gain * np.exp(random.normal(0, 0.05, (count, 1)))
        rr_s = beats.rr_s * np.exp(random.uniform(-0.15, 0.15, (count, 1))) + random.normal(0, 0.004, beats.rr_s.shape)
        inputs = features(wave, beats.template_mv * sign * gain, rr_s, beats.shape)
        return inputs, labels.astype(np.int64)

    def _drawn(self, labels: NDArray[np.int64], strips: NDArray[np.bool_]) -> NDArray[np.int64]:
        odd = (labels == N) & (self._random.random(labels.size) < ODD)
        places = np.empty(labels.size, np.int64)
        for urns, source in ((self._of_mitdb, ~strips), (self._of_strips, strips)):
            for (label, is_odd), urn in urns.items():
                wanted = source & (labels == label) & (odd == is_odd)
                places[wanted] = urn.draw(int(wanted.sum()), self._random)
        return places

    def _lend(self, beats: Beats, labels: NDArray[np.int64], lent: NDArray[np.bool_]) -> Beats:
        rr_s = beats.rr_s.copy()
        for row in np.flatnonzero(lent).tolist():
            lenders = self._lent[labels[row]]
            if lenders.size:
                rr_s[row] = self._pool.rr_s[lenders[self._random.integers(lenders.size)]]
        return replace(beats, rr_s=rr_s)


def _taught(teachers: Sequence[Any], inputs: Any, labels: Any) -> Any:
    """Label and the geometric mean of the teachers' probabilities (Hinton 2015)."""
    with torch.no_grad():
        opinions = torch.stack([torch.log_softmax(teacher(inputs), -1) for teacher in teachers]).mean(0).softmax(-1)
    return TAUGHT * opinions + (1 - TAUGHT) * torch.nn.functional.one_hot(labels, len(CLASSES))


Urns = dict[tuple[int, bool], _Urn]
"""By class and whether the beats are odd."""


def _urns(pool: Pool) -> tuple[Urns, Urns]:
    """Of mitdb and of the strips, whose places follow those of mitdb."""
    strips = pool.strips
    weights = np.where(strips.rhythms == AF, AF_WEIGHT, 1.0)
    of_mitdb = _of_source(pool.beats, lambda places: _weights(pool.patients[places]), 0)
    return of_mitdb, _of_source(strips.beats, lambda places: weights[places], len(pool.beats))


def _of_source(beats: Beats, weigh: Any, first: int) -> Urns:
    odd = _odd(beats)
    urns: Urns = {}
    for label in range(len(CLASSES)):
        for is_odd in (False, True) if label == N else (False,):
            places = np.flatnonzero((beats.labels == label) & (odd | (not is_odd)))
            if places.size:
                urns[label, is_odd] = _Urn(places + first, np.cumsum(weigh(places)))
    return urns


def _odd(beats: Beats) -> NDArray[np.bool_]:
    """Beats that came early or late, after an early one, or in an unusual shape: (n,)."""
    history = np.sort(beats.rr_s[:, : HISTORY - 1], -1)
    count = np.isfinite(history).sum(-1)
    usual = history[np.arange(len(history)), np.maximum(count - 1, 0) // 2]
    early, before = beats.rr_s[:, HISTORY - 1] / usual, beats.rr_s[:, HISTORY - 2] / usual
    like, height = against_usual(beats)
    in_time = (early >= ODD_EARLY[0]) & (early <= ODD_EARLY[1]) & (before >= ODD_EARLY[0])
    odd: NDArray[np.bool_] = ~in_time | (like < ODD_LIKENESS) | (height < ODD_HEIGHT[0]) | (height > ODD_HEIGHT[1])
    return odd


def _weights(patients: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each beat, so that a patient's add up to their number to the power of `PATIENT_POWER`."""
    _, inverse, counts = np.unique(patients, return_inverse=True, return_counts=True)
    weights: NDArray[np.float64] = counts[inverse].astype(np.float64) ** (PATIENT_POWER - 1.0)
    return weights


def _escaped(beats: Beats, chosen: NDArray[np.bool_], random: np.random.Generator) -> Beats:
    """These beats as part of an escape rhythm of 30 to 67 a minute, which began up to 33 beats ago."""
    rr_s, shape = beats.rr_s.copy(), beats.shape.copy()
    like, _ = against_usual(beats)
    for row in np.flatnonzero(chosen).tolist():
        slow_s = float(np.exp(random.uniform(np.log(0.9), np.log(2.0))))
        usual_s = max(slow_s * random.uniform(0.3, 0.85), 0.4)
        length = int(random.integers(1, HISTORY + 1))
        intervals = np.full(INTERVALS, usual_s) * np.exp(random.normal(0, 0.03, INTERVALS))
        intervals[HISTORY - length : HISTORY] = slow_s * np.exp(random.normal(0, 0.04, length))
        intervals[HISTORY] = min(slow_s * float(np.exp(random.normal(0, 0.05))), MAX_NEXT_RR_S)
        intervals[HISTORY + 1 :] = usual_s, slow_s if length > HISTORY // 3 else usual_s
        rr_s[row] = intervals
        shape[row, 1] = min(length * random.uniform(0.003, 0.02), 0.5)
        shape[row, 3:5] = np.log(slow_s / usual_s) * random.uniform(0, 1)
        shape[row, 6] = like[row] if np.isfinite(like[row]) else 0.0
        if length > 1:
            shape[row, 2], shape[row, 5] = random.uniform(0.85, 1.0), shape[row, 6]
    return replace(beats, rr_s=rr_s, shape=shape)


def _stretched(beats: Beats, random: np.random.Generator) -> Beats:
    """Beat and usual beat slower or faster by the same factor, and moved a little against each other."""
    count, samples = beats.wave_mv.shape
    factor = np.exp(random.uniform(-STRETCH, STRETCH, (count, 1)))
    places = BEFORE + (np.arange(samples, dtype=np.float64) - BEFORE) * factor
    moved = places + random.normal(0, 0.7, (count, 1))
    return replace(beats, wave_mv=_at(beats.wave_mv, moved), template_mv=_at(beats.template_mv, places))


def _at(wave: NDArray[Any], places: NDArray[np.float64]) -> NDArray[Any]:
    """Samples (n, samples) between samples; the ends go on."""
    inside = np.clip(places, 0, wave.shape[1] - 1.001)
    low = inside.astype(np.int64)
    share = (inside - low).astype(np.float32)
    before, after = np.take_along_axis(wave, low, 1), np.take_along_axis(wave, low + 1, 1)
    between: NDArray[Any] = before + share * (after - before)
    return between
