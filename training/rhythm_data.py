"""Training data of `ecg_rhythm`: the Challenge's recordings, copies of them with artefacts, and windows drawn at random."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from config.files import replacing
from models.inference.ecg_rhythm import CLASSES, WINDOW_SAMPLES, features
from models.signal.chain import remove_baseline
from models.signal.resample import RATE_HZ
from training.cinc import CincRecording
from training.ecg_augmentation import EcgAugmenter

COPIES: Final = 2
"""Copies with artefacts of every recording."""

COPY_SHARE: Final = 0.4
"""How often a window comes from such a copy."""

SNR_DB: Final = (-6.0, 24.0)
NOISE_SHARE: Final = 0.75
"""Share of the copies that get noise."""

MAX_NOISE_TARGET: Final = 0.7
"""The share of a recording's label that moves to noise at -6 dB; none does at 0 dB. An expert could not have read such a
recording."""

BALANCE_POWER: Final = 0.3
"""A class is drawn in proportion to its share to the power of 1 - 0.3, so rare classes are drawn more often than they occur."""

LABEL_SMOOTHING: Final = 0.07
"""Share of a label that is spread over all classes: experts disagree about these recordings (Clifford 2017)."""

MAX_STRETCH: Final = 0.12
"""Largest relative change of the heart rate."""

MIN_LENGTH_S: Final = 10.0
"""Length of the shortest stretch that fills only a part of a window."""

Random = np.random.Generator


@dataclass(frozen=True, slots=True)
class Example:
    """A recording with or without artefacts: `mv` (samples,) at 125 Hz and the share of each class, (4,)."""

    mv: NDArray[np.floating[Any]]
    target: NDArray[np.float64]


def load_examples(
    records: Sequence[CincRecording], data: Path, runs: Path, seed: int, progress: Progress
) -> dict[str, list[Example]]:
    """Return every recording by name: first itself, then its copies with artefacts.

    The copies are cached in the runs folder; making them takes 2 minutes.
    """
    cache = runs / f"augmented-{seed}.npz"
    if not cache.exists():
        _write_copies(records, data, cache, seed, progress)
    with np.load(cache) as store:
        signals = np.split(store["mv"], store["ends"][:-1])
        noise_share = store["noise_share"]
    out = {record.name: [Example(record.mv, class_target(record.label))] for record in records}
    for copy in range(COPIES):
        for index, record in enumerate(records, copy * len(records)):
            out[record.name].append(Example(signals[index], class_target(record.label, noise_share[index])))
    return out


def class_target(label: int, noise_share: float = 0.0) -> NDArray[np.float64]:
    """Return the share of each class, (4,), when this share of the label moves to noise."""
    shares: NDArray[np.float64] = (1 - noise_share) * np.eye(len(CLASSES))[label]
    shares[-1] += noise_share
    return shares


class Sampler:
    """Draws training windows. The same seed draws the same windows."""

    def __init__(self, pool: Sequence[Sequence[Example]], seed: int) -> None:
        """Each row of `pool` holds a recording and its copies."""
        self._pool = pool
        self._random = np.random.default_rng(seed)
        labels = np.array([versions[0].target.argmax() for versions in pool])
        weights = (np.bincount(labels, minlength=len(CLASSES))[labels] / len(labels)) ** -BALANCE_POWER
        self._chances = weights / weights.sum()

    def batches(self, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield features (size, rows, 3750) and smoothed targets (size, 4) without end."""
        while True:
            inputs, targets = self.batch(size)
            smooth = (1 - LABEL_SMOOTHING) * targets + LABEL_SMOOTHING / len(CLASSES)
            yield torch.from_numpy(inputs), torch.from_numpy(smooth.astype(np.float32))

    def batch(self, size: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return features and targets of this many windows."""
        indices = self._random.choice(len(self._pool), size, p=self._chances)
        drawn = [self._example(self._pool[index]) for index in indices.tolist()]
        return features(np.stack([self._window(example.mv) for example in drawn])), np.stack([e.target for e in drawn])

    def _example(self, versions: Sequence[Example]) -> Example:
        if self._random.random() >= COPY_SHARE:
            return versions[0]
        return versions[int(self._random.integers(1, len(versions)))]

    def _window(self, recorded: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return 10 to 30 s at a random position of a window (3750,), faster or slower, possibly inverted."""
        random, mv = self._random, recorded.astype(np.float64)
        if random.random() < 0.6:
            mv = stretch_time(mv, float(np.exp(random.uniform(-MAX_STRETCH, MAX_STRETCH))))
        wanted = WINDOW_SAMPLES if random.random() < 0.7 else int(random.uniform(MIN_LENGTH_S * RATE_HZ, WINDOW_SAMPLES))
        width = min(wanted, mv.size)
        start, position = random.integers(0, mv.size - width + 1), random.integers(0, WINDOW_SAMPLES - width + 1)
        window = np.full(WINDOW_SAMPLES, np.nan)
        window[position : position + width] = mv[start : start + width]
        return -window if random.random() < 0.3 else window


def stretch_time(mv: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """Return the signal slower by this factor: (n,) → (n * factor,)."""
    return np.interp(np.arange(int(mv.size * factor)) / factor, np.arange(mv.size), mv)


def _write_copies(records: Sequence[CincRecording], data: Path, cache: Path, seed: int, progress: Progress) -> None:
    random = np.random.default_rng(seed)
    augmenter = EcgAugmenter(data, random)
    signals, noise_share = [], []
    for record in progress.track([*records] * COPIES, description="copies with artefacts"):
        mv, snr_db = _augment(record, augmenter, random)
        signals.append(remove_baseline(mv).astype(np.float16))
        noise_share.append(MAX_NOISE_TARGET * float(np.clip(snr_db / SNR_DB[0], 0, 1)))
    cache.parent.mkdir(parents=True, exist_ok=True)
    with replacing(cache) as draft:
        np.savez(
            draft,
            mv=np.concatenate(signals),
            ends=np.cumsum([mv.size for mv in signals]),
            noise_share=np.array(noise_share),
        )


def _augment(record: CincRecording, augmenter: EcgAugmenter, random: Random) -> tuple[NDArray[np.float64], float]:
    """Return the samples (n,) and the signal-to-noise ratio in dB."""
    mv = record.mv[None].astype(np.float64)
    snr_db = np.inf
    if random.random() < NOISE_SHARE:
        snr_db = random.uniform(*SNR_DB)
        mv = augmenter.add_noise(mv, np.array([snr_db]))
    mv = augmenter.detach_electrode(augmenter.saturate(mv, 0.1), 0.08, 0.4)
    return augmenter.add_gaps(mv, 0.45)[0], snr_db
