"""The network of `ecg_beat` in PyTorch, and the same computation as an ONNX graph."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.inference.ecg_beat import CLASSES, ROWS, SCALARS, WAVE_ROWS, WAVE_SAMPLES
from training.graph import Graph

CHANNELS: Final = ((WAVE_ROWS, 20, 7, 2), (20, 28, 5, 2), (28, 36, 3, 1), (36, 40, 3, 1))
"""Convolutions: channels in, channels out, width, stride; each followed by batch normalisation and a ReLU."""

POOL: Final = 2
STEPS: Final = 13
"""Time steps that remain of 104 samples after the strides and the pooling."""

SQUEEZED_CHANNELS: Final = 8
"""Channels that keep their position in time, which distinguishes the P wave from the QRS complex."""

SCALAR_WIDTH: Final = 48
HIDDEN: Final = 48
"""Widths of the dense layers over the scalar features, and of the dense layer over both branches."""

DROPOUT: Final = 0.5
FLOAT_NODES: Final = ("first", "second", "third", "fourth", "numbers", "rhythm", "output")
"""Layers that stay float: the convolutions, the dense layers over the scalar features (`numbers` and `rhythm`), and the output
layer. In int8 they would change probabilities by up to 0.2."""

NAMES: Final = ("first", "second", "third", "fourth")


class BeatNet(nn.Module):  # type: ignore[misc]  # PyTorch is not installed for the type checker
    """Convolutions over the beat and the template, dense layers over the scalar features, two dense layers over both."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv1d(i, o, width, stride, padding=width // 2, bias=False) for i, o, width, stride in CHANNELS
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(o) for _, o, _, _ in CHANNELS)
        last = CHANNELS[-1][1]
        self.squeeze = nn.Conv1d(last, SQUEEZED_CHANNELS, 1)
        self.numbers = nn.Linear(SCALARS, SCALAR_WIDTH)
        self.rhythm = nn.Linear(SCALAR_WIDTH, SCALAR_WIDTH)
        self.hidden = nn.Linear(last + SQUEEZED_CHANNELS * STEPS + SCALAR_WIDTH, HIDDEN)
        self.output = nn.Linear(HIDDEN, len(CLASSES))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, inputs: Any) -> Any:
        """Return logits (n, 4) of inputs (n, 5, 104)."""
        x = inputs[:, :WAVE_ROWS]
        for index, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = torch.relu(norm(convolution(x)))
            if index == 1:
                x = nn.functional.max_pool1d(x, POOL)
        squeezed = torch.relu(self.squeeze(x)).flatten(1)
        numbers = torch.relu(self.rhythm(torch.relu(self.numbers(inputs[:, WAVE_ROWS, :SCALARS]))))
        combined = torch.cat([x.amax(-1), squeezed, numbers], -1)
        return self.output(self.dropout(torch.relu(self.hidden(self.dropout(combined)))))


def count_parameters(network: BeatNet) -> int:
    """Return the number of trainable weights."""
    return sum(tensor.numel() for tensor in network.parameters())


def write_onnx(network: BeatNet, temperature: float, bias: NDArray[np.float64], facts: dict[str, str], path: Path) -> None:
    """Write the network with calibrated probabilities, softmax((logits + bias) / temperature)."""
    graph = Graph("inputs", ["n", ROWS, WAVE_SAMPLES])
    bounds = {"zero": 0, "waves": WAVE_ROWS, "rows": ROWS}
    rows = [graph.constant(name, np.array([value], np.int64)) for name, value in bounds.items()]
    axis, time = graph.constant("axis", np.array([1], np.int64)), graph.constant("time", np.array([2], np.int64))
    x = graph.node("Slice", ["inputs", rows[0], rows[1], axis])
    for name, convolution, norm in zip(NAMES, network.convolutions, network.norms, strict=True):
        x = graph.relu(graph.conv(x, convolution, norm, name=name))
        if name == "second":
            x = graph.max_pool(x, POOL)
    squeezed = graph.node("Flatten", [graph.relu(graph.conv(x, network.squeeze))], axis=1)
    row = graph.node("Slice", ["inputs", rows[1], rows[2], axis])
    scalar_count = graph.constant("scalars", np.array([SCALARS], np.int64))
    numbers = graph.node("Flatten", [graph.node("Slice", [row, rows[0], scalar_count, time])], axis=1)
    numbers = graph.relu(graph.gemm(numbers, network.numbers, name="numbers"))
    numbers = graph.relu(graph.gemm(numbers, network.rhythm, name="rhythm"))
    combined = graph.concat([graph.max_over_time(x), squeezed, numbers])
    logits = graph.gemm(graph.relu(graph.gemm(combined, network.hidden)), network.output, name="output")
    logits = graph.add(logits, graph.constant("bias", bias))
    graph.save(graph.softmax(logits, temperature), ["n", len(CLASSES)], facts, path)


def logits(network: BeatNet, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the logits of many beats, (n, 4)."""
    network.eval()
    with torch.inference_mode():
        parts = [network(torch.from_numpy(part)).numpy() for part in np.array_split(inputs, max(1, len(inputs) // 4096))]
    return np.concatenate(parts).astype(np.float64)
