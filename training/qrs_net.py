"""The network of `ecg_qrs` in PyTorch, and the same computation as an ONNX graph."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from models.signal.beat_classifier import FEATURE_COUNT, INPUT_SIZE, ROWS, WINDOW
from training.fit import Batch
from training.graph import Graph
from training.qrs_data import Bumps

CHANNELS: Final = ((ROWS, 16, 7, 2), (16, 24, 5, 2), (24, 24, 5, 2))
"""Convolutions: channels in, channels out, width, stride; each followed by a ReLU."""

LENGTH: Final = -(-WINDOW // 8)
"""Samples that are left after three strides of 2."""

HIGHEST: Final = 2.0
"""The last convolution's output is cut there. One value in ten thousand would be more, and the range makes int8's error."""

HIDDEN: Final = (48, 24)
"""The situation's numbers come in after the first dense layer, which is int8: their range is another."""

BATCH: Final = 512
PLACE_WEIGHT: Final = 1.0
"""Of the place's error beside that of the decision: one `OFFSET_UNIT` off costs as much as a beat thought a little unlikely."""


class QrsNet(nn.Module):  # type: ignore[misc]  # PyTorch is not there for the type checker
    """Convolutions over a second, its outcome beside the situation's numbers, three dense layers: 26 thousand parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(i, o, w, s, padding=w // 2) for i, o, w, s in CHANNELS)
        first, second = HIDDEN
        self.hidden = nn.ModuleList((nn.Linear(CHANNELS[-1][1] * LENGTH, first), nn.Linear(first + FEATURE_COUNT, second)))
        self.output = nn.Linear(second, 2)

    def forward(self, x: Any) -> Any:
        """(n, 265) values to (n, 2): a logit, and the R peak's place in `OFFSET_UNIT` samples."""
        rows = x[:, :-FEATURE_COUNT].reshape(-1, ROWS, WINDOW)
        for convolution in self.convolutions:
            rows = torch.relu(convolution(rows))
        seen = torch.relu(self.hidden[0](rows.clamp(max=HIGHEST).flatten(1)))
        return self.output(torch.relu(self.hidden[1](torch.cat([seen, x[:, -FEATURE_COUNT:]], 1))))


def batches(bumps: Bumps, seed: int) -> Iterator[Batch]:
    """Endless: every bump once a round."""
    random = np.random.default_rng(seed)
    while True:
        order = random.permutation(len(bumps.beats))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = bumps[np.sort(order[start : start + BATCH])]
            yield torch.from_numpy(chosen.values), (torch.from_numpy(chosen.beats), torch.from_numpy(chosen.places))


def loss(outputs: Any, targets: Any) -> Any:
    """Cross-entropy of the decision, and of beats the absolute error of the place."""
    beats, places = targets
    decision = nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], beats)
    return decision + PLACE_WEIGHT * ((outputs[:, 1] - places).abs() * beats).mean()


def parameters(network: QrsNet) -> int:
    """How many weights it has."""
    return sum(tensor.numel() for tensor in network.parameters())


def to_onnx(network: QrsNet, temperature: float, facts: Mapping[str, str], path: Path) -> None:
    """Write the network: `values` (n, 265) → `probability` (n, 2), the probability and the R peak's place."""
    graph = Graph("values", ["n", INPUT_SIZE])
    rows = _slice(graph, "values", "rows", 0, INPUT_SIZE - FEATURE_COUNT)
    x = graph.node("Reshape", [rows, graph.constant("window", np.array([-1, ROWS, WINDOW]))])
    limits = [graph.constant(name, np.array(value)) for name, value in (("lowest", 0.0), ("highest", HIGHEST))]
    *first, last = network.convolutions
    for place, convolution in enumerate(first):
        x = graph.relu(graph.conv(x, convolution, name=f"convolution{place}"))
    x = graph.node("Clip", [graph.conv(x, last, name=f"convolution{len(first)}"), *limits])
    x = graph.relu(graph.gemm(graph.node("Flatten", [x], axis=1), network.hidden[0], name="hidden0"))
    x = graph.concat([x, _slice(graph, "values", "numbers", INPUT_SIZE - FEATURE_COUNT, INPUT_SIZE)])
    x = graph.relu(graph.gemm(x, network.hidden[1], name="hidden1"))
    x = graph.gemm(x, _calibrated(network.output, temperature), name="output")
    probability = graph.node("Sigmoid", [_slice(graph, x, "logit", 0, 1)])
    graph.save(graph.concat([probability, _slice(graph, x, "place", 1, 2)]), ["n", 2], facts, path)


def _calibrated(output: Any, temperature: float) -> Any:
    """The layer whose first outcome, the logit, is divided by the temperature."""
    scaled = copy.deepcopy(output)
    with torch.no_grad():
        scaled.weight[0] /= temperature
        scaled.bias[0] /= temperature
    return scaled


def _slice(graph: Graph, x: str, name: str, start: int, end: int) -> str:
    bounds = (("first", start), ("end", end), ("axis", 1))
    return graph.node("Slice", [x, *(graph.constant(f"{name}.{part}", np.array([value])) for part, value in bounds)], name)
