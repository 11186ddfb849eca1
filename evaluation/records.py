"""Finds and scores the records that `pulsegate evaluate` reads, and computes the figures that its tasks share."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Final, TypeVar

from rich.progress import Progress

from captures import Recording, RecordingError, open_recording
from captures.files import read_file
from evaluation.ec57 import LEARNING_S, Reference, load_reference
from evaluation.statistics import bootstrap

Item = TypeVar("Item")
Result = TypeVar("Result")

SEED: Final = 57
"""Seed of the bootstrap."""

RECORD_ERRORS: Final = (ValueError, OSError, ArithmeticError, LookupError)
"""What a damaged or unusual record may raise while it is read or scored. It is skipped and reported; the others are scored."""


class EvaluationError(Exception):
    """Nothing can be evaluated. The message is one line: what is missing and what to do."""


@dataclass(frozen=True, slots=True)
class AnnotatedRecord:
    """An ECG and the experts' annotations of its beats."""

    name: str
    recording: Recording
    reference: Reference


@dataclass(slots=True)
class RecordScorer:
    """Scores records one by one; `skipped` holds the reason for each record that could not be scored."""

    skipped: dict[str, str] = field(default_factory=dict)

    def score_each(
        self, items: Sequence[tuple[str, Item]], score: Callable[[Item], Result], progress: Progress, description: str
    ) -> Iterator[tuple[str, Result]]:
        """Yields each item's name and result, except for those that cannot be scored.

        Raises:
            EvaluationError: no item can be scored.
        """
        done = 0
        for name, item in progress.track(items, description=description):
            try:
                result = score(item)
            except RECORD_ERRORS as error:
                self.skipped[name] = " ".join(f"{error}".split()) or type(error).__name__
                continue
            done += 1
            yield name, result
        if not done:
            first, reason = next(iter(self.skipped.items()), ("none", "the folder is empty"))
            raise EvaluationError(f"no record can be evaluated; {first}: {reason}")


def annotated_headers(data: Path, database: str = "mitdb") -> list[tuple[str, Path]]:
    """Returns name and header of every ECG record: in the database's folder in `data`, in `data`, or in another folder in it.

    Raises:
        EvaluationError: there is no ECG record with annotations.
    """
    folders = [data / database, data, *sorted(path for path in _entries(data) if path.is_dir())]
    for folder in folders:
        found = sorted(folder.glob("*.hea"))
        if any(header.with_suffix(".atr").exists() and has_signals(header) for header in found):
            return [(header.stem, header) for header in found]
    raise EvaluationError(
        f"no ECG records with annotations (.hea, .dat, .atr) in {data / database} or {data}: give the folder that holds them"
    )


def open_complete(header: Path) -> Recording:
    """Open a recording that is scored as a whole.

    Raises:
        RecordingError: see `open_recording`; or the recording is truncated.
        OSError: a file cannot be read.
    """
    recording = open_recording(header)
    if recording.is_truncated:
        raise RecordingError(f"{header}: truncated: {'; '.join(recording.notes)[:200]}; fetch the record again")
    return recording


def load_annotated(header: Path) -> AnnotatedRecord:
    """Reads a record and its `.atr`.

    Raises:
        ValueError, OSError: a file is missing or damaged, or no beat is annotated after the learning period.
    """
    recording = open_complete(header)
    truth = load_reference(header.with_suffix(".atr"), recording.rate_hz).until(recording.mv.size / recording.rate_hz)
    if not (truth.times_s >= LEARNING_S).any():
        raise ValueError(f"no annotated beat after the first {LEARNING_S:.0f} s, which do not count")
    return AnnotatedRecord(header.stem, recording, truth)


def has_signals(header: Path) -> bool:
    """Whether a WFDB header lists signals. Some long-term databases have annotations only."""
    try:
        text = read_file(header).decode("utf-8", "replace")
        words = next(line for line in text.splitlines() if line[:1] not in ("", "#")).split()
        return words[1] != "0"
    except (StopIteration, IndexError, OSError, RecordingError):
        return False


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise EvaluationError(f"cannot read {folder}: {error.strerror}; give the folder that holds the records") from error


def percent(part: float, whole: float) -> float | None:
    """Returns 0–100 to two decimals; None where `whole` is 0."""
    return round(100 * part / whole, 2) if whole else None


def mean(values: Sequence[float | None]) -> float | None:
    """Returns the mean of the values that are not None, to two decimals; None without any."""
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 2) if known else None


def interval(patients: Sequence[Item], figure: Callable[[Sequence[Item]], float | None]) -> list[float] | None:
    """Returns the 95 % bootstrap interval of a gross figure over whole records, to two decimals; None for fewer than two."""
    if len(patients) < 2:
        return None

    def figure_or_nan(drawn: Sequence[Item]) -> float:
        value = figure(drawn)
        return float("nan") if value is None else value

    low, high = bootstrap(patients, figure_or_nan, SEED)
    return [round(low, 2), round(high, 2)] if isfinite(low) else None


def rates(counts: Sequence[tuple[int, int, int]]) -> dict[str, Any]:
    """Returns gross Se, P+ and F1 of the records' (true positives, false positives, false negatives), and the sums."""
    tp, fp, fn = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0, 0)
    return {
        "se": percent(tp, tp + fn),
        "ppv": percent(tp, tp + fp),
        "f1": percent(2 * tp, 2 * tp + fp + fn),
        "tp": tp,
        "fp": fp,
        "fn": fn,
    }


def rate_intervals(counts: Sequence[tuple[int, int, int]]) -> dict[str, list[float] | None]:
    """Returns the 95 % intervals of the figures of `rates`."""

    def rate(key: str) -> Callable[[Sequence[tuple[int, int, int]]], float | None]:
        return lambda drawn: rates(drawn)[key]

    return {key: interval(counts, rate(key)) for key in ("se", "ppv", "f1")}


def nest(entries: Sequence[tuple[tuple[str, ...], Any]]) -> dict[str, Any]:
    """Returns a tree of dicts from (path, leaf)."""
    tree: dict[str, Any] = {}
    for path, leaf in entries:
        branch = tree
        for step in path[:-1]:
            branch = branch.setdefault(step, {})
        branch[path[-1]] = leaf
    return tree
