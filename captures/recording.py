"""Defines what readers take and return: options of the user, one signal of a file in chunks, or a list of RR intervals."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

LONGEST_S: Final = 1e9
"""31 years: no sensor is worn longer, so a larger time is damaged. Its nanoseconds still fit in 63 bits."""
CHUNK_SAMPLES: Final = 1 << 16
"""Samples that a reader holds at a time: 1 MiB with their times, 2 minutes at 500 Hz."""
_WINDOW: Final = 25
"""Samples before and after a long step whose median times are compared: medians cut jitter of half an interval to a tenth."""

Samples = NDArray[np.float64]


class RecordingError(ValueError):
    """A file that cannot be read as a recording. The message is one line: which file, what is wrong, what to do."""


class UnknownKindError(RecordingError):
    """A file whose name and content are not those of a supported recording."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What the user states about a file; it takes the place of what the file states, or leaves open.

    `signal` is the name of a signal or column, or its number from 1. `unit` is a unit of voltage, or counts per millivolt such
    as `200/mV`. `rate_hz` is the sampling rate. `gatt` is a file with the characteristics of a Bluetooth capture's handles.
    """

    signal: str | None = None
    unit: str | None = None
    rate_hz: float | None = None
    gatt: Path | None = None


class Chunk(NamedTuple):
    """Evenly spaced samples; NaN where the file marks a sample as invalid.

    `start_s` is the time of the first one, seconds from the start of the recording. `continues` is False where there is a gap
    between this chunk and the one before.
    """

    start_s: float
    values: Samples
    continues: bool = True


class Piece(NamedTuple):
    """Consecutive valid samples; `first` is the number of the first one in the file. `continues` as in `Chunk`."""

    start_s: float
    values: Samples
    continues: bool
    first: int


class Segment(NamedTuple):
    """Consecutive valid samples `mv[first]` … `mv[last]`, both included; `start_s` is the time of the first one."""

    start_s: float
    first: int
    last: int


@dataclass(frozen=True)
class Recording:
    """One signal of a file.

    `read_chunks` reads the file from its start with each call; a chunk has at most `CHUNK_SAMPLES` samples. It raises
    `RecordingError` where the file is damaged. Samples of an `ecg` are millivolts, those of a `ppg` (pulse wave) have any unit.
    `start_us` is the time of the first sample in UTC, microseconds since 1970, or None where the file does not state it. `rr_s`
    are RR intervals measured by the recording device, in seconds; `rr_t_s` are the times at which it reported them, in seconds
    from the first sample. `notes` say how the file was read and what is unusual about it. `is_truncated` is True where the file
    holds fewer samples than it states.
    """

    name: str
    rate_hz: float
    start_us: int | None
    notes: tuple[str, ...]
    read_chunks: Callable[[], Iterator[Chunk]]
    kind: Literal["ecg", "ppg"] = "ecg"
    rr_s: Samples = field(default_factory=lambda: np.empty(0))
    rr_t_s: Samples = field(default_factory=lambda: np.empty(0))
    is_truncated: bool = False

    @cached_property
    def mv(self) -> Samples:
        """All samples, shape (n,), in memory."""
        chunks = [chunk.values for chunk in self.read_chunks()]
        return np.concatenate(chunks) if chunks else np.empty(0)

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The stretches of `mv` without gaps and invalid samples, in order."""
        found: list[Segment] = []
        for piece in self.read_pieces():
            if not piece.values.size:
                break
            last = piece.first + piece.values.size - 1
            if piece.continues:
                found[-1] = found[-1]._replace(last=last)
            else:
                found.append(Segment(piece.start_s, piece.first, last))
        return tuple(found)

    def read_pieces(self) -> Iterator[Piece]:
        """Read the file from its start, without its invalid samples. If it ends with some, the last piece is empty, at the end.

        Raises:
            RecordingError: the file is damaged; the pieces before are valid.
            OSError: the file cannot be read.
        """
        first, end_s = 0, 0.0
        was_valid = True
        for chunk in self.read_chunks():
            for start, stop in _valid_ranges(chunk.values):
                continues = was_valid and chunk.continues and first + start > 0 and start == 0
                yield Piece(chunk.start_s + start / self.rate_hz, chunk.values[start:stop], continues, first + start)
            was_valid = chunk.values.size > 0 and not np.isnan(chunk.values[-1])
            first += chunk.values.size
            end_s = chunk.start_s + chunk.values.size / self.rate_hz
        if not was_valid:
            yield Piece(end_s, np.empty(0), False, first)

    @property
    def duration_s(self) -> float:
        """Time from the first sample to the end of the last valid sample."""
        if not self.segments:
            return 0.0
        last = self.segments[-1]
        return last.start_s + (last.last - last.first + 1) / self.rate_hz


@dataclass(frozen=True)
class RrRecording:
    """RR intervals of a device that records nothing else: `rr_s` in seconds, and the time of the beat that ends each, `t_s`.

    `t_s` are seconds from the start of the recording. `start_us` and `notes` are those of a `Recording`.
    """

    name: str
    start_us: int | None
    notes: tuple[str, ...]
    t_s: Samples
    rr_s: Samples


def split_chunks(times_s: Samples | None, values: Samples, rate_hz: float) -> Iterator[Chunk]:
    """Yield the samples of a recording in memory as chunks; a gap or an invalid stretch starts a new one.

    `times_s` are the times of the samples; None if they are evenly spaced.
    """
    starts = [] if times_s is None else [segment.first for segment in split_segments(times_s, values, rate_hz)]
    for first, stop in pairwise([*sorted({0, *starts}), values.size]):
        for at in range(first, stop, CHUNK_SAMPLES):
            offset_s = at / rate_hz if times_s is None else float(times_s[first]) + (at - first) / rate_hz
            yield Chunk(offset_s, values[at : min(at + CHUNK_SAMPLES, stop)], continues=at > first)


def _valid_ranges(values: Samples) -> list[list[int]]:
    """The stretches [first, stop) of samples that are not NaN."""
    invalid = np.isnan(values)
    if not invalid.any():
        return [[0, values.size]] if values.size else []
    edges = np.flatnonzero(np.diff(np.concatenate(([True], invalid, [True]))))
    ranges: list[list[int]] = edges.reshape(-1, 2).tolist()
    return ranges


def split_segments(times_s: Samples | None, mv: Samples, rate_hz: float) -> tuple[Segment, ...]:
    """Returns the stretches of consecutive valid samples.

    `times_s` are the times of the samples; None if they are evenly spaced.
    """
    valid = ~np.isnan(mv)
    joined = valid[1:] & valid[:-1]
    if times_s is not None:
        joined &= ~find_gaps(times_s, rate_hz)
    firsts = np.flatnonzero(valid & np.concatenate(([True], ~joined)))
    lasts = np.flatnonzero(valid & np.concatenate((~joined, [True])))
    starts = firsts / rate_hz if times_s is None else times_s[firsts]
    return tuple(map(Segment, starts.tolist(), firsts.tolist(), lasts.tolist()))


def find_gaps(times_s: Samples, rate_hz: float) -> NDArray[np.bool_]:
    """Returns which steps from one time to the next miss at least one sample, shape (times - 1,).

    Such a step is longer than 1.5 intervals, and the samples after it stay late by at least half an interval. After a step that
    is long only because of jitter, the samples are no longer late. (Within half a window of a gap, such a step also counts as a
    gap. This splits a segment, but does not change the time of any sample.)
    """
    found = np.diff(times_s) > 1.5 / rate_hz
    steps = np.flatnonzero(found)
    if steps.size:
        late_s = np.pad(times_s - np.arange(times_s.size) / rate_hz, _WINDOW, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(late_s, _WINDOW)
        # Because of the padding, window i + 1 ends with sample i, and window i + 1 + _WINDOW begins after it.
        shift = np.median(windows[steps + 1 + _WINDOW], axis=1) - np.median(windows[steps + 1], axis=1)
        found[steps] = shift > 0.5 / rate_hz
    return found
