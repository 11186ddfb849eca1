"""Train, cross-validate, calibrate, quantize and release `ppg_quality`: `python -m training.ppg_quality --data DIR`.

Takes about five minutes on one core. Networks already trained by this very recipe are taken from `--runs`, so that a run that
was interrupted goes on where it was.
"""

import argparse
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
from models.inference.release import RELEASE_DIR
from models.signal import chain, envelope, filters, peak, qrs, resample, shape
from models.signal import ppg as ppg_signal
from training import ppg_data, ppg_disturb, ppg_net, ppg_synth
from training.cards import write_card
from training.fit import Batch, Schedule, fitted
from training.ppg_card import Trained, card
from training.ppg_data import Source, Windows, drawn, folds, load_sources
from training.ppg_net import PpgNet, logits, parameters, to_onnx
from training.quantize import quantize
from training.sources import code

NAME: Final = "ppg_quality"
VERSION: Final = "2"
SEED: Final = 20_263
MINUTES: Final = 2000
BATCH: Final = 192
SCHEDULE: Final = Schedule(steps=900, rate=3e-3, averaged=0.99, bfloat16=True)

THRESHOLD: Final = 0.5
"""From cross-validation, see the card's table of coverage."""

FLOAT_NODES: Final = ("conv0", "conv1", "conv2", "output")
"""Layers that stay float, a fifth of the weights. With the first and last alone int8 changes a probability by up to 0.13; these
and float outputs of the layers make it 0.04, and fill the 60 kB."""

HERE: Final = Path(__file__).parent


def main() -> None:
    """Write the model and its card."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True, help="folder that holds welltory-ppg and bidmc01")
    options.add_argument("--runs", type=Path, default=HERE / "runs" / NAME, help="where trained networks are kept")
    options.add_argument("--release", type=Path, default=RELEASE_DIR)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    chosen.release.mkdir(parents=True, exist_ok=True)
    train(chosen.data, chosen.runs, chosen.release)


def train(data: Path, runs: Path, release: Path) -> None:
    """Everything from recordings to released files."""
    sources = load_sources(data)
    groups = folds(sources)
    pool = _pool(sources, runs)
    features = np.concatenate([quality_features(part) for part in np.array_split(pool.ppg, 50)])
    with Progress() as progress:
        networks = [
            _fitted(f"fold{place}", pool, features, ~np.isin(pool.origin, group), SEED + 1 + place, runs, progress)
            for place, group in enumerate(groups)
        ]
        network = _fitted("final", pool, features, np.ones(pool.good.size, np.bool_), SEED, runs, progress)
    raw, temperature, held_out = cross_validate(pool, features, groups, networks, runs)
    float_model, int8_model = runs / f"{NAME}.float.onnx", release / f"{NAME}.onnx"
    to_onnx(network, temperature, _facts(), float_model)
    calibration = drawn(sources, 60, SEED + 100)
    chosen = quality_features(calibration.ppg[:: max(calibration.good.size // 200, 1)])
    quantize(float_model, int8_model, chosen, FLOAT_NODES, float_sums=True)
    training = {
        "seed": SEED,
        "minutes": MINUTES,
        "windows": pool.good.size,
        "schedule": repr(SCHEDULE),
        "batch": BATCH,
        "parameters": parameters(network),
    }
    trained = Trained(pool, raw, temperature, held_out, groups, training, float_model, int8_model)
    write_card(release, card(data, sources, trained))


def cross_validate(
    pool: Windows, features: NDArray[np.float32], groups: Sequence[Sequence[str]], networks: Sequence[PpgNet], runs: Path
) -> tuple[NDArray[np.float64], float, dict[str, PpgQuality]]:
    """Every window judged by the network that has not seen its person: logits, temperature, and the model of each person."""
    raw = np.empty(pool.good.size)
    for group, network in zip(groups, networks, strict=True):
        held = np.isin(pool.origin, group)
        raw[held] = logits(network, features[held])
    temperature = best_temperature(np.stack([0 * raw, raw], -1), pool.good.astype(np.int64))
    models: dict[str, PpgQuality] = {}
    for place, (group, network) in enumerate(zip(groups, networks, strict=True)):
        file = runs / f"fold{place}.onnx"
        to_onnx(network, temperature, _facts(), file)
        models |= dict.fromkeys(group, PpgQuality(file.read_bytes()))
    return raw, temperature, models


def _pool(sources: Sequence[Source], runs: Path) -> Windows:
    """The windows that all networks learn from, kept on disk."""
    file, recipe = runs / "windows.npz", _recipe()
    if file.exists():
        kept = np.load(file)
        if str(kept["recipe"]) == recipe:
            return Windows(kept["ppg"], kept["good"], kept["origin"], kept["touched"])
    pool = drawn(sources, MINUTES, SEED)
    runs.mkdir(parents=True, exist_ok=True)
    np.savez(file, recipe=recipe, ppg=pool.ppg, good=pool.good, origin=pool.origin, touched=pool.touched)
    return pool


def _recipe() -> str:
    detector = code(chain, envelope, filters, peak, qrs, resample, shape)  # the ECG beside the PPG tells where pulses are
    return f"{SEED} {MINUTES} {code(ppg_data, ppg_disturb, ppg_synth, ppg_signal, pulse_reference)} {detector}"


def _fitted(
    name: str,
    pool: Windows,
    features: NDArray[np.float32],
    chosen: NDArray[np.bool_],
    seed: int,
    runs: Path,
    progress: Progress,
) -> PpgNet:
    places, targets = np.flatnonzero(chosen), pool.good.astype(np.float32)

    def batches() -> Iterator[Batch]:
        rng = np.random.default_rng(seed)
        while True:
            batch = rng.choice(places, BATCH)
            yield torch.from_numpy(features[batch]), torch.from_numpy(targets[batch])

    recipe = {
        "seed": seed,
        "windows": _recipe(),
        "code": code(ppg_net, quality_features),
        "origins": sorted(np.unique(pool.origin[chosen]).tolist()),
    }
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    network: PpgNet = fitted(runs / f"{name}.pt", PpgNet, batches, loss, SCHEDULE, recipe, progress)
    return network


def _facts() -> dict[str, Any]:
    return {"name": NAME, "version": VERSION, "threshold": str(THRESHOLD)}


if __name__ == "__main__":
    main()
