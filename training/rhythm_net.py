"""The network of `ecg_rhythm` in PyTorch, residual convolutions over time, and the same computation as an ONNX graph."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from models.inference.ecg_rhythm import CLASSES, ROWS, WINDOW_SAMPLES
from training.graph import Graph
from training.rhythm_score import Calibration

CHANNELS: Final = (24, 32, 48, 64, 96)
"""Channels of the residual blocks; each block halves the rate."""

STEM, STEM_STRIDE = 15, 2
WIDTH: Final = 5
FLOAT_NODES: Final = ("stem", "conv2", "conv4", "conv5", "conv8", "conv11", "output")
"""Layers that stay float, a tenth of the weights that cause most of the int8 error: the stem, which sees P waves a tenth as
high as R peaks, the first block, the layers that read its output, and the last layer."""

HIDDEN: Final = 64
DROPOUT: Final = 0.3


class _Conv(nn.Conv1d):  # type: ignore[misc]  # PyTorch is not installed for the type checker
    """A convolution over (n, channels, 1, time) with channels last in memory, which trains in half the time of `Conv1d`."""

    def __init__(self, source: int, target: int, width: int, stride: int = 1) -> None:
        super().__init__(source, target, width, stride, width // 2, bias=False)

    def forward(self, x: Any) -> Any:
        return nn.functional.conv2d(x, self.weight[:, :, None], None, (1, *self.stride), (0, *self.padding))


class Block(nn.Module):  # type: ignore[misc]
    """Two convolutions with a shortcut."""

    def __init__(self, source: int, target: int, stride: int) -> None:
        super().__init__()
        self.first, self.first_norm = _Conv(source, target, WIDTH, stride), nn.BatchNorm2d(target)
        self.second, self.second_norm = _Conv(target, target, WIDTH), nn.BatchNorm2d(target)
        self.shortcut = _Conv(source, target, 1, stride)

    def forward(self, x: Any) -> Any:
        inner = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(inner)) + self.shortcut(x))

    def add_to_graph(self, graph: Graph, x: str) -> str:
        inner = graph.relu(graph.conv(x, self.first, self.first_norm))
        return graph.relu(graph.add(graph.conv(inner, self.second, self.second_norm), graph.conv(x, self.shortcut)))


class RhythmNet(nn.Module):  # type: ignore[misc]
    """Returns logits (n, 4) of features (n, 2, 3750)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = _Conv(ROWS, CHANNELS[0], STEM, STEM_STRIDE), nn.BatchNorm2d(CHANNELS[0])
        sources = (CHANNELS[0], *CHANNELS[:-1])
        self.blocks = nn.ModuleList(Block(source, target, 2) for source, target in zip(sources, CHANNELS, strict=True))
        self.hidden, self.output = nn.Linear(2 * CHANNELS[-1], HIDDEN), nn.Linear(HIDDEN, len(CLASSES))
        self.dropout = nn.Dropout(DROPOUT)
        self.to(memory_format=torch.channels_last)

    def forward(self, features: Any) -> Any:
        x = features[:, :, None].contiguous(memory_format=torch.channels_last)
        x = torch.relu(self.stem_norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        x = x[:, :, 0]
        summary = torch.cat([x.mean(-1), x.amax(-1)], 1)
        return self.output(self.dropout(torch.relu(self.hidden(self.dropout(summary)))))


def write_onnx(network: RhythmNet, calibration: Calibration, facts: Mapping[str, str], path: Path) -> None:
    """Write the network and its calibration: `features` (n, 2, 3750) → `probability` (n, 4)."""
    graph = Graph("features", ["n", ROWS, WINDOW_SAMPLES])
    x = graph.relu(graph.conv("features", network.stem, network.stem_norm, name="stem"))
    for block in network.blocks:
        x = block.add_to_graph(graph, x)
    summary = graph.concat([graph.mean_over_time(x), graph.max_over_time(x)])
    logits = graph.gemm(graph.relu(graph.gemm(summary, network.hidden, name="hidden")), network.output, name="output")
    offsets = graph.constant("offsets", calibration.temperature * torch.tensor(calibration.offsets).numpy())
    output = graph.softmax(graph.add(logits, offsets), calibration.temperature)
    graph.save(output, ["n", len(CLASSES)], facts, path)


def count_parameters(network: RhythmNet) -> int:
    """Return the number of trainable weights."""
    return sum(tensor.numel() for tensor in network.parameters())
