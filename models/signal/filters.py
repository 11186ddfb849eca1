"""Linear-phase FIR filters, medians and a ring buffer. Filter outputs do not depend on how the signal is cut into chunks."""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]

_INITIAL_SAMPLES: Final = 300
"""Initial buffer of a filter beyond its taps: two seconds at the rates of the signals it filters."""


def hann(width: int) -> Samples:
    """Return a Hann window of `width` taps without its zero ends and with sum 1, whose first null is at 2 / duration."""
    window = np.hanning(width + 2)[1:-1]
    normed: Samples = window / window.sum()
    return normed


def lowpass(cutoff_hz: float, rate_hz: float, half: int) -> Samples:
    """Return 2 `half` + 1 taps of a Hann-windowed sinc, -6 dB at `cutoff_hz`, gain 1 at 0 Hz."""
    t = np.arange(-half, half + 1)
    taps = np.sinc(2 * cutoff_hz / rate_hz * t) * np.hanning(2 * half + 3)[1:-1]
    normed: Samples = taps / taps.sum()
    return normed


def bandpass(low_hz: float, high_hz: float, rate_hz: float, half: int) -> Samples:
    """Return the difference of two low-passes: -6 dB at both edges as far as the length allows, gain 0 at 0 Hz."""
    return lowpass(high_hz, rate_hz, half) - lowpass(low_hz, rate_hz, half)


def correlation_matrix(taps: Samples, count: int) -> Samples:
    """Return the matrix that correlates `count` + taps - 1 samples with a filter, (samples, `count`).

    The samples times this matrix are `numpy.correlate(samples, taps, "valid")` up to rounding. For few samples the product is
    faster than the correlation.
    """
    matrix = np.zeros((count + taps.size - 1, count))
    taps_view(matrix, taps.size)[:] = taps
    return matrix


def taps_view(matrix: Samples, height: int) -> Samples:
    """Return a writable view of the taps in a matrix of `correlation_matrix`: row i holds the `height` taps of column i."""
    down, right = matrix.strides
    return np.lib.stride_tricks.as_strided(matrix, (matrix.shape[1], height), (down + right, down))


class Fir:
    """A symmetric FIR of odd length over one gap-free stretch, with its delay removed: output i belongs to input i.

    The signal is padded at both ends with its first and last value. The output therefore has as many samples as the input, and
    a constant offset causes no step. `push` returns the final outputs; `finish` returns the rest, half the filter's length.
    """

    def __init__(self, taps: Samples) -> None:
        self._taps = taps
        self.half = taps.size // 2
        self._buffer: Samples = np.empty(taps.size + _INITIAL_SAMPLES)
        self._pending = 0
        """Number of samples at the start of the buffer that later outputs still need."""

    def push(self, x: Samples) -> Samples:
        """Return the outputs that became final with `x`."""
        if x.size == 0:
            return x
        buffer, kept = self._buffer, self._taps.size - 1
        if self._pending == 0:
            buffer[: self.half] = x[0]
            self._pending = self.half
        end = self._pending + x.size
        if end > buffer.size:
            self._buffer = buffer = np.concatenate((buffer[: self._pending], np.empty(x.size)))
        buffer[self._pending : end] = x
        if end <= kept:
            self._pending = end
            return np.empty(0)
        out = np.correlate(buffer[:end], self._taps, "valid")  # symmetric, so a convolution
        buffer[:kept] = buffer[end - kept : end]
        self._pending = kept
        return out

    def finish(self) -> Samples:
        """Return the outputs up to the last sample of the stretch."""
        if self._pending == 0:
            return np.empty(0)
        return self.push(np.full(self.half, self._buffer[self._pending - 1]))


def median(values: Samples) -> float:
    """Return the same value as `numpy.median`, without the megabytes of code that `numpy.median` loads."""
    low, high = (values.size - 1) // 2, values.size // 2
    ordered = np.partition(values, (low, high))
    return float((ordered[low] + ordered[high]) / 2)


def median_of(values: Iterable[float]) -> float:
    """Return the median of a handful of numbers, for which numpy is slower."""
    return median_of_sorted(sorted(values))


def median_of_sorted(ordered: Sequence[float]) -> float:
    """Return the median of numbers that are already sorted."""
    middle = len(ordered) // 2
    return 0.5 * (ordered[~middle] + ordered[middle])


class RingBuffer:
    """The last samples of a signal, addressed by their number since the start of the stream.

    The samples kept are those from `first` to before `end`; samples that were skipped are NaN.
    """

    def __init__(self, keep: int, start: int = 0) -> None:
        """Keep at least the last `keep` samples; the next sample written has number `start`."""
        self._keep = keep
        self._buffer: Samples = np.full(keep + keep // 16, np.nan)
        self.first = self.end = start

    def extend(self, x: Samples) -> None:
        """Append `x` after the last sample."""
        at, size = self.end - self.first, x.size
        if at + size > self._buffer.size:
            kept = np.concatenate((self[self.end - self._keep : self.end], x))[-self._keep :]
            self._buffer[: kept.size] = kept
            self.first = self.end + size - kept.size
        else:
            self._buffer[at : at + size] = x
        self.end += size

    def skip_to(self, number: int) -> None:
        """Continue at sample `number`; the samples skipped are NaN."""
        if number - self.end > self._keep:
            self.first = self.end = number - self._keep
        self.extend(np.full(number - self.end, np.nan))

    def __getitem__(self, span: slice) -> Samples:
        """Return a view of the samples kept in a half-open range of sample numbers."""
        start, stop = span.start - self.first, span.stop - self.first
        if 0 <= start <= stop and span.stop <= self.end:
            return self._buffer[start:stop]
        return self._buffer[max(start, 0) : max(min(stop, self.end - self.first), 0)]

    def edge_padded(self, start: int, stop: int, begin: int) -> Samples:
        """Return the samples `start` to before `stop`; sample `begin` is repeated before it, and the last sample after it.

        All samples from `begin` on that the range covers must still be kept.
        """
        if begin <= start and stop <= self.end:
            return self._buffer[start - self.first : stop - self.first]
        return self._buffer[np.clip(np.arange(start, stop), begin, self.end - 1) - self.first]
