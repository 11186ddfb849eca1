"""From any sampling rate to the one that the models take: 125 Hz of an ECG, 50 Hz of a PPG."""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil
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
        self._rate_hz = rate_hz
        self._out_hz = target.rate_hz
        self._start_s = start_s
        self._kernel = _kernel(rate_hz, target)
        self._reach = self._kernel.shape[1] // 2
        self._tail: Samples = np.empty(0)
        self._received = 0
        self.next_index = ceil(start_s * self._out_hz - 0.5 / _PHASES)
        """Index k of the next output."""

    def push(self, x: Samples) -> Samples:
        """The outputs that became final with `x`."""
        if x.size == 0:
            return x
        if self._received == 0:
            self._tail = np.full(self._reach, x[0])
        self._received += x.size
        return self._emit(x, (self._received - self._reach) * _PHASES)

    def finish(self) -> Samples:
        """The outputs up to the last sample."""
        if self._received == 0:
            return self._tail
        return self._emit(np.full(self._reach, self._tail[-1]), (self._received - 1) * _PHASES + 1, ahead=self._reach)

    def _emit(self, x: Samples, end: int, ahead: int = 0) -> Samples:
        """Outputs before phase `end`, counted from the first sample; `x` follows the tail and runs `ahead` of what came."""
        joined = np.concatenate((self._tail, x))
        first = self._received + ahead - joined.size
        beyond = ceil((end / _PHASES / self._rate_hz + self._start_s) * self._out_hz) + 1
        instants = np.arange(self.next_index, max(beyond, self.next_index)) / self._out_hz
        phases = np.floor((instants - self._start_s) * self._rate_hz * _PHASES + 0.5).astype(np.int64)
        phases = phases[: np.searchsorted(phases, end)]
        self.next_index += phases.size
        self._tail = joined[-2 * self._reach :]
        starts = phases // _PHASES - self._reach + 1 - first
        windows = joined[starts[:, None] + np.arange(2 * self._reach)]
        out: Samples = (windows * self._kernel[phases % _PHASES]).sum(axis=1)
        return out


@lru_cache(maxsize=16)
def _kernel(rate_hz: float, target: Target) -> Samples:
    """Row p holds the taps for an output that lies p / `_PHASES` of a sample behind an input; each row has sum 1."""
    reach = ceil(target.half_s * rate_hz)
    t = (np.arange(1 - reach, reach + 1) - np.arange(_PHASES)[:, None] / _PHASES) / rate_hz
    taps = np.sinc(2 * target.cutoff_hz * t) * np.cos(np.pi / 2 * np.clip(t / target.half_s, -1, 1)) ** 2
    kernel: Samples = taps / taps.sum(axis=1, keepdims=True)
    return kernel
