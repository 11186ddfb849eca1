"""Trains and releases `ecg_beat`: `python -m training.ecg_beat --data DIR`.

Resumable: beats as the agent sees them and every finished network are kept under `training/runs/ecg_beat/`.
"""

import argparse
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import nn

from captures import open_recording
from captures.rhythms import RATES_HZ
from config.files import replacing
from evaluation.beats import figures, total
from evaluation.ec57 import Reference, load_reference
from evaluation.ladders import Ecg
from models import beat_labels
from models.alarm_validation import AF_LIKELY_PROBABILITY, BASELINE_SETTLING_S, RHYTHM_EVERY_S, RHYTHM_WINDOW_S
from models.inference import ecg_beat as inference
from models.inference.ecg_beat import CLASSES, features
from models.inference.ecg_qrs import EcgQrs
from models.inference.ecg_rhythm import WINDOW, EcgRhythm
from models.inference.release import RELEASE_DIR
from models.signal import beat_classifier, chain, envelope, filters, noisy_qrs, peak, qrs, resample, shape
from models.signal.offline import condition
from models.signal.resample import RATE_HZ
from training import beat_batches, beat_data, beat_net, beat_strips, cinc, disturb
from training.beat_batches import Pool, Sampler
from training.beat_card import Evidence, brief, card, robustness
from training.beat_cv import FOLDS, Calibration, Scored, calibrated, confusion, nested, scored
from training.beat_data import RECORDS, Beats, copies, intervals
from training.beat_net import FLOAT_NODES, BeatNet, logits, to_onnx
from training.beat_strips import Strips, strips
from training.cards import write_card
from training.fit import Batch, Schedule, fitted
from training.quantize import parity, quantize, run
from training.sources import code

VERSION: Final = "7"
SEED: Final = 20_261
SCHEDULE: Final = Schedule(steps=1200, rate=3e-3, decay=5e-2, averaged=0.99)
LABELLED_AFTER_S: Final = 2.0
"""A beat is labelled so long after its R peak (`models.beat_labels`), by the rhythm as read then."""
TEACHERS: Final = 2
"""Networks that each network is taught by: together they do better than one."""
SMOOTHING: Final = 0.02
"""Of the labels: two cardiologists agree on ectopic beats in 98 % of cases at best."""
QUANTIZATION_BEATS: Final = 16_000
"""That int8 ranges are taken from: of 500 beats, they leave out what changed a probability by 0.06."""
FLOAT_INPUTS: Final = ("gemm22",)
"""The dense layer takes in two branches, each with a range of its own."""
PARITY_BATCHES: Final = 80

QRS_JUDGE: Final = RELEASE_DIR / "ecg_qrs.onnx"
RUNS: Final = Path(__file__).parent / "runs" / "ecg_beat"


@dataclass(frozen=True, slots=True)
class Material:
    """All copies of every record, the first as recorded, beats of CinC 2017, and intervals of LTAFDB."""

    copies: dict[str, list[Beats]]
    strips: Strips
    rr_s: NDArray[np.float32]
    rr_labels: beat_data.Labels

    def pool(self, names: Sequence[str]) -> Pool:
        """What may be trained on when these are the training patients."""
        parts = [(name, of_it.chosen(of_it.labels >= 0)) for name in names for of_it in self.copies[name]]
        patients = np.concatenate([np.full(len(part), int(name)) for name, part in parts])
        return Pool(Beats.joined([part for _, part in parts]), patients, self.rr_s, self.rr_labels, self.strips)


def main() -> None:
    """Cross-validate, train on all, quantize, write model and card."""
    parser = argparse.ArgumentParser(description="train and release ecg_beat")
    parser.add_argument("--data", type=Path, required=True, help="folder with mitdb, ltafdb and noise")
    parser.add_argument("--release", type=Path, default=RELEASE_DIR)
    data: Path = (arguments := parser.parse_args()).data
    torch.set_num_threads(1)
    with Progress() as progress:
        material = load(data, progress)
        networks = [
            train(f"fold{place}", material, [name for name in RECORDS if name not in held], SEED + place, progress)
            for place, held in enumerate(FOLDS)
        ]
        folds = [
            [in_rhythm(network, name, material.copies[name][0], data) for name in held]
            for held, network in zip(FOLDS, networks, strict=True)
        ]
        everyone = [record for fold in folds for record in fold]
        calibration = calibrated(everyone)
        network = train("all", material, RECORDS, SEED + len(FOLDS), progress)
        release(network, calibration, material, arguments.release)
        evidence = Evidence(everyone, nested(folds), calibration, {})
        write(data, arguments.release, network, evidence, material)
        evidence = replace(evidence, ladders=ladders(data, networks, evidence.nested, progress))
        write(data, arguments.release, network, evidence, material)


def load(data: Path, progress: Progress) -> Material:
    """From `RUNS` where it was prepared by the same code before."""
    found: dict[str, list[Beats]] = {}
    for name in progress.track(RECORDS, description="beats as the agent sees them"):
        files = [RUNS / "beats" / f"{name}_{place}_{_digest()}.npz" for place in range(beat_data.COPIES)]
        if not all(file.exists() for file in files):
            for file, of_it in zip(files, copies(data, name, qrs_judge(), SEED), strict=True):
                _keep(file, of_it)
        found[name] = [_kept(file) for file in files]
    return Material(found, _strips(data, progress), *intervals(data, progress))


def _strips(data: Path, progress: Progress) -> Strips:
    file = RUNS / "beats" / f"cinc2017_{_digest()}.npz"
    rhythms = file.with_suffix(".npy")
    if not file.exists():
        made = strips(data, qrs_judge(), SEED, progress)
        np.save(rhythms, made.rhythms)
        _keep(file, made.beats)
    return Strips(_kept(file), np.load(rhythms))


def _keep(file: Path, beats: Beats) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as draft:
        np.savez(draft, **{key: getattr(beats, key) for key in Beats.__slots__})


def _kept(file: Path) -> Beats:
    with np.load(file) as kept:
        return Beats(*(kept[key] for key in Beats.__slots__))


def _digest() -> str:
    """Of all that decides what the agent sees of a beat."""
    detector = code(beat_classifier, chain, envelope, filters, noisy_qrs, peak, qrs, resample, shape)
    sources = f"{code(beat_data, beat_strips, disturb, beat_labels, inference)}{detector}{cinc.digest()}"
    return hashlib.sha256(sources.encode() + QRS_JUDGE.read_bytes()).hexdigest()[:16]


def qrs_judge() -> EcgQrs:
    """The released `ecg_qrs`, which has seen no record of mitdb."""
    return EcgQrs(QRS_JUDGE.read_bytes())


def train(name: str, material: Material, names: Sequence[str], seed: int, progress: Progress) -> BeatNet:
    """One network of these patients, taught by `TEACHERS` others of the same patients: it does as well as all of them."""
    recipe = {"records": list(names), "data": _digest(), "code": code(beat_batches, beat_net)}
    pool = material.pool(names)

    def teachers() -> list[BeatNet]:
        return [
            fit(f"{name}_teacher{place}", seed + 100 * place, Sampler(pool, seed + 100 * place).stream)
            for place in range(1, TEACHERS + 1)
        ]

    def fit(label: str, own_seed: int, batches: Callable[[], Iterator[Batch]]) -> BeatNet:
        loss = nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
        network: BeatNet = fitted(RUNS / f"{label}.pt", BeatNet, batches, loss, SCHEDULE, recipe | {"seed": own_seed}, progress)
        return network

    return fit(name, seed, lambda: Sampler(pool, seed).stream(teachers()))


def in_rhythm(network: BeatNet, name: str, beats: Beats, data: Path) -> Scored:
    """One record by a network that never saw the patient, with the rhythm known."""
    recording = open_recording(data / "mitdb" / f"{name}.hea")
    in_af = af_at(beats.times_s, recording.mv, recording.rate_hz)
    return paired(name, beats, logits(network, inputs(beats)), data, in_af)


def af_at(times_s: NDArray[np.float64], recorded_mv: NDArray[np.float64], rate_hz: float) -> NDArray[np.bool_]:
    """Whether `ecg_rhythm`, which has seen no record of mitdb, reads AF when a beat is labelled, as in the agent; (beats,)."""
    model = EcgRhythm((RELEASE_DIR / "ecg_rhythm.onnx").read_bytes())
    mv = condition(recorded_mv, rate_hz).mv
    ends_s = np.arange(RHYTHM_WINDOW_S, mv.size / RATE_HZ, RHYTHM_EVERY_S)
    readings = [model.classify(mv[round((end_s - RHYTHM_WINDOW_S) * RATE_HZ) :][:WINDOW]) for end_s in ends_s.tolist()]
    told = [(end_s, read.probabilities[1]) for end_s, read in zip(ends_s, readings, strict=True) if not read.inconclusive]
    latest = np.searchsorted([end_s + BASELINE_SETTLING_S for end_s, _ in told], times_s + LABELLED_AFTER_S) - 1
    af: NDArray[np.bool_] = np.array([False, *(p >= AF_LIKELY_PROBABILITY for _, p in told)])[latest + 1]
    return af


def paired(name: str, beats: Beats, outputs: NDArray[np.float64], data: Path, in_af: NDArray[np.bool_] | None = None) -> Scored:
    """A record's outputs beside its reference."""
    truth = load_reference(data / "mitdb" / f"{name}.atr", RATES_HZ["mitdb"])
    return scored(name, truth, beats, outputs, in_af)


def inputs(beats: Beats) -> NDArray[np.float32]:
    """(n, 5, 104)."""
    return features(beats.wave_mv, beats.template_mv, beats.rr_s, beats.shape)


def ladders(
    data: Path, networks: Sequence[BeatNet], calibrations: Mapping[str, Calibration], progress: Progress
) -> dict[str, Any]:
    """Out-of-fold figures with rising noise and rising loss of packets."""
    of_record = {name: network for held, network in zip(FOLDS, networks, strict=True) for name in held}

    def judge(ecg: Ecg, beats: Beats, truth: Reference) -> Scored:
        in_af = af_at(beats.times_s, ecg.mv, ecg.rate_hz)
        return scored(ecg.name, truth, beats, logits(of_record[ecg.name], inputs(beats)), in_af)

    return robustness(data, qrs_judge(), judge, calibrations, RUNS / f"ladder_{_digest()}", progress)


def release(network: BeatNet, calibration: Calibration, material: Material, folder: Path) -> None:
    """Write the int8 model, and the float one beside the kept networks."""
    facts = {"name": "ecg_beat", "version": VERSION, "classes": " ".join(CLASSES)}
    facts |= {f"weight_{name}": f"{weight:.4f}" for name, weight in zip(CLASSES, calibration.weights.tolist(), strict=True)}
    to_onnx(network, calibration.temperature, calibration.bias, facts, RUNS / "ecg_beat.float.onnx")
    sampler = Sampler(material.pool(RECORDS), SEED)
    ranged = sampler.batch(QUANTIZATION_BEATS)[0]
    files = RUNS / "ecg_beat.float.onnx", folder / "ecg_beat.onnx"
    quantize(*files, ranged, FLOAT_NODES, float_sums=True, float_inputs=FLOAT_INPUTS)


def write(data: Path, folder: Path, network: BeatNet, evidence: Evidence, material: Material) -> None:
    """The card, with int8 against float."""
    size = (folder / "ecg_beat.onnx").stat().st_size
    training = {
        "seed": SEED,
        "steps": SCHEDULE.steps,
        "batch": beat_batches.BATCH,
        "teachers": f"{TEACHERS} networks of the same patients; {beat_batches.TAUGHT} of a target is their opinion",
        "parameters": beat_net.parameters(network),
        "schedule": repr(SCHEDULE),
    }
    write_card(folder, card(VERSION, evidence, agreements(data, folder, evidence.calibration, material), size, training))


def agreements(data: Path, folder: Path, calibration: Calibration, material: Material) -> dict[str, Any]:
    """int8 against float: decisions, probabilities, and F1 in the records as they are (which both were trained on)."""
    models = RUNS / "ecg_beat.float.onnx", folder / "ecg_beat.onnx"
    drawn = Sampler(material.pool(RECORDS), SEED + 1)
    augmented = np.concatenate([drawn.batch()[0] for _ in range(PARITY_BATCHES)])
    clean = {name: inputs(material.copies[name][0]) for name in RECORDS}
    found = {
        "as_recorded": asdict(parity(*models, np.concatenate(list(clean.values())))),
        "augmented": asdict(parity(*models, augmented)),
    }
    released = Calibration(1.0, np.zeros(len(CLASSES)), calibration.weights)
    for model, kind in zip(models, ("float", "int8"), strict=True):
        records = []
        for name, of_it in clean.items():
            beats = material.copies[name][0]
            outputs = np.log(np.maximum(run(model, of_it), 1e-12)).astype(np.float64)
            records.append(confusion(paired(name, beats, outputs, data), released))
        found[kind] = brief(figures(total(records)))
    return found


if __name__ == "__main__":
    main()
