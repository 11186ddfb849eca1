"""Beats to train `ecg_beat` on: mitdb as the agent sees it, through leads turned and disturbed, and intervals of LTAFDB."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from captures import open_recording
from captures.annotations import read_annotations
from captures.rhythms import RATES_HZ
from evaluation.ec57 import LABELS, Reference, load_reference, nearest_pairs
from evaluation.qrs import WINDOW_S
from models.beat_labels import BeatContext, BeatContextBuilder
from models.inference.ecg_beat import (
    CLASSES,
    HISTORY,
    INTERVALS,
    LONG_TERM_INTERVALS,
    MAX_NEXT_RR_S,
    QRS,
    SHAPE_FEATURES,
    WAVE_SAMPLES,
    long_term_rr_quantiles,
)
from models.signal.beat_classifier import BeatClassifier
from models.signal.chain import Beat, EcgChain
from models.signal.filters import Samples
from models.signal.offline import resample_recording
from models.signal.resample import RATE_HZ
from training.disturb import Disturber

RECORDS: Final = tuple(
    str(number)
    for number in (101, 106, 108, 109, 112, 114, 115, 116, 118, 119, 122, 124, 201, 203, 205, 207, 208, 209, 215, 220, 223, 230)
)
"""DS1 of the split by patient (de Chazal 2004), without the paced ones."""

COPIES: Final = 8
"""Of every record: both leads as they are, two turned leads, one lead and three turned leads disturbed."""

CLEAN_COPIES: Final = 4
STRETCH_S: Final = 30.0
QUIET_SHARE: Final = 0.35
"""A disturbed copy is cut into stretches of half a minute, each with noise of its own; this share has none."""

UNUSED: Final = -1
LTAFDB_EVERY: Final = 12
"""Of the normal beats of LTAFDB one in so many is kept: there are four million."""

Labels = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Beats:
    """Beats of one record or many, in order: what `models.inference.ecg_beat.features` takes, and (n,) places in `CLASSES`.

    `times_s` (n,) are the R peaks; the label of a beat without partner in the reference, or of class Q, is `UNUSED`.
    """

    times_s: Samples
    wave_mv: NDArray[np.float32]
    template_mv: NDArray[np.float32]
    rr_s: NDArray[np.float32]
    shape: NDArray[np.float32]
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def labelled(self, labels: Labels) -> "Beats":
        """The same beats with these labels."""
        return replace(self, labels=labels)

    def chosen(self, places: NDArray[Any]) -> "Beats":
        """Those at these places, or where a mask is true."""
        return Beats(*(getattr(self, name)[places] for name in Beats.__slots__))

    @classmethod
    def joined(cls, parts: "list[Beats]") -> "Beats":
        """One after the other."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in Beats.__slots__))


def seen(mv: Samples, rate_hz: float, judge: BeatClassifier | None) -> tuple[list[Beat], list[BeatContext]]:
    """All beats that the agent finds in a recording, with `ecg_qrs` as its judge, and what it would label each by."""
    chain, contexts = EcgChain(rate_hz, judge), BeatContextBuilder()
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


def labelled(found: list[BeatContext], truth: Reference) -> Beats:
    """The beats of a record with the labels of its reference."""
    beats = unlabelled(found)
    labels = beats.labels.copy()
    for one, other in nearest_pairs(truth.times_s, beats.times_s, WINDOW_S).tolist():
        if truth.labels[one] in CLASSES:
            labels[other] = CLASSES.index(truth.labels[one])
    return beats.labelled(labels)


def unlabelled(found: list[BeatContext]) -> Beats:
    """The beats of a record, `UNUSED` all of them."""
    return Beats(
        np.array([context.beat.t_s for context in found]),
        np.array([context.wave_mv for context in found], np.float32).reshape(-1, WAVE_SAMPLES),
        np.array([context.template_mv for context in found], np.float32).reshape(-1, WAVE_SAMPLES),
        np.array([context.rr_s for context in found], np.float32).reshape(-1, INTERVALS),
        np.array([context.shape for context in found], np.float32).reshape(-1, SHAPE_FEATURES),
        np.full(len(found), UNUSED, np.int8),
    )


def copies(data: Path, name: str, judge: BeatClassifier, seed: int) -> list[Beats]:
    """One record of mitdb `COPIES` times: the first as recorded, see there."""
    header = data / "mitdb" / f"{name}.hea"
    recording = open_recording(header)
    truth = load_reference(header.with_suffix(".atr"), recording.rate_hz)
    first = resample_recording(recording.mv, recording.rate_hz)
    second = resample_recording(other_lead(header, recording.mv), recording.rate_hz)
    random = np.random.default_rng([seed, int(name)])
    disturber = Disturber(data, random)
    views = [(first, RATE_HZ), (second, RATE_HZ)]
    for place in range(2, COPIES):
        angle = random.uniform(0, np.pi) if place != CLEAN_COPIES else 0.0
        lead = np.cos(angle) * first + np.sin(angle) * second
        views.append((lead if place < CLEAN_COPIES else disturbed(lead, disturber, random), RATE_HZ))
    views[0] = (recording.mv, recording.rate_hz)
    return [labelled(seen(mv, rate_hz, judge)[1], truth) for mv, rate_hz in views]


def disturbed(mv: Samples, disturber: Disturber, random: np.random.Generator) -> Samples:
    """Half-minute stretches at 125 Hz, each with its own noise, some with gaps or saturation."""
    width = round(STRETCH_S * RATE_HZ)
    whole = mv[: mv.size // width * width].reshape(-1, width)
    noisy = disturber.noisy(whole, random.uniform(-3.0, 24.0, len(whole)))
    quiet = random.random((len(whole), 1)) < QUIET_SHARE
    out = disturber.gaps(disturber.saturated(np.where(quiet, whole, noisy)), 0.3)
    return np.concatenate((out.reshape(-1), mv[out.size :]))


def other_lead(header: Path, mv: Samples) -> Samples:
    """The second signal of a record of mitdb, which all have two of format 212, 200 units a mV and a baseline of 1024."""
    raw = np.fromfile(header.with_suffix(".dat"), np.uint8).reshape(-1, 3).astype(np.int16)
    adc = raw[:, 2] | (raw[:, 1] & 0xF0) << 4
    lead: Samples = (((adc ^ 0x800) - 0x800)[: mv.size] - 1024) / 200.0
    return lead


def intervals(data: Path, progress: Progress) -> tuple[NDArray[np.float32], Labels]:
    """Intervals around beats of LTAFDB, (n, 36) and (n,) places in `CLASSES`: all its ectopic beats and some normal ones."""
    paths = sorted((data / "ltafdb").glob("*.atr"))
    parts = [_intervals(path) for path in progress.track(paths, description="intervals of LTAFDB")]
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([labels for _, labels in parts])


def _intervals(path: Path) -> tuple[NDArray[np.float32], Labels]:
    notes = read_annotations(path)
    kept = [place for place, symbol in enumerate(notes.symbol) if symbol in LABELS]
    times_s = notes.sample[kept] / (notes.rate_hz or RATES_HZ["ltafdb"])
    classes = [LABELS[notes.symbol[place]] for place in kept]
    labels = np.array([CLASSES.index(name) if name in CLASSES else UNUSED for name in classes], np.int8)
    rr_s = np.diff(times_s)
    # The interval before beat k is rr_s[k - 1], the one after it rr_s[k].
    beats = np.arange(LONG_TERM_INTERVALS, rr_s.size)
    beats = beats[(labels[beats] > 0) | ((labels[beats] == 0) & (beats % LTAFDB_EVERY == 0))]
    rows = np.empty((beats.size, INTERVALS), np.float32)
    rows[:, : HISTORY + 1] = rr_s[beats[:, None] + np.arange(-HISTORY, 1)]
    rows[:, HISTORY] = np.minimum(rows[:, HISTORY], MAX_NEXT_RR_S)
    for part in np.array_split(np.arange(beats.size), max(1, beats.size // 4096)):
        rows[part, HISTORY + 1 :] = long_term_rr_quantiles(rr_s[beats[part, None] + np.arange(-LONG_TERM_INTERVALS, 0)])
    return rows, labels[beats]


def against_usual(beats: Beats) -> tuple[Samples, Samples]:
    """Cosine of each QRS complex with the usual one, and their ratio of heights."""
    wave, usual = (of_it[:, QRS].astype(np.float64) for of_it in (beats.wave_mv, beats.template_mv))
    height = np.abs(wave).max(-1) / np.maximum(np.abs(usual).max(-1), 1e-6)
    wave, usual = wave - wave.mean(-1, keepdims=True), usual - usual.mean(-1, keepdims=True)
    size = np.sqrt((wave**2).sum(-1) * (usual**2).sum(-1))
    like: Samples = (wave * usual).sum(-1) / np.maximum(size, 1e-9)
    return like, height
