"""Fitting `rr_af`: one network per fold and one of all patients, each kept on disk as soon as it is done."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from rich.progress import Progress
from torch import nn

from captures.rhythms import Rhythm
from models.inference.rr_af import rr_features
from training import cinc, rr_data
from training.fit import Batch, Schedule, fitted
from training.rr_data import Sampler
from training.rr_net import CHANNELS, RrNet
from training.sources import code

SEED: Final = 20_260
STEPS: Final = 4000
BATCH: Final = 256


TAUGHT: Final = 0.7
"""Share of the teacher's opinion in a target, the rest is the label."""

OTHER_SEED: Final = 100
"""Away from the teacher's: who is taught by another network does as well as both together, and varies less by chance."""


def rr_network(name: str, rhythms: Sequence[Rhythm], seed: int, steps: int, runs: Path, progress: Progress) -> RrNet:
    """The network of this name, taught by another one of the same patients (Hinton 2015).

    Both are read from `runs` where the same training was done before, else trained and written there.
    """
    recipe: dict[str, Any] = {
        "code": code(rr_data, RrNet, rr_features, _batches) + cinc.digest(),
        "channels": str(CHANNELS),
        "records": [f"{rhythm.database}/{rhythm.name}" for rhythm in rhythms],
    }

    def fit(label: str, own: dict[str, Any], batches: Callable[[], Iterator[Batch]]) -> RrNet:
        loss = nn.functional.binary_cross_entropy_with_logits
        network: RrNet = fitted(runs / f"{label}.pt", RrNet, batches, loss, Schedule(steps), recipe | own, progress)
        return network

    teacher = fit(f"{name}_teacher", {"seed": seed}, lambda: _batches(Sampler(rhythms, seed)))
    own_seed = seed + OTHER_SEED
    taught = {"seed": own_seed, "taught": f"{TAUGHT} {code(_taught)}"}
    return fit(name, taught, lambda: _taught(teacher, _batches(Sampler(rhythms, own_seed))))


def _batches(sampler: Sampler) -> Iterator[Batch]:
    while True:
        features, targets = sampler.batch(BATCH)
        yield torch.from_numpy(features), torch.from_numpy(targets)


def _taught(teacher: RrNet, batches: Iterator[Batch]) -> Iterator[Batch]:
    for features, targets in batches:
        with torch.no_grad():
            opinions = torch.sigmoid(teacher(features))
        yield features, TAUGHT * opinions + (1 - TAUGHT) * targets
