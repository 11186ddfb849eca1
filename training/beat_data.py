"""Training beats of `ecg_beat`: mitdb as the agent analyses it, as recorded, in rotated leads and with artefacts; intervals of
LTAFDB.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from captures import open_recording
from captures.annotations import read_annotations
from captures.rhythms import RATES_HZ
from config.files import replacing
from evaluation.ec57 import LABELS, Reference, load_reference, nearest_pairs
from evaluation.matching import WINDOW_S
from models.beat_labels import BeatContext, BeatContextBuilder
from models.inference.ecg_beat import (
    CLASSES,
    HISTORY_INTERVALS,
    LONG_TERM_INTERVALS,
    MAX_NEXT_RR_S,
    QRS,
    RR_INPUTS,
    SHAPE_FEATURES,
    WAVE_SAMPLES,
    long_term_rr_quantiles,
)
from models.signal.beat_classifier import BeatClassifier
from models.signal.chain import Beat, EcgChain
from models.signal.filters import Samples
from models.signal.offline import resample_recording
from models.signal.resample import RATE_HZ
from training.ecg_augmentation import EcgAugmenter

RECORDS: Final = tuple(
    str(number)
    for number in (101, 106, 108, 109, 112, 114, 115, 116, 118, 119, 122, 124, 201, 203, 205, 207, 208, 209, 215, 220, 223, 230)
)
"""DS1 of the split by patient (de Chazal 2004), without the paced records."""

COPIES: Final = 8
"""Copies of every record: both leads as recorded, two rotated leads, and one lead and three rotated leads with artefacts."""

CLEAN_COPIES: Final = 4
"""The first copies, which have no artefacts."""

SEGMENT_S: Final = 30.0
"""Artefacts are added in segments of this length, each with its own noise."""

NOISE_FREE_SHARE: Final = 0.35
"""Share of the segments without noise."""

UNLABELLED: Final = -1
LTAFDB_EVERY: Final = 12
"""Only every 12th normal beat of LTAFDB is used, because there are four million."""

Labels = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Beats:
    """Beats of one record or many, in order, with their labels.

    `wave_mv` to `shape` are the inputs of `models.inference.ecg_beat.features`. `times_s` (n,) are the R peaks. `labels` (n,)
    are indices into `CLASSES`, `UNLABELLED` for a beat of class Q or without a partner in the reference.
    """

    times_s: Samples
    wave_mv: NDArray[np.float32]
    template_mv: NDArray[np.float32]
    rr_s: NDArray[np.float32]
    shape: NDArray[np.float32]
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def with_labels(self, labels: Labels) -> "Beats":
        """Return the same beats with these labels."""
        return replace(self, labels=labels)

    def select(self, indices: NDArray[Any]) -> "Beats":
        """Return the beats at these indices, or where a mask is true."""
        return Beats(*(getattr(self, name)[indices] for name in Beats.__slots__))

    def save(self, file: Path) -> None:
        """Write the beats to an `.npz` file, atomically."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as draft:
            np.savez(draft, **{name: getattr(self, name) for name in Beats.__slots__})

    @classmethod
    def load(cls, file: Path) -> "Beats":
        """Read what `save` wrote."""
        with np.load(file) as stored:
            return cls(*(stored[name] for name in Beats.__slots__))

    @classmethod
    def concatenate(cls, parts: "list[Beats]") -> "Beats":
        """Return the beats of all parts in order."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in Beats.__slots__))


def analyse_recording(
    mv: Samples, rate_hz: float, qrs_classifier: BeatClassifier | None
) -> tuple[list[Beat], list[BeatContext]]:
    """Return all beats that the agent finds in a recording, and the context from which it would label each of them."""
    chain, contexts = EcgChain(rate_hz, qrs_classifier), BeatContextBuilder()
    beats: list[Beat] = []
    found: list[BeatContext] = []
    hop = round(2.0 * rate_hz)
    for start in range(0, mv.size, hop):
        new = chain.push(mv[start : start + hop])
        beats += new
        found += contexts.push(new, chain)
    new = chain.finish()
    found += [*contexts.push(new, chain), *contexts.flush(chain)]
    return beats + new, found


def label_beats(found: list[BeatContext], truth: Reference) -> Beats:
    """Return the beats of a record with the labels of its reference."""
    beats = unlabelled_beats(found)
    labels = beats.labels.copy()
    for reference_index, beat_index in nearest_pairs(truth.times_s, beats.times_s, WINDOW_S).tolist():
        if truth.labels[reference_index] in CLASSES:
            labels[beat_index] = CLASSES.index(truth.labels[reference_index])
    return beats.with_labels(labels)


def unlabelled_beats(found: list[BeatContext]) -> Beats:
    """Return the beats of a record, all of them `UNLABELLED`."""
    return Beats(
        np.array([context.beat.t_s for context in found]),
        np.array([context.wave_mv for context in found], np.float32).reshape(-1, WAVE_SAMPLES),
        np.array([context.template_mv for context in found], np.float32).reshape(-1, WAVE_SAMPLES),
        np.array([context.rr_s for context in found], np.float32).reshape(-1, RR_INPUTS),
        np.array([context.shape for context in found], np.float32).reshape(-1, SHAPE_FEATURES),
        np.full(len(found), UNLABELLED, np.int8),
    )


def augmented_copies(data: Path, name: str, qrs_classifier: BeatClassifier, seed: int) -> list[Beats]:
    """Return the labelled beats of one mitdb record in `COPIES` versions, the first as recorded."""
    header = data / "mitdb" / f"{name}.hea"
    recording = open_recording(header)
    truth = load_reference(header.with_suffix(".atr"), recording.rate_hz)
    first = resample_recording(recording.mv, recording.rate_hz)
    second = resample_recording(read_second_lead(header, recording.mv), recording.rate_hz)
    random = np.random.default_rng([seed, int(name)])
    augmenter = EcgAugmenter(data, random)
    leads = [(first, RATE_HZ), (second, RATE_HZ)]
    for index in range(2, COPIES):
        angle = random.uniform(0, np.pi) if index != CLEAN_COPIES else 0.0
        lead = np.cos(angle) * first + np.sin(angle) * second
        leads.append((lead if index < CLEAN_COPIES else add_artefacts(lead, augmenter, random), RATE_HZ))
    leads[0] = (recording.mv, recording.rate_hz)
    return [label_beats(analyse_recording(mv, rate_hz, qrs_classifier)[1], truth) for mv, rate_hz in leads]


def add_artefacts(mv: Samples, augmenter: EcgAugmenter, random: np.random.Generator) -> Samples:
    """Add artefacts to a signal at 125 Hz, in half-minute segments: most get noise of their own, some gaps or saturation."""
    width = round(SEGMENT_S * RATE_HZ)
    segments = mv[: mv.size // width * width].reshape(-1, width)
    noisy = augmenter.add_noise(segments, random.uniform(-3.0, 24.0, len(segments)))
    noise_free = random.random((len(segments), 1)) < NOISE_FREE_SHARE
    out = augmenter.add_gaps(augmenter.saturate(np.where(noise_free, segments, noisy)), 0.3)
    return np.concatenate((out.reshape(-1), mv[out.size :]))


def read_second_lead(header: Path, mv: Samples) -> Samples:
    """Return the second signal of a mitdb record.

    All records have two signals in format 212, 200 units per mV, baseline 1024.
    """
    raw = np.fromfile(header.with_suffix(".dat"), np.uint8).reshape(-1, 3).astype(np.int16)
    adc = raw[:, 2] | (raw[:, 1] & 0xF0) << 4
    lead: Samples = (((adc ^ 0x800) - 0x800)[: mv.size] - 1024) / 200.0
    return lead


def load_ltafdb_intervals(data: Path, progress: Progress) -> tuple[NDArray[np.float32], Labels]:
    """Return intervals around beats of LTAFDB, (n, 36), and their classes (n,): all its ectopic beats and some normal ones."""
    paths = sorted((data / "ltafdb").glob("*.atr"))
    parts = [_read_intervals(path) for path in progress.track(paths, description="intervals of LTAFDB")]
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([labels for _, labels in parts])


def _read_intervals(path: Path) -> tuple[NDArray[np.float32], Labels]:
    annotations = read_annotations(path)
    beat_indices = [index for index, symbol in enumerate(annotations.symbol) if symbol in LABELS]
    times_s = annotations.sample[beat_indices] / (annotations.rate_hz or RATES_HZ["ltafdb"])
    classes = [LABELS[annotations.symbol[index]] for index in beat_indices]
    labels = np.array([CLASSES.index(name) if name in CLASSES else UNLABELLED for name in classes], np.int8)
    rr_s = np.diff(times_s)
    # The interval before beat k is rr_s[k - 1], the one after it rr_s[k].
    beats = np.arange(LONG_TERM_INTERVALS, rr_s.size)
    beats = beats[(labels[beats] > 0) | ((labels[beats] == 0) & (beats % LTAFDB_EVERY == 0))]
    rows = np.empty((beats.size, RR_INPUTS), np.float32)
    rows[:, : HISTORY_INTERVALS + 1] = rr_s[beats[:, None] + np.arange(-HISTORY_INTERVALS, 1)]
    rows[:, HISTORY_INTERVALS] = np.minimum(rows[:, HISTORY_INTERVALS], MAX_NEXT_RR_S)
    for part in np.array_split(np.arange(beats.size), max(1, beats.size // 4096)):
        rows[part, HISTORY_INTERVALS + 1 :] = long_term_rr_quantiles(
            rr_s[beats[part, None] + np.arange(-LONG_TERM_INTERVALS, 0)]
        )
    return rows, labels[beats]


def compare_with_template(beats: Beats) -> tuple[Samples, Samples]:
    """Return the cosine similarity of each QRS complex with the template, and the ratio of their heights."""
    wave, template = (waves[:, QRS].astype(np.float64) for waves in (beats.wave_mv, beats.template_mv))
    height = np.abs(wave).max(-1) / np.maximum(np.abs(template).max(-1), 1e-6)
    wave, template = wave - wave.mean(-1, keepdims=True), template - template.mean(-1, keepdims=True)
    norm = np.sqrt((wave**2).sum(-1) * (template**2).sum(-1))
    similarity: Samples = (wave * template).sum(-1) / np.maximum(norm, 1e-9)
    return similarity, height
