"""The PyTorch network of `rr_af`: its ONNX export, the folds for an evaluation, and the equalisation before quantization."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from captures.rhythms import Rhythm
from models.inference.rr_af import ROWS, WINDOW_INTERVALS, RrAf
from models.inference.session import ModelSession
from training.rr_cv import CalibratedNetwork, write_folds
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


def test_each_fold_lists_the_records_that_its_network_did_not_learn_from(network: RrNet, tmp_path: Path) -> None:
    def rhythm(database: str, name: str) -> Rhythm:
        return Rhythm(database, name, 0.001, np.arange(3.0), np.zeros(3, np.int8))

    groups = [[rhythm("afdb", "04015"), rhythm("cinc2017 N", "A00001")], [rhythm("nsr2db", "nsr001")]]
    models = [CalibratedNetwork(network, 0.9, temperature) for temperature in (1.0, 2.0)]
    facts = {"name": "rr_af", "version": "1", "on_threshold": "0.9"}
    write_folds(zip(models, groups, strict=True), facts, tmp_path)
    assert json.loads((tmp_path / "folds.json").read_text()) == {"fold0": ["afdb/04015"], "fold1": ["nsr2db/nsr001"]}
    rr_s, valid = np.random.default_rng(4).uniform(0.4, 1.2, (5, WINDOW_INTERVALS)), np.ones((5, WINDOW_INTERVALS), np.bool_)
    for fold, model in zip(("fold0", "fold1"), models, strict=True):
        written = RrAf((tmp_path / fold / "rr_af.onnx").read_bytes())
        np.testing.assert_allclose(written.probabilities(rr_s, valid), model.probabilities(rr_s, valid), atol=1e-5)
        assert written.on_threshold == model.on_threshold


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
