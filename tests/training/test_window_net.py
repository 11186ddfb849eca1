"""The network over windows: its ONNX graph computes the same, and the networks of both models have the size that they say."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.inference.ecg_organised import COLUMNS
from models.inference.ecg_quality import WINDOW_SAMPLES
from training import organised_net, quality_net
from training.quantize import run_model
from training.window_net import WindowNet, count_parameters, logits, recompute_norm_statistics, write_onnx


@pytest.mark.parametrize(
    ("network", "columns", "parameters"),
    [(organised_net.make_network(), COLUMNS, 28_000), (quality_net.make_network(), WINDOW_SAMPLES, 29_000)],
)
def test_the_graph_computes_what_the_network_computes(
    network: WindowNet, columns: int, parameters: int, tmp_path: Path
) -> None:
    inputs = np.random.default_rng(1).normal(0, 1, (700, 2, columns)).astype(np.float32)
    network = recompute_norm_statistics(network, iter([(torch.from_numpy(inputs[:64]), None)] * 3), 3)
    write_onnx(network, columns, 2.0, {"name": "test", "version": "1"}, tmp_path / "model.onnx")
    shares = np.exp(logits(network, inputs, lambda part: part) / 2.0)
    np.testing.assert_allclose(run_model(tmp_path / "model.onnx", inputs), shares / shares.sum(-1, keepdims=True), atol=1e-5)
    assert count_parameters(network) == pytest.approx(parameters, rel=0.05)
