"""Reads beats and rhythms of long-term records (`.qrs` and `.atr`) and cuts them into windows of RR intervals."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from captures.annotations import BEATS, read_annotations

WINDOW: Final = 64
"""RR intervals in one window, the input of the model `rr_af`."""

NOT_AF, AF, UNUSED = 0, 1, 2
"""Labels of a beat. Flutter is UNUSED: with fixed conduction its RR intervals are regular, with varying conduction they look
like AF, and an alarm is clinically correct. So it is used neither for training nor for scoring, and is reported separately."""

NO_INTERVAL: Final = 3
"""Replaces the label where no interval ends."""

VENTRICULAR: Final = frozenset("VE")
"""Symbols of ventricular ectopic beats: class V of ANSI/AAMI EC57."""

LONGEST_SILENCE_S: Final = 30.0
"""Beats further apart belong to separate parts of the recording, as in `models.rules.af`."""

RATES_HZ: Final = {"afdb": 250.0, "ltafdb": 128.0, "mitdb": 360.0, "nsr2db": 128.0}
"""Ticks per second of annotations whose file does not state them: the sampling rate of the database."""

Beats = NDArray[np.float64]
Labels = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Rhythm:
    """One record: beat times in seconds and one label per beat, both (beats,); `tick_s` is the resolution of the times.

    `ventricular` (beats,) marks ventricular ectopic beats; None where beats are not classified.
    """

    database: str
    name: str
    tick_s: float
    times_s: Beats
    labels: Labels
    ventricular: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of the last 64 intervals, every few beats, in order of time; the first windows of a part are partly filled.

    `rr_s` (windows, 64) are seconds; `valid` (windows, 64) is false where there is no interval. `labels` (windows,) are those
    of the majority of beats. `first_s`, `middle_s` and `end_s` (windows,) are the times of the first, middle and last beat.
    `part` (windows,) is the index of the part of the recording; a long time without beats separates parts, and no window spans
    it.
    """

    rr_s: Beats
    valid: NDArray[np.bool_]
    labels: Labels
    first_s: Beats
    middle_s: Beats
    end_s: Beats
    part: NDArray[np.int64]


def load_rhythms(data: Path, database: str, beats_suffix: str = ".qrs", *, classified: bool = False) -> list[Rhythm]:
    """Reads all records of a database, sorted by name.

    Beats come from the files with the suffix `beats_suffix`, with their class if `classified`; rhythms come from `.atr`.

    Raises:
        FileNotFoundError: there is no record.
        AnnotationError: a file is damaged.
    """
    records = [
        load_rhythm(path, database, classified=classified) for path in sorted((data / database).glob(f"*{beats_suffix}"))
    ]
    if not records:
        raise FileNotFoundError(f"no {beats_suffix} files in {data / database}: give the folder that holds the databases")
    return records


def load_rhythm(beats_path: Path, database: str, *, classified: bool = False) -> Rhythm:
    """Reads the beats of one record from `beats_path` and its rhythms from the `.atr` file beside it."""
    annotations, rhythms = read_annotations(beats_path), read_annotations(beats_path.with_suffix(".atr"))
    tick_s = 1 / (annotations.rate_hz or RATES_HZ[database])
    samples = annotations.beats()
    labels = [_label(rhythm) for rhythm in rhythms.rhythm_at(samples)]
    ventricular = np.array([symbol in VENTRICULAR for symbol in annotations.symbol if symbol in BEATS]) if classified else None
    return Rhythm(
        database, beats_path.stem, tick_s, samples.astype(np.float64) * tick_s, np.array(labels, np.int8), ventricular
    )


def _label(rhythm: str) -> int:
    return {"(AFIB": AF, "(AFL": UNUSED, "": UNUSED}.get(rhythm, NOT_AF)


def windows(rhythm: Rhythm, step: int) -> Windows:
    """Returns the windows that the agent sees: one every `step` beats from the start of each part of the recording."""
    interval_s = np.diff(rhythm.times_s, prepend=-np.inf)
    starts = np.flatnonzero(interval_s > LONGEST_SILENCE_S)
    part = np.cumsum(interval_s > LONGEST_SILENCE_S) - 1
    position = np.arange(len(part)) - starts[part]
    last = np.flatnonzero((position + 1) % step == 0)
    count = np.minimum(position[last] + 1, WINDOW)
    index = last[:, None] + np.arange(1 - WINDOW, 1)
    filled = np.arange(WINDOW) >= WINDOW - count[:, None]
    index = np.maximum(index, 0)
    valid = filled & (position[index] > 0)
    if rhythm.ventricular is not None:
        ectopic = rhythm.ventricular
        valid &= ~(ectopic | np.concatenate([[False], ectopic[:-1]]))[index]
    return Windows(
        np.where(valid, interval_s[index], 0.0),
        valid,
        majority(np.where(valid, rhythm.labels[index], NO_INTERVAL)),
        rhythm.times_s[last - count + 1],
        rhythm.times_s[last - count + 1 + count // 2],
        rhythm.times_s[last],
        part[last],
    )


def majority(labels: Labels) -> Labels:
    """Returns the most frequent of the three labels along the last axis; other values are ignored."""
    votes = np.stack([(labels == label).sum(-1) for label in (NOT_AF, AF, UNUSED)], -1)
    most: Labels = votes.argmax(-1).astype(np.int8)
    return most
