"""Train, cross-validate, quantize and release `ecg_organised`: `python -m training.ecg_organised --data DIR`.

Takes about five minutes on one core. Windows and networks are cached in `--runs`, so an interrupted run can be resumed.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.progress import Progress

from models.inference.ecg_organised import COLUMNS, EcgOrganised
from training import organised_batches, organised_data, organised_net, organised_synth, window_net
from training.cache import source_digest
from training.cards import write_card
from training.fit import Schedule, fit_network
from training.options import read_options
from training.organised_batches import Pool, load_pool
from training.organised_card import describe
from training.organised_cv import cross_validate, window_figures
from training.organised_data import FOLDS, load_recordings
from training.organised_net import STATISTICS_BATCHES, loss, make_network
from training.quantize import measure_parity, quantize
from training.window_net import WindowNet, count_parameters, recompute_norm_statistics, write_onnx

NAME: Final = "ecg_organised"
VERSION: Final = "1"
SEED: Final = 31_200
STEPS: Final = 1500
WINDOWS: Final = 64_000
RANGE_WINDOWS: Final = 1500
FLOAT_NODES: Final = ("convolution0", "convolution1", "hidden", "output")
"""Layers that stay float. With two convolutions and the hidden layer in int8, probabilities change by up to 0.07."""


def main() -> None:
    """Write the model and its card."""
    chosen = read_options(__doc__, NAME, "folder of the databases", STEPS)
    train(chosen.data, chosen.runs, chosen.release, chosen.steps)


def train(data: Path, runs: Path, release: Path, steps: int) -> None:
    """Run everything from recordings to released files."""
    with Progress() as progress:
        recordings = load_recordings(data, runs / "recordings.npz", progress)
        pool = load_pool(recordings, data, runs / "pool.npz", WINDOWS, SEED, progress)
        networks = [_fit(pool.without(fold), f"fold{fold}", runs, steps, SEED + 1 + fold, progress) for fold in range(FOLDS)]
        for fold, network in enumerate(networks):
            _write(network, pool, runs / f"fold{fold}")
        network = _fit(pool, "final", runs, steps, SEED, progress)
        int8_model = _write(network, pool, runs / "final", release)
        figures = cross_validate(data, recordings, runs, progress)
    float_model = runs / "final" / f"{NAME}.float.onnx"
    card: dict[str, Any] = {
        "name": NAME,
        "version": VERSION,
        **describe(recordings),
        "training": {
            "seed": SEED,
            "steps": steps,
            "parameters": count_parameters(network),
            "size_bytes": int8_model.stat().st_size,
            "windows": len(pool.sets),
        },
        "calibration": {
            "temperature": 1.0,
            "method": "none: the thresholds of the episodes were chosen for these probabilities",
        },
        "int8_parity": asdict(measure_parity(float_model, int8_model, pool.inputs.astype(np.float32))),
        "coverage": {},
        **figures,
        **window_figures(pool, networks),
    }
    write_card(release, card)


def _fit(pool: Pool, name: str, runs: Path, steps: int, seed: int, progress: Progress) -> WindowNet:
    recipe = {
        "seed": seed,
        "code": source_digest(window_net, organised_net, organised_batches, organised_data, organised_synth),
        "windows": len(pool.sets),
    }
    schedule = Schedule(steps, bfloat16=True)
    network = fit_network(runs / f"{name}.pt", make_network, lambda: pool.batches(seed), loss, schedule, recipe, progress)
    return recompute_norm_statistics(network, pool.batches(seed), STATISTICS_BATCHES)


def _write(network: WindowNet, pool: Pool, runs: Path, release: Path | None = None) -> Path:
    """Write the network as `ecg_organised.onnx` into the release, or into the folder of its fold; return the file."""
    runs.mkdir(parents=True, exist_ok=True)
    float_model, int8_model = runs / f"{NAME}.float.onnx", (release or runs) / f"{NAME}.onnx"
    write_onnx(network, COLUMNS, 1.0, {"name": NAME, "version": VERSION}, float_model)
    chosen = np.random.default_rng(SEED).permutation(len(pool.sets))[:RANGE_WINDOWS]
    quantize(float_model, int8_model, pool.inputs[chosen].astype(np.float32), FLOAT_NODES, float_outputs=True)
    EcgOrganised(int8_model.read_bytes())
    return int8_model


if __name__ == "__main__":
    main()
