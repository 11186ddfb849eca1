"""Runs the released models on fixed inputs. Run as a program, it writes the outputs on this processor to `model_outputs.json`.

After a new model release, run it on a real or emulated processor without AVX2. The tests on other processors then compare two
sets of onnxruntime's kernels: `PYTHONPATH=. qemu-x86_64 -cpu Nehalem .venv/bin/python tests/processor/model_outputs.py`.
"""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.inference.release import open_release
from models.inference.session import ModelSession

FILE = Path(__file__).with_suffix(".json")
WINDOW_COUNT = 16
INPUT_SHAPES = {
    "ecg_beat": (5, 104),
    "ecg_organised": (2, 250),
    "ecg_qrs": (265,),
    "ecg_quality": (2, 1250),
    "ecg_rhythm": (2, 3750),
    "ppg_quality": (2, 500),
    "rr_af": (6, 64),
}


def run_released_models() -> dict[str, NDArray[np.float32]]:
    """Return the outputs of each released model for `WINDOW_COUNT` windows of noise, (windows, outputs)."""
    release = open_release()
    sessions = {name: ModelSession(name, release.read_file(f"{name}.onnx")) for name in INPUT_SHAPES}
    return {name: session.run(noise(INPUT_SHAPES[name])) for name, session in sessions.items()}


def noise(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return noise that is the same on every machine, (windows, *shape)."""
    return np.random.default_rng(7).normal(0, 0.5, (WINDOW_COUNT, *shape)).astype(np.float32)


if __name__ == "__main__":
    rows = {name: np.round(output.astype(np.float64), 8).tolist() for name, output in run_released_models().items()}
    FILE.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
