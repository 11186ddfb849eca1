"""Training of one network. Finished networks are cached on disk, so an interrupted run can be resumed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from rich.progress import Progress
from torch import nn

from config.files import replacing

EMA_DECAY: Final = 0.995
"""Decay of the exponential moving average of the weights, which varies less between seeds than the last step's weights."""

Loss = Callable[[Any, Any], Any]
Batch = tuple[Any, Any]
"""Inputs and targets: tensors in the form that the network and the loss expect."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Number of steps and learning rates: AdamW under a one-cycle learning rate (Smith 2018).

    `bfloat16` computes in half precision, in less than two thirds of the time where the processor supports it.
    """

    steps: int
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    ema_decay: float = EMA_DECAY
    bfloat16: bool = False


def fit_network(
    file: Path,
    make: Callable[[], Any],
    batches: Callable[[], Iterator[Batch]],
    loss: Loss,
    schedule: Schedule,
    recipe: dict[str, Any],
    progress: Progress,
) -> Any:
    """Return the trained network, read from `file` if it was trained with the same recipe, otherwise trained and written there.

    Args:
        file: the cache file under the runs folder, `<model>/<fold>.pt`.
        make: builds the network; seeded by `recipe["seed"]`.
        batches: starts an endless stream of training batches.
        loss: takes the network's output and the targets.
        schedule: steps and learning rates.
        recipe: everything that determines the result (seed, records, `source_digest(…)`), as plain values. A cached network
            with a different recipe is not reused.
        progress: where progress is shown.
    """
    wanted = recipe | {"schedule": repr(schedule)}
    torch.manual_seed(recipe["seed"])
    network = make()
    if file.exists():
        cached = torch.load(file, weights_only=True)
        if cached["recipe"] == wanted:
            network.load_state_dict(cached["weights"])
            return network.eval()
    network = _train_network(network, batches(), loss, schedule, progress, file.stem)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as draft:
        torch.save({"recipe": wanted, "weights": network.state_dict()}, draft)
    return network.eval()


def _train_network(
    network: Any, batches: Iterator[Batch], loss: Loss, schedule: Schedule, progress: Progress, name: str
) -> Any:
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(schedule.ema_decay), use_buffers=True
    )
    optimiser = torch.optim.AdamW(_parameter_groups(network, schedule.weight_decay), lr=schedule.learning_rate)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, schedule.learning_rate, total_steps=schedule.steps)
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


def _parameter_groups(network: Any, weight_decay: float) -> Sequence[dict[str, Any]]:
    """Return parameter groups: weight decay applies to weights, not to biases and scales."""
    weights = [tensor for tensor in network.parameters() if tensor.dim() > 1]
    rest = [tensor for tensor in network.parameters() if tensor.dim() <= 1]
    return [{"params": weights, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
