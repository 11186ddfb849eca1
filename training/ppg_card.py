"""The model card of `ppg_quality`: purpose, training data, held-out figures, noise and packet loss, int8 parity."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evaluation.pulse import add_movement, drop_packets, evaluate_pulse, resample_to
from evaluation.pulse_reference import LARGEST_PP_ERROR_S
from evaluation.statistics import bootstrap, calibration_error
from models.inference.ppg_quality import PpgQuality, quality_features
from models.inference.rr_af import RrAf
from training.cards import INT8_STORAGE, LICENCES, NOT_A_DEVICE
from training.ppg_data import SIMULATED, Source, Windows, sample_windows, windows_as_recorded
from training.quantize import measure_parity

THRESHOLDS: Final = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
PARITY_MINUTES: Final = 200
SEED: Final = 20_364

PURPOSE: Final = (
    "Decides whether the pulses that the detector finds in 10 s of PPG (phone camera, wrist, finger) can be trusted: none is "
    "missing or false, and every interval is within 70 ms of the true one. Pulses in other windows are not used for findings."
)
LABELS: Final = (
    "By comparison with a reference, not by eye. A window is good when every expected pulse was found within 150 ms, no other "
    f"pulse was found, and no interval differs from the reference's by more than {1e3 * LARGEST_PP_ERROR_S:.0f} ms. Augmented "
    "windows are compared after the augmentation."
)
AUGMENTATION: Final = (
    "Half of the minutes are recorded and played at 0.8 to 1.25 of their speed; artefacts are added to 80 % of them. Half are "
    "simulated (sinus rhythm, respiratory arrhythmia, AF, premature beats with weak and missing pulses), all with artefacts. "
    "Artefacts: movement in the pulses' frequency band, nearly periodic movement, steps, knocks, saturation, finger off with "
    "ambient light and its flicker, flicker on top of pulses, collapse of the amplitude, camera noise, coarse quantisation, "
    "gaps of 0.1 to 3 s, either polarity."
)
INT8: Final = f"{INT8_STORAGE} The first three convolutions and the output layer stay float, a fifth of the weights."
FIGURES: Final = (
    "Percentages, except for counts, times and the ECE. Held-out figures are those of networks that were not trained on the "
    "person. Windows: 'good' is the share labelled good, coverage the share called good. Pulses: those in windows called good, "
    "compared with the reference; 'all windows' includes the windows called bad. AF: whether rr_af gives the same result from "
    "the pulses as from the reference."
)
KNOWN_FAILURES: Final = (
    "Few people: 15, all in sinus rhythm. AF and ectopic beats were only simulated. Beats without a pulse (pulse deficit) are "
    "invisible to any PPG.",
    "A window in which one weak pulse was missed looks much like a good one.",
    "Nearly periodic movement at the pulse rate cannot be distinguished from a pulse by the PPG alone.",
    "Around every artefact some 5 s on either side are not used, since a second is classified by the 10 s around it.",
    "The data contain no recording of a wrist sensor, of dark skin, of cold hands or of a child.",
)

ATTEMPTS: Final[Mapping[str, str]] = {
    "detector that remembers the last eight pulses and searches back": "F1 96.4 to 97.1 % on welltory-ppg; comparing each "
    "peak only with those within 1.5 s on either side: 97.6 to 97.7 %",
    "time of a pulse": "median error of PP intervals: steepest point 6.1 ms, half height 6.4, largest acceleration 6.8, foot "
    "by tangents 7.1 to 7.6",
    "polarity by quantiles of the slope, or by its third moment with the largest 5 % of the values cut off": "F1 97.5 % at "
    "best (all recordings, all the time), against 98.0 % with the third moment and a memory of 15 s",
    "500 steps on 1500 minutes": "first fold: area under the curve 90 % (recorded, with artefacts)",
}

_AF_LABELS: Final = {"judged": "classified", "same_verdict": "same_result"}
"""How the card names these figures of `evaluate_pulse`."""


@dataclass(frozen=True)
class TrainingResult:
    """Data and models of one training run. `logits` are by networks that were not trained on the window's person."""

    windows: Windows
    logits: NDArray[np.float64]
    temperature: float
    held_out: Mapping[str, PpgQuality]
    groups: Sequence[Sequence[str]]
    training: Mapping[str, Any]
    float_model: Path
    int8_model: Path


def card(data: Path, sources: Sequence[Source], result: TrainingResult) -> dict[str, Any]:
    """Return every section of the card."""
    rhythm = RrAf((result.int8_model.parent / "rr_af.onnx").read_bytes())
    pulse = evaluate_pulse(data, held_out=result.held_out, rhythm=rhythm)
    records = pulse.pop("records")
    model = PpgQuality(result.int8_model.read_bytes())
    return {
        "name": model.name,
        "version": model.version,
        "intended_use": PURPOSE,
        "not_a_medical_device": NOT_A_DEVICE,
        "inputs": "PPG of 10 s at 50 Hz in any unit and polarity, and the mask of the samples received; (n, 2, 500) float32",
        "outputs": "The calibrated probability that the window is good. A window counts as good from a probability of "
        f"{model.threshold}.",
        "data": {
            "used_for_training": ["welltory-ppg", "bidmc"],
            "welltory-ppg": f"{LICENCES['welltory-ppg']} 14 people, phone camera, RR intervals of a Polar H10.",
            "bidmc": f"{LICENCES['bidmc']} Record 01: signal PLETH; the beats are those that this project's detector finds in "
            "lead II.",
            "physionet": LICENCES["physionet"],
            "simulated": "training/ppg_synth.py: sums of Gaussian waves after Allen, Physiol Meas 28:R1-R39, 2007.",
            "labels": LABELS,
        },
        "splits": {
            "method": "Five folds by person. The released network is trained on all people.",
            **{f"fold {index + 1}": list(group) for index, group in enumerate(result.groups)},
        },
        "training": {**result.training, "size_bytes": result.int8_model.stat().st_size, "augmentation": AUGMENTATION},
        "calibration": {
            "method": "one temperature with the least cross-entropy on held-out windows (Guo 2017)",
            "temperature": result.temperature,
            "ece": calibration_error(_probability(result), result.windows.good),
        },
        "figures": {
            "method": FIGURES,
            "windows_held_out": _windows(result, model.threshold),
            "pulses_held_out": {key: value for key, value in pulse.items() if key != "model"}
            | {"af": _rename(pulse["af"]), "ci95": _intervals(list(records.values()))},
            "pulses_released": _brief(evaluate_pulse(data, model)),
        },
        "per_record": {name: _row(record) for name, record in records.items()},
        "subgroups": _subgroups(records),
        "robustness": _robustness(data, result.held_out),
        "int8_parity": {"method": INT8, **_parity(sources, result)},
        "coverage": _coverage(data, result.held_out),
        "attempts": ATTEMPTS,
        "known_failures": list(KNOWN_FAILURES),
    }


def _rename(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {_AF_LABELS.get(name, name): value for name, value in figures.items()}


def _probability(result: TrainingResult) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-result.logits / result.temperature)))


def _windows(result: TrainingResult, threshold: float) -> dict[str, Any]:
    """Return the figures of held-out windows by origin."""
    windows, probability = result.windows, _probability(result)
    simulated = np.char.startswith(windows.origin, SIMULATED)
    parts = {
        "recorded": ~simulated & ~windows.augmented,
        "recorded_with_artefacts": ~simulated & windows.augmented,
        "simulated_with_artefacts": simulated,
        "all": np.ones(simulated.size, np.bool_),
    }
    return {name: _shares(windows.good[part], probability[part], threshold) for name, part in parts.items()}


def _shares(good: NDArray[np.bool_], probability: NDArray[np.float64], threshold: float) -> dict[str, Any]:
    called = probability >= threshold
    return {
        "windows": good.size,
        "good": 100 * float(good.mean()),
        "se": 100 * float(called[good].mean()),
        "sp": 100 * float((~called[~good]).mean()),
        "accuracy": 100 * float((called == good).mean()),
        "auc": _auc(good, probability),
        "ece": calibration_error(probability, good),
        "coverage": 100 * float(called.mean()),
        "ppv": 100 * float(good[called].mean()),
    }


def _auc(good: NDArray[np.bool_], probability: NDArray[np.float64]) -> float:
    """Return the percentage of pairs in which a good window scores above a bad one (Hanley & McNeil 1982); ties count half."""
    bad = np.sort(probability[~good])
    below = np.searchsorted(bad, probability[good], "left") + np.searchsorted(bad, probability[good], "right")
    return 100 * float(below.mean()) / 2 / bad.size


def _intervals(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return 95 % confidence intervals by bootstrap over people."""

    def f1(drawn_records: Sequence[Mapping[str, Any]]) -> float:
        matched, wrong = (sum(r[a] + r[b] for r in drawn_records) for a, b in (("matched", "matched"), ("missed", "false")))
        return 100 * matched / (matched + wrong) if matched else float("nan")

    def coverage(drawn_records: Sequence[Mapping[str, Any]]) -> float:
        return float(np.mean([record["coverage"] for record in drawn_records]))

    def error(drawn_records: Sequence[Mapping[str, Any]]) -> float:
        known = [record["pp_error_ms"]["median"] for record in drawn_records]
        return float(np.median([value for value in known if value is not None]))

    return {
        "pulse_f1": bootstrap(records, f1, SEED),
        "coverage_of_a_record": bootstrap(records, coverage, SEED),
        "median_pp_error_ms_of_a_record": bootstrap(records, error, SEED),
    }


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    everything = record["all_time"]
    return {
        "pulse_f1": record["pulse_f1"],
        "pp_error_ms_median": record["pp_error_ms"]["median"],
        "pp_error_ms_p95": record["pp_error_ms"]["p95"],
        "coverage": record["coverage"],
        "pulse_f1_all_time": everything["pulse_f1"],
        "pp_error_ms_p95_all_time": everything["pp_error_ms"]["p95"],
        "af_by_pulses": record["af"]["by_pulses"],
        "af_by_reference": record["af"]["by_reference"],
    }


def _subgroups(records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    kinds = {"finger clip (PLETH)": "", "camera, column R": "column R", "camera, column G": "column G"}
    out: dict[str, Any] = {}
    for kind, note in kinds.items():
        chosen = [r for r in records.values() if (note in r["notes"] if note else not r["notes"])]
        if chosen:
            matched, wrong = sum(2 * r["matched"] for r in chosen), sum(r["missed"] + r["false"] for r in chosen)
            f1 = 100 * matched / (matched + wrong) if matched else None
            out[kind] = {"records": len(chosen), "pulse_f1": f1, "coverage": float(np.mean([r["coverage"] for r in chosen]))}
    return out


def _brief(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {key: figures[key] for key in ("pulse_f1", "pp_error_ms", "coverage")}


def _robustness(data: Path, held_out: Mapping[str, PpgQuality]) -> dict[str, Any]:
    """Return figures with lost packets, other sampling rates and movement, by held-out models."""
    changes = {f"{round(100 * share)} % of packets lost": drop_packets(share) for share in (0.02, 0.05, 0.1, 0.2)}
    changes |= {f"at {rate_hz:g} Hz": resample_to(rate_hz) for rate_hz in (25.0, 64.0, 128.0, 250.0, 500.0)}
    changes |= {f"movement at {db:g} dB": add_movement(db) for db in (24.0, 18.0, 12.0, 6.0, 0.0)}
    found = {name: evaluate_pulse(data, change=change, held_out=held_out) for name, change in changes.items()}
    return {name: _flat(result) for name, result in found.items()}


def _flat(result: Mapping[str, Any]) -> dict[str, Any]:
    error = result["pp_error_ms"]
    return {
        "pulse_f1": result["pulse_f1"],
        "pp_error_ms_median": error["median"],
        "pp_error_ms_p95": error["p95"],
        "coverage": result["coverage"],
        "pulse_f1_all_time": result["all_time"]["pulse_f1"],
    }


def _parity(sources: Sequence[Source], result: TrainingResult) -> dict[str, Any]:
    recorded = np.concatenate([windows_as_recorded(source).ppg for source in sources])
    sets = {"as_recorded": recorded, "augmented": sample_windows(sources, PARITY_MINUTES, SEED).ppg}
    return {
        name: asdict(measure_parity(result.float_model, result.int8_model, quality_features(windows)))
        for name, windows in sets.items()
    }


def _coverage(data: Path, held_out: Mapping[str, PpgQuality]) -> dict[str, Any]:
    """Return figures with stricter and laxer thresholds, by held-out models."""
    thresholds = {model: model.threshold for model in held_out.values()}
    found: dict[str, Any] = {}
    for threshold in THRESHOLDS:
        for model in thresholds:
            model.threshold = threshold
        found[f"probability from {threshold}"] = _flat(evaluate_pulse(data, held_out=held_out))
    for model, threshold in thresholds.items():
        model.threshold = threshold
    return found
