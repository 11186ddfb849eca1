"""A small convolutional network over a window of signal in PyTorch, and the same computation as an ONNX graph.

`ecg_organised` and `ecg_quality` have this form.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training.fit import Batch
from training.graph import Graph

Channels = Sequence[tuple[int, int, int, int]]
"""Convolutions: channels in, channels out, width, stride; each followed by a batch normalisation and a ReLU."""

Features = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From windows (n, samples) to the network's input (n, rows, columns)."""

DROPOUT: Final = 0.1
PART: Final = 512
"""Windows computed at once."""


class WindowNet(nn.Module):  # type: ignore[misc]  # PyTorch is not installed for the type checker
    """Convolutions, mean and maximum over time, two dense layers."""

    def __init__(self, channels: Channels, hidden: int, classes: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(i, o, w, s, padding=w // 2, bias=False) for i, o, w, s in channels)
        self.norms = nn.ModuleList(nn.BatchNorm1d(o) for _, o, _, _ in channels)
        self.hidden = nn.Linear(2 * channels[-1][1], hidden)
        self.output = nn.Linear(hidden, classes)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Any) -> Any:
        """Return logits (n, classes) of features (n, rows, columns)."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = torch.relu(norm(convolution(x)))
        x = torch.cat([x.mean(-1), x.amax(-1)], -1)
        return self.output(self.dropout(torch.relu(self.hidden(x))))


def recompute_norm_statistics(network: WindowNet, batches: Iterator[Batch], count: int) -> WindowNet:
    """Recompute means and variances of the batch normalisations: those kept in training do not fit the averaged weights."""
    torch.optim.swa_utils.update_bn((next(batches)[0] for _ in range(count)), network)
    recomputed: WindowNet = network.eval()
    return recomputed


def logits(network: WindowNet, mv: NDArray[np.float32], features: Features) -> NDArray[np.float64]:
    """Return the logits (n, classes) of many windows (n, samples)."""
    network.eval()
    with torch.inference_mode():
        parts = [network(torch.from_numpy(features(part))).numpy() for part in np.array_split(mv, len(mv) // PART + 1)]
    return np.concatenate(parts).astype(np.float64)


def count_parameters(network: WindowNet) -> int:
    """Return the number of trainable weights."""
    return sum(tensor.numel() for tensor in network.parameters())


def write_onnx(network: WindowNet, columns: int, temperature: float, facts: Mapping[str, str], path: Path) -> None:
    """Write the network and a softmax of its logits over the temperature: `features` (n, rows, columns) → `probability`."""
    graph = Graph("features", ["n", network.convolutions[0].in_channels, columns])
    x = "features"
    for index, (convolution, norm) in enumerate(zip(network.convolutions, network.norms, strict=True)):
        x = graph.relu(graph.conv(x, convolution, norm, name=f"convolution{index}"))
    x = graph.concat([graph.mean_over_time(x), graph.max_over_time(x)])
    x = graph.gemm(graph.relu(graph.gemm(x, network.hidden, name="hidden")), network.output, name="output")
    graph.save(graph.softmax(x, temperature), ["n", network.output.out_features], facts, path)
