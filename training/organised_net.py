"""The network of `ecg_organised`: its size and its loss."""

from typing import Any, Final

import torch

from models.inference.ecg_organised import ROWS
from models.signal.rhythm_window import CLASSES
from training.window_net import Channels, WindowNet

CHANNELS: Final[Channels] = ((ROWS, 16, 9, 2), (16, 32, 7, 2), (32, 48, 5, 2), (48, 48, 5, 1))
HIDDEN: Final = 32
STATISTICS_BATCHES: Final = 60
"""Batches over which the means and variances of the finished network are computed."""


def make_network() -> WindowNet:
    """Return an untrained network of 28 thousand parameters, over four seconds."""
    return WindowNet(CHANNELS, HIDDEN, len(CLASSES))


def loss(outputs: Any, possible: Any) -> Any:
    """Return the cross-entropy of the total probability of the possible classes, (n, 5) each."""
    total = torch.logsumexp(outputs.masked_fill(possible == 0, -torch.inf), -1) - torch.logsumexp(outputs, -1)
    return -total.mean()
