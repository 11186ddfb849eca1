"""Measures what one inference of each released model costs, against a matrix product in the same run."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import numpy as np

from models.inference.release import open_release
from models.inference.session import ModelSession

INPUT_SHAPES: Final[Mapping[str, tuple[int, ...]]] = {
    "ecg_beat": (5, 104),
    "ecg_organised": (2, 250),
    "ecg_qrs": (265,),
    "ecg_quality": (2, 1250),
    "ecg_rhythm": (2, 3750),
    "ppg_quality": (2, 500),
    "rr_af": (6, 64),
}
"""The shape of one input window of each model."""
RUNS: Final = 200
REFERENCE_SIZE: Final = 256
"""The reference is the product of two float32 matrices of this size: 17 million multiply-adds."""


def measure() -> dict[str, dict[str, float]]:
    """Returns for each model the milliseconds of its fastest run, and their ratio to the reference's."""
    release = open_release()
    matrix = np.random.default_rng(1).normal(size=(REFERENCE_SIZE, REFERENCE_SIZE)).astype(np.float32)
    reference_ms = _fastest_ms(partial(np.matmul, matrix, matrix))
    costs = {}
    for name, shape in INPUT_SHAPES.items():
        session = ModelSession(name, release.read_file(f"{name}.onnx"))
        window = np.random.default_rng(2).normal(0, 0.5, (1, *shape)).astype(np.float32)
        ms = _fastest_ms(partial(session.run, window))
        costs[name] = {"ms": round(ms, 4), "ratio_to_matrix_product": round(ms / reference_ms, 2)}
    return costs


def _fastest_ms(function: Callable[[], object]) -> float:
    times = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return 1000 * min(times)
