"""The networks of `ecg_beat` in PyTorch, and the same computation as an ONNX graph.

Two networks are trained apart, and the mean of their log-probabilities is used. One sees the shape through convolutions and
finds more ventricular beats; the other is dense and finds more supraventricular ones.
"""

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
FLOAT_NODES: Final = ("first", "second", "numbers", "output", "dense.output")
"""Layers that stay float: the first convolutions, the dense layer over the scalar features, and the output layers."""
FLOAT_INPUTS: Final = ("third", "fourth", "rhythm", "hidden", "dense.first", "dense.second")
"""The int8 layers. Their inputs are not rounded; rounding them would change probabilities by up to 0.2."""

NAMES: Final = ("first", "second", "third", "fourth")


DENSE_ROWS: Final = 3
DENSE_POOL: Final = 2
DENSE_WIDTHS: Final = (64, 48)
DENSE_DROPOUT: Final = 0.3
"""The dense network sees beat, template and difference at half the rate, and the scalar features."""


class DenseNet(nn.Module):  # type: ignore[misc]  # PyTorch is not installed for the type checker
    """Three dense layers over the beat and the scalar features."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(SCALARS + DENSE_ROWS * (WAVE_SAMPLES // DENSE_POOL), DENSE_WIDTHS[0])
        self.second = nn.Linear(*DENSE_WIDTHS)
        self.output = nn.Linear(DENSE_WIDTHS[1], len(CLASSES))
        self.dropout = nn.Dropout(DENSE_DROPOUT)

    def forward(self, inputs: Any) -> Any:
        """Return logits (n, 4) of inputs (n, 5, 104)."""
        waves = nn.functional.avg_pool1d(inputs[:, :DENSE_ROWS], DENSE_POOL).flatten(1)
        x = torch.relu(self.first(torch.cat([waves, inputs[:, WAVE_ROWS, :SCALARS]], 1)))
        return self.output(self.dropout(torch.relu(self.second(self.dropout(x)))))


class BeatNet(nn.Module):  # type: ignore[misc]  # PyTorch is not installed for the type checker
    """Both networks together."""

    def __init__(self, convolutional: "ConvolutionalNet", dense: DenseNet) -> None:
        super().__init__()
        self.convolutional, self.dense = convolutional, dense

    def forward(self, inputs: Any) -> Any:
        """Return the mean of the log-probabilities of both networks, (n, 4), of inputs (n, 5, 104)."""
        return (torch.log_softmax(self.convolutional(inputs), -1) + torch.log_softmax(self.dense(inputs), -1)) / 2


class ConvolutionalNet(nn.Module):  # type: ignore[misc]  # PyTorch is not installed for the type checker
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
    """Write the network with calibrated probabilities, softmax((log-probabilities + bias) / temperature)."""
    graph = Graph("inputs", ["n", ROWS, WAVE_SAMPLES])
    bounds = {"zero": 0, "dense.rows": DENSE_ROWS, "waves": WAVE_ROWS, "rows": ROWS, "scalars": SCALARS}
    at = {name: graph.constant(name, np.array([value], np.int64)) for name, value in bounds.items()}
    axis, time = graph.constant("axis", np.array([1], np.int64)), graph.constant("time", np.array([2], np.int64))
    row = graph.node("Slice", ["inputs", at["waves"], at["rows"], axis])
    scalars = graph.node("Flatten", [graph.node("Slice", [row, at["zero"], at["scalars"], time])], axis=1)
    waves = graph.node("Slice", ["inputs", at["zero"], at["waves"], axis])
    first = graph.node("LogSoftmax", [_add_convolutional(graph, network.convolutional, waves, scalars)], axis=-1)
    half_rate = graph.average_pool(graph.node("Slice", ["inputs", at["zero"], at["dense.rows"], axis]), DENSE_POOL)
    x = graph.concat([graph.node("Flatten", [half_rate], axis=1), scalars])
    x = graph.relu(graph.gemm(x, network.dense.first, name="dense.first"))
    x = graph.relu(graph.gemm(x, network.dense.second, name="dense.second"))
    second = graph.node("LogSoftmax", [graph.gemm(x, network.dense.output, name="dense.output")], axis=-1)
    total = graph.add(graph.add(first, second), graph.constant("bias", 2 * bias))
    graph.save(graph.softmax(total, 2 * temperature), ["n", len(CLASSES)], facts, path)


def _add_convolutional(graph: Graph, network: ConvolutionalNet, waves: str, scalars: str) -> str:
    """Add the convolutional network; returns its logits."""
    x = waves
    for name, convolution, norm in zip(NAMES, network.convolutions, network.norms, strict=True):
        x = graph.relu(graph.conv(x, convolution, norm, name=name))
        if name == "second":
            x = graph.max_pool(x, POOL)
    squeezed = graph.node("Flatten", [graph.relu(graph.conv(x, network.squeeze))], axis=1)
    numbers = graph.relu(graph.gemm(scalars, network.numbers, name="numbers"))
    numbers = graph.relu(graph.gemm(numbers, network.rhythm, name="rhythm"))
    combined = graph.concat([graph.max_over_time(x), squeezed, numbers])
    return graph.gemm(graph.relu(graph.gemm(combined, network.hidden, name="hidden")), network.output, name="output")


def logits(network: BeatNet, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the logits of many beats, (n, 4)."""
    network.eval()
    with torch.inference_mode():
        parts = [network(torch.from_numpy(part)).numpy() for part in np.array_split(inputs, max(1, len(inputs) // 4096))]
    return np.concatenate(parts).astype(np.float64)
