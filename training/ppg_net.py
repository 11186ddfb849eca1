"""The network of `ppg_quality` in PyTorch, and the same computation as an ONNX graph."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.inference.ppg_quality import ROWS, WINDOW_SAMPLES
from training.graph import Graph

LAYERS: Final = ((ROWS, 16, 9, 2), (16, 24, 7, 2), (24, 32, 5, 1), (32, 32, 5, 2), (32, 40, 5, 1), (40, 48, 5, 2))
"""Convolutions: channels in, channels out, width, stride; each with batch normalisation and a ReLU. 500 samples become 32 steps
of 0.32 s, each of which covers 4 s: several pulses."""

HIDDEN: Final = 32


class PpgNet(nn.Module):  # type: ignore[misc]  # PyTorch is not installed for the type checker
    """Convolutions over 10 s, mean and maximum over time, two dense layers: 31 thousand parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv1d(before, after, width, stride=stride, padding=width // 2, bias=False)
            for before, after, width, stride in LAYERS
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(after) for _, after, _, _ in LAYERS)
        self.hidden = nn.Linear(2 * LAYERS[-1][1], HIDDEN)
        self.output = nn.Linear(HIDDEN, 1)
        self.dropout = nn.Dropout(0.2)

    def forward(self, features: Any) -> Any:
        """Return logits (n,) of features (n, 2, 500)."""
        x = features
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = torch.relu(norm(convolution(x)))
        x = torch.cat([x.mean(-1), x.amax(-1)], -1)
        return self.output(self.dropout(torch.relu(self.hidden(x)))).squeeze(-1)


def count_parameters(network: PpgNet) -> int:
    """Return the number of trainable weights."""
    return sum(tensor.numel() for tensor in network.parameters())


def write_onnx(network: PpgNet, temperature: float, facts: Mapping[str, str], path: Path) -> None:
    """Write the network with a sigmoid of its logit over the temperature: `features` (n, 2, 500) → `probability` (n, 1)."""
    graph = Graph("features", ["n", ROWS, WINDOW_SAMPLES])
    x = graph.input_name
    for index, (convolution, norm) in enumerate(zip(network.convolutions, network.norms, strict=True)):
        x = graph.relu(graph.conv(x, convolution, norm, name=f"conv{index}"))
    summary = graph.concat([graph.mean_over_time(x), graph.max_over_time(x)])
    dense = graph.relu(graph.gemm(summary, network.hidden, name="hidden"))
    logit = graph.gemm(dense, network.output, name="output")
    graph.save(graph.sigmoid(logit, temperature), ["n", 1], facts, path)


def logits(network: PpgNet, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the logits of many windows, (n,)."""
    network.eval()
    with torch.inference_mode():
        parts = [network(torch.from_numpy(part)).numpy() for part in np.array_split(features, max(1, len(features) // 1024))]
    return np.concatenate(parts).astype(np.float64)
