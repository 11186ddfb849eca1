"""Training beats of `ecg_beat` from CinC 2017: thousands of patients, with a rhythm label per recording and no beat labels.

A beat gets a label only where the rhythm of its recording and a textbook rule leave little doubt. None of these patients is in
mitdb, on which the network is evaluated.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from models.inference.ecg_beat import HISTORY_INTERVALS, N, S, V
from models.signal.beat_classifier import BeatClassifier
from models.signal.filters import Samples
from models.signal.resample import RATE_HZ
from training.beat_data import UNLABELLED, Beats, Labels, analyse_recording, compare_with_template, unlabelled_beats
from training.cinc import LABELS, CincRecording, load_cinc
from training.ecg_augmentation import EcgAugmenter

SINUS, AF, OTHER = (LABELS.index(name) for name in "NAO")

SINUS_EVERY: Final = 3
"""Only every third recording in sinus rhythm is used."""

SNR_DB: Final = (3.0, 24.0)
GAP_SHARE: Final = 0.3

MIN_LENGTH_S: Final = 6.0
CONTEXT_S: Final = 45.0
"""A recording is repeated, joined between two beats, until at least this time precedes the last repetition: half a minute is
too short to learn the template and the median interval."""

SEAM_S: Final = 2.0
"""No beat this close to the ends of the last repetition is used."""

SEAM_SHARE: Final = 0.45
"""Where the recording is cut, as a share of the interval after a beat: after the T wave, before the P wave."""

MATCH_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class CincBeats:
    """Labelled beats, and for each the rhythm of its recording, (n,): `SINUS`, `AF` or `OTHER`."""

    beats: Beats
    rhythms: NDArray[np.int8]


def label_cinc_beats(data: Path, qrs_classifier: BeatClassifier, seed: int, progress: Progress) -> CincBeats:
    """Return all beats that can be labelled, as recorded and with artefacts."""
    random = np.random.default_rng(seed)
    augmenter = EcgAugmenter(data, random)
    parts, rhythms = [], []
    for record in progress.track(list(_select_recordings(load_cinc(data, progress))), description="beats of CinC 2017"):
        for beats in _label_recording(record, qrs_classifier, augmenter, random):
            parts.append(beats)
            rhythms.append(np.full(len(beats), record.label, np.int8))
    return CincBeats(Beats.concatenate(parts), np.concatenate(rhythms))


def _select_recordings(records: list[CincRecording]) -> Iterator[CincRecording]:
    count = 0
    for record in records:
        if record.label == SINUS:
            count += 1
        if record.label in (AF, OTHER) or (record.label == SINUS and count % SINUS_EVERY == 0):
            yield record


def _label_recording(
    record: CincRecording, qrs_classifier: BeatClassifier, augmenter: EcgAugmenter, random: np.random.Generator
) -> Iterator[Beats]:
    """Yield the labelled beats of one recording: first as recorded, then with artefacts."""
    section = _cut_between_beats(record)
    if section is None:
        return
    repeats = int(np.ceil(CONTEXT_S * RATE_HZ / section.size)) + 1
    mv = np.tile(section, repeats)
    start_s, end_s = (mv.size - section.size) / RATE_HZ + SEAM_S, mv.size / RATE_HZ - SEAM_S
    clean = unlabelled_beats(analyse_recording(mv, RATE_HZ, qrs_classifier)[1])
    clean = clean.with_labels(label_by_rule(clean, record.label))
    noisy = augmenter.saturate(augmenter.add_noise(mv[None], random.uniform(*SNR_DB, 1)))
    augmented = unlabelled_beats(analyse_recording(augmenter.add_gaps(noisy, GAP_SHARE)[0], RATE_HZ, qrs_classifier)[1])
    for beats in (clean, augmented.with_labels(_transfer_labels(augmented.times_s, clean))):
        yield beats.select((beats.labels != UNLABELLED) & (beats.times_s > start_s) & (beats.times_s < end_s))


def _cut_between_beats(record: CincRecording) -> Samples | None:
    """Cut the recording after the first and after the last complete T wave; None if too little remains."""
    if record.beat_s.size < 2:
        return None
    after_s = SEAM_SHARE * float(np.median(np.diff(record.beat_s)))
    ends = np.floor((record.beat_s + after_s) * RATE_HZ).astype(np.int64)
    ends = ends[ends <= record.mv.size]
    if ends.size < 2 or ends[-1] - ends[0] < MIN_LENGTH_S * RATE_HZ:
        return None
    return np.nan_to_num(record.mv[ends[0] : ends[-1]].astype(np.float64))


def _transfer_labels(times_s: Samples, clean: Beats) -> Labels:
    """Return the labels of the same beats found in the recording without artefacts."""
    if not len(clean):
        return np.full(times_s.size, UNLABELLED, np.int8)
    index = np.searchsorted((clean.times_s[1:] + clean.times_s[:-1]) / 2, times_s)
    return np.where(np.abs(clean.times_s[index] - times_s) <= MATCH_S, clean.labels[index], UNLABELLED).astype(np.int8)


def label_by_rule(beats: Beats, rhythm: int) -> Labels:
    """Return the labels (n,) of the beats of a recording with this rhythm; `UNLABELLED` wherever there is doubt.

    In sinus rhythm and AF every beat that matches the template is N. In other rhythms, on a regular background:
    N where shape and both intervals are normal; S where a beat that matches the template comes early (Goldberger's Clinical
    Electrocardiography, chapter 15); V where a beat of another shape comes early, followed by a compensatory pause (chapter
    16).
    """
    history = beats.rr_s[:, : HISTORY_INTERVALS - 1].astype(np.float64)
    known = np.isfinite(history)
    median_s = np.array([np.median(row[valid]) if valid.any() else np.nan for row, valid in zip(history, known, strict=True)])
    early, late = beats.rr_s[:, HISTORY_INTERVALS - 1] / median_s, beats.rr_s[:, HISTORY_INTERVALS] / median_s
    steady = (np.abs(history / median_s[:, None] - 1) < 0.12).sum(-1) / np.maximum(known.sum(-1), 1)
    similarity, height = compare_with_template(beats)
    labels = np.full(len(beats), UNLABELLED, np.int8)
    if rhythm == SINUS:
        labels[(similarity > 0.9) & (early > 0.7)] = N
    elif rhythm == AF:
        labels[similarity > 0.85] = N
    else:
        same_shape = (similarity > 0.95) & (steady > 0.6)
        labels[same_shape & (np.abs(early - 1) < 0.1) & (np.abs(late - 1) < 0.15)] = N
        similar_height = (similarity > 0.95) & (height > 0.7) & (height < 1.4) & (steady > 0.7)
        labels[similar_height & (early > 0.4) & (early < 0.82) & (late > 0.85)] = S
        paused = (late > 1.05) & (early + late > 1.7) & (early + late < 2.25)
        labels[(similarity < 0.75) & (early < 0.85) & paused & (steady > 0.5)] = V
    return labels
