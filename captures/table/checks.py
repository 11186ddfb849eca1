"""Checks that the times of a table go forward at a constant sampling rate, and finds rows that occur twice."""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from captures.recording import LONGEST_S, RecordingError, Samples
from captures.table.rows import SHOWN
from captures.table.source import Source
from captures.table.timeline import Flags, Timeline

_BACK_S: Final = 0.25
"""Times of packets that step back by more than this are not jitter."""
_LEAST_ROWS: Final = 500
_LEAST_S: Final = 4.0
_LEAST_ANCHORS: Final = 20
"""The rate must be the same in blocks of at least so many rows, seconds and anchors, of which jitter is a small part."""
_LARGEST_CHANGE: Final = 0.08
"""Largest relative difference of the rate of a block."""
_GAP_SHARE: Final = 0.1
"""Largest share of steps that are gaps."""
_RECENT: Final = 2048
"""Number of earlier rows that are compared with a row: a packet has up to 250 samples."""

Lines = NDArray[np.int64]


def check_order(path: Path, source: Source, times: Samples, lines: Lines, previous: float = float("nan")) -> None:
    """Check times in seconds: they step back only by the jitter of packets, and do not jump by decades.

    Raises:
        RecordingError: the times step back or jump.
    """
    if not times.size:
        return
    steps = np.diff(times, prepend=previous)
    column = source.time.name[:SHOWN] if source.time else ""
    if (steps < -_BACK_S).any():
        at = int(np.flatnonzero(steps < -_BACK_S)[0])
        raise RecordingError(
            f"{path}: the time in column {column!r} goes back by {-steps[at]:.3g} s at row {int(lines[at])}, where a"
            " second recording may begin or rows are repeated; split the file there"
        )
    if times[-1] > LONGEST_S or not np.isfinite(steps[1:]).all():
        at = int(np.nanargmax(steps))
        raise RecordingError(
            f"{path}: time jumps by {steps[at]:.3g} s at row {int(lines[at])}, but no recording is longer than"
            f" {LONGEST_S:g} s; correct the times or split the file at this row"
        )


class RateChecker:
    """Checks that the sampling rate stays the same. `is_stated` says that the user or the header states it."""

    def __init__(self, path: Path, timeline: Timeline, is_stated: bool) -> None:
        self._path = path
        self._timeline = timeline
        self._is_stated = is_stated
        self._rows = round(max(_LEAST_ROWS, _LEAST_S * timeline.rate_hz, _LEAST_ANCHORS * timeline.anchor_rows))
        self._times: Samples = np.empty(0)
        self._lines: Lines = np.empty(0, np.int64)

    def check(self, times: Samples, lines: Lines) -> None:
        """Check the next times, in seconds.

        Raises:
            RecordingError: the rate differs from that of the timeline, or many samples are missing.
        """
        self._times = np.concatenate((self._times, times))
        self._lines = np.concatenate((self._lines, lines))
        done = 0
        while self._times.size - done > self._rows:
            self._check_block(self._times[done : done + self._rows + 1], int(self._lines[done]))
            done += self._rows
        self._times, self._lines = self._times[done:], self._lines[done:]

    def _check_block(self, times: Samples, line: int) -> None:
        rate_hz, rows = self._timeline.rate_hz, self._timeline.anchor_rows
        steps = np.diff(times)
        longest_s = (4 if rows <= 1 else 1.5 * rows) / rate_hz + self._timeline.least_s
        even = steps <= longest_s
        found_hz = float(even.sum() / steps[even].sum()) if steps[even].sum() > 0 else 0.0
        if abs(found_hz / rate_hz - 1) > _LARGEST_CHANGE:
            raise RecordingError(
                f"{self._path}: near row {line}, the times give {found_hz:.4g} Hz instead of {rate_hz:.4g} Hz; if the sampling"
                f" rate changes, split the file there{'' if self._is_stated else ', otherwise give the rate with --rate'}"
            )
        if not self._is_stated and rows <= 1 and (steps > 1.5 / rate_hz + self._timeline.least_s).mean() > _GAP_SHARE:
            raise RecordingError(
                f"{self._path}: near row {line}, samples are missing in many places, or the times are those of packets; give"
                f" the sampling rate with --rate (about {rate_hz:.4g} Hz)"
            )


class RepeatFinder:
    """Finds rows whose time and value occurred shortly before: repeated transmissions, or rows that a database holds twice."""

    def __init__(self) -> None:
        self._recent: NDArray[np.complex128] = np.empty(0, np.complex128)
        self._latest = float("-inf")

    def find(self, times: Samples, values: Samples) -> Flags:
        """Whether each of the next rows is a repeated one."""
        if not times.size:
            return np.zeros(0, np.bool_)
        latest = np.maximum.accumulate(np.concatenate(([self._latest], times)))
        pairs = np.concatenate((self._recent, times + 1j * values))
        is_repeated = np.zeros(times.size, np.bool_)
        late = times <= latest[:-1]
        if late.any():
            _, first, inverse = np.unique(pairs, return_index=True, return_inverse=True)
            is_repeated = late & (first[inverse] < np.arange(pairs.size))[self._recent.size :]
        self._recent, self._latest = pairs[-_RECENT:], float(latest[-1])
        return is_repeated
