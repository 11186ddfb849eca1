"""Rebuilds the files of a database as a power cut leaves them, from a copy and the recorded writes.

What was written to a file before its last sync is there. Of what came later, each write may be there, be missing, or be there
up to a sector: disks reorder what is not synced.
"""

import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.chaos.recorded_disk import Entry, Op

SECTOR_BYTES: Final = 512
"""A disk writes a sector whole or not at all."""


def sync_points(entries: Sequence[Entry]) -> list[int]:
    """Return the numbers of entries right behind each sync."""
    return [number + 1 for number, entry in enumerate(entries) if entry.op is Op.SYNC]


def last_mark(entries: Sequence[Entry]) -> int | None:
    """Return the last number that was durable before the cut."""
    return next((entry.value for entry in reversed(entries) if entry.op is Op.MARK), None)


def choose_cut(entries: Sequence[Entry], rng: random.Random) -> int:
    """Return how many entries happened before the power cut: up to a random sync, and some of those until the next."""
    points = [0, *sync_points(entries), len(entries)]
    chosen = rng.randrange(len(points) - 1)
    return rng.randint(points[chosen], points[chosen + 1])


def replay(base: Path, entries: Sequence[Entry], target: Path, rng: random.Random) -> None:
    """Write the files of `base`, a folder, to the new folder `target` as a power cut after these entries leaves them."""
    shutil.copytree(base, target)
    for name in {entry.file for entry in entries if entry.op is not Op.MARK}:
        own = [entry for entry in entries if entry.file == name]
        synced = max((number + 1 for number, entry in enumerate(own) if entry.op in (Op.SYNC, Op.DELETE)), default=0)
        for number, entry in enumerate(own):
            _apply(target / name, entry if number < synced else _lose_some(entry, rng))


def _lose_some(entry: Entry, rng: random.Random) -> Entry | None:
    """Return what became of an operation that was not synced; None if nothing."""
    if rng.random() < 1 / 3:
        return None
    if entry.op is Op.WRITE and rng.random() < 1 / 2:
        kept = rng.randrange(len(entry.data) // SECTOR_BYTES + 1) * SECTOR_BYTES
        return Entry(entry.op, entry.file, entry.value, entry.data[:kept])
    return entry


def _apply(path: Path, entry: Entry | None) -> None:
    if entry is None or entry.op is Op.SYNC:
        return
    if entry.op is Op.DELETE:
        path.unlink(missing_ok=True)
        return
    path.touch(mode=0o600)
    with path.open("r+b") as file:
        if entry.op is Op.TRUNCATE:
            file.truncate(entry.value)
        else:
            file.seek(entry.value)
            file.write(entry.data)
