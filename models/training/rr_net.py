"""The network of `rr_af` in PyTorch, and the same computation as an ONNX graph."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from models.inference.rr_af import FEATURES, WINDOW

CHANNELS: Final = ((FEATURES, 24, 5), (24, 32, 5), (32, 32, 5), (32, 40, 3), (40, 48, 3))
"""Convolutions: channels in, channels out, width; each followed by a ReLU."""

POOLED: Final = (1, 3)
"""After these the length is halved: 64 → 32 → 16."""

HIDDEN: Final = 32
FLOAT_NODES: Final = ("conv0", "output")
"""First and last layer, 753 weights: in int8 they would double the largest change of a probability."""

TINY: Final = 1e-3
OPSET: Final = 17


class RrNet(nn.Module):  # type: ignore[misc]  # PyTorch is not there for the type checker
    """Convolutions over 64 intervals, mean and maximum over those that are valid, two dense layers: 22 thousand parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(i, o, width, padding=width // 2) for i, o, width in CHANNELS)
        self.hidden = nn.Linear(2 * CHANNELS[-1][1], HIDDEN)
        self.output = nn.Linear(HIDDEN, 1)
        self.dropout = nn.Dropout(0.2)

    def forward(self, features: Any) -> Any:
        """(n, 6, 64) features to (n,) logits."""
        x = features
        for place, convolution in enumerate(self.convolutions):
            x = torch.relu(convolution(x))
            if place in POOLED:
                x = nn.functional.max_pool1d(x, 2)
        weight = nn.functional.avg_pool1d(features[:, 1:2], 4)
        x = x * weight
        mean = x.sum(-1) / (weight.sum(-1) + TINY)
        x = torch.cat([mean, x.amax(-1)], -1)
        return self.output(self.dropout(torch.relu(self.hidden(x)))).squeeze(-1)


def parameters(network: RrNet) -> int:
    """How many weights it has."""
    return sum(tensor.numel() for tensor in network.parameters())


def to_onnx(network: RrNet, temperature: float, facts: dict[str, str], path: Path) -> None:
    """Write the network, its logit divided by the temperature, and a sigmoid: `features` (n, 6, 64) → `probability` (n, 1)."""
    weights = {name: tensor.detach().numpy().astype(np.float32) for name, tensor in network.state_dict().items()}
    weights |= {"temperature": np.array([temperature], np.float32), "tiny": np.array([TINY], np.float32)}
    index = {name: np.array([value], np.int64) for name, value in {"from": 1, "to": 2, "rows": 1, "time": 2}.items()}
    nodes = [*_convolutions(), *_head()]
    graph = helper.make_graph(
        nodes,
        "rr_af",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", FEATURES, WINDOW])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(value, name) for name, value in (weights | index).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    helper.set_model_props(model, facts)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def _convolutions() -> list[Any]:
    nodes, source = [], "features"
    for place, (_, _, width) in enumerate(CHANNELS):
        layer = f"convolutions.{place}"
        pads = [width // 2, width // 2]
        nodes.append(
            helper.make_node("Conv", [source, f"{layer}.weight", f"{layer}.bias"], [f"conv{place}"], f"conv{place}", pads=pads)
        )
        nodes.append(helper.make_node("Relu", [f"conv{place}"], [f"relu{place}"]))
        source = f"relu{place}"
        if place in POOLED:
            nodes.append(helper.make_node("MaxPool", [source], [f"pool{place}"], kernel_shape=[2], strides=[2]))
            source = f"pool{place}"
    return nodes


def _head() -> list[Any]:
    last = f"relu{len(CHANNELS) - 1}"
    return [
        helper.make_node("Slice", ["features", "from", "to", "rows"], ["valid"]),
        helper.make_node("AveragePool", ["valid"], ["weight"], kernel_shape=[4], strides=[4]),
        helper.make_node("Mul", [last, "weight"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "time"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["weight", "time"], ["total"], keepdims=0),
        helper.make_node("Add", ["total", "tiny"], ["divisor"]),
        helper.make_node("Div", ["sum", "divisor"], ["mean"]),
        helper.make_node("ReduceMax", ["weighted"], ["max"], axes=[2], keepdims=0),
        helper.make_node("Concat", ["mean", "max"], ["summary"], axis=1),
        helper.make_node("Gemm", ["summary", "hidden.weight", "hidden.bias"], ["dense"], transB=1),
        helper.make_node("Relu", ["dense"], ["active"]),
        helper.make_node("Gemm", ["active", "output.weight", "output.bias"], ["logit"], "output", transB=1),
        helper.make_node("Div", ["logit", "temperature"], ["calibrated"]),
        helper.make_node("Sigmoid", ["calibrated"], ["probability"]),
    ]


def logits(network: RrNet, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Logits of many windows, (n,)."""
    network.eval()
    with torch.inference_mode():
        parts = [network(torch.from_numpy(part)).numpy() for part in np.array_split(features, max(1, len(features) // 4096))]
    return np.concatenate(parts).astype(np.float64)
