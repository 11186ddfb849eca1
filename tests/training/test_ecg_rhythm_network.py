"""The PyTorch network of `ecg_rhythm`: its ONNX export, and the equalisation before quantization."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.inference.ecg_rhythm import ROWS, WINDOW_SAMPLES
from models.inference.session import ModelSession
from training.rhythm_data import class_target, stretch_time
from training.rhythm_equalise import equalise_channels
from training.rhythm_net import RhythmNet, write_onnx
from training.rhythm_score import Calibration

CALIBRATION = Calibration(0.8, (0.0, -0.4, 0.3, 0.0))
FACTS = {"name": "ecg_rhythm", "version": "1", "lowest_probability": "0.6"}


@pytest.fixture
def network() -> RhythmNet:
    """An untrained network with uneven channels."""
    torch.manual_seed(1)
    created = RhythmNet()
    for layer in created.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.2, 5)
            torch.nn.init.uniform_(layer.weight, 0.05, 3)
    return created.eval()


@pytest.fixture
def windows() -> np.ndarray:
    return np.random.default_rng(2).normal(0, 1, (8, ROWS, WINDOW_SAMPLES)).astype(np.float32)


def logits(network: RhythmNet, windows: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return network(torch.from_numpy(windows)).numpy()


def test_the_exported_graph_computes_the_same(network: RhythmNet, windows: np.ndarray, tmp_path: Path) -> None:
    write_onnx(network, CALIBRATION, FACTS, tmp_path / "m.onnx")
    output = ModelSession("ecg_rhythm", (tmp_path / "m.onnx").read_bytes()).run(windows)
    np.testing.assert_allclose(output, CALIBRATION.probabilities(logits(network, windows)), atol=1e-5)


@pytest.mark.parametrize("strength", [0.0, 0.65, 1.0])
def test_equalisation_changes_no_output(network: RhythmNet, windows: np.ndarray, strength: float) -> None:
    before = logits(network, windows)
    equalised = equalise_channels(network, windows, strength)
    np.testing.assert_allclose(logits(equalised, windows), before, rtol=1e-3, atol=1e-3)
    assert not torch.equal(equalised.blocks[0].first.weight, network.blocks[0].first.weight)


def test_equalisation_makes_ranges_equal(network: RhythmNet, windows: np.ndarray) -> None:
    def spread(measured: RhythmNet) -> float:
        with torch.inference_mode():
            x = torch.relu(measured.stem_norm(measured.stem(torch.from_numpy(windows)[:, :, None]))).amax((0, 2, 3))
        return float(x.max() / x.median())

    assert spread(equalise_channels(network, windows, 1.0)) == pytest.approx(1, abs=0.01)
    assert spread(network) > 1.3


def test_noise_takes_its_share_of_a_label() -> None:
    assert class_target(2).tolist() == [0, 0, 1, 0]
    assert class_target(1, 0.25).tolist() == [0, 0.75, 0, 0.25]
    assert class_target(3, 0.25).tolist() == [0, 0, 0, 1]


def test_stretching_slows_the_signal() -> None:
    beat = np.sin(2 * np.pi * np.arange(1000) / 100)
    slower = stretch_time(beat, 1.1)
    assert slower.size == 1100
    np.testing.assert_allclose(slower[:1000], np.sin(2 * np.pi * np.arange(1000) / 110), atol=2e-3)
