"""The PhysioNet/CinC Challenge 2017 recordings: one lead, 9 to 61 s, a rhythm label each."""

import csv
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from captures import open_recording
from config.files import replacing
from models.signal import chain, envelope, filters, offline, peak, qrs, resample, shape
from models.signal.offline import condition
from training.sources import code

LABELS: Final = ("N", "A", "O", "~")
"""Normal, atrial fibrillation, other rhythm, too noisy; a label's place is its class."""

ARCHIVE: Final = "cinc2017-dev.tar.xz"
KEPT: Final = Path(__file__).parent / "runs" / "cinc2017.npz"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recording: `mv` (samples,) at 125 Hz as `offline.condition` gives it, its R peaks in seconds, its class."""

    name: str
    mv: NDArray[np.float32]
    beat_s: NDArray[np.float64]
    label: int


def load_cinc(data: Path, progress: Progress, kept: Path = KEPT) -> list[Recorded]:
    """Every recording in the archive, by name; conditioned once by these very sources, then kept in the runs folder (40 s).

    Raises:
        FileNotFoundError: the archive is not in the data folder.
    """
    if not _is_kept(kept):
        _prepare(data / ARCHIVE, kept, progress)
    with np.load(kept) as store:
        names, labels, ends, beat_ends = store["names"], store["labels"], store["ends"], store["beat_ends"]
        signals = np.split(store["mv"], ends[:-1])
        beats = np.split(store["beat_s"], beat_ends[:-1])
    return [
        Recorded(str(name), mv, beat_s, int(label))
        for name, mv, beat_s, label in zip(names, signals, beats, labels, strict=True)
    ]


def folds(records: list[Recorded], count: int = 5) -> list[list[Recorded]]:
    """Groups alike in labels, by name in turn: there are no patient ids to keep together."""
    groups: list[list[Recorded]] = [[] for _ in range(count)]
    for label in range(len(LABELS)):
        for place, record in enumerate(record for record in records if record.label == label):
            groups[place % count].append(record)
    return groups


def digest() -> str:
    """Of the sources that decide what is kept: the detector's above all."""
    return code(sys.modules[__name__], offline, chain, envelope, qrs, peak, shape, filters, resample)


def _is_kept(kept: Path) -> bool:
    if not kept.exists():
        return False
    with np.load(kept) as store:
        return "sources" in store and str(store["sources"]) == digest()


def _prepare(archive: Path, kept: Path, progress: Progress) -> None:
    folder = kept.parent / "cinc2017-dev"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = folder.with_suffix(".part")
        with tarfile.open(archive) as packed:
            if hasattr(tarfile, "data_filter"):  # not in every Python 3.11
                packed.extraction_filter = tarfile.data_filter
            packed.extractall(part)  # noqa: S202  the archive of the Challenge, named by its user
        part.replace(folder)
    records = list(_read(folder, progress))
    with replacing(kept) as draft:
        np.savez(
            draft,
            sources=digest(),
            names=np.array([record.name for record in records]),
            labels=np.array([record.label for record in records]),
            mv=np.concatenate([record.mv for record in records]),
            ends=np.cumsum([record.mv.size for record in records]),
            beat_s=np.concatenate([record.beat_s for record in records]),
            beat_ends=np.cumsum([record.beat_s.size for record in records]),
        )


def _read(folder: Path, progress: Progress) -> Iterator[Recorded]:
    (reference,) = folder.rglob("REFERENCE*.csv")
    with reference.open(newline="") as file:
        rows = sorted((name, label) for name, label in csv.reader(file))
    for name, label in progress.track(rows, description="CinC 2017"):
        recording = open_recording(reference.parent / f"{name}.hea")
        conditioned = condition(recording.mv, recording.rate_hz)
        yield Recorded(name, conditioned.mv.astype(np.float32), conditioned.beat_s, LABELS.index(label))
