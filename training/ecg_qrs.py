"""Train, quantize and release `ecg_qrs`: `python -m training.ecg_qrs --data DIR`.

Which candidates the detector meets depends on its earlier decisions. In the first round of training the reference beats decide
which candidates it accepts; in each later round the network of the previous round decides, so that it learns to continue after
its own errors.

Takes a quarter of an hour on one core. Candidates and networks are cached in `--runs`, so an interrupted run can be resumed.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from evaluation.statistics import best_temperature
from models.inference.ecg_qrs import EcgQrs
from training import qrs_data, qrs_evaluation, qrs_net
from training.cache import source_digest
from training.cards import write_card
from training.cinc import load_cinc
from training.fit import Schedule, fit_network
from training.options import read_options
from training.qrs_card import INT8, TRAINING_ROUNDS, describe
from training.qrs_data import Candidates, RecordingGroup, concatenate, load_candidates, select_clean_recordings
from training.qrs_net import QrsNet, batches, count_parameters, loss, write_onnx
from training.qrs_premature import extract_ventricular_complexes
from training.quantize import Parity, quantize, run_model

NAME: Final = "ecg_qrs"
VERSION: Final = "3"
SEED: Final = 31_700
REPEATS: Final = (1, 2)
"""How often each recording is played in a round, each time with other noise."""

STEPS: Final = (3500, 14_000)
"""Steps of gradient descent per round. Each round also uses the candidates of the previous one, and the network of the last one
is released."""

HELD_OUT_EVERY: Final = 10
"""Every tenth recording is held out of all rounds, for the temperature and the figures."""

FLOAT_NODES: Final = ("convolution0", "convolution1", "convolution2", "hidden1", "output")
"""Layers that stay float, a quarter of the weights: in int8 they would cause most of the error and, being so small, take
longer."""

RANGE_CANDIDATES: Final = 1500
"""Candidates from which the int8 ranges are taken."""


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """Folders and recordings of a training run."""

    data: Path
    runs: Path
    training: RecordingGroup
    held_out: RecordingGroup


def main() -> None:
    """Write the model and its card."""
    chosen = read_options(__doc__, NAME, "folder that holds mitdb, noise and the archive of CinC 2017")
    train(chosen.data, chosen.runs, chosen.release)


def train(data: Path, runs: Path, release: Path) -> None:
    """Run everything from recordings to released files."""
    with Progress() as progress:
        setup = _set_up(data, runs, progress)
        network, classifier, training = _train_rounds(setup, progress)
        held_out = load_candidates(setup.held_out, SEED + len(STEPS), data, classifier, runs / "held_out.npz", progress)
        temperature = best_temperature(_two_class_logits(network, held_out), held_out.beats.astype(np.int64))
        float_model, int8_model = runs / f"{NAME}.float.onnx", release / f"{NAME}.onnx"
        write_onnx(network, temperature, {"name": NAME, "version": VERSION}, float_model)
        quantize(float_model, int8_model, _range_inputs(training), FLOAT_NODES, float_outputs=True)
    card = {
        "name": NAME,
        "version": VERSION,
        **describe(len(setup.training.records), len(setup.held_out.records)),
        "training": {
            "seed": SEED,
            "rounds": TRAINING_ROUNDS,
            "steps": list(STEPS),
            "parameters": count_parameters(network),
            "size_bytes": int8_model.stat().st_size,
            "candidates": len(training.beats),
            "share_of_beats": float(training.beats.mean()),
        },
        "calibration": {
            "temperature": temperature,
            "method": "the temperature with the least cross-entropy on the held-out candidates",
        },
        "int8_parity": {"method": INT8}
        | asdict(_parity(float_model, int8_model, held_out))
        | _location_change(float_model, int8_model, held_out),
        **qrs_evaluation.figures(data, held_out, run_model(int8_model, held_out.values), EcgQrs(int8_model.read_bytes())),
    }
    write_card(release, card)


def _set_up(data: Path, runs: Path, progress: Progress) -> TrainingSetup:
    """Return the training and the held-out recordings, each with the ventricular beats found in them."""
    recordings = select_clean_recordings(load_cinc(data, progress))
    held_out = recordings[::HELD_OUT_EVERY]
    names = {record.name for record in held_out}
    training = [record for record in recordings if record.name not in names]
    groups = (RecordingGroup(records, extract_ventricular_complexes(records, progress)) for records in (training, held_out))
    return TrainingSetup(data, runs, *groups)


def _train_rounds(setup: TrainingSetup, progress: Progress) -> tuple[QrsNet, bytes, Candidates]:
    """Return the network of the last round, the classifier of its candidates, and the candidates that it was trained on."""
    classifier: bytes | None = None
    network: QrsNet | None = None
    previous: list[Candidates] = []
    for round_index, repeats in enumerate(REPEATS):
        group = replace(setup.training, records=setup.training.records * repeats)
        candidates = load_candidates(
            group, SEED + round_index, setup.data, classifier, setup.runs / f"candidates{round_index}.npz", progress
        )
        training = concatenate([*previous[-1:], candidates])
        previous.append(candidates)
        network = _fit(setup, training, round_index, progress)
        file = setup.runs / f"round{round_index}.onnx"
        write_onnx(network, 1.0, {"name": NAME, "version": VERSION}, file)
        classifier = file.read_bytes()
    assert network is not None
    assert classifier is not None
    return network, classifier, training


def _fit(setup: TrainingSetup, training: Candidates, round_index: int, progress: Progress) -> QrsNet:
    recipe = {
        "seed": SEED + round_index,
        "steps": list(STEPS[: round_index + 1]),
        "records": [record.name for record in setup.training.records],
        "code": source_digest(qrs_net, qrs_data) + qrs_data.digest(),
    }
    stream = lambda: batches(training, SEED + round_index)  # noqa: E731
    schedule = Schedule(STEPS[round_index])
    network: QrsNet = fit_network(setup.runs / f"round{round_index}.pt", QrsNet, stream, loss, schedule, recipe, progress)
    return network


def _two_class_logits(network: QrsNet, candidates: Candidates) -> NDArray[np.float64]:
    """Return logits of no beat and beat, (n, 2)."""
    with torch.inference_mode():
        logits = network(torch.from_numpy(candidates.values))[:, 0].numpy().astype(np.float64)
    return np.stack((np.zeros_like(logits), logits), -1)


def _range_inputs(candidates: Candidates) -> NDArray[np.float32]:
    return candidates.values[np.random.default_rng(SEED).permutation(len(candidates.beats))[:RANGE_CANDIDATES]]


def _parity(float_model: Path, int8_model: Path, candidates: Candidates) -> Parity:
    float_output, int8_output = (run_model(path, candidates.values)[:, 0] for path in (float_model, int8_model))
    return Parity(
        float(np.mean((float_output >= 0.5) == (int8_output >= 0.5))),
        float(np.abs(float_output - int8_output).max()),
        len(float_output),
    )


def _location_change(float_model: Path, int8_model: Path, candidates: Candidates) -> dict[str, Any]:
    beats = candidates[candidates.beats > 0]
    float_output, int8_output = (run_model(path, beats.values)[:, 1] for path in (float_model, int8_model))
    moved_ms = 1000 * qrs_data.UNIT_S * np.abs(float_output - int8_output)
    return {"r_peak_moved_ms": {"mean": float(moved_ms.mean()), "99 %": float(np.percentile(moved_ms, 99))}}


if __name__ == "__main__":
    main()
