"""From weights to a released graph: ONNX nodes against numpy, int8 against float, without PyTorch."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from models.inference.session import ModelSession
from training.graph import Graph
from training.quantize import measure_parity, quantize, run_model

FACTS = {"name": "example", "version": "1"}


class Tensor:
    """The part of a PyTorch tensor that the graph uses."""

    def __init__(self, values: NDArray[np.float64]) -> None:
        self.values = values.astype(np.float32)

    def detach(self) -> "Tensor":
        return self

    def numpy(self) -> NDArray[np.float32]:
        return self.values


def random_array(seed: int, *shape: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, 0.5, shape)


def conv_layer(seed: int, out: int, inside: int, width: int, stride: int) -> Any:
    return SimpleNamespace(
        weight=Tensor(random_array(seed, out, inside, width)),
        bias=Tensor(random_array(seed + 1, out)),
        padding=(width // 2,),
        stride=(stride,),
        dilation=(1,),
        groups=1,
    )


def norm_layer(seed: int, count: int) -> Any:
    return SimpleNamespace(
        weight=Tensor(random_array(seed, count)),
        bias=Tensor(random_array(seed + 1, count)),
        running_mean=Tensor(random_array(seed + 2, count)),
        running_var=Tensor(np.abs(random_array(seed + 3, count)) + 0.1),
        eps=1e-5,
    )


def dense_layer(seed: int, out: int, inside: int) -> Any:
    return SimpleNamespace(weight=Tensor(random_array(seed, out, inside)), bias=Tensor(random_array(seed + 1, out)))


def convolve(x: NDArray[np.float64], layer: Any) -> NDArray[np.float64]:
    """Convolve by definition: (n, in, time) → (n, out, time / stride)."""
    weight, width = layer.weight.values, layer.weight.values.shape[-1]
    padded = np.pad(x, ((0, 0), (0, 0), (width // 2, width // 2)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1)[:, :, :: layer.stride[0]]
    out: NDArray[np.float64] = np.einsum("nitw,oiw->not", windows, weight) + layer.bias.values[:, None]
    return out


def normalise(x: NDArray[np.float64], norm: Any) -> NDArray[np.float64]:
    scale = norm.weight.values / np.sqrt(norm.running_var.values + norm.eps)
    out: NDArray[np.float64] = (x - norm.running_mean.values[:, None]) * scale[:, None] + norm.bias.values[:, None]
    return out


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    power = np.exp(logits - logits.max(-1, keepdims=True))
    shares: NDArray[np.float64] = power / power.sum(-1, keepdims=True)
    return shares


def write_small_network(path: Path) -> Any:
    """Write two convolutions, one with a norm, mean and maximum, a dense layer and a softmax; return the same in numpy."""
    first, norm, second = conv_layer(1, 8, 2, 5, 2), norm_layer(5, 8), conv_layer(11, 6, 8, 3, 1)
    dense = dense_layer(21, 3, 12)
    graph = Graph("features", ["n", 2, 64])
    x = graph.relu(graph.conv("features", first, norm, name="first"))
    x = graph.relu(graph.conv(x, second))
    x = graph.gemm(graph.concat([graph.mean_over_time(x), graph.max_over_time(x)]), dense, name="output")
    graph.save(graph.softmax(x, 2.0), ["n", 3], FACTS, path)

    def compute_in_numpy(features: NDArray[np.float32]) -> NDArray[np.float64]:
        y = np.maximum(normalise(convolve(features.astype(np.float64), first), norm), 0)
        y = np.maximum(convolve(y, second), 0)
        y = np.concatenate([y.mean(-1), y.max(-1)], -1) @ dense.weight.values.T + dense.bias.values
        return softmax(y / 2)

    return compute_in_numpy


@pytest.fixture
def windows() -> NDArray[np.float32]:
    return np.random.default_rng(9).normal(0, 0.4, (300, 2, 64)).astype(np.float32)


def test_the_graph_computes_the_same_as_numpy(tmp_path: Path, windows: NDArray[np.float32]) -> None:
    compute_in_numpy = write_small_network(tmp_path / "example.onnx")
    np.testing.assert_allclose(run_model(tmp_path / "example.onnx", windows), compute_in_numpy(windows), atol=1e-5)


def test_writes_identical_files_in_every_run(tmp_path: Path) -> None:
    write_small_network(tmp_path / "one.onnx")
    write_small_network(tmp_path / "other.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "other.onnx").read_bytes()


def test_the_agent_loads_the_file(tmp_path: Path, windows: NDArray[np.float32]) -> None:
    write_small_network(tmp_path / "example.onnx")
    session = ModelSession("example", (tmp_path / "example.onnx").read_bytes())
    assert session.version == "1"
    assert session.run(windows[:4]).shape == (4, 3)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda graph: graph.max_pool("x", 2), [2.0, 4.0]),
        (lambda graph: graph.average_pool("x", 2), [1.5, 3.5]),
        (lambda graph: graph.add("x", graph.relu("x")), [2.0, 4.0, 6.0, 8.0]),
        (lambda graph: graph.mul("x", graph.constant("half", np.array([0.5]))), [0.5, 1.0, 1.5, 2.0]),
        (lambda graph: graph.sigmoid("x", 2.0), (1 / (1 + np.exp(-np.arange(1, 5) / 2))).tolist()),
    ],
    ids=["max_pool", "average_pool", "add", "mul", "sigmoid"],
)
def test_single_nodes_match_a_manual_computation(tmp_path: Path, build: Any, expected: list[float]) -> None:
    graph = Graph("x", ["n", 1, 4])
    graph.save(build(graph), ["n", 1, len(expected)], FACTS, tmp_path / "node.onnx")
    out = ModelSession("example", (tmp_path / "node.onnx").read_bytes()).run(np.arange(1, 5, dtype=np.float32).reshape(1, 1, 4))
    np.testing.assert_allclose(out.ravel(), expected, rtol=1e-6)


@pytest.mark.filterwarnings("ignore")  # onnxruntime's quantizer uses deprecated functions
def test_int8_is_close_to_float(tmp_path: Path, windows: NDArray[np.float32]) -> None:
    write_small_network(tmp_path / "float.onnx")
    quantize(tmp_path / "float.onnx", tmp_path / "int8.onnx", windows[:200], ("output",))
    assert not (tmp_path / "int8.qdq.onnx").exists()
    found = measure_parity(tmp_path / "float.onnx", tmp_path / "int8.onnx", windows)
    one, other = (run_model(tmp_path / f"{name}.onnx", windows) for name in ("float", "int8"))
    assert found.windows == 300
    assert found.largest_change == pytest.approx(np.abs(one - other).max())
    assert found.agreement == np.mean(one.argmax(-1) == other.argmax(-1))
    assert 0 < found.largest_change < 0.05
    assert found.agreement > 0.97


@pytest.mark.filterwarnings("ignore")
def test_an_unrounded_input_is_not_clipped_either(tmp_path: Path, windows: NDArray[np.float32]) -> None:
    write_small_network(tmp_path / "float.onnx")
    changes = {}
    for names in ((), ("first",)):
        quantize(
            tmp_path / "float.onnx",
            tmp_path / "int8.onnx",
            windows[:200] / 8,
            ("output",),
            float_outputs=True,
            float_inputs=names,
        )
        changes[names] = measure_parity(tmp_path / "float.onnx", tmp_path / "int8.onnx", windows).largest_change
        weights = [tensor.data_type for tensor in onnx.load(tmp_path / "int8.onnx").graph.initializer if len(tensor.dims) == 3]
        assert weights == [onnx.TensorProto.INT8] * 2
    assert changes["first",] < 0.9 * changes[()]


def test_a_model_agrees_with_itself(tmp_path: Path, windows: NDArray[np.float32]) -> None:
    write_small_network(tmp_path / "float.onnx")
    found = measure_parity(tmp_path / "float.onnx", tmp_path / "float.onnx", windows)
    assert (found.agreement, found.largest_change) == (1.0, 0.0)
