"""An ECG that repeats without end: in microvolts at the strap's sampling rate, from a script or from a recording."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.simulate import physiology
from gateway.simulate.pmd import RATE_HZ
from gateway.simulate.script import Script

_KERNEL_ZERO_CROSSINGS: Final = 16
"""Zero crossings of the resampling kernel on each side. It passes 0 to 50 Hz within 1 % at 130.16 Hz."""
_CHUNK_SAMPLES: Final = 8192


@dataclass(frozen=True, slots=True)
class RepeatingEcg:
    """One period of an ECG that repeats: samples in µV at `RATE_HZ`, and the times of its R peaks in the period."""

    microvolts: NDArray[np.int32]
    beats_s: tuple[float, ...]

    @property
    def period_s(self) -> float:
        return self.microvolts.size / RATE_HZ

    def samples(self, first: int, count: int) -> NDArray[np.int32]:
        """Return samples `first` … `first + count - 1`, counted from the start of the first period."""
        return self.microvolts.take(range(first, first + count), mode="wrap")

    def rr_intervals(self, since_s: float, until_s: float) -> tuple[float, ...]:
        """Return the RR intervals, in seconds, whose second beat is after `since_s` and not after `until_s`.

        The first interval starts at the first beat of the first period; there is no beat before it.
        """
        if not self.beats_s:
            return ()
        first, last = int((since_s - self.period_s) // self.period_s), int(until_s // self.period_s)
        beats = [beat + period * self.period_s for period in range(max(first, 0), last + 1) for beat in self.beats_s]
        return tuple(after - before for before, after in pairwise(beats) if since_s < after <= until_s)


def from_script(script: Script) -> RepeatingEcg:
    """Return the ECG of a script."""
    rendered = physiology.render_ecg(script, script.seed, RATE_HZ)
    return RepeatingEcg(_to_microvolts(rendered.mv), tuple(beat.time_s for beat in rendered.beats))


def from_recording(mv: NDArray[np.float64], rate_hz: float, beats_s: Sequence[float] = ()) -> RepeatingEcg:
    """Return a recorded ECG, resampled to the strap's rate. All samples must be finite; `beats_s` are its R peaks, if known."""
    return RepeatingEcg(_to_microvolts(resample(mv, rate_hz, RATE_HZ)), tuple(beats_s))


def resample(mv: NDArray[np.float64], from_hz: float, to_hz: float) -> NDArray[np.float64]:
    """Resample by windowed-sinc interpolation (Hann) between any two rates, low-passed at half the lower one.

    The first and last sample are repeated beyond the ends.
    """
    cutoff = min(1.0, to_hz / from_hz)
    reach = int(np.ceil(_KERNEL_ZERO_CROSSINGS / cutoff))
    padded = np.pad(mv, reach, mode="edge")
    taps = np.arange(-reach + 1, reach + 1)
    out = np.empty(int(mv.size * to_hz / from_hz))
    for start in range(0, out.size, _CHUNK_SAMPLES):
        position = np.arange(start, min(start + _CHUNK_SAMPLES, out.size)) * (from_hz / to_hz)
        centre = np.floor(position).astype(np.int64)
        distance = taps - (position - centre)[:, None]
        kernel = np.sinc(distance * cutoff) * np.cos(np.pi * distance / (2 * reach)) ** 2
        kernel /= kernel.sum(axis=1, keepdims=True)
        out[start : start + position.size] = (padded[centre[:, None] + taps + reach] * kernel).sum(axis=1)
    return out


def _to_microvolts(mv: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.clip(np.rint(mv * 1000), -(2**23), 2**23 - 1).astype(np.int32)
