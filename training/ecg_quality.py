"""Train, cross-validate, calibrate, quantize and release `ecg_quality`: `python -m training.ecg_quality --data DIR`.

Takes about 20 minutes on one core. What an interrupted run has done, windows and networks, is taken from `--runs`.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from evaluation.statistics import best_temperature, class_f1, softmax
from models.inference.ecg_quality import CLASSES, WINDOW, EcgQuality, features, find_signal_defect
from models.inference.release import RELEASE_DIR
from training import quality_check as check
from training import quality_net
from training.cards import write_card
from training.cinc import LABELS, Recorded, load_cinc
from training.fit import Schedule, fitted
from training.quality_card import describe
from training.quality_data import LABELLED_NOISE, Stretch, Windows, digest, folds, load_windows, mitdb_stretches
from training.quality_net import QualityNet, batches, logits, loss, parameters, settle, to_onnx
from training.quantize import parity, quantize, run
from training.sources import code

NAME: Final = "ecg_quality"
VERSION: Final = "2"
SEED: Final = 31_100
STEPS: Final = 800
FOLDS: Final = 5
FLOAT_NODES: Final = ("convolution0", "convolution1", "convolution2", "output")
"""Layers that stay float, three tenths of the weights: int8 throughout changes probabilities by more than the 0.05 allowed."""

CALIBRATION: Final = 1500
"""Windows that the ranges of int8 are taken from: among 200 the rare loud ones are missing, and then they are cut."""

HERE: Final = Path(__file__).parent

Probabilities = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Judges:
    """The networks of the folds, and the temperature of their logits. Each judges the patients that it has not seen."""

    networks: Sequence[QualityNet]
    temperature: float
    fold_of: dict[str, int]

    def __call__(self, mv: NDArray[np.float32], patients: NDArray[np.str_]) -> Probabilities:
        """(n, 1250) and (n,) to (n, 3)."""
        return softmax(self._logits(mv, patients), self.temperature)

    def calibrated(self, windows: Windows) -> "Judges":
        """With the temperature that fits these windows best."""
        raw = self._logits(windows.mv, windows.patients)
        return Judges(self.networks, best_temperature(raw, windows.labels), self.fold_of)

    def _logits(self, mv: NDArray[np.float32], patients: NDArray[np.str_]) -> Probabilities:
        fold = np.array([self.fold_of.get(name, 0) for name in patients.tolist()])
        raw = np.empty((len(mv), len(CLASSES)))
        for place in np.unique(fold).tolist():
            raw[fold == place] = logits(self.networks[place], mv[fold == place])
        return raw


def main() -> None:
    """Write the model and its card."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True, help="folder that holds mitdb, noise and the archive of CinC 2017")
    options.add_argument("--runs", type=Path, default=HERE / "runs" / NAME, help="where windows and networks are kept")
    options.add_argument("--release", type=Path, default=RELEASE_DIR)
    options.add_argument("--steps", type=int, default=STEPS, help="of gradient descent, per network")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    chosen.release.mkdir(parents=True, exist_ok=True)
    train(chosen.data, chosen.runs, chosen.release, chosen.steps)


def train(data: Path, runs: Path, release: Path, steps: int) -> None:
    """Everything from recordings to released files."""
    with Progress() as progress:
        records = load_cinc(data, progress)
        windows = load_windows(data, runs / "windows.npz", progress)
        fold = folds(windows.patients)
        fit = _fitter(windows, runs, steps, progress)
        networks = [fit(f"fold{place}", fold != place, SEED + 1 + place) for place in range(FOLDS)]
        network = fit("final", fold >= 0, SEED)
        scored = windows[windows.kinds != LABELLED_NOISE]
        fold_of = dict(zip(windows.patients.tolist(), fold.tolist(), strict=True))
        judges = Judges(networks, 1.0, fold_of).calibrated(scored)
        float_model, int8_model = runs / f"{NAME}.float.onnx", release / f"{NAME}.onnx"
        to_onnx(network, judges.temperature, {"name": NAME, "version": VERSION}, float_model)
        quantize(float_model, int8_model, _calibration(windows), FLOAT_NODES, float_sums=True)
        EcgQuality(int8_model.read_bytes())
        stretches = list(mitdb_stretches(data))
    card = {
        "name": NAME,
        "version": VERSION,
        **describe(windows, fold),
        "training": {
            "seed": SEED,
            "steps": steps,
            "parameters": parameters(network),
            "size_bytes": int8_model.stat().st_size,
            **_counts(windows),
        },
        "calibration": {"temperature": judges.temperature, "chosen_on": "the held-out windows of all folds, by cross-entropy"},
        "int8_parity": _parity(float_model, int8_model, scored),
        **_validation(scored, judges),
        "robustness": _robustness(data, stretches, judges),
    }
    card["figures"] |= _independent(data, records, judges)
    write_card(release, card)


def _fitter(
    windows: Windows, runs: Path, steps: int, progress: Progress
) -> Callable[[str, NDArray[np.bool_], int], QualityNet]:
    def fit(name: str, chosen: NDArray[np.bool_], seed: int) -> QualityNet:
        part = windows[chosen]
        recipe = {"seed": seed, "windows": digest(), "code": code(quality_net), "patients": np.unique(part.patients).tolist()}
        network: QualityNet = fitted(
            runs / f"{name}.pt", QualityNet, lambda: batches(part, seed), loss, Schedule(steps), recipe, progress
        )
        return settle(network, part, seed)

    return fit


def _validation(scored: Windows, judges: Judges) -> dict[str, Any]:
    """Figures on the held-out windows."""
    probability = judges(scored.mv, scored.patients)
    database = np.char.partition(scored.patients, "/")[:, 0]
    mitdb = database == "mitdb"
    return {
        "figures": check.scores(scored, probability) | {"by_verdict": check.beats_by_verdict(scored, probability)},
        "per_record": check.groups(scored[mitdb], probability[mitdb], scored.patients[mitdb]),
        "subgroups": {
            "database": check.groups(scored, probability, database),
            "disturbance": check.groups(scored, probability, scored.kinds),
        },
        "coverage": check.coverage(scored, probability),
    }


def _robustness(data: Path, stretches: Sequence[Stretch], judges: Judges) -> dict[str, Any]:
    rows = {
        f"{snr_db:g} dB": check.ladder_row(windows, judges(windows.mv, windows.patients))
        for snr_db, windows in check.ladder(data, stretches).items()
    }
    return {"mitdb with noise that no training saw, percent": rows}


def _independent(data: Path, records: Sequence[Recorded], judges: Judges) -> dict[str, Any]:
    """Against what experts said, which no label was made of (but for the weak ones of CinC 2017, of other folds)."""
    long = [record for record in records if record.mv.size >= WINDOW]
    cuts = [record.mv[: record.mv.size // WINDOW * WINDOW].reshape(-1, WINDOW) for record in long]
    names = np.repeat([f"cinc2017/{record.name}" for record in long], [len(cut) for cut in cuts])
    ends = np.cumsum([len(cut) for cut in cuts])[:-1]
    verdicts = dict(zip([record.name for record in long], np.split(judges(np.concatenate(cuts), names), ends), strict=True))
    usable = [cut for record, cut in zip(long, cuts, strict=True) if LABELS[record.label] != "~"]
    measured = [find_signal_defect(window) == "lead_off" for window in np.concatenate(usable)]
    parts = [(header, *check.remarks(header)) for header in sorted((data / "mitdb").glob("*.hea"))]
    names = np.repeat([f"mitdb/{header.stem}" for header, *_ in parts], [len(mv) for _, mv, *_ in parts])
    doubt = check.not_good(judges(np.concatenate([mv for _, mv, *_ in parts]).astype(np.float32), names))
    noisy, clean = (np.concatenate([part[place] for part in parts]) for place in (2, 3))
    return {
        "cinc2017_experts": check.by_label(records, verdicts),
        "cinc2017_not_noise_measured_as_lead_off_percent": 100 * float(np.mean(measured)),
        "mitdb_experts": {
            "windows_noisy": int(noisy.sum()),
            "windows_clean": int(clean.sum()),
            "auc": check.auc(doubt[noisy], doubt[clean]),
        },
    }


def _parity(float_model: Path, int8_model: Path, windows: Windows) -> dict[str, Any]:
    inputs = features(windows.mv)
    f1 = [class_f1(run(model, inputs).argmax(-1), windows.labels, len(CLASSES)).mean() for model in (float_model, int8_model)]
    return asdict(parity(float_model, int8_model, inputs)) | {"change_of_f1_mean": float(f1[1] - f1[0])}


def _calibration(windows: Windows) -> NDArray[np.float32]:
    chosen = np.random.default_rng(SEED).permutation(len(windows.labels))[:CALIBRATION]
    return features(windows.mv[chosen])


def _counts(windows: Windows) -> dict[str, Any]:
    return {
        "windows": {
            name: int(np.sum((windows.labels == place) & (windows.weights == 1))) for place, name in enumerate(CLASSES)
        },
        "windows_labelled_noise": int(np.sum(windows.weights < 1)),
    }


if __name__ == "__main__":
    main()
