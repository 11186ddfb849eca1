"""From a float ONNX model to the int8 one that is released, and how far the two agree."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static


class _Windows(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime carries no types
    def __init__(self, name: str, windows: NDArray[np.float32]) -> None:
        self._feeds: Iterator[dict[str, Any]] = iter([{name: window[None]} for window in windows])

    def get_next(self) -> dict[str, Any] | None:  # pyright: ignore[reportIncompatibleMethodOverride]  None ends it
        return next(self._feeds, None)


@dataclass(frozen=True, slots=True)
class Parity:
    """int8 against float: share of equal decisions (the likeliest class, or 0.5), largest change of a probability, windows."""

    agreement: float
    largest_change: float
    windows: int


def quantize(
    source: Path,
    target: Path,
    windows: NDArray[np.float32],
    float_nodes: Sequence[str] = (),
    *,
    float_sums: bool = False,
    float_inputs: Sequence[str] = (),
) -> None:
    """Static int8 QDQ (weights per channel, activations signed, ranges by minimum and maximum), optimised ahead for loading.

    Args:
        source: float model with one input.
        target: where the int8 model goes.
        windows: some 200 inputs, (n, …), that the ranges are taken from.
        float_nodes: names of nodes that stay float, where a few weights bring most of the error.
        float_sums: what comes out of a layer stays float until the next one takes it in: in a residual network the parts of
            a sum would be rounded each by itself, which makes most of the error.
        float_inputs: names of nodes that take in what comes as it is: their weights are int8, and nothing else.
    """
    qdq = target.with_suffix(".qdq.onnx")
    (name,) = (value.name for value in onnx.load(str(source)).graph.input)
    quantize_static(
        str(source),
        str(qdq),
        _Windows(name, windows),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        op_types_to_quantize=["Conv", "MaxPool", "Gemm"],
        nodes_to_exclude=list(float_nodes),
        extra_options={"OpTypesToExcludeOutputQuantization": ["Conv", "Gemm"]} if float_sums else {},
    )
    _unround(qdq, float_inputs)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(qdq), options, providers=["CPUExecutionProvider"])
    qdq.unlink()
    _shorten(target)


def _unround(path: Path, nodes: Sequence[str]) -> None:
    """Give these nodes their input from before it is rounded."""
    model = onnx.load(str(path))
    made_by = {name: node for node in model.graph.node for name in node.output}
    for node in [node for node in model.graph.node if node.name in nodes]:
        back = made_by[node.input[0]]
        rounded = made_by[back.input[0]]
        node.input[0] = rounded.input[0]
        model.graph.node.remove(back)
        model.graph.node.remove(rounded)
    onnx.save(model, str(path))


def _shorten(path: Path) -> None:
    """Give every value inside the graph a short name: in small networks names are a tenth of the file."""
    model = onnx.load(str(path))
    graph = model.graph
    outside = {value.name for value in (*graph.input, *graph.output)} | {""}
    short: dict[str, str] = {}

    def renamed(name: str) -> str:
        return name if name in outside else short.setdefault(name, f"{len(short):x}")

    for initializer in graph.initializer:
        initializer.name = renamed(initializer.name)
    for node in graph.node:
        node.name = ""
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
    del graph.value_info[:]
    onnx.save(model, str(path))


def parity(float_model: Path, int8_model: Path, windows: NDArray[np.float32]) -> Parity:
    """Compare both on the same windows."""
    one, other = (run(path, windows) for path in (float_model, int8_model))
    return Parity(float(np.mean(_decisions(one) == _decisions(other))), float(np.max(np.abs(one - other))), len(windows))


def run(model: Path, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The model's output for many windows, (n,) or (n, classes)."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    parts = np.array_split(windows, max(1, len(windows) // 1024))
    out = np.concatenate([np.asarray(session.run(None, {source.name: part})[0], np.float32) for part in parts])
    return out.reshape(len(out)) if out.size == len(out) else out


def _decisions(probability: NDArray[np.float32]) -> NDArray[np.int64]:
    return (probability >= 0.5).astype(np.int64) if probability.ndim == 1 else probability.argmax(-1)
