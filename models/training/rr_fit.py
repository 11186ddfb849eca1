"""Fitting `rr_af`: one network per fold and one of all patients, each kept on disk as soon as it is done."""

import hashlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from models.inference.rr_af import rr_features
from models.recordings.rhythms import Rhythm
from models.training import rr_data, rr_net
from models.training.rr_data import Sampler
from models.training.rr_net import RrNet

SEED: Final = 20_260
STEPS: Final = 1500
BATCH: Final = 256
RATE: Final = 3e-3
DECAY: Final = 1e-2
AVERAGED: Final = 0.99
"""Of the weights, a moving average is kept: it varies less between seeds than the last step does."""


def fitted(name: str, rhythms: Sequence[Rhythm], seed: int, steps: int, runs: Path, progress: Progress) -> RrNet:
    """The network of this name: read from `runs` where the same training was done before, else trained and written there."""
    file = runs / f"{name}.pt"
    recipe = {
        "code": _code(),
        "seed": seed,
        "steps": steps,
        "records": [f"{rhythm.database}/{rhythm.name}" for rhythm in rhythms],
    }
    network = RrNet()
    if file.exists():
        kept = torch.load(file, weights_only=True)
        if kept["recipe"] == recipe:
            network.load_state_dict(kept["weights"])
            return network
    network = _fit(name, rhythms, seed, steps, progress)
    runs.mkdir(parents=True, exist_ok=True)
    torch.save({"recipe": recipe, "weights": network.state_dict()}, file.with_suffix(".part"))
    file.with_suffix(".part").replace(file)
    return network


def _code() -> str:
    """A digest of the sources that decide what is learnt: when they change, nothing kept is used again."""
    sources = [Path(file).read_text() for file in (rr_data.__file__, rr_net.__file__, __file__)]
    return hashlib.sha256("".join([*sources, inspect.getsource(rr_features)]).encode()).hexdigest()


def _fit(name: str, rhythms: Sequence[Rhythm], seed: int, steps: int, progress: Progress) -> RrNet:
    torch.manual_seed(seed)
    sampler = Sampler(rhythms, seed)
    network = RrNet()
    average = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGED))
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    task = progress.add_task(name, total=steps)
    for _ in range(steps):
        features, targets = (torch.from_numpy(part) for part in sampler.batch(BATCH))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(features), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        average.update_parameters(network)
        progress.advance(task)
    averaged: RrNet = average.module
    return averaged


def temperature(logit: NDArray[np.float64], is_af: NDArray[np.bool_]) -> float:
    """The divisor of the logits with the least cross-entropy on held-out windows (Guo 2017), by golden-section search."""

    def loss(log_divisor: float) -> float:
        z = np.where(is_af, logit, -logit) / np.exp(log_divisor)
        return float(np.mean(np.logaddexp(0, -z)))

    low, high, ratio = -2.0, 2.0, (5**0.5 - 1) / 2
    while high - low > 1e-4:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return float(np.exp((low + high) / 2))
