"""Writes a PyTorch network as an ONNX graph, node by node, without PyTorch's exporter: small, and identical in every run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET: Final = 17


class Graph:
    """Builds a graph with one input and one output. Every method adds a node and returns the name of its output.

    Nodes are named by their operator and a running number (`conv0`, `gemm7`), or by `name`.
    """

    def __init__(self, input_name: str, shape: Sequence[int | str]) -> None:
        self.input_name = input_name
        self._shape = list(shape)
        self._nodes: list[Any] = []
        self._values: dict[str, NDArray[Any]] = {}

    def conv(self, x: str, layer: Any, norm: Any = None, *, name: str | None = None) -> str:
        """Add a `Conv1d`, with the batch normalisation that follows it folded into its weights."""
        weight = layer.weight.detach().numpy().astype(np.float64)
        bias = np.zeros(weight.shape[0]) if layer.bias is None else layer.bias.detach().numpy().astype(np.float64)
        if norm is not None:
            scale = norm.weight.detach().numpy() / np.sqrt(norm.running_var.numpy().astype(np.float64) + norm.eps)
            weight = weight * scale[:, None, None]
            bias = (bias - norm.running_mean.numpy()) * scale + norm.bias.detach().numpy()
        name = name or f"conv{len(self._nodes)}"
        pads = [*layer.padding, *layer.padding]
        return self.node(
            "Conv",
            [x, self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)],
            name,
            pads=pads,
            strides=list(layer.stride),
            dilations=list(layer.dilation),
            group=layer.groups,
        )

    def gemm(self, x: str, layer: Any, *, name: str | None = None) -> str:
        """Add a `Linear` on (n, features)."""
        name = name or f"gemm{len(self._nodes)}"
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        return self.node(
            "Gemm", [x, self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)], name, transB=1
        )

    def relu(self, x: str) -> str:
        return self.node("Relu", [x])

    def add(self, x: str, y: str) -> str:
        return self.node("Add", [x, y])

    def mul(self, x: str, y: str) -> str:
        return self.node("Mul", [x, y])

    def max_pool(self, x: str, width: int) -> str:
        return self.node("MaxPool", [x], kernel_shape=[width], strides=[width])

    def average_pool(self, x: str, width: int) -> str:
        return self.node("AveragePool", [x], kernel_shape=[width], strides=[width])

    def mean_over_time(self, x: str) -> str:
        """Add a mean over time: (n, channels, time) → (n, channels)."""
        return self.node("ReduceMean", [x], axes=[2], keepdims=0)

    def max_over_time(self, x: str) -> str:
        """Add a maximum over time: (n, channels, time) → (n, channels)."""
        return self.node("ReduceMax", [x], axes=[2], keepdims=0)

    def concat(self, parts: Sequence[str], axis: int = 1) -> str:
        return self.node("Concat", list(parts), axis=axis)

    def softmax(self, x: str, temperature: float) -> str:
        """Add calibrated class probabilities of (n, classes) logits."""
        scaled = self.node("Div", [x, self.constant("temperature", np.array([temperature]))])
        return self.node("Softmax", [scaled], axis=-1)

    def sigmoid(self, x: str, temperature: float) -> str:
        """Add a calibrated probability of a logit."""
        return self.node("Sigmoid", [self.node("Div", [x, self.constant("temperature", np.array([temperature]))])])

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Add a named constant, as float32 unless it holds integers."""
        self._values[name] = value if np.issubdtype(value.dtype, np.integer) else value.astype(np.float32)
        return name

    def node(self, kind: str, inputs: Sequence[str], name: str | None = None, **attributes: Any) -> str:
        """Add any other operator."""
        name = name or f"{kind.lower()}{len(self._nodes)}"
        output = f"{name}.out"
        self._nodes.append(helper.make_node(kind, list(inputs), [output], name, **attributes))
        return output

    def save(self, output: str, shape: Sequence[int | str], facts: Mapping[str, str], path: Path) -> None:
        """Write the model. The value named `output` becomes the graph's output `probability`; `facts` become its metadata."""
        graph = helper.make_graph(
            [*self._nodes, helper.make_node("Identity", [output], ["probability"], "probability")],
            facts["name"],
            [helper.make_tensor_value_info(self.input_name, TensorProto.FLOAT, self._shape)],
            [helper.make_tensor_value_info("probability", TensorProto.FLOAT, list(shape))],
            [numpy_helper.from_array(value, name) for name, value in self._values.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        helper.set_model_props(model, dict(facts))
        onnx.checker.check_model(model, full_check=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, str(path))
