"""The recordings that `pulsegate evaluate` reads, found in the layout of the data folder or right in the folder given."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Final, TypeVar

from rich.progress import Progress

from captures import Recording, open_recording
from evaluation.ec57 import LEARNING_S, Reference, load_reference
from evaluation.statistics import bootstrap

Item = TypeVar("Item")
Result = TypeVar("Result")

SEED: Final = 57
"""Of the bootstrap."""

ODD: Final = (ValueError, OSError, ArithmeticError, LookupError)
"""What an odd record may raise wherever it is read or judged: it is skipped and named, and the others are judged."""


class EvaluationError(Exception):
    """Nothing can be evaluated. The message is one line: what is missing and what to do."""


@dataclass(frozen=True, slots=True)
class Annotated:
    """An ECG and what experts say of its beats."""

    name: str
    recording: Recording
    reference: Reference


@dataclass(slots=True)
class Judged:
    """Results by record, and the records that were left out with the reason."""

    skipped: dict[str, str] = field(default_factory=dict)

    def each(
        self, items: Sequence[tuple[str, Item]], judge: Callable[[Item], Result], progress: Progress, what: str
    ) -> Iterator[tuple[str, Result]]:
        """Every item's name and result, but for those that cannot be judged.

        Raises:
            EvaluationError: none can.
        """
        done = 0
        for name, item in progress.track(items, description=what):
            try:
                result = judge(item)
            except ODD as error:
                self.skipped[name] = " ".join(f"{error}".split()) or type(error).__name__
                continue
            done += 1
            yield name, result
        if not done:
            first, reason = next(iter(self.skipped.items()), ("none", "the folder is empty"))
            raise EvaluationError(f"no record can be evaluated; {first}: {reason}")


def annotated_headers(data: Path, database: str = "mitdb") -> list[tuple[str, Path]]:
    """Name and header of every ECG record of the database's folder in `data`, or of `data` itself, or of a folder in it.

    Raises:
        EvaluationError: there is none.
    """
    folders = [data / database, data, *sorted(path for path in _entries(data) if path.is_dir())]
    for folder in folders:
        found = sorted(folder.glob("*.hea"))
        if any(header.with_suffix(".atr").exists() and has_signals(header) for header in found):
            return [(header.stem, header) for header in found]
    raise EvaluationError(
        f"no ECG records with annotations (.hea, .dat, .atr) in {data / database} or {data}: give the folder that holds them"
    )


def load_annotated(header: Path) -> Annotated:
    """Read a record and its `.atr`.

    Raises:
        ValueError, OSError: a file is missing or damaged, or no beat is to be found after the learning time.
    """
    recording = open_recording(header)
    truth = load_reference(header.with_suffix(".atr"), recording.rate_hz).until(recording.mv.size / recording.rate_hz)
    if not (truth.times_s >= LEARNING_S).any():
        raise ValueError(f"no annotated beat after the first {LEARNING_S:.0f} s, which do not count")
    return Annotated(header.stem, recording, truth)


def has_signals(header: Path) -> bool:
    """Whether a WFDB header announces signals; those of the long-term databases here announce none."""
    try:
        words = next(line for line in header.read_text("utf-8", "replace").splitlines() if line[:1] not in ("", "#")).split()
        return words[1] != "0"
    except (StopIteration, IndexError, OSError):
        return False


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise EvaluationError(f"{folder} cannot be read ({error.strerror}): give the folder that holds the records") from error


def percent(part: float, whole: float) -> float | None:
    """0–100 to two decimals; None where there is nothing to count."""
    return round(100 * part / whole, 2) if whole else None


def mean(values: Sequence[float | None]) -> float | None:
    """Of those that are known, to two decimals; None without any."""
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 2) if known else None


def interval(patients: Sequence[Item], figure: Callable[[Sequence[Item]], float | None]) -> list[float] | None:
    """The 95 % interval of a gross figure by drawing whole records, to two decimals; None for fewer than two."""
    if len(patients) < 2:
        return None

    def known(drawn: Sequence[Item]) -> float:
        value = figure(drawn)
        return float("nan") if value is None else value

    low, high = bootstrap(patients, known, SEED)
    return [round(low, 2), round(high, 2)] if isfinite(low) else None


def rates(counts: Sequence[tuple[int, int, int]]) -> dict[str, Any]:
    """Gross Se, P+ and F1 of records' (true positives, false positives, false negatives), and the counts themselves."""
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
    """The 95 % intervals of `rates`."""

    def rate(key: str) -> Callable[[Sequence[tuple[int, int, int]]], float | None]:
        return lambda drawn: rates(drawn)[key]

    return {key: interval(counts, rate(key)) for key in ("se", "ppv", "f1")}


def nested(entries: Sequence[tuple[tuple[str, ...], Any]]) -> dict[str, Any]:
    """A tree of dicts from (path, leaf)."""
    tree: dict[str, Any] = {}
    for path, leaf in entries:
        branch = tree
        for step in path[:-1]:
            branch = branch.setdefault(step, {})
        branch[path[-1]] = leaf
    return tree
