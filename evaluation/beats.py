"""`pulsegate evaluate beats`: scores the labels normal (N), supraventricular (S), ventricular ectopic (V) and fusion (F).

Beats are counted by the rules of ANSI/AAMI EC57 as in WFDB's `bxb`. Every reference beat counts, detected or not. A V called at
a fusion beat (F) or at an unclassified beat (Q) of the reference is not a false V; neither is an S or F called at a Q. `plain`
has the figures without these exemptions.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from evaluation.detection import difference, ecg_of, is_received
from evaluation.ec57 import Reference, pair
from evaluation.matching import WINDOW_S
from evaluation.perturbations import AS_RECORDED, Perturbation
from evaluation.records import (
    AnnotatedRecord,
    EvaluationError,
    RecordScorer,
    annotated_headers,
    load_annotated,
    mean,
    nest,
    rate_intervals,
    rates,
)

CLASSES: Final = ("N", "S", "V", "F")
UNCLASSIFIED: Final = "Q"
MISSED: Final = "missed"
EXTRA: Final = "extra"

NOT_FALSE: Final[Mapping[str, frozenset[str]]] = {
    "N": frozenset("Q"),
    "S": frozenset("Q"),
    "V": frozenset("FQ"),
    "F": frozenset("Q"),
}
"""Reference beats at which calling this class is not a false positive."""

Labelled = tuple[NDArray[np.float64], Sequence[str]]
"""Beat times in seconds, ascending, and one label for each."""
Labeller = Callable[[NDArray[np.float64], float], Labelled]
"""Takes samples in mV and their rate."""

Confusion = Counter[tuple[str, str]]
"""Counts of (reference, called); an undetected beat is called `missed`, a false detection has the reference `extra`."""


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """Counts of one record under one perturbation: of all beats, and of those whose QRS complex was received in full."""

    every_beat: Confusion
    received: Confusion


def evaluate_beats(
    data: Path, label: Labeller, progress: Progress, perturbations: Sequence[Perturbation] = (AS_RECORDED,)
) -> dict[str, Any]:
    """Returns the report: percentages 0–100, from 5:00 on, match window 150 ms, without records that have paced beats.

    Raises:
        EvaluationError: no record can be scored.
    """
    scorer = RecordScorer()

    def score(header: Path) -> list[LabelCounts] | None:
        record = load_annotated(header)
        return None if record.reference.paced else [score_record(record, step, label) for step in perturbations]

    results = dict(scorer.score_each(annotated_headers(data), score, progress, "beat classes"))
    found = {name: result for name, result in results.items() if result is not None}
    if not found:
        raise EvaluationError("every record has paced beats, which EC57 leaves out of beat classes: give other records")
    clean = [counts[0].every_beat for counts in found.values()]
    before = figures(total(clean))
    records = {name: figures(counts[0].every_beat) for name, counts in found.items()}
    perturbed: list[tuple[tuple[str, ...], Any]] = []
    for index, step in enumerate(perturbations):
        if step.path:
            perturbed.append((step.path, _perturbed_figures([counts[index] for counts in found.values()], before, step)))
    return {
        "task": "beats",
        **before,
        "average": {
            name: {key: mean([record[name][key] for record in records.values()]) for key in ("se", "ppv", "f1")}
            for name in CLASSES
        },
        "interval_95": {name: rate_intervals([_counts(record, name, NOT_FALSE[name]) for record in clean]) for name in CLASSES},
        "records": records,
        **nest(perturbed),
        "paced": [name for name, result in results.items() if result is None],
        "skipped": scorer.skipped,
    }


def score_record(record: AnnotatedRecord, perturbation: Perturbation, label: Labeller) -> LabelCounts:
    """Labels and scores one record under one perturbation."""
    ecg = perturbation.change(ecg_of(record)) if perturbation.path else None
    recording = record.recording
    mv, rate_hz = (recording.mv, recording.rate_hz) if ecg is None else (ecg.mv, ecg.rate_hz)
    labelled = label(mv, rate_hz)
    received = is_received(record.reference.times_s, mv, rate_hz)
    return LabelCounts(confusion(record.reference, labelled), confusion(record.reference.only(received), labelled))


def confusion(truth: Reference, labelled: Labelled) -> Confusion:
    """Compares the labels of one record with its reference."""
    times_s, called = labelled
    pairing = pair(truth, times_s, WINDOW_S)
    counted: Confusion = Counter()
    for beat, detection in pairing.pairs.tolist():
        counted[truth.labels[beat], _class(called[int(detection)])] += 1
    for beat in pairing.missed.tolist():
        counted[truth.labels[beat], MISSED] += 1
    for detection in pairing.extra.tolist():
        counted[EXTRA, _class(called[int(detection)])] += 1
    return counted


def total(records: Sequence[Confusion]) -> Confusion:
    """Sums the counts of all records; every beat has the same weight."""
    together: Confusion = Counter()
    for record in records:
        together.update(record)
    return together


def figures(counted: Confusion) -> dict[str, Any]:
    """Returns Se, P+ and F1 of each class by EC57 and without its exemptions, and the confusion matrix."""
    return {
        **{name: rates([_counts(counted, name, NOT_FALSE[name])]) for name in CLASSES},
        "confusion": _matrix(counted),
        "plain": {name: rates([_counts(counted, name)]) for name in CLASSES},
    }


def _counts(counted: Confusion, name: str, exempt: frozenset[str] = frozenset()) -> tuple[int, int, int]:
    """Returns true positives, false positives and false negatives of one class."""
    found = counted[name, name]
    annotated = sum(count for (truth, _), count in counted.items() if truth == name)
    called = sum(count for (truth, label), count in counted.items() if label == name and truth not in exempt)
    return found, called - found, annotated - found


def _matrix(counted: Confusion) -> dict[str, dict[str, int]]:
    """Returns the confusion matrix: the reference in rows, the called class in columns."""
    columns = (*CLASSES, UNCLASSIFIED)
    rows = {truth: {label: counted[truth, label] for label in (*columns, MISSED)} for truth in columns}
    return rows | {EXTRA: {label: counted[EXTRA, label] for label in columns}}


def _perturbed_figures(found: Sequence[LabelCounts], before: Mapping[str, Any], perturbation: Perturbation) -> dict[str, Any]:
    """With lost packets, the main figures count only the beats that were received: a lost beat cannot be labelled."""
    everything = figures(total([counts.every_beat for counts in found]))
    everything |= {"f1_change": _changes(everything, before)}
    if perturbation.path[0] != "drop":
        return everything
    received_only = figures(total([counts.received for counts in found]))
    return received_only | {"f1_change": _changes(received_only, before), "with_lost_beats": everything}


def _changes(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: difference(now[name]["f1"], before[name]["f1"]) for name in CLASSES}


def _class(label: str) -> str:
    return label if label in CLASSES else UNCLASSIFIED
