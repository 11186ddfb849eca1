"""`pulsegate evaluate rhythm`: N, AF, other or noise, scored as the PhysioNet/CinC Challenge 2017 does."""

import csv
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from captures import open_recording
from evaluation.detection import detect, difference
from evaluation.ladders import AS_RECORDED, Ecg, Rung
from evaluation.noise import qrs_amplitude
from evaluation.records import EvaluationError, Judged, interval, nested, percent
from evaluation.statistics import class_f1, coverage_curve, top_label_error

LABELS: Final = ("N", "A", "O", "~")
"""Normal, atrial fibrillation, other rhythm, too noisy, in the order of the model's classes."""

SCORED: Final = 3
"""The Challenge's score is the mean F1 of the first three (Clifford et al. 2017)."""

FRACTIONS: Final = (1.0, 0.95, 0.9, 0.8, 0.7)

LADDER_RECORDS: Final = 300
"""Ladders take 30 times as long as the recordings alone; of more than so many, every n-th is taken."""

Probabilities = NDArray[np.float64]
Classifier = Callable[[NDArray[np.float64], float], Probabilities]
"""From samples in mV and their rate to the probabilities of the four classes."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A recording's header, and the class an expert gave it."""

    header: Path
    label: int


def evaluate_rhythm(
    data: Path, classify: Classifier, progress: Progress, rungs: Sequence[Rung] = (AS_RECORDED,)
) -> dict[str, Any]:
    """Every figure of the task, F1 as 0–100, ECE as a fraction.

    Raises:
        EvaluationError: no record can be judged.
    """
    with challenge_records(data) as found:
        judged = Judged()
        headers = [(name, record) for name, record in found.items() if isinstance(record, Labelled)]
        judged.skipped.update((name, record) for name, record in found.items() if isinstance(record, str))
        step = -(-len(headers) // LADDER_RECORDS) if len(rungs) > 1 else 1
        chosen = {name for name, _ in headers[::step]}

        def judge(record: Labelled) -> tuple[int, list[Probabilities]]:
            steps = rungs if record.header.stem in chosen else rungs[:1]
            return record.label, _probabilities(record, classify, steps)

        results = dict(judged.each(headers, judge, progress, "rhythm"))
    classes = np.array([label for label, _ in results.values()])
    report = figures(np.stack([of_it[0] for _, of_it in results.values()]), classes)
    records = {
        name: {"label": LABELS[label], "called": LABELS[int(of_it[0].argmax())], "p": [round(float(p), 4) for p in of_it[0]]}
        for name, (label, of_it) in results.items()
    }
    ladder = _ladder({name: result for name, result in results.items() if name in chosen}, rungs)
    called = [(label, int(of_it[0].argmax())) for label, of_it in results.values()]
    spread = {"f1_mean": interval(called, _drawn_f1)}
    return {"task": "rhythm", **report, "interval_95": spread, "records": records, **nested(ladder), "skipped": judged.skipped}


def figures(probability: Probabilities, classes: NDArray[np.integer[Any]]) -> dict[str, Any]:
    """From the probabilities (n, 4) and the true classes (n,) of many recordings."""
    called = probability.argmax(-1)
    curve = coverage_curve(probability.max(-1), lambda kept: _mean_f1(called[kept], classes[kept]), FRACTIONS)
    return {
        "f1": dict(zip(LABELS, map(_percent, class_f1(called, classes, len(LABELS))), strict=True)),
        "f1_mean": _percent(_mean_f1(called, classes)),
        "coverage": [{"fraction": fraction, "f1_mean": _percent(value)} for fraction, value in curve],
        "ece": round(top_label_error(probability, classes), 4),
        "confusion": {
            truth: {said: int(np.sum((classes == i) & (called == j))) for j, said in enumerate(LABELS)}
            for i, truth in enumerate(LABELS)
        },
        "accuracy": percent(int(np.sum(called == classes)), classes.size),
        "count": int(classes.size),
    }


@contextmanager
def challenge_records(data: Path) -> Iterator[dict[str, Labelled | str]]:
    """The records of every folder with a REFERENCE.csv, by name; a reason in place of one that has no known label.

    Such folders are `data` itself, or those in it named cinc2017…; without any, the archive cinc2017….tar.xz is unpacked for as
    long as the context lasts.

    Raises:
        EvaluationError: there is none of them.
    """
    references = _references(data)
    if references:
        yield _read_references(references)
        return
    archives = [data] if data.is_file() else sorted(data.glob("cinc2017*.tar.xz"))
    if not archives:
        raise EvaluationError(
            f"no REFERENCE.csv in {data} or a folder cinc2017… in it, and no cinc2017….tar.xz: give the folder that holds them"
        )
    with tempfile.TemporaryDirectory(prefix="pulsegate-") as folder:
        for archive in archives:
            try:
                with tarfile.open(archive) as packed:
                    if hasattr(tarfile, "data_filter"):  # not in every Python 3.11
                        packed.extraction_filter = tarfile.data_filter
                    packed.extractall(folder)  # noqa: S202  the archive of the Challenge, named by its user
            except (tarfile.TarError, OSError, EOFError) as error:
                raise EvaluationError(f"{archive} cannot be unpacked ({error}): fetch it again") from error
        yield _read_references(sorted(Path(folder).rglob("REFERENCE*.csv")))


def _references(data: Path) -> list[Path]:
    """One a folder: REFERENCE.csv, or the newest version of the labels."""
    for folders in (("",), ("cinc2017*/", "cinc2017*/*/"), ("*/", "*/*/")):
        found = sorted({path for folder in folders for path in data.glob(f"{folder}REFERENCE*.csv")})
        by_folder = {path.parent: path for path in found} | {p.parent: p for p in found if p.name == "REFERENCE.csv"}
        if by_folder:
            return list(by_folder.values())
    return []


def _read_references(paths: Sequence[Path]) -> dict[str, Labelled | str]:
    found: dict[str, Labelled | str] = {}
    for path in paths:
        for row in csv.reader(path.read_text("utf-8-sig", "replace").splitlines()):
            name, label = (row[0].strip(), row[1].strip()) if len(row) > 1 else (",".join(row).strip(), "")
            if name:
                known = label in LABELS
                found[name] = (
                    Labelled(path.parent / f"{name}.hea", LABELS.index(label)) if known else f"label {label!r} is unknown"
                )
    return found


def _probabilities(record: Labelled, classify: Classifier, rungs: Sequence[Rung]) -> list[Probabilities]:
    recording = open_recording(record.header)
    if not np.isfinite(recording.mv).any():
        raise ValueError("no valid sample")
    beats_s = detect(recording.mv, recording.rate_hz) if len(rungs) > 1 else np.empty(0)
    amplitude = qrs_amplitude(recording.mv, recording.rate_hz, beats_s)
    ecg = Ecg(recording.name, recording.mv, recording.rate_hz, amplitude if np.isfinite(amplitude) else 1.0)
    results = []
    for rung in rungs:
        changed = rung.change(ecg)
        probability = np.asarray(classify(changed.mv, changed.rate_hz), np.float64)
        if probability.shape != (len(LABELS),) or not np.isfinite(probability).all():
            raise ValueError(f"the model gave {probability.shape} in place of {len(LABELS)} probabilities")
        results.append(probability)
    return results


def _ladder(results: Mapping[str, tuple[int, list[Probabilities]]], rungs: Sequence[Rung]) -> list[tuple[tuple[str, ...], Any]]:
    """Figures of each rung, and the change against the same recordings undisturbed."""
    if len(rungs) < 2 or not results:
        return []
    classes = np.array([label for label, _ in results.values()])
    tested = [figures(np.stack([of_it[place] for _, of_it in results.values()]), classes) for place in range(len(rungs))]
    return [
        (rung.path, now | {"f1_mean_change": difference(now["f1_mean"], tested[0]["f1_mean"])})
        for rung, now in zip(rungs, tested, strict=True)
        if rung.path
    ]


def _mean_f1(called: NDArray[np.integer[Any]], classes: NDArray[np.integer[Any]]) -> float:
    """Of N, A and O; a class that neither is nor was called has none and does not count."""
    scores = class_f1(called, classes, len(LABELS))[:SCORED]
    known = scores[np.isfinite(scores)]
    return float(known.mean()) if known.size else float("nan")


def _drawn_f1(drawn: Sequence[tuple[int, int]]) -> float | None:
    classes, called = np.array(drawn).T
    return _percent(_mean_f1(called, classes))


def _percent(value: float) -> float | None:
    return round(100 * float(value), 2) if np.isfinite(value) else None
