"""Resampling from any sampling rate to the rate of the models: 125 Hz for an ECG, 50 Hz for a PPG."""

from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor, gcd
from typing import Final

import numpy as np

from models.signal.filters import Samples

RATE_HZ: Final = 125.0
"""Sampling rate after the resampler: QRS energy ends near 40 Hz, and the lowest rate of the training data is 125 Hz."""

CUTOFF_HZ: Final = 40.0
"""Upper edge of the monitoring bandwidth (IEC 60601-2-27, 201.12.1.101.8)."""

MIN_RATE_HZ: Final = 100.0
"""A lower rate does not contain the band up to 40 Hz. Sensors deliver 125 Hz and more."""

MAX_RATE_HZ: Final = 4000.0
"""Higher than the rate of any ECG sensor, so that a wrong rate is rejected instead of causing an extremely long filter."""

_HALF_S: Final = 0.064
"""Half length of the kernel: -6 dB at 40 Hz and -40 dB at 56 Hz. The delay is a small part of the 0.35 s allowed for a beat."""

_PHASES: Final = 512
"""Kernel positions between two input samples; rounding to them shifts a sample by at most 8 µs at 125 Hz."""

_INITIAL_SAMPLES: Final = 200
"""Initial size of an input buffer beyond its windows: a hop of the analysis, 0.2 s, at up to 1000 Hz."""

_MIN_BLOCK_OUTPUTS: Final = 25
"""Smallest number of outputs per matrix product; at 360 and 130 Hz the kernel positions repeat after this many outputs."""

_MAX_BLOCK_TAPS: Final = 9000
"""Largest number of taps in a matrix. BLAS distributes larger products over threads, which costs more than it saves."""


@dataclass(frozen=True, slots=True)
class ResamplingTarget:
    """Target of the resampling: output rate, upper edge of the band, half length of the kernel, and supported input rates."""

    name: str
    rate_hz: float
    cutoff_hz: float
    half_s: float
    min_rate_hz: float
    max_rate_hz: float


ECG: Final = ResamplingTarget("an ECG", RATE_HZ, CUTOFF_HZ, _HALF_S, MIN_RATE_HZ, MAX_RATE_HZ)


class Resampler:
    """Windowed-sinc interpolation of one gap-free stretch at the stream times k / 125 s (or k over the target's rate).

    Each output is the product of one kernel row and one window of the input, both determined by k alone: the result does not
    depend on chunk sizes. The signal is padded at both ends with its first and last value.
    """

    def __init__(self, rate_hz: float, start_s: float, target: ResamplingTarget = ECG) -> None:
        """Start a stretch whose first sample has the stream time `start_s`.

        Raises:
            ValueError: the rate is outside the supported range of the target.
        """
        if not target.min_rate_hz <= rate_hz <= target.max_rate_hz:
            raise ValueError(
                f"{target.name} at {rate_hz:g} Hz cannot be analysed: "
                f"use a sampling rate of {target.min_rate_hz:g} to {target.max_rate_hz:g} Hz"
            )
        self.next_index = ceil(start_s * target.rate_hz - 0.5 / _PHASES)
        """Index k of the next output."""
        first_phase = (self.next_index / target.rate_hz - start_s) * rate_hz * _PHASES + 0.5
        block = _block(rate_hz, target, first_phase)
        self._interpolator = _GatherInterpolator(rate_hz, target, first_phase) if block is None else _BlockInterpolator(block)
        self._half_width = _half_width(rate_hz, target)
        self._received = 0
        self._last = 0.0

    def push(self, x: Samples) -> Samples:
        """Return the outputs that became final with `x`."""
        if x.size == 0:
            return x
        if self._received == 0:
            self._interpolator.prepend(np.full(self._half_width, x[0]))
        self._received += x.size
        self._last = x[-1]
        out = self._interpolator.push(x, (self._received - self._half_width) * _PHASES)
        self.next_index += out.size
        return out

    def finish(self) -> Samples:
        """Return the outputs up to the last sample of the stretch."""
        if self._received == 0:
            return np.empty(0)
        out = self._interpolator.push(np.full(self._half_width, self._last), (self._received - 1) * _PHASES + 1)
        self.next_index += out.size
        return out


class _GatherInterpolator:
    """Interpolation at any rate: gathers the kernel row and the window of each output."""

    def __init__(self, rate_hz: float, target: ResamplingTarget, first_phase: float) -> None:
        """Put the first output floor(`first_phase`) phases after the first sample; the others follow at the target's rate."""
        self._step = rate_hz / target.rate_hz * _PHASES
        self._first_phase = first_phase
        self._kernel = _shared_kernel(rate_hz, target)
        self._emitted = 0
        self._first = -self._kernel.shape[1] // 2
        self._tail: Samples = np.empty(0)
        """The input from sample number `_first` on; padding before the first sample has negative numbers."""

    def prepend(self, padding: Samples) -> None:
        """Set the padding before the first sample."""
        self._tail = padding

    def push(self, x: Samples, end: int) -> Samples:
        """Return the outputs before phase `end`, counted from the first sample; `x` are the next samples."""
        joined = np.concatenate((self._tail, x))
        beyond = max(ceil((end - self._first_phase) / self._step) + 1, self._emitted)
        phases = np.floor(self._first_phase + np.arange(self._emitted, beyond) * self._step).astype(np.int64)
        phases = phases[: np.searchsorted(phases, end)]
        width = self._kernel.shape[1]
        starts = phases // _PHASES - width // 2 + 1 - self._first
        out: Samples = (joined[starts[:, None] + np.arange(width)] * self._kernel[phases % _PHASES]).sum(axis=1)
        self._emitted += phases.size
        self._tail = joined[-width:]
        self._first += joined.size - self._tail.size
        return out


@dataclass(frozen=True, slots=True)
class _Block:
    """Consecutive outputs whose kernel positions repeat with the next block.

    Attributes:
        matrix: (window, outputs) taps of the outputs, for the window that starts half a kernel before the block's first sample.
        phases: phases of the outputs, relative to the first one.
        first_phase: phase of the first output of the stretch.
        step: inputs from one block to the next.
    """

    matrix: Samples
    phases: list[int]
    first_phase: int
    step: int


class _BlockInterpolator:
    """Interpolation at a rate whose kernel positions repeat after few outputs: one matrix product per block of outputs.

    Samples of a block's window that have not arrived are multiplied by zeros of the matrix, so they may be any finite number.
    """

    def __init__(self, block: _Block) -> None:
        self._block = block
        self._emitted = 0
        self._pending = 0
        """Number of samples in the buffer, which starts with the window of the next output's block."""
        self._buffer: Samples = np.empty(0)
        self._allocate(0)

    def prepend(self, padding: Samples) -> None:
        """Set the padding before the first sample."""
        self._allocate(padding.size)
        self._buffer[: padding.size] = padding
        self._pending = padding.size

    def push(self, x: Samples, end: int) -> Samples:
        """Return the outputs before phase `end`, counted from the first sample; `x` are the next samples."""
        block = self._block
        width, outputs = block.matrix.shape
        available = self._pending + x.size
        if available + width > self._buffer.size:
            self._allocate(available)
        buffer = self._buffer
        buffer[self._pending : available] = x
        self._pending = available
        whole, within = divmod(end - block.first_phase, block.step * _PHASES)
        start, stop = self._emitted, whole * outputs + bisect_left(block.phases, within)
        if stop <= start:
            return np.empty(0)
        first, last = start // outputs, stop // outputs
        blocks = ceil(stop / outputs) - first
        products = np.vecmat(self._windows[:blocks], block.matrix).reshape(-1)
        out: Samples = products[start - first * outputs : stop - first * outputs]
        self._emitted = stop
        if last > first:
            self._pending = available - (last - first) * block.step
            buffer[: self._pending] = buffer[available - self._pending : available]
        return out

    def _allocate(self, samples: int) -> None:
        """Make the buffer fit `samples` and one window that starts right after them; pending samples are kept."""
        width = self._block.matrix.shape[0]
        buffer = np.zeros(samples + 2 * width + _INITIAL_SAMPLES)
        if self._pending:
            buffer[: self._pending] = self._buffer[: self._pending]
        self._buffer = buffer
        self._windows = np.lib.stride_tricks.sliding_window_view(buffer, width)[:: self._block.step]


@lru_cache(maxsize=16)
def _block(rate_hz: float, target: ResamplingTarget, first_phase: float) -> _Block | None:
    """Return the block of a rate, or None if its kernel positions repeat after too many outputs.

    `first_phase`: see `_GatherInterpolator`.
    """
    inputs, every = _exact_ratio(rate_hz, target.rate_hz)
    if every > _MAX_BLOCK_TAPS:
        return None
    outputs = every * max(_MIN_BLOCK_OUTPUTS // every, 1)
    phases = [floor(first_phase + _PHASES * (inputs * j / every)) for j in range(outputs)]
    width = phases[-1] // _PHASES + 1 + 2 * _half_width(rate_hz, target)
    if width * outputs > _MAX_BLOCK_TAPS:
        return None
    kernel = _kernel(rate_hz, target)
    matrix = np.zeros((width, outputs), order="F")  # column-major, because `vecmat` is then a fifth faster
    for column, phase in enumerate(phases):
        start = phase // _PHASES + 1
        matrix[start : start + kernel.shape[1], column] = kernel[phase % _PHASES]
    return _Block(matrix, [phase - phases[0] for phase in phases], phases[0], inputs * outputs // every)


def _exact_ratio(numerator: float, denominator: float) -> tuple[int, int]:
    """Return a / b in lowest terms. `fractions` would do it, but it loads `decimal`, some memory of a hub."""
    (a, b), (c, d) = numerator.as_integer_ratio(), denominator.as_integer_ratio()
    divisor = gcd(a * d, b * c)
    return a * d // divisor, b * c // divisor


def _half_width(rate_hz: float, target: ResamplingTarget) -> int:
    """Return half the kernel's length in samples."""
    return ceil(target.half_s * rate_hz)


@lru_cache(maxsize=16)
def _shared_kernel(rate_hz: float, target: ResamplingTarget) -> Samples:
    """Return the kernel for streams that keep it."""
    return _kernel(rate_hz, target)


def _kernel(rate_hz: float, target: ResamplingTarget) -> Samples:
    """Return the kernel: row p holds the taps of an output p / `_PHASES` samples after an input; each row has sum 1."""
    half = _half_width(rate_hz, target)
    t = (np.arange(1 - half, half + 1) - np.arange(_PHASES)[:, None] / _PHASES) / rate_hz
    taps = np.sinc(2 * target.cutoff_hz * t) * np.cos(np.pi / 2 * np.clip(t / target.half_s, -1, 1)) ** 2
    kernel: Samples = taps / taps.sum(axis=1, keepdims=True)
    return kernel
