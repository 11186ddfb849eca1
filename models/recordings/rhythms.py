"""Beats and rhythm of long-term records (`.qrs` and `.atr`), as windows of RR intervals."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.recordings.annotations import read_annotations

WINDOW: Final = 64
"""RR intervals in one window: what the model `rr_af` looks at."""

NOT_AF, AF, UNUSED = 0, 1, 2
"""Labels of a beat. Flutter is UNUSED: with fixed conduction its RR intervals are regular, with varying conduction they look
like AF, and clinically an alarm in it is right; so it neither trains nor counts, and is reported apart."""

RATES_HZ: Final = {"afdb": 250.0, "ltafdb": 128.0, "mitdb": 360.0, "nsr2db": 128.0}
"""Ticks per second of annotations whose file does not state them: the sampling rates of the databases."""

Beats = NDArray[np.float64]
Labels = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Rhythm:
    """One record: beat times in seconds and a label a beat, both (beats,); `tick_s` is the resolution of the times."""

    database: str
    name: str
    tick_s: float
    times_s: Beats
    labels: Labels


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of 64 intervals in the order of time.

    `rr_s` (windows, 64) in seconds; `labels` (windows,) by majority of beats; `middle_s` and `end_s` (windows,): the times of
    the beats in the middle and at the end.
    """

    rr_s: Beats
    labels: Labels
    middle_s: Beats
    end_s: Beats


def load_rhythms(data: Path, database: str, beats: str = ".qrs") -> list[Rhythm]:
    """All records of a database, by name: beats from the files with this suffix, rhythms from `.atr`.

    Raises:
        FileNotFoundError: there is none.
        AnnotationError: a file is damaged.
    """
    records = [load_rhythm(path, database) for path in sorted((data / database).glob(f"*{beats}"))]
    if not records:
        raise FileNotFoundError(f"no {beats} files in {data / database}: give the folder that holds the databases")
    return records


def load_rhythm(beats: Path, database: str) -> Rhythm:
    """One record, by its file of beats."""
    found, rhythms = read_annotations(beats), read_annotations(beats.with_suffix(".atr"))
    tick_s = 1 / (found.rate_hz or RATES_HZ[database])
    samples = found.beats()
    labels = [_label(rhythm) for rhythm in rhythms.rhythm_at(samples)]
    return Rhythm(database, beats.stem, tick_s, samples.astype(np.float64) * tick_s, np.array(labels, np.int8))


def _label(rhythm: str) -> int:
    return {"(AFIB": AF, "(AFL": UNUSED, "": UNUSED}.get(rhythm, NOT_AF)


def windows(rhythm: Rhythm, step: int) -> Windows:
    """All full windows every `step` beats, as recorded."""
    last = np.arange(WINDOW, len(rhythm.times_s), step)
    index = last[:, None] + np.arange(1 - WINDOW, 1)
    rr_s = rhythm.times_s[index] - rhythm.times_s[index - 1]
    middle_s, end_s = rhythm.times_s[last - WINDOW // 2], rhythm.times_s[last]
    return Windows(rr_s, majority(rhythm.labels[index]), middle_s, end_s)


def majority(labels: Labels) -> Labels:
    """The most frequent label along the last axis; other values than the three do not vote."""
    votes = np.stack([(labels == label).sum(-1) for label in (NOT_AF, AF, UNUSED)], -1)
    most: Labels = votes.argmax(-1).astype(np.int8)
    return most
