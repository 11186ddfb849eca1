"""Beats of CinC 2017 to train `ecg_beat` on: thousands of hearts, a rhythm label for each recording and none for its beats.

A beat gets a label only where the rhythm of its recording and a rule of the textbook leave little doubt. None of these patients
is in mitdb, which the network is judged on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from models.inference.ecg_beat import HISTORY, N, S, V
from models.signal.beat_classifier import BeatClassifier
from models.signal.filters import Samples
from models.signal.resample import RATE_HZ
from training.beat_data import UNUSED, Beats, Labels, against_usual, seen, unlabelled
from training.cinc import LABELS, Recorded, load_cinc
from training.disturb import Disturber

SINUS, AF, OTHER = (LABELS.index(name) for name in "NAO")

NORMAL_EVERY: Final = 3
"""Of the recordings in sinus rhythm one in so many is used."""

SNR_DB: Final = (3.0, 24.0)
GAPS: Final = 0.3

SHORTEST_S: Final = 6.0
LONG_ENOUGH_S: Final = 45.0
"""A recording is repeated, joined between two beats, until the last repetition has so much before it: half a minute alone does
not tell what is usual."""

SEAM_S: Final = 2.0
"""Around the ends of the last repetition no beat is used."""

SEAM_SHARE: Final = 0.45
"""Of the interval after a beat, where the recording is cut: behind the T wave, before the P wave."""

SAME_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Strips:
    """Labelled beats and the rhythm of the recording that each is of, (n,): `SINUS`, `AF` or `OTHER`."""

    beats: Beats
    rhythms: NDArray[np.int8]


def strips(data: Path, judge: BeatClassifier, seed: int, progress: Progress) -> Strips:
    """The beats of all recordings that can be labelled, as recorded and disturbed."""
    random = np.random.default_rng(seed)
    disturber = Disturber(data, random)
    parts, rhythms = [], []
    for record in progress.track(list(_chosen(load_cinc(data, progress))), description="beats of CinC 2017"):
        for beats in _views(record, judge, disturber, random):
            parts.append(beats)
            rhythms.append(np.full(len(beats), record.label, np.int8))
    return Strips(Beats.joined(parts), np.concatenate(rhythms))


def _chosen(records: list[Recorded]) -> Iterator[Recorded]:
    count = 0
    for record in records:
        if record.label == SINUS:
            count += 1
        if record.label in (AF, OTHER) or (record.label == SINUS and count % NORMAL_EVERY == 0):
            yield record


def _views(record: Recorded, judge: BeatClassifier, disturber: Disturber, random: np.random.Generator) -> Iterator[Beats]:
    """The labelled beats of one recording: as it is, then disturbed."""
    once = _between_beats(record)
    if once is None:
        return
    times = int(np.ceil(LONG_ENOUGH_S * RATE_HZ / once.size)) + 1
    mv = np.tile(once, times)
    start_s, end_s = (mv.size - once.size) / RATE_HZ + SEAM_S, mv.size / RATE_HZ - SEAM_S
    clean = unlabelled(seen(mv, RATE_HZ, judge)[1])
    clean = clean.labelled(by_rule(clean, record.label))
    noisy = disturber.saturated(disturber.noisy(mv[None], random.uniform(*SNR_DB, 1)))
    other = unlabelled(seen(disturber.gaps(noisy, GAPS)[0], RATE_HZ, judge)[1])
    for beats in (clean, other.labelled(_labels_at(other.times_s, clean))):
        yield beats.chosen((beats.labels != UNUSED) & (beats.times_s > start_s) & (beats.times_s < end_s))


def _between_beats(record: Recorded) -> Samples | None:
    """From behind the first beat's T wave to the same place behind the last one that has it; None where that is too short."""
    if record.beat_s.size < 2:
        return None
    after_s = SEAM_SHARE * float(np.median(np.diff(record.beat_s)))
    ends = np.floor((record.beat_s + after_s) * RATE_HZ).astype(np.int64)
    ends = ends[ends <= record.mv.size]
    if ends.size < 2 or ends[-1] - ends[0] < SHORTEST_S * RATE_HZ:
        return None
    return np.nan_to_num(record.mv[ends[0] : ends[-1]].astype(np.float64))


def _labels_at(times_s: Samples, clean: Beats) -> Labels:
    """The labels of the same beats, found in the undisturbed recording."""
    if not len(clean):
        return np.full(times_s.size, UNUSED, np.int8)
    place = np.searchsorted((clean.times_s[1:] + clean.times_s[:-1]) / 2, times_s)
    return np.where(np.abs(clean.times_s[place] - times_s) <= SAME_S, clean.labels[place], UNUSED).astype(np.int8)


def by_rule(beats: Beats, rhythm: int) -> Labels:
    """Labels (n,) of the beats of a recording with this rhythm; `UNUSED` wherever there is doubt.

    In sinus rhythm and AF every beat of the usual shape is N. Elsewhere, on a regular background: N where shape and both
    intervals are the usual ones; S where a beat of the usual shape comes early (Goldberger's Clinical Electrocardiography, 15);
    V where one of another shape comes early and a pause makes up for it (16).
    """
    history = beats.rr_s[:, : HISTORY - 1].astype(np.float64)
    known = np.isfinite(history)
    usual = np.array([np.median(row[good]) if good.any() else np.nan for row, good in zip(history, known, strict=True)])
    early, late = beats.rr_s[:, HISTORY - 1] / usual, beats.rr_s[:, HISTORY] / usual
    steady = (np.abs(history / usual[:, None] - 1) < 0.12).sum(-1) / np.maximum(known.sum(-1), 1)
    like, height = against_usual(beats)
    labels = np.full(len(beats), UNUSED, np.int8)
    if rhythm == SINUS:
        labels[(like > 0.9) & (early > 0.7)] = N
    elif rhythm == AF:
        labels[like > 0.85] = N
    else:
        same = (like > 0.95) & (steady > 0.6)
        labels[same & (np.abs(early - 1) < 0.1) & (np.abs(late - 1) < 0.15)] = N
        alike = (like > 0.95) & (height > 0.7) & (height < 1.4) & (steady > 0.7)
        labels[alike & (early > 0.4) & (early < 0.82) & (late > 0.85)] = S
        paused = (late > 1.05) & (early + late > 1.7) & (early + late < 2.25)
        labels[(like < 0.75) & (early < 0.85) & paused & (steady > 0.5)] = V
    return labels
