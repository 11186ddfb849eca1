"""Training beats of `ecg_beat`: mitdb, svdb and nsrdb as the agent analyses them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from captures import open_recording
from config.files import replacing
from evaluation.ec57 import Reference, load_reference, nearest_pairs
from evaluation.matching import WINDOW_S
from models.beat_context import BeatContext, BeatContextBuilder
from models.inference.ecg_beat import (
    CLASSES,
    QRS,
    RR_INPUTS,
    SHAPE_FEATURES,
    WAVE_SAMPLES,
)
from models.signal.beat_classifier import BeatClassifier
from models.signal.chain import Beat, EcgChain
from models.signal.filters import Samples
from models.signal.offline import resample_recording
from models.signal.resample import RATE_HZ
from training.ecg_augmentation import EcgAugmenter

RATES_HZ: Final = {"mitdb": 360.0, "svdb": 128.0, "nsrdb-2h": 128.0}
"""The databases with their sampling rates."""

MITDB: Final = (
    *(101, 106, 108, 109, 112, 114, 115, 116, 118, 119, 122),
    *(124, 201, 203, 205, 207, 208, 209, 215, 220, 223, 230),
)
"""DS1 of the split by patient (de Chazal 2004), without the paced records."""

SVDB: Final = (
    *(801, 807, 808, 809, 810, 812, 822, 823, 828, 829, 840, 841, 842, 843, 845, 848),
    *(849, 850, 851, 852, 853, 856, 857, 858, 859, 860, 861, 865, 866, 870, 871, 872),
    *(873, 874, 876, 877, 878, 879, 880, 882, 883, 886, 888, 889, 890, 891, 892),
)
NSRDB: Final = (16272, 16420, 16483, 16773, 16795, 17052, 17453, 18177, 18184, 19090, 19140)
RECORDS: Final = (
    *(f"mitdb/{number}" for number in MITDB),
    *(f"svdb/{number}" for number in SVDB),
    *(f"nsrdb-2h/{number}" for number in NSRDB),
)
"""Records as paths in the data folder, without suffix."""

COPIES: Final = 3
"""Copies of a mitdb record: both leads as recorded, and the first with artefacts. svdb and nsrdb have one lead here."""

SEGMENT_S: Final = 30.0
"""Artefacts are added in segments of this length, each with its own noise."""

NOISE_FREE_SHARE: Final = 0.35
"""Share of the segments without noise."""

UNLABELLED: Final = -1
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


def load_copies(data: Path, record: str, qrs_classifier: BeatClassifier, seed: int) -> list[Beats]:
    """Return the labelled beats of one record: as recorded and, of mitdb, also in the second lead and with artefacts."""
    header = data / f"{record}.hea"
    recording = open_recording(header)
    truth = load_reference(header.with_suffix(".atr"), recording.rate_hz)
    leads = [(recording.mv, recording.rate_hz)]
    if record.startswith("mitdb/"):
        random = np.random.default_rng([seed, int(header.stem)])
        first = resample_recording(recording.mv, recording.rate_hz)
        second = resample_recording(read_second_lead(header, recording.mv), recording.rate_hz)
        leads += [(second, RATE_HZ), (add_artefacts(first, EcgAugmenter(data, random), random), RATE_HZ)]
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


def compare_with_template(beats: Beats) -> tuple[Samples, Samples]:
    """Return the cosine similarity of each QRS complex with the template, and the ratio of their heights."""
    wave, template = (waves[:, QRS].astype(np.float64) for waves in (beats.wave_mv, beats.template_mv))
    height = np.abs(wave).max(-1) / np.maximum(np.abs(template).max(-1), 1e-6)
    wave, template = wave - wave.mean(-1, keepdims=True), template - template.mean(-1, keepdims=True)
    norm = np.sqrt((wave**2).sum(-1) * (template**2).sum(-1))
    similarity: Samples = (wave * template).sum(-1) / np.maximum(norm, 1e-9)
    return similarity, height
