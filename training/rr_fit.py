"""Training of `rr_af`: one network per fold and one of all patients, each cached on disk as soon as it is finished."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from rich.progress import Progress
from torch import nn

from captures.rhythms import Rhythm
from models.inference.rr_af import rr_features
from training import cinc, rr_data
from training.cache import source_digest
from training.fit import Batch, Schedule, fit_network
from training.rr_data import Sampler
from training.rr_net import CHANNELS, RrNet

SEED: Final = 20_260
STEPS: Final = 4000
BATCH: Final = 256


DISTILLATION_WEIGHT: Final = 0.7
"""Weight of the teacher's prediction in a target; the rest is the label."""

STUDENT_SEED_OFFSET: Final = 100
"""Difference between the seeds of teacher and student. A distilled network performs as well as the mean of both, and varies
less by chance."""


def distil_network(name: str, rhythms: Sequence[Rhythm], seed: int, steps: int, runs: Path, progress: Progress) -> RrNet:
    """Return the network of this name, distilled from another one trained on the same patients (Hinton 2015).

    Both are read from `runs` if they were trained with the same recipe, otherwise trained and written there.
    """
    recipe: dict[str, Any] = {
        "code": source_digest(rr_data, RrNet, rr_features, _batches) + cinc.digest(),
        "channels": str(CHANNELS),
        "records": [f"{rhythm.database}/{rhythm.name}" for rhythm in rhythms],
    }

    def fit(label: str, extra: dict[str, Any], batches: Callable[[], Iterator[Batch]]) -> RrNet:
        loss = nn.functional.binary_cross_entropy_with_logits
        network: RrNet = fit_network(runs / f"{label}.pt", RrNet, batches, loss, Schedule(steps), recipe | extra, progress)
        return network

    teacher = fit(f"{name}_teacher", {"seed": seed}, lambda: _batches(Sampler(rhythms, seed)))
    student_seed = seed + STUDENT_SEED_OFFSET
    student_recipe = {"seed": student_seed, "distillation": f"{DISTILLATION_WEIGHT} {source_digest(_distilled_batches)}"}
    return fit(name, student_recipe, lambda: _distilled_batches(teacher, _batches(Sampler(rhythms, student_seed))))


def _batches(sampler: Sampler) -> Iterator[Batch]:
    while True:
        features, targets = sampler.batch(BATCH)
        yield torch.from_numpy(features), torch.from_numpy(targets)


def _distilled_batches(teacher: RrNet, batches: Iterator[Batch]) -> Iterator[Batch]:
    for features, targets in batches:
        with torch.no_grad():
            predictions = torch.sigmoid(teacher(features))
        yield features, DISTILLATION_WEIGHT * predictions + (1 - DISTILLATION_WEIGHT) * targets
