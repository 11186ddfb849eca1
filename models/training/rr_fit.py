"""Fitting `rr_af`: one network per fold and one of all patients, each kept on disk as soon as it is done."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from rich.progress import Progress
from torch import nn

from models.inference.rr_af import rr_features
from models.recordings.rhythms import Rhythm
from models.training import cinc, rr_data
from models.training.fit import Batch, Schedule, fitted
from models.training.rr_data import Sampler
from models.training.rr_net import CHANNELS, RrNet
from models.training.sources import code

SEED: Final = 20_260
STEPS: Final = 4000
BATCH: Final = 256


def rr_network(name: str, rhythms: Sequence[Rhythm], seed: int, steps: int, runs: Path, progress: Progress) -> RrNet:
    """The network of this name: read from `runs` where the same training was done before, else trained and written there."""
    recipe: dict[str, Any] = {
        "code": code(rr_data, RrNet, rr_features, _batches) + cinc.digest(),
        "channels": str(CHANNELS),
        "seed": seed,
        "records": [f"{rhythm.database}/{rhythm.name}" for rhythm in rhythms],
    }
    network: RrNet = fitted(
        runs / f"{name}.pt",
        RrNet,
        lambda: _batches(Sampler(rhythms, seed)),
        nn.functional.binary_cross_entropy_with_logits,
        Schedule(steps),
        recipe,
        progress,
    )
    return network


def _batches(sampler: Sampler) -> Iterator[Batch]:
    while True:
        features, targets = sampler.batch(BATCH)
        yield torch.from_numpy(features), torch.from_numpy(targets)
