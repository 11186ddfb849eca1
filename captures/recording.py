"""One ECG channel of a file, and the errors of the readers."""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

LONGEST_S: Final = 1e9
"""31 years: no sensor is worn longer, so a larger time is damaged. Its nanoseconds still fit in 63 bits."""
_WINDOW: Final = 25
"""Samples before and after a long step whose median times are compared: medians cut jitter of half an interval to a tenth."""


class RecordingError(ValueError):
    """A file that cannot be read as a recording. The message is one line: which file, what is wrong, what to do."""


class UnknownKindError(RecordingError):
    """A file whose name is not that of a supported recording."""


class Segment(NamedTuple):
    """Consecutive valid samples `mv[first]` … `mv[last]`, both included; `start_s` is the time of the first one."""

    start_s: float
    first: int
    last: int


@dataclass(frozen=True)
class Recording:
    """The first ECG channel of a file.

    `mv` are millivolts, NaN where the file marks a sample as invalid. `start_us` is the time of the first sample in UTC,
    microseconds since 1970, or None where the file does not state it. `segments` are the stretches without gaps and invalid
    samples, in order; their times and those of `rr_t_s` are seconds from the first sample. `rr_s` are RR intervals measured by
    the recording device, in seconds; `rr_t_s` are the times at which it reported them. `notes` say how the file was read and
    what is unusual about it.
    """

    name: str
    mv: NDArray[np.float64]
    rate_hz: float
    start_us: int | None
    notes: tuple[str, ...]
    segments: tuple[Segment, ...]
    rr_s: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    rr_t_s: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    @property
    def duration_s(self) -> float:
        """Time from the first sample to the end of the last valid sample."""
        if not self.segments:
            return 0.0
        last = self.segments[-1]
        return last.start_s + (last.last - last.first + 1) / self.rate_hz


def split_segments(times_s: NDArray[np.float64] | None, mv: NDArray[np.float64], rate_hz: float) -> tuple[Segment, ...]:
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


def find_gaps(times_s: NDArray[np.float64], rate_hz: float) -> NDArray[np.bool_]:
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
