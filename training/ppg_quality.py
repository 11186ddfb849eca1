"""Train, cross-validate, calibrate, quantize and release `ppg_quality`: `python -m training.ppg_quality --data DIR`.

Takes about five minutes on one core. Windows and networks are cached in `--runs`, so an interrupted run can be resumed.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from evaluation import pulse_reference
from evaluation.statistics import best_temperature
from models.inference.ppg_quality import PpgQuality, quality_features
from models.signal import chain, envelope, filters, peak, qrs, resample, shape
from models.signal import ppg as ppg_signal
from training import ppg_augmentation, ppg_data, ppg_net, ppg_synth
from training.cache import source_digest
from training.cards import write_card
from training.fit import Batch, Schedule, fit_network
from training.options import read_options
from training.ppg_card import TrainingResult, card
from training.ppg_data import Source, Windows, load_sources, sample_windows, split_folds
from training.ppg_net import PpgNet, count_parameters, logits, write_onnx
from training.quantize import quantize

NAME: Final = "ppg_quality"
VERSION: Final = "2"
SEED: Final = 20_263
MINUTES: Final = 2000
BATCH: Final = 192
SCHEDULE: Final = Schedule(steps=900, learning_rate=3e-3, ema_decay=0.99, bfloat16=True)

THRESHOLD: Final = 0.5
"""Chosen by cross-validation; see the card's table of coverage."""

FLOAT_NODES: Final = ("conv0", "conv1", "conv2", "output")
"""Layers that stay float, a fifth of the weights. With only the first and last in float, int8 changes a probability by up to
0.13. These layers and float layer outputs reduce that to 0.04, and use up the limit of 60 kB."""


def main() -> None:
    """Write the model and its card."""
    chosen = read_options(__doc__, NAME, "folder that holds welltory-ppg and bidmc01")
    train(chosen.data, chosen.runs, chosen.release)


def train(data: Path, runs: Path, release: Path) -> None:
    """Run everything from recordings to released files."""
    sources = load_sources(data)
    groups = split_folds(sources)
    pool = _load_pool(sources, runs)
    features = np.concatenate([quality_features(part) for part in np.array_split(pool.ppg, 50)])
    with Progress() as progress:
        networks = [
            _fit(f"fold{fold}", pool, features, ~np.isin(pool.origin, group), SEED + 1 + fold, runs, progress)
            for fold, group in enumerate(groups)
        ]
        network = _fit("final", pool, features, np.ones(pool.good.size, np.bool_), SEED, runs, progress)
    held_out_logits, temperature, held_out = cross_validate(pool, features, groups, networks, runs)
    float_model, int8_model = runs / f"{NAME}.float.onnx", release / f"{NAME}.onnx"
    write_onnx(network, temperature, _facts(), float_model)
    range_windows = sample_windows(sources, 60, SEED + 100)
    chosen = quality_features(range_windows.ppg[:: max(range_windows.good.size // 200, 1)])
    quantize(float_model, int8_model, chosen, FLOAT_NODES, float_outputs=True)
    training = {
        "seed": SEED,
        "minutes": MINUTES,
        "windows": pool.good.size,
        "schedule": repr(SCHEDULE),
        "batch": BATCH,
        "parameters": count_parameters(network),
    }
    result = TrainingResult(pool, held_out_logits, temperature, held_out, groups, training, float_model, int8_model)
    write_card(release, card(data, sources, result))


def cross_validate(
    pool: Windows, features: NDArray[np.float32], groups: Sequence[Sequence[str]], networks: Sequence[PpgNet], runs: Path
) -> tuple[NDArray[np.float64], float, dict[str, PpgQuality]]:
    """Predict every window by a network not trained on its person; return logits, temperature and each person's model."""
    held_out_logits = np.empty(pool.good.size)
    for group, network in zip(groups, networks, strict=True):
        is_held_out = np.isin(pool.origin, group)
        held_out_logits[is_held_out] = logits(network, features[is_held_out])
    temperature = best_temperature(np.stack([0 * held_out_logits, held_out_logits], -1), pool.good.astype(np.int64))
    models: dict[str, PpgQuality] = {}
    for fold, (group, network) in enumerate(zip(groups, networks, strict=True)):
        file = runs / f"fold{fold}.onnx"
        write_onnx(network, temperature, _facts(), file)
        models |= dict.fromkeys(group, PpgQuality(file.read_bytes()))
    return held_out_logits, temperature, models


def _load_pool(sources: Sequence[Source], runs: Path) -> Windows:
    """Return the windows that all networks are trained on, from the cache where the same code produced them."""
    file, recipe = runs / "windows.npz", _window_recipe()
    if file.exists():
        cached = np.load(file)
        if str(cached["recipe"]) == recipe:
            return Windows(cached["ppg"], cached["good"], cached["origin"], cached["augmented"])
    pool = sample_windows(sources, MINUTES, SEED)
    runs.mkdir(parents=True, exist_ok=True)
    np.savez(file, recipe=recipe, ppg=pool.ppg, good=pool.good, origin=pool.origin, augmented=pool.augmented)
    return pool


def _window_recipe() -> str:
    # The ECG recorded with the PPG gives the times of the pulses.
    detector = source_digest(chain, envelope, filters, peak, qrs, resample, shape)
    return f"{SEED} {MINUTES} {source_digest(ppg_data, ppg_augmentation, ppg_synth, ppg_signal, pulse_reference)} {detector}"


def _fit(
    name: str,
    pool: Windows,
    features: NDArray[np.float32],
    chosen: NDArray[np.bool_],
    seed: int,
    runs: Path,
    progress: Progress,
) -> PpgNet:
    indices, targets = np.flatnonzero(chosen), pool.good.astype(np.float32)

    def batches() -> Iterator[Batch]:
        rng = np.random.default_rng(seed)
        while True:
            batch = rng.choice(indices, BATCH)
            yield torch.from_numpy(features[batch]), torch.from_numpy(targets[batch])

    recipe = {
        "seed": seed,
        "windows": _window_recipe(),
        "code": source_digest(ppg_net, quality_features),
        "origins": sorted(np.unique(pool.origin[chosen]).tolist()),
    }
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    network: PpgNet = fit_network(runs / f"{name}.pt", PpgNet, batches, loss, SCHEDULE, recipe, progress)
    return network


def _facts() -> dict[str, Any]:
    return {"name": NAME, "version": VERSION, "threshold": str(THRESHOLD)}


if __name__ == "__main__":
    main()
