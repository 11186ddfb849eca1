"""What is stored and found does not depend on the numeric kernels that numpy chooses by processor, nor on its threads.

numpy's OpenBLAS has a kernel for each family of processors, and numpy itself has vector loops for each instruction set. Both
round sums differently in the last digit. The test runs the agent's pipeline on real recordings under each kernel that this
processor can run (docs/decisions/0013). onnxruntime offers no choice of its kernels.
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__  # what NPY_DISABLE_CPU_FEATURES accepts

PROGRAM = Path(__file__).with_name("stored_bytes.py")
RECORDS = ("203", "207")
"""mitdb: atrial fibrillation with ventricular runs and noise; bundle branch block with ventricular tachycardia."""
SECONDS = 240.0

X86_KERNELS = {
    "Prescott": "SSE3",
    "Nehalem": "SSE42",
    "Sandybridge": "AVX",
    "Haswell": "AVX2",
    "SkylakeX": "AVX512BW",
}
"""The OpenBLAS kernels in numpy's wheels, each with the processor feature (as numpy names it) that it needs."""
REPORTED_AS = {"Prescott": "Katmai"}
"""OpenBLAS reports this kernel by its 32-bit predecessor's name."""
ARM_KERNELS = {"ARMV8": "ASIMD", "CORTEXA57": "ASIMD", "NEOVERSEN1": "ASIMDDP"}


def supported_kernels() -> list[str]:
    kernels = X86_KERNELS if platform.machine() == "x86_64" else ARM_KERNELS
    return [kernel for kernel, feature in kernels.items() if __cpu_features__.get(feature, False)]


def run(data: Path, **environment: str) -> dict[str, Any]:
    files = [str(data / "mitdb" / f"{record}.hea") for record in RECORDS]
    root = str(PROGRAM.parents[2])
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(SECONDS), *files],
        env=os.environ | {"PYTHONPATH": root} | environment,
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["streamed"] == result["batch"]
    return result


@pytest.fixture(scope="module")
def native(data: Path) -> dict[str, Any]:
    """The result under the kernels that the libraries choose by themselves, on one thread."""
    result = run(data, OPENBLAS_NUM_THREADS="1")
    assert {"af", "vt", "tachycardia"} <= {kind for kind, *_ in result["findings"]}
    return result


def assert_same(result: dict[str, Any], native: dict[str, Any]) -> None:
    assert result["findings"] == native["findings"]
    assert result["stored"] == native["stored"]


@pytest.mark.parametrize("kernel", supported_kernels())
def test_results_are_the_same_with_every_blas_kernel(kernel: str, data: Path, native: dict[str, Any]) -> None:
    result = run(data, OPENBLAS_CORETYPE=kernel, OPENBLAS_NUM_THREADS="2")
    assert result["kernel"].lower() == REPORTED_AS.get(kernel, kernel).lower()
    assert_same(result, native)


def test_results_are_the_same_with_two_threads(data: Path, native: dict[str, Any]) -> None:
    assert_same(run(data, OPENBLAS_NUM_THREADS="2"), native)


def test_results_are_the_same_without_vector_extensions(data: Path, native: dict[str, Any]) -> None:
    enabled = " ".join(feature for feature in __cpu_dispatch__ if __cpu_features__[feature])
    assert_same(run(data, NPY_DISABLE_CPU_FEATURES=enabled), native)
