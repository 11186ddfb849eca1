"""The network of `rr_af` as it is trained: what is written to ONNX, and the rescaling before quantization."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.inference.rr_af import FEATURES, WINDOW
from models.inference.session import ModelSession
from training.rr_equal import equalised
from training.rr_net import RrNet, logits, to_onnx


@pytest.fixture
def network() -> RrNet:
    """Untrained, but with uneven channels."""
    torch.manual_seed(1)
    made = RrNet()
    for layer in made.convolutions:
        with torch.no_grad():
            layer.weight.mul_(torch.empty(layer.weight.shape[0], 1, 1).uniform_(0.2, 4))
    return made.eval()


@pytest.fixture
def windows() -> np.ndarray:
    made = np.random.default_rng(2).normal(0, 1, (8, FEATURES, WINDOW)).astype(np.float32)
    made[:, 1] = np.random.default_rng(3).random((8, WINDOW)) < 0.8
    return made


def test_what_is_written_computes_the_same(network: RrNet, windows: np.ndarray, tmp_path: Path) -> None:
    to_onnx(network, 1.5, {"name": "rr_af", "version": "1"}, tmp_path / "m.onnx")
    said = ModelSession("rr_af", (tmp_path / "m.onnx").read_bytes()).run(windows)[:, 0]
    np.testing.assert_allclose(said, 1 / (1 + np.exp(-logits(network, windows) / 1.5)), atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.65, 1.0])
def test_like_ranges_change_nothing(network: RrNet, windows: np.ndarray, share: float) -> None:
    other = equalised(network, windows, share)
    np.testing.assert_allclose(logits(other, windows), logits(network, windows), rtol=1e-3, atol=1e-3)
    assert not torch.equal(other.convolutions[0].weight, network.convolutions[0].weight)


def test_ranges_become_alike(network: RrNet, windows: np.ndarray) -> None:
    def spread(of: RrNet) -> float:
        with torch.inference_mode():
            tops = torch.relu(of.convolutions[0](torch.from_numpy(windows))).amax((0, 2))
        return float(tops.max() / tops.median())

    assert spread(equalised(network, windows, 1.0)) < spread(network)
