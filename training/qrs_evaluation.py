"""Evaluates `ecg_qrs`: on candidates of held-out recordings, and together with the detector on mitdb with noise."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evaluation.detection import Counts, Detector, count_detections, detect, ecg_of, gross_figures
from evaluation.ec57 import Pairing, pair
from evaluation.matching import WINDOW_S
from evaluation.perturbations import Perturbation, find_noise, list_perturbations
from evaluation.records import AnnotatedRecord, annotated_headers, load_annotated
from evaluation.statistics import calibration_error, class_f1, coverage_curve
from models.inference.ecg_beat import CLASSES
from models.signal.beat_classifier import BeatClassifier
from training.qrs_data import UNIT_S, Candidates

KINDS: Final = {"EM": "electrode motion", "MA": "muscle noise", "mix": "mixed noise"}
LEVELS_DB: Final = ("12", "6", "0")
"""Noise and levels at which the detector is compared. Baseline wander does not affect it."""

FRACTIONS: Final = (1.0, 0.95, 0.9, 0.8, 0.7)
LIKELY: Final = 0.5

Figures = dict[str, Any]


def figures(data: Path, held_out: Candidates, output: NDArray[np.float32], classifier: BeatClassifier) -> Figures:
    """Return the card's sections with figures; `output` (n, 2) is that of the released network for the held-out candidates."""
    probability = output[:, 0].astype(np.float64)
    alone, assisted = (_count_beats(data, detector) for detector in (detect, partial(detect, classifier=classifier)))
    return {
        "figures": _candidate_figures(held_out, output),
        "per_record": {name: _record_figures(alone, assisted, name) for name in alone[()]},
        "subgroups": {"mitdb without noise, percent": _compare(alone, assisted, ())}
        | _class_figures(data, partial(detect, classifier=classifier)),
        "robustness": {
            "mitdb with noise not used in training, percent": {
                f"{KINDS[path[1]]} at {path[2]} dB": _compare(alone, assisted, path) for path in alone if path
            }
        },
        "coverage": _coverage(held_out, probability),
    }


def _candidate_figures(held_out: Candidates, output: NDArray[np.float32]) -> Figures:
    probability, is_beat = output[:, 0].astype(np.float64), held_out.beats > 0
    called = probability >= LIKELY
    error_ms = 1000 * UNIT_S * np.abs(output[:, 1] - held_out.offsets)[is_beat & called]
    return {
        "candidates of held-out CinC 2017 recordings": len(is_beat),
        "f1_percent": 100 * _f1(called, is_beat),
        "se_percent": 100 * float(called[is_beat].mean()),
        "ppv_percent": 100 * float(is_beat[called].mean()),
        "ece": calibration_error(probability, is_beat),
        "r_peak_error_ms": {"median": float(np.median(error_ms)), "95 %": float(np.percentile(error_ms, 95))},
        "r_peak_within_50_ms_percent": 100 * float(np.mean(error_ms <= 50)),
    }


def _f1(called: NDArray[np.bool_], is_beat: NDArray[np.bool_]) -> float:
    return float(class_f1(called.astype(np.int64), is_beat.astype(np.int64), 2)[1])


def _coverage(held_out: Candidates, probability: NDArray[np.float64]) -> list[Figures]:
    called, is_beat = probability >= LIKELY, held_out.beats > 0
    curve = coverage_curve(np.abs(probability - LIKELY), lambda chosen: _f1(called[chosen], is_beat[chosen]), FRACTIONS)
    return [{"share": share, "f1_percent": 100 * f1} for share, f1 in curve]


def _class_figures(data: Path, detector: Detector) -> Figures:
    """Return the share of the beats of each class that is found, at 150 ms."""
    records = [load_annotated(header) for _, header in annotated_headers(data)]
    chosen = {perturbation.path: perturbation for perturbation in list_perturbations(find_noise(data), drop=False, fs=False)}
    levels = {"without noise": chosen[()], "with muscle noise at 6 dB": chosen["noise", "MA", "6"]}
    return {
        f"beats of mitdb found {label}, percent": _found_by_class(
            [_pairing(record, perturbation, detector) for record in records]
        )
        for label, perturbation in levels.items()
    }


def _pairing(record: AnnotatedRecord, perturbation: Perturbation, detector: Detector) -> tuple[Pairing, NDArray[np.str_]]:
    """Return the pairing of a record with this noise, and the classes of the reference's beats."""
    ecg = perturbation.change(ecg_of(record)) if perturbation.path else ecg_of(record)
    return pair(record.reference, detector(ecg.mv, ecg.rate_hz), WINDOW_S), np.array(record.reference.labels)


def _found_by_class(pairings: Sequence[tuple[Pairing, NDArray[np.str_]]]) -> Figures:
    found = np.concatenate([labels[pairing.pairs[:, 0]] for pairing, labels in pairings])
    missed = np.concatenate([labels[pairing.missed] for pairing, labels in pairings])
    counts = {name: (int((found == name).sum()), int((missed == name).sum())) for name in CLASSES}
    return {name: 100 * hits / (hits + misses) for name, (hits, misses) in counts.items() if hits + misses}


CountsByNoise = Mapping[tuple[str, ...], Mapping[str, Counts]]
"""Counts by noise and record."""


def _count_beats(data: Path, detector: Detector) -> CountsByNoise:
    chosen = [
        perturbation
        for perturbation in list_perturbations(find_noise(data), drop=False, fs=False)
        if _is_compared(perturbation)
    ]
    records = [load_annotated(header) for _, header in annotated_headers(data)]
    return {perturbation.path: _count_records(records, perturbation, detector) for perturbation in chosen}


def _is_compared(perturbation: Perturbation) -> bool:
    return not perturbation.path or (perturbation.path[1] in KINDS and perturbation.path[2] in LEVELS_DB)


def _count_records(records: Sequence[AnnotatedRecord], perturbation: Perturbation, detector: Detector) -> dict[str, Counts]:
    return {record.name: count_detections(record, perturbation, detector).counts for record in records}


def _compare(alone: CountsByNoise, assisted: CountsByNoise, path: tuple[str, ...]) -> Figures:
    alone_figures, assisted_figures = (gross_figures(list(counts[path].values())) for counts in (alone, assisted))
    return {
        "f1 at 50 ms, detector alone": alone_figures["50ms"]["f1"],
        "f1 at 50 ms, with ecg_qrs": assisted_figures["50ms"]["f1"],
        "se at 150 ms, with ecg_qrs": assisted_figures["150ms"]["se"],
        "ppv at 150 ms, with ecg_qrs": assisted_figures["150ms"]["ppv"],
    }


def _record_figures(alone: CountsByNoise, assisted: CountsByNoise, name: str) -> Figures:
    """Return F1 at 50 ms without noise and with muscle noise at 6 dB."""
    row = {}
    for label, path in (("without noise", ()), ("muscle noise at 6 dB", ("noise", "MA", "6"))):
        for variant, counts in (("detector alone", alone), ("with ecg_qrs", assisted)):
            row[f"{label}, {variant}"] = gross_figures([counts[path][name]])["50ms"]["f1"]
    return row
