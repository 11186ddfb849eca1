"""Train, cross-validate, calibrate, quantize and release `ecg_rhythm`: `python -m training.ecg_rhythm --data DIR`.

Takes about half an hour on one core. Windows and networks are cached in `--runs`, so an interrupted run can be resumed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from models.inference import ecg_rhythm
from training import rhythm_data, rhythm_net
from training.cache import source_digest
from training.cards import write_card
from training.cinc import CincRecording, load_cinc, split_folds
from training.fit import Schedule, fit_network
from training.options import read_options
from training.quantize import quantize
from training.rhythm_card import card
from training.rhythm_cv import CrossValidation, ModelFiles, parity_figures
from training.rhythm_data import Example, Sampler, load_examples
from training.rhythm_equalise import equalise_channels
from training.rhythm_net import RhythmNet, write_onnx
from training.rhythm_score import Calibration


def soft_cross_entropy(logits: Any, targets: Any) -> Any:
    """Return the cross-entropy of logits (n, classes) with shares of each class."""
    return -(torch.log_softmax(logits, -1) * targets).sum(-1).mean()


NAME: Final = "ecg_rhythm"
VERSION: Final = "1"
SEED: Final = 20_261
BATCH: Final = 64
SCHEDULE: Final = Schedule(steps=3600, learning_rate=4e-3, weight_decay=2e-2, ema_decay=0.997, bfloat16=True)
RANGE_WINDOWS: Final = 600
"""Training windows from which the int8 ranges are taken."""

ANSWERED_SHARE: Final = 0.9
"""Share of the recordings that gets an answer; the least confident ones are inconclusive."""

UNCALIBRATED: Final = Calibration(1.0, (0.0,) * len(ecg_rhythm.CLASSES))
CODE: Final = (
    RhythmNet,
    rhythm_net.Block,
    rhythm_data,
    soft_cross_entropy,
    ecg_rhythm.features,
    ecg_rhythm._scale_window,
)
"""The code that determines a trained network, for the cache."""


def main() -> None:
    """Write the model and its card."""
    chosen = read_options(__doc__, NAME, "folder that holds cinc2017-dev.tar.xz and noise", SCHEDULE.steps)
    with Progress() as progress:
        train(chosen.data, chosen.runs, chosen.release, replace(SCHEDULE, steps=chosen.steps), progress)


def train(data: Path, runs: Path, release: Path, schedule: Schedule, progress: Progress) -> None:
    """Run everything from recordings to released files."""
    records = load_cinc(data, progress)
    pool = load_examples(records, data, runs, SEED, progress)
    groups = split_folds(records)
    facts = {"name": NAME, "version": VERSION, "lowest_probability": "0"}
    model_files = []
    for fold, group in enumerate(groups):
        others = [record for other in groups if other is not group for record in other]
        network = _fit(fold, others, pool, runs, schedule, progress)
        files = ModelFiles(runs / f"fold{fold}.float.onnx", runs / f"fold{fold}.int8.onnx")
        model_files.append(_export(network, UNCALIBRATED, facts, files, _range_inputs(others, pool)))
    final = _fit(len(groups), records, pool, runs, schedule, progress)
    cross_validation = CrossValidation.run(model_files, groups, progress)
    facts["lowest_probability"] = f"{cross_validation.confidence_quantile(ANSWERED_SHARE):.3f}"
    files = ModelFiles(runs / f"{NAME}.float.onnx", release / f"{NAME}.onnx")
    _export(final, cross_validation.calibration, facts, files, _range_inputs(records, pool))
    training = {
        "seed": SEED,
        "steps": schedule.steps,
        "batch": BATCH,
        "parameters": rhythm_net.count_parameters(final),
        "learning_rate": schedule.learning_rate,
        "weight_decay": schedule.weight_decay,
    }
    figures = parity_figures(files, cross_validation, Sampler([pool[record.name] for record in records], SEED + 101))
    write_card(release, card(facts, training, cross_validation, figures, files.int8_model.stat().st_size, data, progress))


def _range_inputs(records: Sequence[CincRecording], pool: dict[str, list[Example]]) -> NDArray[np.float32]:
    return Sampler([pool[record.name] for record in records], SEED + 100).batch(RANGE_WINDOWS)[0]


def _export(
    network: RhythmNet, calibration: Calibration, facts: Mapping[str, str], files: ModelFiles, range_inputs: NDArray[np.float32]
) -> ModelFiles:
    """Write the float and the int8 file of one network."""
    write_onnx(network, calibration, facts, files.float_model)
    equalised = files.float_model.with_suffix(".equalised.onnx")
    write_onnx(equalise_channels(network, range_inputs[:200]), calibration, facts, equalised)
    quantize(equalised, files.int8_model, range_inputs, rhythm_net.FLOAT_NODES, float_outputs=True)
    return files


def _fit(
    fold: int,
    records: Sequence[CincRecording],
    pool: dict[str, list[Example]],
    runs: Path,
    schedule: Schedule,
    progress: Progress,
) -> RhythmNet:
    """Return the network of one fold (0 to 4), or of all recordings (5)."""
    sampler = Sampler([pool[record.name] for record in records], SEED + 1 + fold)
    recipe: dict[str, Any] = {
        "seed": SEED + 1 + fold,
        "records": [record.name for record in records],
        "code": source_digest(*CODE),
    }
    network: RhythmNet = fit_network(
        runs / f"network{fold}.pt", RhythmNet, lambda: sampler.batches(BATCH), soft_cross_entropy, schedule, recipe, progress
    )
    return network


if __name__ == "__main__":
    main()
