"""The label of `ecg_rhythm`: what it is for, what it was trained on, and how it fared."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from models.inference.ecg_rhythm import CLASSES, ROWS, WINDOW
from models.signal.resample import RATE_HZ
from training.cards import LICENCES, NOT_A_DEVICE
from training.cinc import Recorded
from training.rhythm_score import confusion, coverage, intervals, summary
from training.rhythm_test import Tested, ladders

PURPOSE: Final = (
    "Tells normal sinus rhythm, atrial fibrillation, another rhythm and noise apart in 9 to 30 s of one ECG lead, to draw a "
    "clinician's attention to a stretch of recording."
)
INPUTS: Final = (
    f"features (n, {ROWS}, {WINDOW}) float32, made by models.inference.ecg_rhythm.features from 30 s of mV at 125 Hz (0.5 to "
    "40 Hz, NaN where missing): the signal over the height that 1 % of it exceeds, and the gap mask."
)
OUTPUTS: Final = (
    "probability (n, 4) of N, A, O, ~: calibrated. Offsets of A and O make the likeliest class the one with the best mean F1. "
    "Recordings longer than 30 s: the mean over windows that overlap by half. Inconclusive when too_short (< 9 s), gaps "
    "(< 60 % known), lead_off (> 40 % of the seconds flat), noise (~ is likeliest) or out_of_distribution (the likeliest class "
    "below lowest_probability, which leaves nine recordings in ten)."
)
AUGMENTATION: Final = (
    "Two disturbed copies of every recording, drawn 40 % of the time: noise at 24 to -6 dB (channel 0 of the noise records, "
    "muscle- and mains-like noise; below 0 dB up to 70 % of the label goes to noise), saturation, lead off, lost packets and "
    "gaps. Windows: cut anywhere, 10 to 30 s, time stretched by up to 12 %, upside down (30 %). Labels smoothed by 0.07; rare "
    "classes drawn more often."
)
QUANTIZATION: Final = (
    "Static QDQ, weights per channel, signed activations by minimum and maximum; the stem, the first block, what reads its "
    "output and the last layer stay float. Before, channels are brought to like ranges, which changes nothing in float. Folds "
    "are judged by int8 networks too, so every figure here is one of int8."
)
KNOWN_FAILURES: Final = (
    "Other rhythms are the hardest class: one in six is called normal, and one normal recording in fifteen is called other. "
    "The Challenge does not say which rhythms they are, so neither is known which of them are missed.",
    "Slow AF (below 60 bpm, 42 recordings): half is called other. Over 100 bpm 19 recordings are labelled normal; three are "
    "called so, most of the rest other.",
    "Noise it was not shown: F1 falls fast below 12 dB of SNR and means little from 0 dB down, where the probabilities are no "
    "longer calibrated either. Fewer and fewer get an answer (see answered percent); those that do stay as right as before.",
    "Noise is the rarest class and experts disagree about it: half of what they call noise gets a rhythm.",
    "Under 20 s it is worse than over 40 s.",
    "No patient ids: a patient with several recordings may be in training and test folds. Folds vary (see there).",
    "One kind of device (AliveCor, hand to hand, mostly lead I), adults who chose to record; straps and other leads were not "
    "part of it.",
    "The threshold of inconclusive answers sees uncertainty between the four classes, not inputs of an unknown kind. It was "
    "chosen on the same recordings that it is reported for.",
)
ATTEMPTS: Final[Mapping[str, Any]] = {
    "how": "Unless said on the first fold, without offsets, one seed each: differences below 1 mean little. Design choices "
    "were made on the first two folds; no other recipe was tried on the other three.",
    "tried": {
        "signal and gap mask, 16 epochs": {"f1_mean": 79.1, "f1_mean_at_90_percent": 84.1},
        "signal and gap mask, 24 epochs": {"f1_mean": 81.4, "f1_mean_at_90_percent": 86.3},
        "the same, both polarities averaged": {"f1_mean": 81.4, "f1_mean_at_90_percent": 85.5},
        "the same, with offsets of A and O (fitted on one half of the fold, scored on the other)": {
            "f1_mean": 82.2,
            "f1_mean_at_90_percent": 86.2,
        },
        "with rows of the detected beats (RR, its change, likeness of QRS), the average beat and 20 RR statistics, 24 epochs": {
            "f1_mean": 78.1,
            "f1_mean_at_90_percent": 82.2,
        },
        "rows of the detected beats joined at a low rate, stem of stride 4, 24 epochs": {
            "f1_mean": 78.9,
            "f1_mean_at_90_percent": 82.5,
        },
        "mean of the networks with and without beats": {"f1_mean": 81.1},
        "20 RR statistics alone, regression": {"f1_mean": 69.3, "f1_mean_at_90_percent": 72.7},
        "signal and gap mask, 24 epochs, and a regression with the 20 RR statistics behind it": {
            "f1_mean": 82.2,
            "f1_mean_at_90_percent": 85.3,
        },
        "released recipe (42 epochs)": {"f1_mean": 81.7, "f1_mean_at_90_percent": 85.7},
        "released recipe, the first two folds": {"f1_mean": 83.6, "f1_mean_at_90_percent": 87.6},
        "released recipe, the first two folds, and a regression with 10 RR statistics behind it": {
            "f1_mean": 84.0,
            "f1_mean_at_90_percent": 87.9,
        },
        "released recipe, the first two folds, and a regression without them": {"f1_mean": 84.0, "f1_mean_at_90_percent": 87.7},
        "int8 without like ranges, sums rounded": {"agreement": 99.4, "largest_change": 0.2},
    },
}
"""Percent, but `largest_change`."""

BARS: Final = {"f1_mean": 83.0, "f1_mean_at_90_percent": 86.0, "ece": 0.03}
_SEED: Final = 1


def card(
    facts: Mapping[str, str],
    training: Mapping[str, Any],
    tested: Tested,
    parity: Mapping[str, Any],
    size: int,
    data: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Everything about it, as data; see `training.cards`."""
    robustness = ladders(tested, data, _SEED, progress)
    whole = robustness["as recorded"]["f1_mean"]
    labels, probability = tested.labels, tested.probability
    figures, limits = summary(probability, labels), intervals(probability, labels, _SEED)
    calibration = tested.calibration
    return {
        "name": facts["name"],
        "version": facts["version"],
        "intended_use": PURPOSE,
        "not_a_medical_device": NOT_A_DEVICE,
        "inputs": INPUTS,
        "outputs": OUTPUTS,
        "data": {
            "cinc2017": LICENCES["cinc2017"] + f" {len(labels)} recordings of its training set.",
            "nstdb": LICENCES["nstdb"],
            "physionet": LICENCES["physionet"],
        },
        "splits": {
            "how": "Five folds alike in labels, by name in turn; there are no patient ids.",
            "records": {f"fold {place}": " ".join(r.name for r in fold.records) for place, fold in enumerate(tested.folds)},
        },
        "training": {**training, "augmentation": AUGMENTATION},
        "calibration": {
            "temperature": calibration.temperature,
            "offsets": dict(zip(CLASSES, calibration.offsets, strict=True)),
            "how": "Each fold is judged with the temperature and the offsets of the other four; the released model has those "
            "of all five. Both are part of the graph.",
        },
        "figures": {
            name: {"value": value, "interval_95": limits[name], "bar": BARS.get(name)} for name, value in figures.items()
        }
        | {"confusion": confusion(probability, labels)},
        "per_record": _misjudged(tested),
        "subgroups": _subgroups(tested),
        "robustness": {
            "ladders": robustness,
            "change_of_f1_mean_at_5_percent_lost": (robustness["5 % lost"]["f1_mean"] - whole) / 100,
        },
        "int8_parity": {"how": QUANTIZATION, "size_bytes": size, **parity},
        "coverage": {"lowest_probability": float(facts["lowest_probability"]), "curve": coverage(probability, labels)},
        "attempts": ATTEMPTS,
        "known_failures": list(KNOWN_FAILURES),
    }


def _misjudged(tested: Tested) -> dict[str, Any]:
    """By fold and class what went well; the names of what did not."""
    called, names = tested.probability.argmax(-1), np.array([record.name for record in tested.records])
    starts = np.cumsum([0, *[len(fold.records) for fold in tested.folds]])
    table = {
        f"fold {place}": summary(tested.probability[start:end], tested.labels[start:end])
        for place, (start, end) in enumerate(pairwise(starts.tolist()))
    }
    wrong = {
        f"{CLASSES[true]} called {CLASSES[said]}": " ".join(names[(tested.labels == true) & (called == said)].tolist())
        for true in range(len(CLASSES))
        for said in range(len(CLASSES))
        if true != said
    }
    return {"folds": table, "misjudged": wrong}


def _subgroups(tested: Tested) -> dict[str, Any]:
    """Heart rate, length, polarity."""
    records = tested.records
    length = np.array([record.mv.size / RATE_HZ for record in records])
    rate = np.array([_rate(record) for record in records])
    groups: dict[str, NDArray[np.bool_]] = {
        "below 60 bpm": rate < 60,
        "60 to 100 bpm": (rate >= 60) & (rate <= 100),
        "over 100 bpm": rate > 100,
        "under 20 s": length < 20,
        "20 to 40 s": (length >= 20) & (length <= 40),
        "over 40 s": length > 40,
    }
    out = {
        name: {"recordings": int(chosen.sum()), **summary(tested.probability[chosen], tested.labels[chosen])}
        for name, chosen in groups.items()
    }
    return out | {"all, polarity inverted": {"recordings": len(records), **summary(tested.inverted, tested.labels)}}


def _rate(record: Recorded) -> float:
    """Beats a minute, by the median interval; NaN without one."""
    return 60 / float(np.median(np.diff(record.beat_s))) if record.beat_s.size > 1 else float("nan")
