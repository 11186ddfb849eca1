"""The network of `ecg_quality`: its size, its batches and its loss."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from models.inference.ecg_quality import CLASSES, ROWS, features
from training.fit import Batch
from training.quality_data import Windows
from training.window_net import Channels, WindowNet

CHANNELS: Final[Channels] = ((ROWS, 16, 9, 2), (16, 24, 7, 2), (24, 32, 7, 2), (32, 40, 5, 2), (40, 48, 5, 1))
HIDDEN: Final = 32
BATCH: Final = 128
STATISTICS_BATCHES: Final = 40
"""Batches over which the means and variances of the finished network are computed."""


def make_network() -> WindowNet:
    """Return an untrained network of 29 thousand parameters, over ten seconds."""
    return WindowNet(CHANNELS, HIDDEN, len(CLASSES))


def batches(windows: Windows, seed: int) -> Iterator[Batch]:
    """Yield batches without end, every window once per epoch, half of them inverted."""
    random = np.random.default_rng(seed)
    while True:
        order = random.permutation(len(windows.labels))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            rows = features(windows.mv[chosen])
            rows[:, 0] *= random.choice(np.array([-1, 1], np.float32), (BATCH, 1))
            targets = torch.from_numpy(windows.labels[chosen]), torch.from_numpy(windows.weights[chosen])
            yield torch.from_numpy(rows), targets


def loss(outputs: Any, targets: Any) -> Any:
    """Return the weighted cross-entropy."""
    labels, weights = targets
    return (nn.functional.cross_entropy(outputs, labels, reduction="none") * weights).sum() / weights.sum()
