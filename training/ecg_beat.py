"""Train, cross-validate, calibrate, quantize and release `ecg_beat`: `python -m training.ecg_beat --data DIR`.

Beats and finished networks are cached under `training/runs/ecg_beat/`, so an interrupted run can be resumed.
"""

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import nn

from captures import open_recording
from evaluation.beats import figures, total
from evaluation.ec57 import Reference, load_reference
from evaluation.perturbations import Ecg
from models import beat_context, beat_history, morphology_templates, qrs_shapes
from models.alarm_validation import AF_LIKELY_PROBABILITY, BASELINE_SETTLING_S, RHYTHM_PERIOD_S, RHYTHM_WINDOW_S
from models.inference import ecg_beat as inference
from models.inference.ecg_beat import CLASSES, N, features
from models.inference.ecg_qrs import EcgQrs
from models.inference.ecg_rhythm import WINDOW_SAMPLES, EcgRhythm
from models.inference.release import RELEASE_DIR
from models.signal import (
    beat_classifier,
    chain,
    doubt,
    envelope,
    envelope_peaks,
    filters,
    learning,
    noisy_qrs,
    peak,
    qrs,
    resample,
    shape,
    spikes,
    waves,
)
from models.signal.offline import condition
from models.signal.resample import RATE_HZ
from training import beat_batches, beat_data, beat_net, beat_rhythms, ecg_augmentation
from training.beat_batches import Pool, Sampler, is_atypical
from training.beat_card import Results, card, measure_robustness, summarise
from training.beat_cv import (
    FOLDS,
    Calibration,
    RecordPrediction,
    confusion,
    fit_calibration,
    nested_calibrations,
    pair_with_reference,
)
from training.beat_data import COPIES, RATES_HZ, RECORDS, Beats, load_copies
from training.beat_net import FLOAT_INPUTS, FLOAT_NODES, BeatNet, ConvolutionalNet, DenseNet, logits, write_onnx
from training.beat_rhythms import imitate_ectopy, load_ltafdb_intervals
from training.cache import RUNS, source_digest
from training.cards import write_card
from training.fit import Schedule, fit_network
from training.quantize import measure_parity, quantize, run_model

VERSION: Final = "10"
SEED: Final = 20_261
CONVOLUTIONAL_SCHEDULE: Final = Schedule(steps=700, learning_rate=3e-3, weight_decay=2e-2, ema_decay=0.98)
DENSE_SCHEDULE: Final = Schedule(steps=500, learning_rate=4e-3, weight_decay=2e-2, ema_decay=0.98)
LABELLED_AFTER_S: Final = 2.0
"""A beat is labelled this long after its R peak (`models.beat_labels`), by the rhythm known at that time."""
LABEL_SMOOTHING: Final = 0.02
"""Label smoothing: two cardiologists agree on ectopic beats in 98 % of cases at best."""
QUANTIZATION_BEATS: Final = 16_000
"""Beats from which the int8 ranges are taken. The ranges of 500 beats clipped values and changed a probability by 0.06."""
TYPICAL_SHARE: Final = 0.12
"""Share of the typical normal beats that is used: their number hardly matters."""
IMITATIONS: Final = 6000
PARITY_BATCHES: Final = 80

QRS_MODEL: Final = RELEASE_DIR / "ecg_qrs.onnx"
CACHE: Final = RUNS / "ecg_beat"


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Copies of every record (the first as recorded), intervals of LTAFDB with their classes, and imitated rhythms."""

    copies: dict[str, list[Beats]]
    rr_s: NDArray[np.float32]
    rr_labels: beat_data.Labels
    imitations: NDArray[np.float32]

    def pool(self, records: Sequence[str]) -> Pool:
        """Return the beats to draw from when these are the training patients."""
        parts = [(record, _thin(beats)) for record in records for beats in self.copies[record]]
        patients = np.concatenate([np.full(len(part), RECORDS.index(record)) for record, part in parts])
        return Pool(Beats.concatenate([part for _, part in parts]), patients, self.rr_s, self.rr_labels, self.imitations)


def _thin(beats: Beats) -> Beats:
    """Return the labelled beats, of typical normal ones only a share."""
    rare = is_atypical(beats) | (beats.labels != N)
    return beats.select((beats.labels >= 0) & (rare | (np.random.default_rng(SEED).random(len(beats)) < TYPICAL_SHARE)))


def main() -> None:
    """Cross-validate, train on all records, quantize, and write the model and its card."""
    parser = argparse.ArgumentParser(description="train and release ecg_beat")
    parser.add_argument("--data", type=Path, required=True, help="folder with mitdb, ltafdb and noise")
    parser.add_argument("--release", type=Path, default=RELEASE_DIR)
    data: Path = (arguments := parser.parse_args()).data
    torch.set_num_threads(1)
    with Progress() as progress:
        training_data = load_training_data(data, progress)
        networks = [
            train_network(f"fold{index}", training_data, [name for name in RECORDS if name not in held], SEED + index, progress)
            for index, held in enumerate(FOLDS)
        ]
        folds = [
            [predict_record(network, name, training_data.copies[name][0], data) for name in held]
            for held, network in zip(FOLDS, networks, strict=True)
        ]
        predictions = [record for fold in folds for record in fold]
        calibration = fit_calibration(predictions)
        network = train_network("all", training_data, RECORDS, SEED + len(FOLDS), progress)
        release_network(network, calibration, training_data, arguments.release)
        results = Results(predictions, nested_calibrations(folds), calibration, {})
        write_results_card(data, arguments.release, network, results, training_data)
        results = replace(results, robustness=robustness(data, networks, results.nested, progress))
        write_results_card(data, arguments.release, network, results, training_data)


def load_training_data(data: Path, progress: Progress) -> TrainingData:
    """Return the training data, from the cache where the same code produced it before."""
    found: dict[str, list[Beats]] = {}
    for record in progress.track(RECORDS, description="beats as the agent finds them"):
        count = COPIES if record.startswith("mitdb/") else 1
        stem = record.replace("/", "_")
        files = [CACHE / "beats" / f"{stem}_{index}_{_digest()}.npz" for index in range(count)]
        if not all(file.exists() for file in files):
            for file, beats in zip(files, load_copies(data, record, qrs_classifier(), SEED), strict=True):
                beats.save(file)
        found[record] = [Beats.load(file) for file in files]
    return TrainingData(found, *load_ltafdb_intervals(data, progress), imitate_ectopy(IMITATIONS, SEED))


def _digest() -> str:
    """Return the digest of all code that determines what the agent finds out about a beat."""
    context = source_digest(beat_context, beat_history, morphology_templates, qrs_shapes, inference)
    modules = (beat_classifier, chain, doubt, envelope, envelope_peaks, filters, learning, noisy_qrs, peak, qrs, resample)
    detector = source_digest(*modules, shape, spikes, waves)
    sources = f"{source_digest(beat_data, ecg_augmentation)}{context}{detector}"
    return hashlib.sha256(sources.encode() + QRS_MODEL.read_bytes()).hexdigest()[:16]


def qrs_classifier() -> EcgQrs:
    """Return the released `ecg_qrs`, which was not trained on mitdb."""
    return EcgQrs(QRS_MODEL.read_bytes())


def train_network(name: str, training_data: TrainingData, records: Sequence[str], seed: int, progress: Progress) -> BeatNet:
    """Return both networks, trained on these patients."""
    recipe = {"records": list(records), "data": _digest(), "code": source_digest(beat_batches, beat_rhythms, beat_net)}
    pool = training_data.pool(records)
    loss = nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)

    def fit(kind: type[Any], schedule: Schedule, size: int) -> Any:
        file = CACHE / f"{name}_{kind.__name__}.pt"
        return fit_network(
            file, kind, lambda: Sampler(pool, seed).stream(size), loss, schedule, recipe | {"seed": seed}, progress
        )

    convolutional = fit(ConvolutionalNet, CONVOLUTIONAL_SCHEDULE, beat_batches.BATCH)
    network: BeatNet = BeatNet(convolutional, fit(DenseNet, DENSE_SCHEDULE, beat_batches.DENSE_BATCH)).eval()
    return network


def predict_record(network: BeatNet, name: str, beats: Beats, data: Path) -> RecordPrediction:
    """Predict one record by a network that was not trained on the patient, with the rhythm that the agent would know."""
    recording = open_recording(data / f"{name}.hea")
    in_af = detect_af(beats.times_s, recording.mv, recording.rate_hz)
    return pair_record(name, beats, logits(network, network_inputs(beats)), data, in_af)


def detect_af(times_s: NDArray[np.float64], recorded_mv: NDArray[np.float64], rate_hz: float) -> NDArray[np.bool_]:
    """Return whether `ecg_rhythm`, not trained on mitdb, detects AF when each beat is labelled, as in the agent, (beats,)."""
    model = EcgRhythm((RELEASE_DIR / "ecg_rhythm.onnx").read_bytes())
    mv = condition(recorded_mv, rate_hz).mv
    ends_s = np.arange(RHYTHM_WINDOW_S, mv.size / RATE_HZ, RHYTHM_PERIOD_S)
    readings = [model.classify(mv[round((end_s - RHYTHM_WINDOW_S) * RATE_HZ) :][:WINDOW_SAMPLES]) for end_s in ends_s.tolist()]
    conclusive = [(end_s, read.probabilities[1]) for end_s, read in zip(ends_s, readings, strict=True) if not read.inconclusive]
    latest = np.searchsorted([end_s + BASELINE_SETTLING_S for end_s, _ in conclusive], times_s + LABELLED_AFTER_S) - 1
    af: NDArray[np.bool_] = np.array([False, *(p >= AF_LIKELY_PROBABILITY for _, p in conclusive)])[latest + 1]
    return af


def pair_record(
    name: str, beats: Beats, outputs: NDArray[np.float64], data: Path, in_af: NDArray[np.bool_] | None = None
) -> RecordPrediction:
    """Pair a record's outputs with its reference."""
    truth = load_reference(data / f"{name}.atr", RATES_HZ[name.partition("/")[0]])
    return pair_with_reference(name, truth, beats, outputs, in_af)


def network_inputs(beats: Beats) -> NDArray[np.float32]:
    """Return the network's inputs, (n, 5, 104)."""
    return features(beats.wave_mv, beats.template_mv, beats.rr_s, beats.shape)


def robustness(
    data: Path, networks: Sequence[BeatNet], calibrations: Mapping[str, Calibration], progress: Progress
) -> dict[str, Any]:
    """Return out-of-fold figures by noise level and by loss of packets."""
    networks_by_record = {name: network for held, network in zip(FOLDS, networks, strict=True) for name in held}

    def predict(ecg: Ecg, beats: Beats, truth: Reference) -> RecordPrediction:
        in_af = detect_af(beats.times_s, ecg.mv, ecg.rate_hz)
        return pair_with_reference(
            ecg.name, truth, beats, logits(networks_by_record[f"mitdb/{ecg.name}"], network_inputs(beats)), in_af
        )

    return measure_robustness(data, qrs_classifier(), predict, calibrations, CACHE / f"robustness_{_digest()}", progress)


def release_network(network: BeatNet, calibration: Calibration, training_data: TrainingData, folder: Path) -> None:
    """Write the int8 model, and the float model into the cache."""
    facts = {"name": "ecg_beat", "version": VERSION, "classes": " ".join(CLASSES)}
    facts |= {f"weight_{name}": f"{weight:.4f}" for name, weight in zip(CLASSES, calibration.weights.tolist(), strict=True)}
    write_onnx(network, calibration.temperature, calibration.bias, facts, CACHE / "ecg_beat.float.onnx")
    sampler = Sampler(training_data.pool(RECORDS), SEED)
    range_inputs = sampler.batch(QUANTIZATION_BEATS)[0]
    files = CACHE / "ecg_beat.float.onnx", folder / "ecg_beat.onnx"
    quantize(*files, range_inputs, FLOAT_NODES, float_outputs=True, float_inputs=FLOAT_INPUTS)


def write_results_card(data: Path, folder: Path, network: BeatNet, results: Results, training_data: TrainingData) -> None:
    """Write the model card, with the comparison of int8 and float."""
    size_bytes = (folder / "ecg_beat.onnx").stat().st_size
    training = {
        "seed": SEED,
        "networks": "a convolutional and a dense one, trained apart; the mean of their log-probabilities is used",
        "batch": f"{beat_batches.BATCH} and {beat_batches.DENSE_BATCH}",
        "parameters": beat_net.count_parameters(network),
        "schedule": f"{CONVOLUTIONAL_SCHEDULE} and {DENSE_SCHEDULE}",
    }
    write_card(
        folder,
        card(VERSION, results, measure_agreement(data, folder, results.calibration, training_data), size_bytes, training),
    )


def measure_agreement(data: Path, folder: Path, calibration: Calibration, training_data: TrainingData) -> dict[str, Any]:
    """Compare int8 with float: decisions, probabilities, and F1 on the records as recorded (which both were trained on)."""
    models = CACHE / "ecg_beat.float.onnx", folder / "ecg_beat.onnx"
    sampler = Sampler(training_data.pool(RECORDS), SEED + 1)
    augmented = np.concatenate([sampler.batch()[0] for _ in range(PARITY_BATCHES)])
    clean_inputs = {name: network_inputs(training_data.copies[name][0]) for name in RECORDS}
    found = {
        "as_recorded": asdict(measure_parity(*models, np.concatenate(list(clean_inputs.values())))),
        "augmented": asdict(measure_parity(*models, augmented)),
    }
    released = Calibration(1.0, np.zeros(len(CLASSES)), calibration.weights)
    for model, kind in zip(models, ("float", "int8"), strict=True):
        records = []
        for name, inputs in clean_inputs.items():
            beats = training_data.copies[name][0]
            outputs = np.log(np.maximum(run_model(model, inputs), 1e-12)).astype(np.float64)
            records.append(confusion(pair_record(name, beats, outputs, data), released))
        found[kind] = summarise(figures(total(records)))
    return found


if __name__ == "__main__":
    main()
