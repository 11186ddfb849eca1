"""What `ecg_rhythm` learns from: the Challenge's recordings, disturbed copies of them, and windows drawn at random."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from config.files import replacing
from models.inference.ecg_rhythm import CLASSES, WINDOW, features
from models.signal.chain import remove_baseline
from models.signal.resample import RATE_HZ
from training.cinc import Recorded
from training.disturb import Disturber

COPIES: Final = 2
"""Disturbed copies of every recording."""

COPY_SHARE: Final = 0.4
"""How often a window comes from a copy."""

SNR_DB: Final = (-6.0, 24.0)
NOISE_SHARE: Final = 0.75
"""Of the copies."""

DROWNED: Final = 0.7
"""What a recording's label loses to noise at -6 dB, and none at 0 dB: who labelled it would not have read it."""

BALANCE: Final = 0.3
"""Drawn as its share to the power of 1 - 0.3, a rare class comes up more often than it is."""

SMOOTHING: Final = 0.07
"""Share of a label that is spread over all classes: experts disagree about these recordings (Clifford 2017)."""

STRETCH: Final = 0.12
"""Hearts beat faster or slower by up to so much."""

SHORTEST_S: Final = 10.0
"""Of the stretches that fill only a part of a window."""

Random = np.random.Generator


@dataclass(frozen=True, slots=True)
class Example:
    """A recording as it is or disturbed: `mv` (samples,) at 125 Hz and the share of each class, (4,)."""

    mv: NDArray[np.floating[Any]]
    target: NDArray[np.float64]


def examples(records: Sequence[Recorded], data: Path, runs: Path, seed: int, progress: Progress) -> dict[str, list[Example]]:
    """Every recording by name: itself first, then its disturbed copies, kept in the runs folder (2 minutes the first time)."""
    kept = runs / f"disturbed-{seed}.npz"
    if not kept.exists():
        _prepare(records, data, kept, seed, progress)
    with np.load(kept) as store:
        signals = np.split(store["mv"], store["ends"][:-1])
        drowned = store["drowned"]
    out = {record.name: [Example(record.mv, target(record.label))] for record in records}
    for copy in range(COPIES):
        for place, record in enumerate(records, copy * len(records)):
            out[record.name].append(Example(signals[place], target(record.label, drowned[place])))
    return out


def target(label: int, drowned: float = 0.0) -> NDArray[np.float64]:
    """The share of each class, (4,): so much of the label's goes to noise."""
    shares: NDArray[np.float64] = (1 - drowned) * np.eye(len(CLASSES))[label]
    shares[-1] += drowned
    return shares


class Sampler:
    """Draws training windows; the same seed draws the same ones."""

    def __init__(self, pool: Sequence[Sequence[Example]], seed: int) -> None:
        """`pool` holds a recording and its copies in each of its rows."""
        self._pool = pool
        self._random = np.random.default_rng(seed)
        labels = np.array([versions[0].target.argmax() for versions in pool])
        weights = (np.bincount(labels, minlength=len(CLASSES))[labels] / len(labels)) ** -BALANCE
        self._chances = weights / weights.sum()

    def batches(self, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Features (size, rows, 3750) and smoothed targets (size, 4), without end."""
        while True:
            inputs, targets = self.batch(size)
            smooth = (1 - SMOOTHING) * targets + SMOOTHING / len(CLASSES)
            yield torch.from_numpy(inputs), torch.from_numpy(smooth.astype(np.float32))

    def batch(self, size: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Features and targets of so many windows."""
        places = self._random.choice(len(self._pool), size, p=self._chances)
        drawn = [self._example(self._pool[place]) for place in places.tolist()]
        return features(np.stack([self._window(example.mv) for example in drawn])), np.stack([e.target for e in drawn])

    def _example(self, versions: Sequence[Example]) -> Example:
        if self._random.random() >= COPY_SHARE:
            return versions[0]
        return versions[int(self._random.integers(1, len(versions)))]

    def _window(self, recorded: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """A stretch of 10 to 30 s anywhere in a window (3750,), faster or slower, maybe upside down."""
        random, mv = self._random, recorded.astype(np.float64)
        if random.random() < 0.6:
            mv = stretched(mv, float(np.exp(random.uniform(-STRETCH, STRETCH))))
        wanted = WINDOW if random.random() < 0.7 else int(random.uniform(SHORTEST_S * RATE_HZ, WINDOW))
        width = min(wanted, mv.size)
        start, place = random.integers(0, mv.size - width + 1), random.integers(0, WINDOW - width + 1)
        window = np.full(WINDOW, np.nan)
        window[place : place + width] = mv[start : start + width]
        return -window if random.random() < 0.3 else window


def stretched(mv: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """The same heart, slower by so much: (n,) → (n * factor,)."""
    return np.interp(np.arange(int(mv.size * factor)) / factor, np.arange(mv.size), mv)


def _prepare(records: Sequence[Recorded], data: Path, kept: Path, seed: int, progress: Progress) -> None:
    random = np.random.default_rng(seed)
    disturber = Disturber(data, random)
    signals, drowned = [], []
    for record in progress.track([*records] * COPIES, description="disturbed copies"):
        mv, snr_db = _disturbed(record, disturber, random)
        signals.append(remove_baseline(mv).astype(np.float16))
        drowned.append(DROWNED * float(np.clip(snr_db / SNR_DB[0], 0, 1)))
    kept.parent.mkdir(parents=True, exist_ok=True)
    with replacing(kept) as draft:
        np.savez(
            draft,
            mv=np.concatenate(signals),
            ends=np.cumsum([mv.size for mv in signals]),
            drowned=np.array(drowned),
        )


def _disturbed(record: Recorded, disturber: Disturber, random: Random) -> tuple[NDArray[np.float64], float]:
    """The samples (n,) and the ratio of signal to noise in dB."""
    mv = record.mv[None].astype(np.float64)
    snr_db = np.inf
    if random.random() < NOISE_SHARE:
        snr_db = random.uniform(*SNR_DB)
        mv = disturber.noisy(mv, np.array([snr_db]))
    mv = disturber.lead_off(disturber.saturated(mv, 0.1), 0.08, 0.4)
    return disturber.gaps(mv, 0.45)[0], snr_db
