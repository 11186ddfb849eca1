"""From any sampling rate to the one that the models take: 125 Hz of an ECG, 50 Hz of a PPG."""

from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor
from typing import Final

import numpy as np

from models.signal.filters import Samples

RATE_HZ: Final = 125.0
"""The rate of everything behind the resampler: QRS energy ends near 40 Hz, and the models' training sets start at 125 Hz."""

CUTOFF_HZ: Final = 40.0
"""Upper edge of the monitoring bandwidth (IEC 60601-2-27, 201.12.1.101.8)."""

MIN_RATE_HZ: Final = 100.0
"""Below it the 40 Hz band is not there. Sensors give 125 Hz and more."""

MAX_RATE_HZ: Final = 4000.0
"""Above any ECG sensor: a wrong rate is met here and not by a filter of absurd length."""

_HALF_S: Final = 0.064
"""Half the kernel: 40 Hz is at -6 dB, 56 Hz at -40 dB, and the delay stays a small part of the 0.35 s that a beat may take."""

_PHASES: Final = 512
"""Kernel positions between two input samples: rounding to them moves a sample by 8 µs at most at 125 Hz."""

_ROOM: Final = 1000
"""Samples that there is room for at first: a hop of a second or two."""

_BLOCK: Final = 25
"""Outputs that are worth one matrix at least; at 360 and 130 Hz the kernel positions repeat after so many."""

_LARGEST_BLOCK: Final = 9000
"""Taps of the largest matrix. BLAS shares more among threads, which costs more than it saves."""


@dataclass(frozen=True, slots=True)
class Target:
    """What comes out: its rate, the band's upper edge, half the kernel's length, and the input rates that can give it."""

    name: str
    rate_hz: float
    cutoff_hz: float
    half_s: float
    min_rate_hz: float
    max_rate_hz: float


ECG: Final = Target("an ECG", RATE_HZ, CUTOFF_HZ, _HALF_S, MIN_RATE_HZ, MAX_RATE_HZ)


class Resampler:
    """Windowed-sinc interpolation of one gap-free stretch to the instants k / 125 s (or the target's) of the stream's time.

    Each output is one kernel row times one window of the input, both found from k alone, so chunks cannot matter. The
    signal is continued at both ends with its first and last value.
    """

    def __init__(self, rate_hz: float, start_s: float, target: Target = ECG) -> None:
        """`start_s` is the stream's time at the first sample to come."""
        if not target.min_rate_hz <= rate_hz <= target.max_rate_hz:
            raise ValueError(
                f"{target.name} at {rate_hz:g} Hz cannot be analysed; "
                f"it takes {target.min_rate_hz:g} to {target.max_rate_hz:g} Hz"
            )
        self.next_index = ceil(start_s * target.rate_hz - 0.5 / _PHASES)
        """Index k of the next output."""
        ahead = (self.next_index / target.rate_hz - start_s) * rate_hz * _PHASES + 0.5
        block = _block(rate_hz, target, ahead)
        self._outputs = _OneByOne(rate_hz, target, ahead) if block is None else _InBlocks(block)
        self._reach = _kernel(rate_hz, target).shape[1] // 2
        self._received = 0
        self._last = 0.0

    def push(self, x: Samples) -> Samples:
        """The outputs that became final with `x`."""
        if x.size == 0:
            return x
        if self._received == 0:
            self._outputs.begin(np.full(self._reach, x[0]))
        self._received += x.size
        self._last = x[-1]
        out = self._outputs.push(x, (self._received - self._reach) * _PHASES)
        self.next_index += out.size
        return out

    def finish(self) -> Samples:
        """The outputs up to the last sample."""
        if self._received == 0:
            return np.empty(0)
        out = self._outputs.push(np.full(self._reach, self._last), (self._received - 1) * _PHASES + 1)
        self.next_index += out.size
        return out


class _OneByOne:
    """Any rate: the kernel row and the window of each output are gathered."""

    def __init__(self, rate_hz: float, target: Target, ahead: float) -> None:
        """The first output lies floor(`ahead`) phases behind the first sample, the others where `ahead` and their rate tell."""
        self._step = rate_hz / target.rate_hz * _PHASES
        self._ahead = ahead
        self._kernel = _kernel(rate_hz, target)
        self._emitted = 0
        self._first = -self._kernel.shape[1] // 2
        self._tail: Samples = np.empty(0)
        """The input from sample `_first` on; samples before the first have negative numbers."""

    def begin(self, before: Samples) -> None:
        """What comes before the first sample."""
        self._tail = before

    def push(self, x: Samples, end: int) -> Samples:
        """Outputs before phase `end`, counted from the first sample; `x` follows what came before."""
        joined = np.concatenate((self._tail, x))
        beyond = max(ceil((end - self._ahead) / self._step) + 1, self._emitted)
        phases = np.floor(self._ahead + np.arange(self._emitted, beyond) * self._step).astype(np.int64)
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
    """Consecutive outputs after which the kernel's positions repeat, `step` inputs later.

    `matrix` (window, outputs) has their taps for the window that begins half a kernel before the block's first sample;
    `phases` are their places from the first output on.
    """

    matrix: Samples
    phases: list[int]
    first_phase: int
    step: int


class _InBlocks:
    """Rates whose kernel positions repeat soon.

    What of a block's window has not come yet meets zeros of the matrix: any finite number may stand there.
    """

    def __init__(self, block: _Block) -> None:
        self._block = block
        self._emitted = 0
        self._waiting = 0
        """Samples in the room, which begins with the window of the next output's block."""
        self._room: Samples = np.empty(0)
        self._make_room(0)

    def begin(self, before: Samples) -> None:
        """What comes before the first sample."""
        self._make_room(before.size)
        self._room[: before.size] = before
        self._waiting = before.size

    def push(self, x: Samples, end: int) -> Samples:
        """Outputs before phase `end`, counted from the first sample; `x` follows what came before."""
        block = self._block
        width, many = block.matrix.shape
        came = self._waiting + x.size
        if came + width > self._room.size:
            self._make_room(came)
        room = self._room
        room[self._waiting : came] = x
        self._waiting = came
        whole, within = divmod(end - block.first_phase, block.step * _PHASES)
        begin, stop = self._emitted, whole * many + bisect_left(block.phases, within)
        if stop <= begin:
            return np.empty(0)
        first, last = begin // many, stop // many
        windows = ceil(stop / many) - first
        out: Samples = np.vecmat(self._windows[:windows], block.matrix).reshape(-1)[begin - first * many : stop - first * many]
        self._emitted = stop
        if last > first:
            self._waiting = came - (last - first) * block.step
            room[: self._waiting] = room[came - self._waiting : came]
        return out

    def _make_room(self, samples: int) -> None:
        """For so many samples and a window that begins right after them; what waits stays."""
        width = self._block.matrix.shape[0]
        room = np.zeros(samples + 2 * width + _ROOM)
        if self._waiting:
            room[: self._waiting] = self._room[: self._waiting]
        self._room = room
        self._windows = np.lib.stride_tricks.sliding_window_view(room, width)[:: self._block.step]


@lru_cache(maxsize=16)
def _block(rate_hz: float, target: Target, ahead: float) -> _Block | None:
    """`ahead` as in `_OneByOne`; None where the positions repeat too late."""
    ratio = Fraction(rate_hz) / Fraction(target.rate_hz)
    if ratio.denominator > _LARGEST_BLOCK:
        return None
    kernel = _kernel(rate_hz, target)
    many = ratio.denominator * max(_BLOCK // ratio.denominator, 1)
    phases = [floor(ahead + _PHASES * float(ratio * j)) for j in range(many)]
    width = phases[-1] // _PHASES + 1 + kernel.shape[1]
    if width * many > _LARGEST_BLOCK:
        return None
    matrix = np.zeros((width, many), order="F")  # a fifth faster in `vecmat`
    for column, phase in enumerate(phases):
        start = phase // _PHASES + 1
        matrix[start : start + kernel.shape[1], column] = kernel[phase % _PHASES]
    return _Block(matrix, [phase - phases[0] for phase in phases], phases[0], int(ratio * many))


@lru_cache(maxsize=16)
def _kernel(rate_hz: float, target: Target) -> Samples:
    """Row p holds the taps for an output that lies p / `_PHASES` of a sample behind an input; each row has sum 1."""
    reach = ceil(target.half_s * rate_hz)
    t = (np.arange(1 - reach, reach + 1) - np.arange(_PHASES)[:, None] / _PHASES) / rate_hz
    taps = np.sinc(2 * target.cutoff_hz * t) * np.cos(np.pi / 2 * np.clip(t / target.half_s, -1, 1)) ** 2
    kernel: Samples = taps / taps.sum(axis=1, keepdims=True)
    return kernel
