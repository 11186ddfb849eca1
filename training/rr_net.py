"""The network of `rr_af` in PyTorch, and the same computation as an ONNX graph."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.inference.rr_af import ROWS, WINDOW_INTERVALS
from training.graph import Graph

CHANNELS: Final = ((ROWS, 24, 5), (24, 32, 5), (32, 36, 5), (36, 44, 3), (44, 56, 3))
"""Convolutions: channels in, channels out, width; each followed by a ReLU."""

POOLED: Final = (1, 3)
"""After these convolutions the length is halved: 64 → 32 → 16."""

HIDDEN: Final = 32
CONVOLUTIONS: Final = ("first", "second", "third", "fourth", "fifth")
FLOAT_NODES: Final = ("first", "output")
"""Layers that stay float, the first and the last, 777 weights: in int8 they would double the largest change of a
probability."""

FLOAT_INPUTS: Final = ("second",)
"""The input of this layer, the first layer's output, is not rounded: rounding it would cause a third of the largest change."""

TINY: Final = 1e-3
"""Added to the number of valid intervals, so that the mean is finite without any."""


class RrNet(nn.Module):  # type: ignore[misc]  # PyTorch is not installed for the type checker
    """Convolutions over 64 intervals, mean and maximum over the valid ones, two dense layers: 26 thousand parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(i, o, width, padding=width // 2) for i, o, width in CHANNELS)
        self.hidden = nn.Linear(2 * CHANNELS[-1][1], HIDDEN)
        self.output = nn.Linear(HIDDEN, 1)
        self.dropout = nn.Dropout(0.2)

    def forward(self, features: Any) -> Any:
        """Return logits (n,) of features (n, 6, 64)."""
        x = features
        for index, convolution in enumerate(self.convolutions):
            x = torch.relu(convolution(x))
            if index in POOLED:
                x = nn.functional.max_pool1d(x, 2)
        weight = nn.functional.avg_pool1d(features[:, 1:2], 4)
        x = x * weight
        mean = x.sum(-1) / (weight.sum(-1) + TINY)
        x = torch.cat([mean, x.amax(-1)], -1)
        return self.output(self.dropout(torch.relu(self.hidden(x)))).squeeze(-1)


def count_parameters(network: RrNet) -> int:
    """Return the number of trainable weights."""
    return sum(tensor.numel() for tensor in network.parameters())


def write_onnx(network: RrNet, temperature: float, facts: Mapping[str, str], path: Path) -> None:
    """Write the network with a sigmoid of its logit over the temperature: `features` (n, 6, 64) → `probability` (n, 1)."""
    graph = Graph("features", ["n", ROWS, WINDOW_INTERVALS])
    x = graph.input_name
    for index, convolution in enumerate(network.convolutions):
        x = graph.relu(graph.conv(x, convolution, name=CONVOLUTIONS[index]))
        if index in POOLED:
            x = graph.max_pool(x, 2)
    limits = [graph.constant(name, np.array([value])) for name, value in (("from", 1), ("to", 2), ("rows", 1))]
    weight = graph.average_pool(graph.node("Slice", [graph.input_name, *limits]), 4)
    x = graph.mul(x, weight)
    time = graph.constant("time", np.array([2]))
    total = graph.add(graph.node("ReduceSum", [weight, time], keepdims=0), graph.constant("tiny", np.array([TINY])))
    mean = graph.node("Div", [graph.node("ReduceSum", [x, time], keepdims=0), total])
    x = graph.relu(graph.gemm(graph.concat([mean, graph.max_over_time(x)]), network.hidden))
    x = graph.gemm(x, network.output, name=FLOAT_NODES[1])
    graph.save(graph.sigmoid(x, temperature), ["n", 1], facts, path)


def logits(network: RrNet, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the logits of many windows, (n,)."""
    network.eval()
    with torch.inference_mode():
        parts = [network(torch.from_numpy(part)).numpy() for part in np.array_split(features, max(1, len(features) // 4096))]
    return np.concatenate(parts).astype(np.float64)
