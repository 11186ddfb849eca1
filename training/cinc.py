"""Recordings of the PhysioNet/CinC Challenge 2017: one lead, 9 to 61 s, one rhythm label per recording."""

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
from training.cache import RUNS, source_digest

LABELS: Final = ("N", "A", "O", "~")
"""Normal, atrial fibrillation, other rhythm, too noisy. The index of a label is its class."""

ARCHIVE: Final = "cinc2017-dev.tar.xz"
CACHE: Final = RUNS / "cinc2017.npz"


@dataclass(frozen=True, slots=True)
class CincRecording:
    """One recording: `mv` (samples,) at 125 Hz as returned by `offline.condition`, its R peaks in seconds, and its class."""

    name: str
    mv: NDArray[np.float32]
    beat_s: NDArray[np.float64]
    label: int


def load_cinc(data: Path, progress: Progress, cache: Path = CACHE) -> list[CincRecording]:
    """Return every recording in the archive by name, conditioned as in the agent.

    The result is cached; building the cache takes 40 s.

    Raises:
        FileNotFoundError: the archive is not in the data folder.
    """
    if not _is_current(cache):
        _build_cache(data / ARCHIVE, cache, progress)
    with np.load(cache) as store:
        names, labels, ends, beat_ends = store["names"], store["labels"], store["ends"], store["beat_ends"]
        signals = np.split(store["mv"], ends[:-1])
        beats = np.split(store["beat_s"], beat_ends[:-1])
    return [
        CincRecording(str(name), mv, beat_s, int(label))
        for name, mv, beat_s, label in zip(names, signals, beats, labels, strict=True)
    ]


def split_folds(records: list[CincRecording], count: int = 5) -> list[list[CincRecording]]:
    """Return groups with the same mix of labels, assigned in turn by name. There are no patient ids to keep together."""
    groups: list[list[CincRecording]] = [[] for _ in range(count)]
    for label in range(len(LABELS)):
        for index, record in enumerate(record for record in records if record.label == label):
            groups[index % count].append(record)
    return groups


def digest() -> str:
    """Return the digest of the source code that determines the cache, above all that of the QRS detector."""
    return source_digest(sys.modules[__name__], offline, chain, envelope, qrs, peak, shape, filters, resample)


def _is_current(cache: Path) -> bool:
    if not cache.exists():
        return False
    with np.load(cache) as store:
        return "sources" in store and str(store["sources"]) == digest()


def _build_cache(archive: Path, cache: Path, progress: Progress) -> None:
    folder = cache.parent / "cinc2017-dev"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = folder.with_suffix(".part")
        with tarfile.open(archive) as packed:
            if hasattr(tarfile, "data_filter"):  # not in every Python 3.11
                packed.extraction_filter = tarfile.data_filter
            packed.extractall(part)  # noqa: S202  the archive of the Challenge, named by its user
        part.replace(folder)
    records = list(_read_recordings(folder, progress))
    with replacing(cache) as draft:
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


def _read_recordings(folder: Path, progress: Progress) -> Iterator[CincRecording]:
    (reference,) = folder.rglob("REFERENCE*.csv")
    with reference.open(newline="") as file:
        rows = sorted((name, label) for name, label in csv.reader(file))
    for name, label in progress.track(rows, description="CinC 2017"):
        recording = open_recording(reference.parent / f"{name}.hea")
        conditioned = condition(recording.mv, recording.rate_hz)
        yield CincRecording(name, conditioned.mv.astype(np.float32), conditioned.beat_s, LABELS.index(label))
