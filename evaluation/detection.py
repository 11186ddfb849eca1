"""`pulsegate evaluate qrs`: scores QRS detection with match windows of 150 ms and 50 ms."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from evaluation.ec57 import pair
from evaluation.matching import WINDOW_S, BeatCounts
from evaluation.noise import qrs_amplitude
from evaluation.perturbations import AS_RECORDED, Ecg, Perturbation
from evaluation.records import (
    AnnotatedRecord,
    RecordScorer,
    annotated_headers,
    load_annotated,
    mean,
    nest,
    rate_intervals,
    rates,
)
from models.signal.beat_classifier import BeatClassifier
from models.signal.chain import EcgChain

Times = NDArray[np.float64]
Detector = Callable[[NDArray[np.float64], float], Times]

WINDOWS_S: Final = {"150ms": WINDOW_S, "50ms": 0.05}
"""The window of EC57, and a narrow one that shows timing jitter, which degrades RR intervals."""

Counts = Mapping[str, BeatCounts]
"""Keyed by the name of the window."""


@dataclass(frozen=True, slots=True)
class DetectionCounts:
    """Counts of one record under one perturbation. `received` ignores beats whose QRS complex was not received in full."""

    counts: Counts
    received: Counts


def detect(mv: NDArray[np.float64], rate_hz: float, classifier: BeatClassifier | None = None) -> Times:
    """Returns the R peaks in seconds that the agent's chain finds in a stream of these samples in mV."""
    chain = EcgChain(rate_hz, classifier)
    return np.array([beat.t_s for beat in (*chain.push(mv), *chain.finish())], np.float64)


def evaluate_qrs(
    data: Path, progress: Progress, perturbations: Sequence[Perturbation] = (AS_RECORDED,), detector: Detector = detect
) -> dict[str, Any]:
    """Returns the report: percentages 0–100, on channel 0, from 5:00 on, without ventricular flutter.

    Raises:
        EvaluationError: no record can be scored.
    """
    scorer = RecordScorer()

    def score(header: Path) -> list[DetectionCounts]:
        record = load_annotated(header)
        return [count_detections(record, perturbation, detector) for perturbation in perturbations]

    found = dict(scorer.score_each(annotated_headers(data), score, progress, "QRS detection"))
    clean = {name: results[0].counts for name, results in found.items()}
    records = {name: gross_figures([counts]) for name, counts in clean.items()}
    report = gross_figures(list(clean.values()))
    perturbed = [
        (step.path, _perturbed_figures([results[index] for results in found.values()], list(clean.values()), step))
        for index, step in enumerate(perturbations)
        if step.path
    ]
    return {
        "task": "qrs",
        **report,
        "average": {
            window: {key: mean([record[window][key] for record in records.values()]) for key in ("se", "ppv", "f1")}
            for window in WINDOWS_S
        },
        "interval_95": {window: rate_intervals(_tp_fp_fn(list(clean.values()), window)) for window in WINDOWS_S},
        "records": records,
        **nest(perturbed),
        "skipped": scorer.skipped,
    }


def ecg_of(record: AnnotatedRecord) -> Ecg:
    """Returns the input of `Perturbation.change`; the amplitude is that of normal beats, or of all if none is normal."""
    truth, recording = record.reference, record.recording
    normal = truth.times_s[[label == "N" for label in truth.labels]]
    beats = normal if normal.size else truth.times_s
    return Ecg(record.name, recording.mv, recording.rate_hz, qrs_amplitude(recording.mv, recording.rate_hz, beats))


def count_detections(record: AnnotatedRecord, perturbation: Perturbation, detector: Detector = detect) -> DetectionCounts:
    """Scores one record under one perturbation."""
    ecg = perturbation.change(ecg_of(record)) if perturbation.path else None
    recording = record.recording
    mv, rate_hz = (recording.mv, recording.rate_hz) if ecg is None else (ecg.mv, ecg.rate_hz)
    detected = detector(mv, rate_hz)
    received = is_received(record.reference.times_s, mv, rate_hz)
    pairings = {window: pair(record.reference, detected, width_s) for window, width_s in WINDOWS_S.items()}
    return DetectionCounts(
        {window: pairing.counts for window, pairing in pairings.items()},
        {
            window: replace(pairing, missed=pairing.missed[received[pairing.missed]]).counts
            for window, pairing in pairings.items()
        },
    )


def gross_figures(records: Sequence[Counts]) -> dict[str, dict[str, Any]]:
    """Returns Se, P+ and F1 for each window over all beats of these records, with the counts."""
    return {window: rates(_tp_fp_fn(records, window)) for window in WINDOWS_S}


def _tp_fp_fn(records: Sequence[Counts], window: str) -> list[tuple[int, int, int]]:
    return [(record[window].tp, record[window].fp, record[window].fn) for record in records]


def _perturbed_figures(found: Sequence[DetectionCounts], clean: Sequence[Counts], perturbation: Perturbation) -> dict[str, Any]:
    """With lost packets, the main figures count only the beats that were received: a lost beat cannot be detected."""
    everything = gross_figures([counts.counts for counts in found])
    if perturbation.path[0] != "drop":
        return everything | {"f1_change": _change(everything, clean)}
    received = gross_figures([counts.received for counts in found])
    lost = everything | {"f1_change": _change(everything, clean)}
    return received | {"f1_change": _change(received, clean), "with_lost_beats": lost}


def _change(now: Mapping[str, Mapping[str, Any]], clean: Sequence[Counts]) -> dict[str, float | None]:
    before = gross_figures(clean)
    return {window: difference(now[window]["f1"], before[window]["f1"]) for window in WINDOWS_S}


def difference(now: float | None, before: float | None) -> float | None:
    """Returns the change in percentage points, to two decimals."""
    return None if now is None or before is None else round(now - before, 2)


def is_received(times_s: Times, mv: NDArray[np.float64], rate_hz: float) -> NDArray[np.bool_]:
    """Whether every sample of a beat's QRS complex (50 ms on either side) was received, shape (beats,)."""
    lost = np.concatenate(([0], np.cumsum(~np.isfinite(mv))))
    first, last = (np.clip(np.round((times_s + side) * rate_hz).astype(np.int64), 0, mv.size) for side in (-0.05, 0.05))
    whole: NDArray[np.bool_] = (lost[last] == lost[first]) & (last > first)
    return whole
