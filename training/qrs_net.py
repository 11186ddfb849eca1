"""The network of `ecg_qrs` in PyTorch, and the same computation as an ONNX graph."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from models.signal.beat_classifier import FEATURE_COUNT, INPUT_SIZE, ROWS, WINDOW_SAMPLES
from training.fit import Batch
from training.graph import Graph
from training.qrs_data import Candidates

CHANNELS: Final = ((ROWS, 16, 7, 2), (16, 24, 5, 2), (24, 24, 5, 2))
"""Convolutions: channels in, channels out, width, stride; each followed by a ReLU."""

REMAINING_STEPS: Final = -(-WINDOW_SAMPLES // 8)
"""Time steps that remain after three strides of 2."""

MAX_ACTIVATION: Final = 2.0
"""The output of the last convolution is clipped there. One value in ten thousand would be larger, and would widen the int8
range and with it the error."""

HIDDEN: Final = (48, 24)
"""Sizes of the hidden layers. The seven numbers enter after the first one, which is int8, because their range differs."""

BATCH: Final = 512
OFFSET_WEIGHT: Final = 1.0
"""Weight of the offset loss relative to the decision loss: an offset one `OFFSET_UNIT_SAMPLES` off costs as much as a beat
rated slightly unlikely."""


class QrsNet(nn.Module):  # type: ignore[misc]  # PyTorch is not installed for the type checker
    """Convolutions over one second of signal, then three dense layers, joined by the seven numbers: 26 thousand parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(i, o, w, s, padding=w // 2) for i, o, w, s in CHANNELS)
        first, second = HIDDEN
        self.hidden = nn.ModuleList(
            (nn.Linear(CHANNELS[-1][1] * REMAINING_STEPS, first), nn.Linear(first + FEATURE_COUNT, second))
        )
        self.output = nn.Linear(second, 2)

    def forward(self, x: Any) -> Any:
        """Return, for values (n, 265), a logit and the offset of the R peak in `OFFSET_UNIT_SAMPLES` samples, (n, 2)."""
        rows = x[:, :-FEATURE_COUNT].reshape(-1, ROWS, WINDOW_SAMPLES)
        for convolution in self.convolutions:
            rows = torch.relu(convolution(rows))
        signal_features = torch.relu(self.hidden[0](rows.clamp(max=MAX_ACTIVATION).flatten(1)))
        return self.output(torch.relu(self.hidden[1](torch.cat([signal_features, x[:, -FEATURE_COUNT:]], 1))))


def batches(candidates: Candidates, seed: int) -> Iterator[Batch]:
    """Yield batches without end, every candidate once per epoch."""
    random = np.random.default_rng(seed)
    while True:
        order = random.permutation(len(candidates.beats))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = candidates[np.sort(order[start : start + BATCH])]
            yield torch.from_numpy(chosen.values), (torch.from_numpy(chosen.beats), torch.from_numpy(chosen.offsets))


def loss(outputs: Any, targets: Any) -> Any:
    """Return the cross-entropy of the decision plus, for beats, the absolute error of the offset."""
    beats, offsets = targets
    decision = nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], beats)
    return decision + OFFSET_WEIGHT * ((outputs[:, 1] - offsets).abs() * beats).mean()


def count_parameters(network: QrsNet) -> int:
    """Return the number of trainable weights."""
    return sum(tensor.numel() for tensor in network.parameters())


def write_onnx(network: QrsNet, temperature: float, facts: Mapping[str, str], path: Path) -> None:
    """Write the network: `values` (n, 265) → `probability` (n, 2), the probability and the offset of the R peak."""
    graph = Graph("values", ["n", INPUT_SIZE])
    rows = _slice(graph, "values", "rows", 0, INPUT_SIZE - FEATURE_COUNT)
    x = graph.node("Reshape", [rows, graph.constant("window", np.array([-1, ROWS, WINDOW_SAMPLES]))])
    limits = [graph.constant(name, np.array(value)) for name, value in (("lowest", 0.0), ("highest", MAX_ACTIVATION))]
    *first, last = network.convolutions
    for index, convolution in enumerate(first):
        x = graph.relu(graph.conv(x, convolution, name=f"convolution{index}"))
    x = graph.node("Clip", [graph.conv(x, last, name=f"convolution{len(first)}"), *limits])
    x = graph.relu(graph.gemm(graph.node("Flatten", [x], axis=1), network.hidden[0], name="hidden0"))
    x = graph.concat([x, _slice(graph, "values", "numbers", INPUT_SIZE - FEATURE_COUNT, INPUT_SIZE)])
    x = graph.relu(graph.gemm(x, network.hidden[1], name="hidden1"))
    x = graph.gemm(x, _calibrated(network.output, temperature), name="output")
    probability = graph.node("Sigmoid", [_slice(graph, x, "logit", 0, 1)])
    graph.save(graph.concat([probability, _slice(graph, x, "offset", 1, 2)]), ["n", 2], facts, path)


def _calibrated(output: Any, temperature: float) -> Any:
    """Return the output layer with its logit divided by the temperature."""
    scaled = copy.deepcopy(output)
    with torch.no_grad():
        scaled.weight[0] /= temperature
        scaled.bias[0] /= temperature
    return scaled


def _slice(graph: Graph, x: str, name: str, start: int, end: int) -> str:
    bounds = (("first", start), ("end", end), ("axis", 1))
    return graph.node("Slice", [x, *(graph.constant(f"{name}.{part}", np.array([value])) for part, value in bounds)], name)
