"""Train, cross-validate, calibrate, quantize and release `ecg_quality`: `python -m training.ecg_quality --data DIR`.

Takes about 20 minutes on one core. Windows and networks are cached in `--runs`, so an interrupted run can be resumed.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from evaluation.statistics import best_temperature, class_f1, softmax
from models.inference.ecg_quality import CLASSES, WINDOW_SAMPLES, EcgQuality, features, find_signal_defect
from training import quality_evaluation, quality_net, window_net
from training.cache import source_digest
from training.cards import write_card
from training.cinc import LABELS, CincRecording, load_cinc
from training.fit import Schedule, fit_network
from training.options import read_options
from training.quality_card import INT8, describe
from training.quality_data import LABELLED_NOISE, Stretch, Windows, assign_folds, digest, load_windows, mitdb_stretches
from training.quality_net import STATISTICS_BATCHES, batches, loss, make_network
from training.quantize import measure_parity, quantize, run_model
from training.window_net import WindowNet, count_parameters, logits, recompute_norm_statistics, write_onnx

NAME: Final = "ecg_quality"
VERSION: Final = "2"
SEED: Final = 31_100
STEPS: Final = 800
FOLDS: Final = 5
FLOAT_NODES: Final = ("convolution0", "convolution1", "convolution2", "output")
"""Layers that stay float, three tenths of the weights. With all in int8, probabilities change by more than the 0.05 allowed."""

RANGE_WINDOWS: Final = 1500
"""Windows from which the int8 ranges are taken. Among 200 the rare loud ones are missing, and would then be clipped."""

Probabilities = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FoldNetworks:
    """The networks of the folds, and the temperature of their logits. Each predicts the patients that it was not trained on."""

    networks: Sequence[WindowNet]
    temperature: float
    fold_by_patient: dict[str, int]

    def __call__(self, mv: NDArray[np.float32], patients: NDArray[np.str_]) -> Probabilities:
        """Return probabilities (n, 3) of windows (n, 1250) of these patients (n,)."""
        return softmax(self._logits(mv, patients), self.temperature)

    def calibrated(self, windows: Windows) -> "FoldNetworks":
        """Return the same networks with the temperature that fits these windows best."""
        window_logits = self._logits(windows.mv, windows.patients)
        return FoldNetworks(self.networks, best_temperature(window_logits, windows.labels), self.fold_by_patient)

    def _logits(self, mv: NDArray[np.float32], patients: NDArray[np.str_]) -> Probabilities:
        folds = np.array([self.fold_by_patient.get(name, 0) for name in patients.tolist()])
        window_logits = np.empty((len(mv), len(CLASSES)))
        for fold in np.unique(folds).tolist():
            window_logits[folds == fold] = logits(self.networks[fold], mv[folds == fold], features)
        return window_logits


def main() -> None:
    """Write the model and its card."""
    chosen = read_options(__doc__, NAME, "folder that holds mitdb, noise and the archive of CinC 2017", STEPS)
    train(chosen.data, chosen.runs, chosen.release, chosen.steps)


def train(data: Path, runs: Path, release: Path, steps: int) -> None:
    """Run everything from recordings to released files."""
    with Progress() as progress:
        records = load_cinc(data, progress)
        windows = load_windows(data, runs / "windows.npz", progress)
        folds = assign_folds(windows.patients)
        fit = _make_fitter(windows, runs, steps, progress)
        networks = [fit(f"fold{fold}", folds != fold, SEED + 1 + fold) for fold in range(FOLDS)]
        network = fit("final", folds >= 0, SEED)
        held_out = windows[windows.kinds != LABELLED_NOISE]
        fold_by_patient = dict(zip(windows.patients.tolist(), folds.tolist(), strict=True))
        fold_networks = FoldNetworks(networks, 1.0, fold_by_patient).calibrated(held_out)
        float_model, int8_model = runs / f"{NAME}.float.onnx", release / f"{NAME}.onnx"
        write_onnx(network, WINDOW_SAMPLES, fold_networks.temperature, {"name": NAME, "version": VERSION}, float_model)
        quantize(float_model, int8_model, _range_inputs(windows), FLOAT_NODES, float_outputs=True)
        EcgQuality(int8_model.read_bytes())
        stretches = list(mitdb_stretches(data))
    card = {
        "name": NAME,
        "version": VERSION,
        **describe(windows, folds),
        "training": {
            "seed": SEED,
            "steps": steps,
            "parameters": count_parameters(network),
            "size_bytes": int8_model.stat().st_size,
            **_window_counts(windows),
        },
        "calibration": {
            "temperature": fold_networks.temperature,
            "method": "the temperature with the least cross-entropy on the held-out windows of all folds",
        },
        "int8_parity": {"method": INT8} | _parity(float_model, int8_model, held_out),
        **_validation(held_out, fold_networks),
        "robustness": _robustness(data, stretches, fold_networks),
    }
    card["figures"] |= _expert_figures(data, records, fold_networks)
    write_card(release, card)


def _make_fitter(
    windows: Windows, runs: Path, steps: int, progress: Progress
) -> Callable[[str, NDArray[np.bool_], int], WindowNet]:
    def fit(name: str, chosen: NDArray[np.bool_], seed: int) -> WindowNet:
        part = windows[chosen]
        recipe = {
            "seed": seed,
            "windows": digest(),
            "code": source_digest(window_net, quality_net),
            "patients": np.unique(part.patients).tolist(),
        }
        network: WindowNet = fit_network(
            runs / f"{name}.pt", make_network, lambda: batches(part, seed), loss, Schedule(steps), recipe, progress
        )
        return recompute_norm_statistics(network, batches(part, seed), STATISTICS_BATCHES)

    return fit


def _validation(held_out: Windows, fold_networks: FoldNetworks) -> dict[str, Any]:
    """Return the figures on the held-out windows."""
    probability = fold_networks(held_out.mv, held_out.patients)
    database = np.char.partition(held_out.patients, "/")[:, 0]
    mitdb = database == "mitdb"
    return {
        "figures": quality_evaluation.agreement_figures(held_out, probability)
        | {"by_predicted_class": quality_evaluation.beats_by_class(held_out, probability)},
        "per_record": quality_evaluation.group_figures(held_out[mitdb], probability[mitdb], held_out.patients[mitdb]),
        "subgroups": {
            "database": quality_evaluation.group_figures(held_out, probability, database),
            "artefacts": quality_evaluation.group_figures(held_out, probability, held_out.kinds),
        },
        "coverage": quality_evaluation.coverage(held_out, probability),
    }


def _robustness(data: Path, stretches: Sequence[Stretch], fold_networks: FoldNetworks) -> dict[str, Any]:
    rows = {
        f"{snr_db:g} dB": quality_evaluation.noise_figures(windows, fold_networks(windows.mv, windows.patients))
        for snr_db, windows in quality_evaluation.windows_with_noise(data, stretches).items()
    }
    return {"mitdb with noise not used in training, percent": rows}


def _expert_figures(data: Path, records: Sequence[CincRecording], fold_networks: FoldNetworks) -> dict[str, Any]:
    """Return the agreement with experts' labels.

    No training label was made from them, except the weak ones of CinC 2017, which are of other folds.
    """
    long_records = [record for record in records if record.mv.size >= WINDOW_SAMPLES]
    windows_by_record = [
        record.mv[: record.mv.size // WINDOW_SAMPLES * WINDOW_SAMPLES].reshape(-1, WINDOW_SAMPLES) for record in long_records
    ]
    names = np.repeat([f"cinc2017/{record.name}" for record in long_records], [len(part) for part in windows_by_record])
    ends = np.cumsum([len(part) for part in windows_by_record])[:-1]
    probabilities = dict(
        zip(
            [record.name for record in long_records],
            np.split(fold_networks(np.concatenate(windows_by_record), names), ends),
            strict=True,
        )
    )
    usable = [part for record, part in zip(long_records, windows_by_record, strict=True) if LABELS[record.label] != "~"]
    is_lead_off = [find_signal_defect(window) == "lead_off" for window in np.concatenate(usable)]
    parts = [(header, *quality_evaluation.load_expert_notes(header)) for header in sorted((data / "mitdb").glob("*.hea"))]
    names = np.repeat([f"mitdb/{header.stem}" for header, *_ in parts], [len(mv) for _, mv, *_ in parts])
    not_good = quality_evaluation.probability_not_good(
        fold_networks(np.concatenate([mv for _, mv, *_ in parts]).astype(np.float32), names)
    )
    noisy, clean = (np.concatenate([part[index] for part in parts]) for index in (2, 3))
    return {
        "cinc2017_experts": quality_evaluation.figures_by_label(records, probabilities),
        "cinc2017_other_than_noise_measured_as_lead_off_percent": 100 * float(np.mean(is_lead_off)),
        "mitdb_experts": {
            "windows_noisy": int(noisy.sum()),
            "windows_clean": int(clean.sum()),
            "auc": quality_evaluation.auc(not_good[noisy], not_good[clean]),
        },
    }


def _parity(float_model: Path, int8_model: Path, windows: Windows) -> dict[str, Any]:
    inputs = features(windows.mv)
    f1 = [
        class_f1(run_model(model, inputs).argmax(-1), windows.labels, len(CLASSES)).mean()
        for model in (float_model, int8_model)
    ]
    return asdict(measure_parity(float_model, int8_model, inputs)) | {"change_of_f1_mean": float(f1[1] - f1[0])}


def _range_inputs(windows: Windows) -> NDArray[np.float32]:
    chosen = np.random.default_rng(SEED).permutation(len(windows.labels))[:RANGE_WINDOWS]
    return features(windows.mv[chosen])


def _window_counts(windows: Windows) -> dict[str, Any]:
    return {
        "windows": {
            name: int(np.sum((windows.labels == label) & (windows.weights == 1))) for label, name in enumerate(CLASSES)
        },
        "windows_of_recordings_labelled_noise": int(np.sum(windows.weights < 1)),
    }


if __name__ == "__main__":
    main()
