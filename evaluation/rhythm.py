"""`pulsegate evaluate rhythm`: normal, AF, other rhythm or noise, scored as in the PhysioNet/CinC Challenge 2017."""

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

from captures.files import read_file
from evaluation.detection import detect, difference
from evaluation.noise import qrs_amplitude
from evaluation.perturbations import AS_RECORDED, Ecg, Perturbation
from evaluation.records import EvaluationError, RecordScorer, interval, nest, open_complete, percent
from evaluation.statistics import class_f1, coverage_curve, top_label_error

DATABASE: Final = "cinc2017"
"""Folders and archives of the Challenge's recordings begin with this name."""

LABELS: Final = ("N", "A", "O", "~")
"""Normal, atrial fibrillation, other rhythm, too noisy, in the order of the model's classes."""

SCORED: Final = 3
"""The Challenge's score is the mean F1 of the first three (Clifford et al. 2017)."""

FRACTIONS: Final = (1.0, 0.95, 0.9, 0.8, 0.7)
"""Shares of the records for which `coverage` has the score, the most confident records first."""

MAX_PERTURBED_RECORDS: Final = 300
"""With more records than this, only every n-th is perturbed: perturbations take 30 times as long as the recordings alone."""

Probabilities = NDArray[np.float64]
Classifier = Callable[[NDArray[np.float64], float], Probabilities]
"""Takes samples in mV and their rate; returns the probabilities of the four classes."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A recording's header, and the class that an expert gave it."""

    header: Path
    label: int


def evaluate_rhythm(
    data: Path, classify: Classifier, progress: Progress, perturbations: Sequence[Perturbation] = (AS_RECORDED,)
) -> dict[str, Any]:
    """Returns the report: F1 as 0–100, ECE as a fraction.

    Raises:
        EvaluationError: no record can be scored.
    """
    with challenge_records(data) as found:
        scorer = RecordScorer()
        headers = [(name, record) for name, record in found.items() if isinstance(record, Labelled)]
        scorer.skipped.update((name, record) for name, record in found.items() if isinstance(record, str))
        stride = -(-len(headers) // MAX_PERTURBED_RECORDS) if len(perturbations) > 1 else 1
        chosen = {name for name, _ in headers[::stride]}

        def score(record: Labelled) -> tuple[int, list[Probabilities]]:
            applied = perturbations if record.header.stem in chosen else perturbations[:1]
            return record.label, _probabilities(record, classify, applied)

        results = dict(scorer.score_each(headers, score, progress, "rhythm"))
    classes = np.array([label for label, _ in results.values()])
    report = figures(np.stack([probability[0] for _, probability in results.values()]), classes)
    records = {
        name: {
            "label": LABELS[label],
            "called": LABELS[int(probability[0].argmax())],
            "p": [round(float(p), 4) for p in probability[0]],
        }
        for name, (label, probability) in results.items()
    }
    perturbed = _perturbed_figures({name: result for name, result in results.items() if name in chosen}, perturbations)
    called = [(label, int(probability[0].argmax())) for label, probability in results.values()]
    return {
        "task": "rhythm",
        **report,
        "interval_95": {"f1_mean": interval(called, _f1_of_sample)},
        "records": records,
        **nest(perturbed),
        "skipped": scorer.skipped,
    }


def figures(probability: Probabilities, classes: NDArray[np.integer[Any]]) -> dict[str, Any]:
    """Returns the figures from the probabilities (n, 4) and the true classes (n,) of many recordings."""
    called = probability.argmax(-1)
    curve = coverage_curve(probability.max(-1), lambda kept: _mean_f1(called[kept], classes[kept]), FRACTIONS)
    return {
        "f1": dict(zip(LABELS, map(_percent, class_f1(called, classes, len(LABELS))), strict=True)),
        "f1_mean": _percent(_mean_f1(called, classes)),
        "coverage": [{"fraction": fraction, "f1_mean": _percent(value)} for fraction, value in curve],
        "ece": round(top_label_error(probability, classes), 4),
        "confusion": {
            truth: {label: int(np.sum((classes == i) & (called == j))) for j, label in enumerate(LABELS)}
            for i, truth in enumerate(LABELS)
        },
        "accuracy": percent(int(np.sum(called == classes)), classes.size),
        "count": int(classes.size),
    }


@contextmanager
def challenge_records(data: Path) -> Iterator[dict[str, Labelled | str]]:
    """Yields the records of every folder with a REFERENCE.csv, by name; a record with an unknown label maps to the reason.

    Such a folder is `data` itself or a folder cinc2017… in it. If there is none, the archive cinc2017….tar.xz is unpacked for
    the lifetime of the context.

    Raises:
        EvaluationError: there is neither a folder nor an archive.
    """
    references = _references(data)
    if references:
        yield _read_references(references)
        return
    archives = [data] if data.is_file() else sorted(data.glob(f"{DATABASE}*.tar.xz"))
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
                    packed.extractall(folder)  # noqa: S202  an archive that the user chose
            except (tarfile.TarError, OSError, EOFError) as error:
                raise EvaluationError(f"cannot unpack {archive}: {error}; fetch it again") from error
        yield _read_references(sorted(Path(folder).rglob("REFERENCE*.csv")))


def _references(data: Path) -> list[Path]:
    """Returns one file per folder: REFERENCE.csv, or the newest version of the labels."""
    for folders in (("",), (f"{DATABASE}*/", f"{DATABASE}*/*/"), ("*/", "*/*/")):
        found = sorted({path for folder in folders for path in data.glob(f"{folder}REFERENCE*.csv")})
        by_folder = {path.parent: path for path in found} | {p.parent: p for p in found if p.name == "REFERENCE.csv"}
        if by_folder:
            return list(by_folder.values())
    return []


def _read_references(paths: Sequence[Path]) -> dict[str, Labelled | str]:
    found: dict[str, Labelled | str] = {}
    for path in paths:
        for row in csv.reader(read_file(path).decode("utf-8-sig", "replace").splitlines()):
            name, label = (row[0].strip(), row[1].strip()) if len(row) > 1 else (",".join(row).strip(), "")
            if name:
                known = label in LABELS
                found[name] = (
                    Labelled(path.parent / f"{name}.hea", LABELS.index(label)) if known else f"label {label!r} is unknown"
                )
    return found


def _probabilities(record: Labelled, classify: Classifier, perturbations: Sequence[Perturbation]) -> list[Probabilities]:
    recording = open_complete(record.header)
    if not np.isfinite(recording.mv).any():
        raise ValueError("no valid sample")
    beats_s = detect(recording.mv, recording.rate_hz) if len(perturbations) > 1 else np.empty(0)
    amplitude = qrs_amplitude(recording.mv, recording.rate_hz, beats_s)
    ecg = Ecg(recording.name, recording.mv, recording.rate_hz, amplitude if np.isfinite(amplitude) else 1.0)
    results = []
    for perturbation in perturbations:
        changed = perturbation.change(ecg)
        probability = np.asarray(classify(changed.mv, changed.rate_hz), np.float64)
        if probability.shape != (len(LABELS),) or not np.isfinite(probability).all():
            raise ValueError(
                f"the model returned an array of shape {probability.shape}, not {len(LABELS)} finite probabilities"
            )
        results.append(probability)
    return results


def _perturbed_figures(
    results: Mapping[str, tuple[int, list[Probabilities]]], perturbations: Sequence[Perturbation]
) -> list[tuple[tuple[str, ...], Any]]:
    """Returns the figures under each perturbation, and the change against the same recordings as recorded."""
    if len(perturbations) < 2 or not results:
        return []
    classes = np.array([label for label, _ in results.values()])
    tested = [
        figures(np.stack([probability[index] for _, probability in results.values()]), classes)
        for index in range(len(perturbations))
    ]
    return [
        (perturbation.path, now | {"f1_mean_change": difference(now["f1_mean"], tested[0]["f1_mean"])})
        for perturbation, now in zip(perturbations, tested, strict=True)
        if perturbation.path
    ]


def _mean_f1(called: NDArray[np.integer[Any]], classes: NDArray[np.integer[Any]]) -> float:
    """Returns the mean F1 of N, A and O; a class that occurs in neither array does not count."""
    scores = class_f1(called, classes, len(LABELS))[:SCORED]
    known = scores[np.isfinite(scores)]
    return float(known.mean()) if known.size else float("nan")


def _f1_of_sample(drawn: Sequence[tuple[int, int]]) -> float | None:
    """Returns the mean F1, 0–100, of one bootstrap sample of (true class, called class)."""
    classes, called = np.array(drawn).T
    return _percent(_mean_f1(called, classes))


def _percent(value: float) -> float | None:
    return round(100 * float(value), 2) if np.isfinite(value) else None
