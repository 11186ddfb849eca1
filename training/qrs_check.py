"""How `ecg_qrs` fares: on bumps of recordings that it has not seen, and as the judge of the detector on mitdb in noise."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evaluation.detection import Counts, Detector, detect, ecg_of, find, gross
from evaluation.ec57 import Pairing, pair
from evaluation.ladders import Rung, find_noise, rungs
from evaluation.qrs import WINDOW_S
from evaluation.records import Annotated, annotated_headers, load_annotated
from evaluation.statistics import calibration_error, class_f1, coverage_curve
from models.inference.ecg_beat import CLASSES
from models.signal.beat_classifier import BeatClassifier
from training.qrs_data import UNIT_S, Bumps

KINDS: Final = ("EM", "MA", "mix")
LEVELS_DB: Final = ("12", "6", "0")
"""Noise under which the detector is told apart; baseline wander does not disturb it."""

FRACTIONS: Final = (1.0, 0.95, 0.9, 0.8, 0.7)
LIKELY: Final = 0.5

Figures = dict[str, Any]


def figures(data: Path, unseen: Bumps, output: NDArray[np.float32], judge: BeatClassifier) -> Figures:
    """The card's sections with figures; `output` (n, 2) is the released network's for the unseen bumps."""
    probability = output[:, 0].astype(np.float64)
    alone, judged = (_ladder(data, detector) for detector in (detect, partial(detect, judge=judge)))
    return {
        "figures": _bumps(unseen, output),
        "per_record": {name: _record(alone, judged, name) for name in alone[()]},
        "subgroups": {"mitdb without noise, percent": _both(alone, judged, ())} | _classes(data, partial(detect, judge=judge)),
        "robustness": {
            "mitdb with noise that no training saw, percent": {
                f"{' '.join(path[1:])} dB": _both(alone, judged, path) for path in alone if path
            }
        },
        "coverage": _coverage(unseen, probability),
    }


def _bumps(unseen: Bumps, output: NDArray[np.float32]) -> Figures:
    probability, is_beat = output[:, 0].astype(np.float64), unseen.beats > 0
    called = probability >= LIKELY
    off_ms = 1000 * UNIT_S * np.abs(output[:, 1] - unseen.places)[is_beat & called]
    return {
        "bumps of CinC 2017 recordings held out": len(is_beat),
        "f1_percent": 100 * _f1(called, is_beat),
        "se_percent": 100 * float(called[is_beat].mean()),
        "ppv_percent": 100 * float(is_beat[called].mean()),
        "ece": calibration_error(probability, is_beat),
        "r_peak_off_ms": {"median": float(np.median(off_ms)), "95 %": float(np.percentile(off_ms, 95))},
        "r_peak_within_50_ms_percent": 100 * float(np.mean(off_ms <= 50)),
    }


def _f1(called: NDArray[np.bool_], is_beat: NDArray[np.bool_]) -> float:
    return float(class_f1(called.astype(np.int64), is_beat.astype(np.int64), 2)[1])


def _coverage(unseen: Bumps, probability: NDArray[np.float64]) -> list[Figures]:
    called, is_beat = probability >= LIKELY, unseen.beats > 0
    curve = coverage_curve(np.abs(probability - LIKELY), lambda chosen: _f1(called[chosen], is_beat[chosen]), FRACTIONS)
    return [{"share": share, "f1_percent": 100 * f1} for share, f1 in curve]


def _classes(data: Path, detector: Detector) -> Figures:
    """The share of the beats of each class that is found, at 150 ms."""
    records = [load_annotated(header) for _, header in annotated_headers(data)]
    chosen = {rung.path: rung for rung in rungs(find_noise(data), drop=False, fs=False)}
    levels = {"without noise": chosen[()], "with muscle noise at 6 dB": chosen["noise", "MA", "6"]}
    return {
        f"beats of mitdb found {words}, percent": _found([_pairing(record, rung, detector) for record in records])
        for words, rung in levels.items()
    }


def _pairing(record: Annotated, rung: Rung, detector: Detector) -> tuple[Pairing, NDArray[np.str_]]:
    """Of a record on a rung, and the classes of the reference's beats."""
    ecg = rung.change(ecg_of(record)) if rung.path else ecg_of(record)
    return pair(record.reference, detector(ecg.mv, ecg.rate_hz), WINDOW_S), np.array(record.reference.labels)


def _found(pairings: Sequence[tuple[Pairing, NDArray[np.str_]]]) -> Figures:
    found = np.concatenate([labels[pairing.pairs[:, 0]] for pairing, labels in pairings])
    missed = np.concatenate([labels[pairing.missed] for pairing, labels in pairings])
    counts = {name: (int((found == name).sum()), int((missed == name).sum())) for name in CLASSES}
    return {name: 100 * hit / (hit + lost) for name, (hit, lost) in counts.items() if hit + lost}


Ladder = Mapping[tuple[str, ...], Mapping[str, Counts]]
"""Of each rung the counts by record."""


def _ladder(data: Path, detector: Detector) -> Ladder:
    chosen = [rung for rung in rungs(find_noise(data), drop=False, fs=False) if _is_chosen(rung)]
    records = [load_annotated(header) for _, header in annotated_headers(data)]
    return {rung.path: _counts(records, rung, detector) for rung in chosen}


def _is_chosen(rung: Rung) -> bool:
    return not rung.path or (rung.path[1] in KINDS and rung.path[2] in LEVELS_DB)


def _counts(records: Sequence[Annotated], rung: Rung, detector: Detector) -> dict[str, Counts]:
    return {record.name: find(record, rung, detector).counts for record in records}


def _both(alone: Ladder, judged: Ladder, path: tuple[str, ...]) -> Figures:
    before, after = (gross(list(ladder[path].values())) for ladder in (alone, judged))
    return {
        "f1 at 50 ms, detector alone": before["50ms"]["f1"],
        "f1 at 50 ms": after["50ms"]["f1"],
        "se at 150 ms": after["150ms"]["se"],
        "ppv at 150 ms": after["150ms"]["ppv"],
    }


def _record(alone: Ladder, judged: Ladder, name: str) -> Figures:
    """F1 at 50 ms without noise and with muscle noise at 6 dB."""
    row = {}
    for words, path in (("without noise", ()), ("muscle noise at 6 dB", ("noise", "MA", "6"))):
        for who, ladder in (("detector alone", alone), ("judged", judged)):
            row[f"{words}, {who}"] = gross([ladder[path][name]])["50ms"]["f1"]
    return row
