"""The PyTorch network of `rr_af`: its ONNX export, and the equalisation before quantization."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.inference.rr_af import ROWS, WINDOW_INTERVALS
from models.inference.session import ModelSession
from training.rr_equalise import equalise_channels
from training.rr_net import RrNet, logits, write_onnx


@pytest.fixture
def network() -> RrNet:
    """An untrained network with uneven channels."""
    torch.manual_seed(1)
    created = RrNet()
    for layer in created.convolutions:
        with torch.no_grad():
            layer.weight.mul_(torch.empty(layer.weight.shape[0], 1, 1).uniform_(0.2, 4))
    return created.eval()


@pytest.fixture
def windows() -> np.ndarray:
    created = np.random.default_rng(2).normal(0, 1, (8, ROWS, WINDOW_INTERVALS)).astype(np.float32)
    created[:, 1] = np.random.default_rng(3).random((8, WINDOW_INTERVALS)) < 0.8
    return created


def test_the_exported_graph_computes_the_same(network: RrNet, windows: np.ndarray, tmp_path: Path) -> None:
    write_onnx(network, 1.5, {"name": "rr_af", "version": "1"}, tmp_path / "m.onnx")
    output = ModelSession("rr_af", (tmp_path / "m.onnx").read_bytes()).run(windows)[:, 0]
    np.testing.assert_allclose(output, 1 / (1 + np.exp(-logits(network, windows) / 1.5)), atol=1e-5)


@pytest.mark.parametrize("strength", [0.0, 0.65, 1.0])
def test_equalisation_changes_no_output(network: RrNet, windows: np.ndarray, strength: float) -> None:
    equalised = equalise_channels(network, windows, strength)
    np.testing.assert_allclose(logits(equalised, windows), logits(network, windows), rtol=1e-3, atol=1e-3)
    assert not torch.equal(equalised.convolutions[0].weight, network.convolutions[0].weight)


def test_equalisation_makes_ranges_more_equal(network: RrNet, windows: np.ndarray) -> None:
    def spread(measured: RrNet) -> float:
        with torch.inference_mode():
            maxima = torch.relu(measured.convolutions[0](torch.from_numpy(windows))).amax((0, 2))
        return float(maxima.max() / maxima.median())

    assert spread(equalise_channels(network, windows, 1.0)) < spread(network)
