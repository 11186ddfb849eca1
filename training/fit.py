"""Fitting one network, kept on disk as soon as it is done, so that a training that was interrupted goes on where it was."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from rich.progress import Progress
from torch import nn

from config.files import replacing

AVERAGED: Final = 0.995
"""Of the weights, a moving average is kept: it varies less between seeds than the last step does."""

Loss = Callable[[Any, Any], Any]
Batch = tuple[Any, Any]
"""Inputs and targets: tensors, whatever the network and the loss take."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast: steps of AdamW under a one-cycle rate (Smith 2018).

    `bfloat16` computes in half the precision, at less than two thirds of the time where the processor can.
    """

    steps: int
    rate: float = 3e-3
    decay: float = 1e-2
    averaged: float = AVERAGED
    bfloat16: bool = False


def fitted(
    file: Path,
    make: Callable[[], Any],
    batches: Callable[[], Iterator[Batch]],
    loss: Loss,
    schedule: Schedule,
    recipe: dict[str, Any],
    progress: Progress,
) -> Any:
    """The network: read from `file` where the same training was done before, else trained and written there.

    Args:
        file: under the runs folder, `<model>/<fold>.pt`.
        make: builds the network; seeded by `recipe["seed"]`.
        batches: starts an endless stream of training batches.
        loss: of the network's output and the targets.
        schedule: steps and rates.
        recipe: all that decides what is learnt (seed, records, `code(…)`), as plain values: when it differs, nothing kept is
            used again.
        progress: where progress is shown.
    """
    wanted = recipe | {"schedule": repr(schedule)}
    torch.manual_seed(recipe["seed"])
    network = make()
    if file.exists():
        kept = torch.load(file, weights_only=True)
        if kept["recipe"] == wanted:
            network.load_state_dict(kept["weights"])
            return network.eval()
    network = _fit(network, batches(), loss, schedule, progress, file.stem)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as draft:
        torch.save({"recipe": wanted, "weights": network.state_dict()}, draft)
    return network.eval()


def _fit(network: Any, batches: Iterator[Batch], loss: Loss, schedule: Schedule, progress: Progress, name: str) -> Any:
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(schedule.averaged), use_buffers=True
    )
    optimiser = torch.optim.AdamW(_groups(network, schedule.decay), lr=schedule.rate)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, schedule.rate, total_steps=schedule.steps)
    task = progress.add_task(name, total=schedule.steps)
    network.train()
    for _ in range(schedule.steps):
        inputs, targets = next(batches)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=schedule.bfloat16):
            outputs = network(inputs)
        value = loss(outputs.float(), targets)
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        rates.step()
        average.update_parameters(network)
        progress.update(task, advance=1, description=f"{name} {float(value.detach()):.3f}")
    return average.module


def _groups(network: Any, decay: float) -> Sequence[dict[str, Any]]:
    """Weights decay; biases and scales do not."""
    weights = [tensor for tensor in network.parameters() if tensor.dim() > 1]
    rest = [tensor for tensor in network.parameters() if tensor.dim() <= 1]
    return [{"params": weights, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
