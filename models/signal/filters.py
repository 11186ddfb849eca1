"""Linear-phase FIR filters whose output does not depend on how the signal is cut into chunks."""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]

_ROOM: Final = 300
"""Samples that a filter has room for at first: a hop of two seconds at the rates of what it filters."""


def hann(width: int) -> Samples:
    """A Hann window of `width` taps without its zero ends, with sum 1: a smoother with its first null at 2 / duration."""
    window = np.hanning(width + 2)[1:-1]
    normed: Samples = window / window.sum()
    return normed


def lowpass(cutoff_hz: float, rate_hz: float, half: int) -> Samples:
    """2 `half` + 1 taps of a Hann-windowed sinc, -6 dB at `cutoff_hz`, gain 1 at 0 Hz."""
    t = np.arange(-half, half + 1)
    taps = np.sinc(2 * cutoff_hz / rate_hz * t) * np.hanning(2 * half + 3)[1:-1]
    normed: Samples = taps / taps.sum()
    return normed


def bandpass(low_hz: float, high_hz: float, rate_hz: float, half: int) -> Samples:
    """The difference of two low-passes: -6 dB at both edges as far as the length allows, gain 0 at 0 Hz."""
    return lowpass(high_hz, rate_hz, half) - lowpass(low_hz, rate_hz, half)


def windows(taps: Samples, count: int) -> Samples:
    """The matrix that so many places of a filter are a product with: for few samples faster than to correlate them.

    A vector of `count` + taps - 1 samples times it is `numpy.correlate(samples, taps, "valid")` up to rounding.
    """
    matrix = np.zeros((count + taps.size - 1, count))
    diagonals(matrix, taps.size)[:] = taps
    return matrix


def diagonals(matrix: Samples, height: int) -> Samples:
    """A view of a matrix as `windows` makes it: row i is its part of column i, `height` taps."""
    down, right = matrix.strides
    return np.lib.stride_tricks.as_strided(matrix, (matrix.shape[1], height), (down + right, down))


class Fir:
    """A symmetric FIR of odd length over one gap-free stretch, its delay taken out: output i belongs to input i.

    The signal is continued at both ends with its first and last value, so that as many samples come out as went in, and a
    constant offset makes no step. `push` gives what is final; `finish` the rest, half the filter's length.
    """

    def __init__(self, taps: Samples) -> None:
        self._taps = taps
        self.half = taps.size // 2
        self._room: Samples = np.empty(taps.size + _ROOM)
        self._waiting = 0
        """How many samples at the room's beginning are still needed."""

    def push(self, x: Samples) -> Samples:
        if x.size == 0:
            return x
        room, kept = self._room, self._taps.size - 1
        if self._waiting == 0:
            room[: self.half] = x[0]
            self._waiting = self.half
        end = self._waiting + x.size
        if end > room.size:
            self._room = room = np.concatenate((room[: self._waiting], np.empty(x.size)))
        room[self._waiting : end] = x
        if end <= kept:
            self._waiting = end
            return np.empty(0)
        out = np.correlate(room[:end], self._taps, "valid")  # symmetric, so a convolution
        room[:kept] = room[end - kept : end]
        self._waiting = kept
        return out

    def finish(self) -> Samples:
        if self._waiting == 0:
            return np.empty(0)
        return self.push(np.full(self.half, self._room[self._waiting - 1]))


def median(values: Samples) -> float:
    """The middle value, as `numpy.median` gives it, without the megabytes that the agent would load with that."""
    low, high = (values.size - 1) // 2, values.size // 2
    ordered = np.partition(values, (low, high))
    return float((ordered[low] + ordered[high]) / 2)


def median_of(values: Iterable[float]) -> float:
    """The same of a handful of numbers, for which numpy takes longer."""
    return middle(sorted(values))


def middle(ordered: Sequence[float]) -> float:
    """The same of numbers in order."""
    place = len(ordered) // 2
    return 0.5 * (ordered[~place] + ordered[place])


class Tape:
    """The last samples of a signal, found by their number since the stream's start; what was never written is NaN."""

    def __init__(self, keep: int, start: int = 0) -> None:
        """Keep at least the last `keep` samples; the first one to come has number `start`."""
        self._keep = keep
        self._room: Samples = np.full(keep + keep // 4, np.nan)
        self.first = self.end = start

    def extend(self, x: Samples) -> None:
        """Write `x` after the last sample."""
        at, size = self.end - self.first, x.size
        if at + size > self._room.size:
            kept = np.concatenate((self[self.end - self._keep : self.end], x))[-self._keep :]
            self._room[: kept.size] = kept
            self.first = self.end + size - kept.size
        else:
            self._room[at : at + size] = x
        self.end += size

    def skip_to(self, number: int) -> None:
        """Go on at sample `number`; what lies between is NaN."""
        if number - self.end > self._keep:
            self.first = self.end = number - self._keep
        self.extend(np.full(number - self.end, np.nan))

    def __getitem__(self, span: slice) -> Samples:
        """A view of the samples kept of a half-open span of numbers."""
        start, stop = span.start - self.first, span.stop - self.first
        if 0 <= start <= stop and span.stop <= self.end:
            return self._room[start:stop]
        return self._room[max(start, 0) : max(min(stop, self.end - self.first), 0)]

    def continued(self, start: int, stop: int, begin: int) -> Samples:
        """The same, but samples before number `begin` and from `end` on are like the first and the last between, all kept."""
        if begin <= start and stop <= self.end:
            return self._room[start - self.first : stop - self.first]
        return self._room[np.clip(np.arange(start, stop), begin, self.end - 1) - self.first]
