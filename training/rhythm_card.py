"""The model card of `ecg_rhythm`: purpose, training data, cross-validated figures, noise and packet loss, known failures."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from models.inference.ecg_rhythm import CLASSES, ROWS, WINDOW_SAMPLES
from models.signal.resample import RATE_HZ
from training.cards import INT8_STORAGE, LICENCES, NOT_A_DEVICE
from training.cinc import CincRecording
from training.rhythm_cv import CrossValidation, measure_robustness
from training.rhythm_score import confidence_intervals, confusion, coverage, summary

PURPOSE: Final = (
    "Distinguishes normal sinus rhythm, atrial fibrillation, other rhythms and noise in 9 to 30 s of one ECG lead, to draw a "
    "clinician's attention to a stretch of recording."
)
INPUTS: Final = (
    f"features (n, {ROWS}, {WINDOW_SAMPLES}) float32, computed by models.inference.ecg_rhythm.features from 30 s of mV at 125 "
    "Hz (0.5 to 40 Hz, NaN where missing): the signal, divided by the 99th percentile of its absolute samples, and the gap "
    "mask."
)
OUTPUTS: Final = (
    "Calibrated probabilities (n, 4) of normal sinus rhythm (N), atrial fibrillation (A), other rhythms (O) and noise (~). "
    "Offsets of A and O are chosen so that the most probable class has the best mean F1. For recordings longer than 30 s, the "
    "probabilities are the mean over windows that overlap by half. The result is inconclusive for one of these reasons: "
    "too_short (less than 9 s), gaps (less than 60 % of the samples received), lead_off (more than 40 % of the seconds flat), "
    "noise (~ is most probable), out_of_distribution (the probability of the most probable class is below lowest_probability, "
    "a limit that nine recordings in ten reach)."
)
AUGMENTATION: Final = (
    "Every recording has two copies with artefacts, from which 40 % of the windows are drawn. Artefacts are noise at 24 to -6 "
    "dB (channel 0 of the noise records, muscle- and mains-like noise), saturation, lead off, lost packets and gaps. Below 0 "
    "dB, up to 70 % of the target moves from the label to noise. Windows are cut anywhere, last 10 to 30 s and are stretched "
    "in time by up to 12 %; 30 % are inverted. Labels are smoothed by 0.07. Rare classes are drawn more often than they occur."
)
INT8: Final = (
    f"{INT8_STORAGE} Static QDQ, weights per channel, signed activations by minimum and maximum. The stem, the first block, "
    "the layers that read its output and the last layer stay float. The ranges of the channels are equalised first, which "
    "changes nothing in float. The folds use int8 networks too, so every figure here is an int8 figure."
)
FIGURES: Final = (
    "F1 in percent. The mean F1 includes N, A and O, as in the Challenge. The most confident 90 % are the recordings with the "
    "most probable answers. Confidence intervals are by bootstrap over recordings. In the confusion matrix, rows are the "
    "labels and columns the answers."
)
KNOWN_FAILURES: Final = (
    "Other rhythms are the hardest class: one in six is called normal, and one normal recording in fifteen is called other. "
    "The Challenge does not say which rhythms they are, so it is unknown which of them are missed.",
    "Slow AF (below 60 bpm, 42 recordings): half of these recordings are called other. Over 100 bpm, three of the 19 "
    "recordings labelled normal are called normal, most of the others other.",
    "Noise unlike that of training: F1 falls fast below 12 dB of SNR and means little from 0 dB down, where the probabilities "
    "are not calibrated either. With more noise fewer recordings get an answer (see the recordings answered under "
    "robustness); those answers stay as accurate.",
    "Noise is the rarest class and experts disagree about it: half of what they call noise is classified as a rhythm.",
    "Recordings shorter than 20 s are classified less accurately than those longer than 40 s.",
    "There are no patient ids: recordings of one patient may be in training and test folds. Results vary between the folds "
    "(see per record).",
    "All recordings come from one kind of device (AliveCor, hand to hand, mostly lead I) and from adults who chose to record. "
    "Straps and other leads were not included.",
    "The threshold for inconclusive answers reflects uncertainty between the four classes, not inputs of an unknown kind. It "
    "was chosen on the recordings for which it is reported.",
)
ATTEMPTS: Final[Mapping[str, Any]] = {
    "method": "Unless stated otherwise: the first fold, without offsets, one seed each. Differences below one percentage "
    "point mean little. Design choices were made on the first two folds; no other recipe was tried on the other three.",
    "variants": {
        "signal and gap mask, 16 epochs": {"f1_mean": 79.1, "f1_mean_at_90_percent": 84.1},
        "signal and gap mask, 24 epochs": {"f1_mean": 81.4, "f1_mean_at_90_percent": 86.3},
        "the same, mean of both polarities": {"f1_mean": 81.4, "f1_mean_at_90_percent": 85.5},
        "the same, with offsets of A and O (fitted on one half of the fold, evaluated on the other)": {
            "f1_mean": 82.2,
            "f1_mean_at_90_percent": 86.2,
        },
        "with rows for the detected beats (RR, its change, QRS similarity), the mean beat and 20 RR statistics, 24 epochs": {
            "f1_mean": 78.1,
            "f1_mean_at_90_percent": 82.2,
        },
        "rows for the detected beats added at a low rate, stem of stride 4, 24 epochs": {
            "f1_mean": 78.9,
            "f1_mean_at_90_percent": 82.5,
        },
        "mean of the networks with and without rows for the beats": {"f1_mean": 81.1},
        "regression on 20 RR statistics alone": {"f1_mean": 69.3, "f1_mean_at_90_percent": 72.7},
        "signal and gap mask, 24 epochs, followed by a regression that adds the 20 RR statistics": {
            "f1_mean": 82.2,
            "f1_mean_at_90_percent": 85.3,
        },
        "released recipe (42 epochs)": {"f1_mean": 81.7, "f1_mean_at_90_percent": 85.7},
        "released recipe, the first two folds": {"f1_mean": 83.6, "f1_mean_at_90_percent": 87.6},
        "released recipe, the first two folds, followed by a regression that adds 10 RR statistics": {
            "f1_mean": 84.0,
            "f1_mean_at_90_percent": 87.9,
        },
        "released recipe, the first two folds, followed by a regression without RR statistics": {
            "f1_mean": 84.0,
            "f1_mean_at_90_percent": 87.7,
        },
        "int8 without equalised channel ranges, with the terms of sums rounded": {"agreement": 99.4, "largest_change": 0.2},
    },
}
"""Variants tried. Figures are in percent, except `largest_change`."""

TARGETS: Final = {"f1_mean": 83.0, "f1_mean_at_90_percent": 86.0, "ece": 0.03}
_SEED: Final = 1


def card(
    facts: Mapping[str, str],
    training: Mapping[str, Any],
    result: CrossValidation,
    parity: Mapping[str, Any],
    size_bytes: int,
    data: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Return every section of the card."""
    robustness = measure_robustness(result, data, _SEED, progress)
    labels, probability = result.labels, result.probability
    calibration = result.calibration
    return {
        "name": facts["name"],
        "version": facts["version"],
        "intended_use": PURPOSE,
        "not_a_medical_device": NOT_A_DEVICE,
        "inputs": INPUTS,
        "outputs": OUTPUTS,
        "data": {
            "used_for_training": ["cinc2017", "nstdb"],
            "cinc2017": LICENCES["cinc2017"] + f" {len(labels)} recordings of its training set.",
            "nstdb": LICENCES["nstdb"],
            "physionet": LICENCES["physionet"],
        },
        "splits": {
            "method": "Five folds with the same mix of labels; recordings are assigned in turn by name. There are no patient "
            "ids.",
            "records": {f"fold {index}": " ".join(r.name for r in fold.records) for index, fold in enumerate(result.folds)},
        },
        "training": {**training, "augmentation": AUGMENTATION},
        "calibration": {
            "temperature": calibration.temperature,
            "offsets": dict(zip(CLASSES, calibration.offsets, strict=True)),
            "method": "Each fold is evaluated with the temperature and the offsets of the other four; the released model has "
            "those of all five. Both are part of the graph.",
        },
        "figures": _figures(probability, labels),
        "per_record": _misclassified(result),
        "subgroups": _subgroups(result),
        "robustness": {
            "noise_and_packet_loss": robustness,
            "change_of_f1_mean_at_5_percent_lost": _change_of_f1_mean(robustness),
        },
        "int8_parity": {"method": INT8, "size_bytes": size_bytes, **parity},
        "coverage": {"lowest_probability": float(facts["lowest_probability"]), "curve": coverage(probability, labels)},
        "attempts": ATTEMPTS,
        "known_failures": list(KNOWN_FAILURES),
    }


def _figures(probability: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, Any]:
    figures, limits = summary(probability, labels), confidence_intervals(probability, labels, _SEED)
    measured = {
        name: {"value": value, "interval_95": limits[name], "target": TARGETS.get(name)} for name, value in figures.items()
    }
    return {"method": FIGURES} | measured | {"confusion": confusion(probability, labels)}


def _change_of_f1_mean(robustness: Mapping[str, Any]) -> float:
    with_loss, without = (robustness[name]["f1_mean"] for name in ("5 % of packets lost", "as recorded"))
    return float(with_loss - without) / 100


def _misclassified(result: CrossValidation) -> dict[str, Any]:
    """Return the figures of each fold, and the names of the misclassified recordings by labelled and predicted class."""
    called, names = result.probability.argmax(-1), np.array([record.name for record in result.records])
    starts = np.cumsum([0, *[len(fold.records) for fold in result.folds]])
    table = {
        f"fold {index}": summary(result.probability[start:end], result.labels[start:end])
        for index, (start, end) in enumerate(pairwise(starts.tolist()))
    }
    wrong = {
        f"{CLASSES[true]} called {CLASSES[predicted]}": " ".join(
            names[(result.labels == true) & (called == predicted)].tolist()
        )
        for true in range(len(CLASSES))
        for predicted in range(len(CLASSES))
        if true != predicted
    }
    return {"folds": table, "misclassified": wrong}


def _subgroups(result: CrossValidation) -> dict[str, Any]:
    """Return figures by heart rate and length, and with inverted polarity."""
    records = result.records
    length = np.array([record.mv.size / RATE_HZ for record in records])
    rate = np.array([_heart_rate(record) for record in records])
    groups: dict[str, NDArray[np.bool_]] = {
        "below 60 bpm": rate < 60,
        "60 to 100 bpm": (rate >= 60) & (rate <= 100),
        "over 100 bpm": rate > 100,
        "under 20 s": length < 20,
        "20 to 40 s": (length >= 20) & (length <= 40),
        "over 40 s": length > 40,
    }
    out = {
        name: {"recordings": int(chosen.sum()), **summary(result.probability[chosen], result.labels[chosen])}
        for name, chosen in groups.items()
    }
    return out | {"all, inverted polarity": {"recordings": len(records), **summary(result.inverted, result.labels)}}


def _heart_rate(record: CincRecording) -> float:
    """Return the heart rate in beats a minute from the median interval, or NaN without intervals."""
    return 60 / float(np.median(np.diff(record.beat_s))) if record.beat_s.size > 1 else float("nan")
