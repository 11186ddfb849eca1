"""Quantizes a float ONNX model to the released int8 model, and measures how far the two agree."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (  # noqa: TID251  training/__init__.py has turned telemetry off
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from models.inference.runtime import onnxruntime
from models.inference.session import PRECISE_INT8


class _CalibrationWindows(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime carries no types
    def __init__(self, name: str, windows: NDArray[np.float32]) -> None:
        self._feeds: Iterator[dict[str, Any]] = iter([{name: window[None]} for window in windows])

    def get_next(self) -> dict[str, Any] | None:  # pyright: ignore[reportIncompatibleMethodOverride]  None ends it
        return next(self._feeds, None)


@dataclass(frozen=True, slots=True)
class Parity:
    """Agreement of int8 and float.

    Attributes:
        agreement: share of equal decisions (most probable class, or probability from 0.5).
        largest_change: largest change of a probability.
        windows: number of windows compared.
    """

    agreement: float
    largest_change: float
    windows: int


def quantize(
    source: Path,
    target: Path,
    windows: NDArray[np.float32],
    float_nodes: Sequence[str] = (),
    *,
    float_outputs: bool = False,
    float_inputs: Sequence[str] = (),
) -> None:
    """Quantize statically to int8 QDQ, and optimise the graph for loading.

    Weights are quantized per channel, activations signed, with ranges by minimum and maximum.

    Args:
        source: float model with one input.
        target: where the int8 model is written.
        windows: some 200 inputs, (n, …), from which the ranges are taken.
        float_nodes: names of nodes that stay float, where a few weights cause most of the error.
        float_outputs: the output of a layer stays float until the next layer quantizes its input. In a residual network the
            terms of a sum would otherwise be rounded separately, which causes most of the error.
        float_inputs: names of nodes whose weights are int8 and whose input is not rounded.
    """
    qdq = target.with_suffix(".qdq.onnx")
    (name,) = (value.name for value in onnx.load(str(source)).graph.input)
    quantize_static(
        str(source),
        str(qdq),
        _CalibrationWindows(name, windows),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        op_types_to_quantize=["Conv", "MaxPool", "Gemm"],
        nodes_to_exclude=list(float_nodes),
        extra_options={"OpTypesToExcludeOutputQuantization": ["Conv", "Gemm"]} if float_outputs else {},
    )
    _bypass_input_rounding(qdq, float_inputs)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(qdq), options, providers=["CPUExecutionProvider"])
    qdq.unlink()
    _shorten_names(target)


def _bypass_input_rounding(path: Path, nodes: Sequence[str]) -> None:
    """Connect these nodes to their unrounded input."""
    model = onnx.load(str(path))
    producers = {name: node for node in model.graph.node for name in node.output}
    for node in [node for node in model.graph.node if node.name in nodes]:
        dequantize = producers[node.input[0]]
        quantize_node = producers[dequantize.input[0]]
        node.input[0] = quantize_node.input[0]
        model.graph.node.remove(dequantize)
        model.graph.node.remove(quantize_node)
    onnx.save(model, str(path))


def _shorten_names(path: Path) -> None:
    """Give every value inside the graph a short name: in small networks names are a tenth of the file."""
    model = onnx.load(str(path))
    graph = model.graph
    kept_names = {value.name for value in (*graph.input, *graph.output)} | {""}
    short_names: dict[str, str] = {}

    def shorten(name: str) -> str:
        return name if name in kept_names else short_names.setdefault(name, f"{len(short_names):x}")

    for initializer in graph.initializer:
        initializer.name = shorten(initializer.name)
    for node in graph.node:
        node.name = ""
        node.input[:] = [shorten(name) for name in node.input]
        node.output[:] = [shorten(name) for name in node.output]
    del graph.value_info[:]
    onnx.save(model, str(path))


def measure_parity(float_model: Path, int8_model: Path, windows: NDArray[np.float32]) -> Parity:
    """Compare both models on the same windows."""
    float_output, int8_output = (run_model(path, windows) for path in (float_model, int8_model))
    return Parity(
        float(np.mean(_decide(float_output) == _decide(int8_output))),
        float(np.max(np.abs(float_output - int8_output))),
        len(windows),
    )


def run_model(model: Path, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the model's output for many windows, (n,) or (n, classes)."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(*PRECISE_INT8)
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    parts = np.array_split(windows, max(1, len(windows) // 1024))
    out = np.concatenate([np.asarray(session.run(None, {source.name: part})[0], np.float32) for part in parts])
    return out.reshape(len(out)) if out.size == len(out) else out


def _decide(probability: NDArray[np.float32]) -> NDArray[np.int64]:
    return (probability >= 0.5).astype(np.int64) if probability.ndim == 1 else probability.argmax(-1)
