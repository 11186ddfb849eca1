"""The options of the training commands."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch

from models.inference.release import RELEASE_DIR
from training.cache import RUNS


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a training command.

    Attributes:
        data: folder of the databases.
        runs: where data and networks are cached.
        release: where the model and its card are written; it exists.
        steps: gradient descent steps per network, 0 where the command has no such option.
    """

    data: Path
    runs: Path
    release: Path
    steps: int


def read_options(description: str | None, name: str, data: str, steps: int = 0) -> Options:
    """Read the options of the command line, and let PyTorch use one thread, so that results do not depend on the processor.

    Args:
        description: of the command.
        name: of the model, whose cache is the default of `--runs`.
        data: what the data folder holds.
        steps: default of `--steps`; the option exists only if it is given.
    """
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--data", type=Path, required=True, help=data)
    options.add_argument("--runs", type=Path, default=RUNS / name, help="where data and networks are cached")
    options.add_argument("--release", type=Path, default=RELEASE_DIR)
    if steps:
        options.add_argument("--steps", type=int, default=steps, help="gradient descent steps per network")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    chosen.release.mkdir(parents=True, exist_ok=True)
    return Options(chosen.data, chosen.runs, chosen.release, getattr(chosen, "steps", 0))
