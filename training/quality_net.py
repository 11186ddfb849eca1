"""The network of `ecg_quality` in PyTorch, and the same computation as an ONNX graph."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.inference.ecg_quality import CLASSES, ROWS, WINDOW_SAMPLES, features
from training.fit import Batch
from training.graph import Graph
from training.quality_data import Windows

CHANNELS: Final = ((ROWS, 16, 9, 2), (16, 24, 7, 2), (24, 32, 7, 2), (32, 40, 5, 2), (40, 48, 5, 1))
"""Convolutions: channels in, channels out, width, stride; each followed by a batch normalisation and a ReLU."""

HIDDEN: Final = 32
BATCH: Final = 128
STATISTICS_BATCHES: Final = 40
"""Batches over which the means and variances of the finished network are computed."""


class QualityNet(nn.Module):  # type: ignore[misc]  # PyTorch is not installed for the type checker
    """Convolutions over ten seconds, mean and maximum over time, two dense layers: 29 thousand parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(i, o, w, s, padding=w // 2, bias=False) for i, o, w, s in CHANNELS)
        self.norms = nn.ModuleList(nn.BatchNorm1d(o) for _, o, _, _ in CHANNELS)
        self.hidden = nn.Linear(2 * CHANNELS[-1][1], HIDDEN)
        self.output = nn.Linear(HIDDEN, len(CLASSES))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Any) -> Any:
        """Return logits (n, 3) of features (n, 2, 1250)."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = torch.relu(norm(convolution(x)))
        x = torch.cat([x.mean(-1), x.amax(-1)], -1)
        return self.output(self.dropout(torch.relu(self.hidden(x))))


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


def recompute_norm_statistics(network: QualityNet, windows: Windows, seed: int) -> QualityNet:
    """Recompute the means and variances of the batch normalisations: those kept in training do not fit the averaged weights."""
    stream = batches(windows, seed)
    torch.optim.swa_utils.update_bn((next(stream)[0] for _ in range(STATISTICS_BATCHES)), network)
    recomputed: QualityNet = network.eval()
    return recomputed


def loss(outputs: Any, targets: Any) -> Any:
    """Return the weighted cross-entropy."""
    labels, weights = targets
    return (nn.functional.cross_entropy(outputs, labels, reduction="none") * weights).sum() / weights.sum()


def logits(network: QualityNet, mv: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the logits (n, 3) of many windows (n, 1250)."""
    network.eval()
    with torch.inference_mode():
        parts = [network(torch.from_numpy(features(part))).numpy() for part in np.array_split(mv, len(mv) // 512 + 1)]
    return np.concatenate(parts).astype(np.float64)


def count_parameters(network: QualityNet) -> int:
    """Return the number of trainable weights."""
    return sum(tensor.numel() for tensor in network.parameters())


def write_onnx(network: QualityNet, temperature: float, facts: Mapping[str, str], path: Path) -> None:
    """Write the network and a softmax of its logits over the temperature: `features` (n, 2, 1250) → `probability` (n, 3)."""
    graph = Graph("features", ["n", ROWS, WINDOW_SAMPLES])
    x = "features"
    for index, (convolution, norm) in enumerate(zip(network.convolutions, network.norms, strict=True)):
        x = graph.relu(graph.conv(x, convolution, norm, name=f"convolution{index}"))
    x = graph.concat([graph.mean_over_time(x), graph.max_over_time(x)])
    x = graph.gemm(graph.relu(graph.gemm(x, network.hidden, name="hidden")), network.output, name="output")
    graph.save(graph.softmax(x, temperature), ["n", len(CLASSES)], facts, path)
