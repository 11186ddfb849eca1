"""Training batches of `ecg_organised`: windows of recordings with artefacts, and synthetic ones."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from config.files import replacing
from models.inference import ecg_organised
from models.inference.ecg_organised import COLUMNS, ROWS, features
from models.signal.resample import RATE_HZ
from models.signal.rhythm_window import (
    ASYSTOLE,
    INPUT_SAMPLES,
    JUDGED_S,
    MIN_KNOWN_SHARE,
    NOISE,
    ORGANISED,
    VF,
    VT,
    WINDOW_SAMPLES,
    prepare,
)
from training import ecg_augmentation, organised_data, organised_synth
from training.cache import source_digest
from training.ecg_augmentation import load_noise, qrs_equivalent_power
from training.fit import Batch
from training.organised_data import ANY, GRID_S, OrganisedRecording, Sets, possible, steady_sets, unpack
from training.organised_synth import DRAWS, Samples, draw_motion

BATCH: Final = 128
SHARES: Final = {
    possible(ORGANISED): 0.34,
    possible(VT): 0.12,
    possible(VF): 0.15,
    possible(ASYSTOLE): 0.05,
    ANY: 0.10,
}
"""Shares of a batch by possible classes; `ANY` stands for all other sets. The rest is synthetic."""

SYNTHETIC: Final = (0.35, 0.2, 0.15, 0.15, 0.15)
"""Shares of the synthetic windows: rhythms, rhythms of merged waves, fibrillation, asystole, noise."""

NOISY_SHARE: Final = 0.4
SNR_DB: Final = (-8.0, 20.0)
BURIED_DB: Final = 3.0
"""In noise of this ratio or more, a window may also be called noise."""

MIN_GAIN: Final = 0.2
"""Lowest factor of an organised rhythm: QRS complexes of 0.2 mV must not pass for asystole."""

STRETCH: Final = 0.15
"""Largest change of the speed, natural logarithm."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Windows drawn once, from which all networks are trained.

    Attributes:
        inputs: (n, 2, 250) features in half precision.
        sets: (n,) possible classes as bits.
        folds: (n,) of the patient; -1 for synthetic windows.
    """

    inputs: NDArray[np.float16]
    sets: Sets
    folds: NDArray[np.int64]

    def without(self, fold: int | None) -> "Pool":
        """Return the windows that are not of this fold; all for None."""
        kept = self.folds != fold
        return Pool(self.inputs[kept], self.sets[kept], self.folds[kept])

    def batches(self, seed: int) -> Iterator[Batch]:
        """Yield batches without end, every window once per epoch: features (n, 2, 250) and possible classes (n, 5)."""
        random = np.random.default_rng(seed)
        while True:
            order = random.permutation(len(self.sets))
            for start in range(0, len(order) - BATCH + 1, BATCH):
                chosen = order[start : start + BATCH]
                inputs = torch.from_numpy(self.inputs[chosen].astype(np.float32))
                yield inputs, torch.from_numpy(unpack(self.sets[chosen]))


def load_pool(
    recordings: Sequence[OrganisedRecording], data: Path, cache: Path, count: int, seed: int, progress: Progress
) -> Pool:
    """Return this many windows; they are cached as long as the code is the same."""
    sources = f"{count} {seed} " + source_digest(
        sys.modules[__name__], organised_data, organised_synth, ecg_augmentation, ecg_organised
    )
    if not (cache.exists() and np.load(cache)["sources"] == sources):
        pool = Sampler(recordings, data, seed).draw_pool(count, progress)
        with replacing(cache) as draft:
            np.savez(draft, sources=sources, inputs=pool.inputs, sets=pool.sets, folds=pool.folds)
    with np.load(cache) as store:
        return Pool(store["inputs"], store["sets"], store["folds"])


class Sampler:
    """Draws windows of recordings, and synthetic ones."""

    def __init__(self, recordings: Sequence[OrganisedRecording], data: Path, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._noise = list(load_noise(data).values())
        self._recordings = recordings
        self._ends = {key: self._index(key) for key in SHARES}

    def draw_pool(self, count: int, progress: Progress) -> Pool:
        """Return this many windows."""
        inputs = np.empty((count, ROWS, COLUMNS), np.float16)
        sets, folds = np.empty(count, np.uint8), np.empty(count, np.int64)
        for at in progress.track(range(count), description="windows"):
            mv, sets[at], folds[at] = self._draw()
            inputs[at] = features(prepare(mv))
        return Pool(inputs, sets, folds)

    def _index(self, key: int) -> list[tuple[int, NDArray[np.int64]]]:
        """Return the ends of the windows with this set, by recording."""
        found = []
        for index, recording in enumerate(self._recordings):
            steady = steady_sets(recording.sets)
            ends = np.flatnonzero((steady != ANY) & ~np.isin(steady, list(SHARES)) if key == ANY else steady == key)
            ends = ends[ends >= round((1 + STRETCH) * INPUT_SAMPLES / RATE_HZ / GRID_S) + 1]
            ends = ends[_known_share(recording, ends) >= MIN_KNOWN_SHARE]
            if ends.size:
                found.append((index, ends))
        return found

    def _draw(self) -> tuple[Samples, int, int]:
        """Return one stretch (625,), its possible classes and its fold."""
        random = self._random
        keys, shares = list(SHARES), np.array(list(SHARES.values()))
        at = random.choice(len(keys) + 1, p=np.append(shares, 1 - shares.sum()))
        if at == len(keys):
            mv, known = DRAWS[random.choice(len(DRAWS), p=SYNTHETIC)](random, INPUT_SAMPLES)
            fold = -1
        else:
            mv, known, fold = self._draw_recorded(keys[at])
        if random.random() < NOISY_SHARE:
            mv, known = self._add_noise(mv, known)
        return mv, known, fold

    def _draw_recorded(self, key: int) -> tuple[Samples, int, int]:
        random = self._random
        choices = self._ends[key]
        sizes = np.sqrt([ends.size for _, ends in choices])
        index, ends = choices[random.choice(len(choices), p=sizes / sizes.sum())]
        recording = self._recordings[index]
        end_bin = int(random.choice(ends))
        known = int(steady_sets(recording.sets[end_bin - round(JUDGED_S / GRID_S) : end_bin])[-1])
        end = round(end_bin * GRID_S * RATE_HZ) - random.integers(0, round(GRID_S * RATE_HZ))
        speed = np.exp(random.uniform(-STRETCH, STRETCH))
        positions = end - 1 - np.arange(INPUT_SAMPLES)[::-1] * speed
        first = max(int(positions[0]), 0)
        part = recording.mv[first:end]
        mv = np.interp(positions, first + np.arange(part.size), part)
        lowest = MIN_GAIN if key == possible(ORGANISED) else 0.5
        gain = random.choice((-1.0, 1.0)) * np.exp(random.uniform(np.log(lowest), np.log(2)))
        return mv * gain, known, recording.fold

    def _add_noise(self, mv: Samples, known: int) -> tuple[Samples, int]:
        random = self._random
        snr_db = random.uniform(*SNR_DB)
        signal = mv - np.nanmean(mv)
        scale = np.sqrt(qrs_equivalent_power(signal[None])[0] / 10 ** (snr_db / 10))
        if known == possible(ASYSTOLE):
            scale = np.exp(random.uniform(np.log(0.02), np.log(1.0)))
            snr_db = BURIED_DB
        return mv + scale * self._draw_noise(), known | possible(NOISE) if snr_db <= BURIED_DB else known

    def _draw_noise(self) -> Samples:
        """Return noise of power 1: of one recorded kind, of two, or synthetic."""
        random = self._random
        kind = random.integers(4)
        if kind == 0:
            noise = draw_motion(random, INPUT_SAMPLES)
        elif kind == 1:
            noise = self._recorded() + random.uniform(0, 1) * self._recorded()
        elif kind == 2:
            noise = self._recorded()
        else:
            noise = self._recorded() + random.normal(0, random.uniform(0, 1), INPUT_SAMPLES)
        scaled: Samples = noise / (np.std(noise) + 1e-9)
        return scaled

    def _recorded(self) -> Samples:
        random = self._random
        kind = self._noise[random.choice(len(self._noise), p=(0.15, 0.5, 0.35))]
        positions = random.uniform(0, kind.size) + np.arange(INPUT_SAMPLES) * np.exp(random.uniform(-0.5, 0.5))
        row = np.interp(positions % kind.size, np.arange(kind.size), kind, period=kind.size)
        turned: Samples = row[:: random.choice((-1, 1))] * random.choice((-1.0, 1.0))
        return turned


def _known_share(recording: OrganisedRecording, ends: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return which part of the samples was received of the windows that end at these moments."""
    counts = np.concatenate(([0], np.cumsum(np.isfinite(recording.mv))))
    last = np.minimum(np.round(ends * GRID_S * RATE_HZ).astype(np.int64), recording.mv.size)
    share: NDArray[np.float64] = (counts[last] - counts[last - WINDOW_SAMPLES]) / WINDOW_SAMPLES
    return share
