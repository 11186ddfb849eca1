"""The network of `ecg_rhythm` as it is trained: what is written to ONNX, and the rescaling before quantization."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.inference.ecg_rhythm import ROWS, WINDOW
from models.inference.session import ModelSession
from training.rhythm_data import stretched, target
from training.rhythm_equal import equalised
from training.rhythm_net import RhythmNet, to_onnx
from training.rhythm_score import Calibration

CALIBRATION = Calibration(0.8, (0.0, -0.4, 0.3, 0.0))
FACTS = {"name": "ecg_rhythm", "version": "1", "lowest_probability": "0.6"}


@pytest.fixture
def network() -> RhythmNet:
    """Untrained, but with uneven channels."""
    torch.manual_seed(1)
    made = RhythmNet()
    for layer in made.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.2, 5)
            torch.nn.init.uniform_(layer.weight, 0.05, 3)
    return made.eval()


@pytest.fixture
def windows() -> np.ndarray:
    return np.random.default_rng(2).normal(0, 1, (8, ROWS, WINDOW)).astype(np.float32)


def logits(network: RhythmNet, windows: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return network(torch.from_numpy(windows)).numpy()


def test_what_is_written_computes_the_same(network: RhythmNet, windows: np.ndarray, tmp_path: Path) -> None:
    to_onnx(network, CALIBRATION, FACTS, tmp_path / "m.onnx")
    said = ModelSession("ecg_rhythm", (tmp_path / "m.onnx").read_bytes()).run(windows)
    np.testing.assert_allclose(said, CALIBRATION.probabilities(logits(network, windows)), atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.65, 1.0])
def test_like_ranges_change_nothing(network: RhythmNet, windows: np.ndarray, share: float) -> None:
    before = logits(network, windows)
    other = equalised(network, windows, share)
    np.testing.assert_allclose(logits(other, windows), before, rtol=1e-3, atol=1e-3)
    assert not torch.equal(other.blocks[0].first.weight, network.blocks[0].first.weight)


def test_ranges_become_alike(network: RhythmNet, windows: np.ndarray) -> None:
    def spread(of: RhythmNet) -> float:
        with torch.inference_mode():
            x = torch.relu(of.stem_norm(of.stem(torch.from_numpy(windows)[:, :, None]))).amax((0, 2, 3))
        return float(x.max() / x.median())

    assert spread(equalised(network, windows, 1.0)) == pytest.approx(1, abs=0.01)
    assert spread(network) > 1.3


def test_a_drowned_label_is_shared_with_noise() -> None:
    assert target(2).tolist() == [0, 0, 1, 0]
    assert target(1, 0.25).tolist() == [0, 0.75, 0, 0.25]
    assert target(3, 0.25).tolist() == [0, 0, 0, 1]


def test_stretched_heart_beats_slower() -> None:
    beat = np.sin(2 * np.pi * np.arange(1000) / 100)
    slower = stretched(beat, 1.1)
    assert slower.size == 1100
    np.testing.assert_allclose(slower[:1000], np.sin(2 * np.pi * np.arange(1000) / 110), atol=2e-3)
