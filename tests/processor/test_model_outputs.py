"""The released models give the same outputs on every processor, within the margin of docs/decisions/0013."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from models.inference.release import RELEASE_DIR
from tests.processor.model_outputs import FILE, INPUT_SHAPES, run_released_models

KERNEL_MARGIN = 0.005
"""Largest allowed difference of an output between two sets of onnxruntime's kernels: three times the largest one measured,
0.0017, on 400 windows of noise for each model (docs/decisions/0013)."""


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    """The outputs under the kernels for SSE4.2."""
    outputs: dict[str, Any] = json.loads(Path(FILE).read_text(encoding="utf-8"))
    return outputs


def test_every_released_model_is_compared(expected: dict[str, Any]) -> None:
    assert sorted(expected) == sorted(INPUT_SHAPES) == sorted(path.stem for path in RELEASE_DIR.glob("*.onnx"))


def test_outputs_differ_from_those_of_other_kernels_by_less_than_the_margin(expected: dict[str, Any]) -> None:
    for name, output in run_released_models().items():
        assert np.ptp(output) > 0.001, name
        np.testing.assert_allclose(output, np.array(expected[name]), atol=KERNEL_MARGIN, rtol=0, err_msg=name)


def test_convolutions_in_int8_are_the_documented_ones() -> None:
    counts = {
        path.stem: sum(node.op_type == "QLinearConv" for node in onnx.load(path).graph.node)
        for path in sorted(RELEASE_DIR.glob("*.onnx"))
    }
    assert {name: count for name, count in counts.items() if count} == {
        "ecg_organised": 1,
        "ecg_quality": 1,
        "ppg_quality": 2,
        "rr_af": 2,
    }
