"""`pulsegate evaluate beats`: which beats are normal (N), supraventricular (S) or ventricular ectopic (V), fusion (F).

Rules of ANSI/AAMI EC57 as WFDB's `bxb` counts them: every reference beat counts, found or not; a V called where the reference
has a fusion beat (F) or one it does not classify (Q) is no false V, nor is an S or F called at a Q. Figures without these
exemptions stand under `plain`.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from evaluation.detection import difference, ecg_of, received
from evaluation.ec57 import Reference, pair
from evaluation.ladders import AS_RECORDED, Rung
from evaluation.qrs import WINDOW_S
from evaluation.records import (
    Annotated,
    EvaluationError,
    Judged,
    annotated_headers,
    load_annotated,
    mean,
    nested,
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
"""Reference beats at which calling this class is no false positive."""

Labelled = tuple[NDArray[np.float64], Sequence[str]]
"""Beat times in seconds, ascending, and a label each."""
Labeller = Callable[[NDArray[np.float64], float], Labelled]
"""From samples in mV and their rate."""

Confusion = Counter[tuple[str, str]]
"""How often (reference, called); `missed` is called and `extra` is reference where there is no partner."""


@dataclass(frozen=True, slots=True)
class Counted:
    """One record on one rung: all beats, and only those whose QRS complex was received in full."""

    counted: Confusion
    received: Confusion


def evaluate_beats(data: Path, label: Labeller, progress: Progress, rungs: Sequence[Rung] = (AS_RECORDED,)) -> dict[str, Any]:
    """Every figure of the task, percentages 0–100; from 5:00, 150 ms, records with paced beats left out.

    Raises:
        EvaluationError: no record can be judged.
    """
    judged = Judged()

    def judge(header: Path) -> list[Counted] | None:
        record = load_annotated(header)
        return None if record.reference.paced else [label_record(record, rung, label) for rung in rungs]

    results = dict(judged.each(annotated_headers(data), judge, progress, "beat classes"))
    found = {name: result for name, result in results.items() if result is not None}
    if not found:
        raise EvaluationError("every record has paced beats, which are no part of beat classes: give others")
    clean = [of_it[0].counted for of_it in found.values()]
    before = figures(total(clean))
    records = {name: figures(of_it[0].counted) for name, of_it in found.items()}
    ladder: list[tuple[tuple[str, ...], Any]] = []
    for place, rung in enumerate(rungs):
        if rung.path:
            ladder.append((rung.path, _rung_figures([of_it[place] for of_it in found.values()], before, rung)))
    return {
        "task": "beats",
        **before,
        "average": {
            name: {key: mean([record[name][key] for record in records.values()]) for key in ("se", "ppv", "f1")}
            for name in CLASSES
        },
        "interval_95": {name: rate_intervals([_counts(of_it, name, NOT_FALSE[name]) for of_it in clean]) for name in CLASSES},
        "records": records,
        **nested(ladder),
        "paced": [name for name, result in results.items() if result is None],
        "skipped": judged.skipped,
    }


def label_record(record: Annotated, rung: Rung, label: Labeller) -> Counted:
    """One record on one rung."""
    ecg = rung.change(ecg_of(record)) if rung.path else None
    recording = record.recording
    mv, rate_hz = (recording.mv, recording.rate_hz) if ecg is None else (ecg.mv, ecg.rate_hz)
    labelled = label(mv, rate_hz)
    known = received(record.reference.times_s, mv, rate_hz)
    return Counted(confusion(record.reference, labelled), confusion(record.reference.only(known), labelled))


def confusion(truth: Reference, labelled: Labelled) -> Confusion:
    """Compare one record's labels."""
    times_s, called = labelled
    pairing = pair(truth, times_s, WINDOW_S)
    counted: Confusion = Counter()
    for one, other in pairing.pairs.tolist():
        counted[truth.labels[one], _class(called[int(other)])] += 1
    for one in pairing.missed.tolist():
        counted[truth.labels[one], MISSED] += 1
    for other in pairing.extra.tolist():
        counted[EXTRA, _class(called[int(other)])] += 1
    return counted


def total(records: Sequence[Confusion]) -> Confusion:
    """Of all records: every beat has the same weight."""
    together: Confusion = Counter()
    for record in records:
        together.update(record)
    return together


def figures(counted: Confusion) -> dict[str, Any]:
    """Se, P+ and F1 of each class by EC57 and plain, and the matrix they come from."""
    return {
        **{name: rates([_counts(counted, name, NOT_FALSE[name])]) for name in CLASSES},
        "confusion": _matrix(counted),
        "plain": {name: rates([_counts(counted, name)]) for name in CLASSES},
    }


def _counts(counted: Confusion, name: str, exempt: frozenset[str] = frozenset()) -> tuple[int, int, int]:
    """True positives, false positives and false negatives of one class."""
    found = counted[name, name]
    there = sum(count for (truth, _), count in counted.items() if truth == name)
    called = sum(count for (truth, said), count in counted.items() if said == name and truth not in exempt)
    return found, called - found, there - found


def _matrix(counted: Confusion) -> dict[str, dict[str, int]]:
    """Rows: the reference; columns: what was called."""
    columns = (*CLASSES, UNCLASSIFIED)
    rows = {truth: {said: counted[truth, said] for said in (*columns, MISSED)} for truth in columns}
    return rows | {EXTRA: {said: counted[EXTRA, said] for said in columns}}


def _rung_figures(found: Sequence[Counted], before: Mapping[str, Any], rung: Rung) -> dict[str, Any]:
    """Of lost packets the figures of the beats that were received come first: nothing can be said of what never came."""
    everything = figures(total([of_it.counted for of_it in found]))
    everything |= {"f1_change": _changes(everything, before)}
    if rung.path[0] != "drop":
        return everything
    received_only = figures(total([of_it.received for of_it in found]))
    return received_only | {"f1_change": _changes(received_only, before), "with_lost_beats": everything}


def _changes(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: difference(now[name]["f1"], before[name]["f1"]) for name in CLASSES}


def _class(said: str) -> str:
    return said if said in CLASSES else UNCLASSIFIED
