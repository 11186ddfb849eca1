"""`pulsegate evaluate qrs`: how well QRS complexes are found, at 150 ms and at 50 ms."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from evaluation.ec57 import pair
from evaluation.ladders import AS_RECORDED, Ecg, Rung
from evaluation.noise import qrs_amplitude
from evaluation.qrs import WINDOW_S, BeatCounts
from evaluation.records import Annotated, Judged, annotated_headers, load_annotated, mean, nested, rate_intervals, rates
from models.signal.beat_classifier import BeatClassifier
from models.signal.chain import EcgChain

Times = NDArray[np.float64]
Detector = Callable[[NDArray[np.float64], float], Times]

WINDOWS_S: Final = {"150ms": WINDOW_S, "50ms": 0.05}
"""EC57's window, and one that shows jitter, which the intervals between beats suffer from."""

Counts = Mapping[str, BeatCounts]
"""By the name of the window."""


@dataclass(frozen=True, slots=True)
class Found:
    """Counts of one record on one rung; in `received`, beats whose QRS complex was not received in full are not missed."""

    counts: Counts
    received: Counts


def detect(mv: NDArray[np.float64], rate_hz: float, judge: BeatClassifier | None = None) -> Times:
    """R peaks in seconds, as the agent's chain finds them in a stream of these samples in mV."""
    chain = EcgChain(rate_hz, judge)
    return np.array([beat.t_s for beat in (*chain.push(mv), *chain.finish())], np.float64)


def evaluate_qrs(
    data: Path, progress: Progress, rungs: Sequence[Rung] = (AS_RECORDED,), detector: Detector = detect
) -> dict[str, Any]:
    """Every figure of the task, percentages 0–100; channel 0, from 5:00, ventricular flutter excluded.

    Raises:
        EvaluationError: no record can be judged.
    """
    judged = Judged()

    def judge(header: Path) -> list[Found]:
        record = load_annotated(header)
        return [find(record, rung, detector) for rung in rungs]

    found = dict(judged.each(annotated_headers(data), judge, progress, "QRS detection"))
    clean = {name: of_it[0].counts for name, of_it in found.items()}
    records = {name: gross([counts]) for name, counts in clean.items()}
    report = gross(list(clean.values()))
    ladder = [
        (rung.path, _rung_figures([of_it[place] for of_it in found.values()], list(clean.values()), rung))
        for place, rung in enumerate(rungs)
        if rung.path
    ]
    return {
        "task": "qrs",
        **report,
        "average": {
            window: {key: mean([record[window][key] for record in records.values()]) for key in ("se", "ppv", "f1")}
            for window in WINDOWS_S
        },
        "interval_95": {window: rate_intervals(_triples(list(clean.values()), window)) for window in WINDOWS_S},
        "records": records,
        **nested(ladder),
        "skipped": judged.skipped,
    }


def ecg_of(record: Annotated) -> Ecg:
    """What the ladders disturb. The amplitude is that of normal beats, or of all where none is normal."""
    truth, recording = record.reference, record.recording
    normal = truth.times_s[[label == "N" for label in truth.labels]]
    beats = normal if normal.size else truth.times_s
    return Ecg(record.name, recording.mv, recording.rate_hz, qrs_amplitude(recording.mv, recording.rate_hz, beats))


def find(record: Annotated, rung: Rung, detector: Detector = detect) -> Found:
    """One record on one rung."""
    ecg = rung.change(ecg_of(record)) if rung.path else None
    recording = record.recording
    mv, rate_hz = (recording.mv, recording.rate_hz) if ecg is None else (ecg.mv, ecg.rate_hz)
    detected = detector(mv, rate_hz)
    known = received(record.reference.times_s, mv, rate_hz)
    pairings = {window: pair(record.reference, detected, width_s) for window, width_s in WINDOWS_S.items()}
    return Found(
        {window: of_it.counts for window, of_it in pairings.items()},
        {window: replace(of_it, missed=of_it.missed[known[of_it.missed]]).counts for window, of_it in pairings.items()},
    )


def gross(records: Sequence[Counts]) -> dict[str, dict[str, Any]]:
    """Se, P+ and F1 for each window, over all beats of these records, with the counts behind them."""
    return {window: rates(_triples(records, window)) for window in WINDOWS_S}


def _triples(records: Sequence[Counts], window: str) -> list[tuple[int, int, int]]:
    return [(record[window].tp, record[window].fp, record[window].fn) for record in records]


def _rung_figures(found: Sequence[Found], clean: Sequence[Counts], rung: Rung) -> dict[str, Any]:
    """Of lost packets the figures of the beats that were received come first: nothing can be found in what never came."""
    everything = gross([of_it.counts for of_it in found])
    if rung.path[0] != "drop":
        return everything | {"f1_change": _change(everything, clean)}
    received = gross([of_it.received for of_it in found])
    lost = everything | {"f1_change": _change(everything, clean)}
    return received | {"f1_change": _change(received, clean), "with_lost_beats": lost}


def _change(now: Mapping[str, Mapping[str, Any]], clean: Sequence[Counts]) -> dict[str, float | None]:
    before = gross(clean)
    return {window: difference(now[window]["f1"], before[window]["f1"]) for window in WINDOWS_S}


def difference(now: float | None, before: float | None) -> float | None:
    """In percentage points, to two decimals."""
    return None if now is None or before is None else round(now - before, 2)


def received(times_s: Times, mv: NDArray[np.float64], rate_hz: float) -> NDArray[np.bool_]:
    """The beats of whose QRS complex (50 ms to either side) every sample is there, (beats,)."""
    lost = np.concatenate(([0], np.cumsum(~np.isfinite(mv))))
    first, last = (np.clip(np.round((times_s + side) * rate_hz).astype(np.int64), 0, mv.size) for side in (-0.05, 0.05))
    whole: NDArray[np.bool_] = (lost[last] == lost[first]) & (last > first)
    return whole
