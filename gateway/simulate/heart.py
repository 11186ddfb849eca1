"""What the strap measures: an endless ECG in microvolts at the strap's own rate, from a script or from a recording."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.simulate import physiology
from gateway.simulate.pmd import RATE_HZ
from gateway.simulate.script import Script

_HALF_WIDTH: Final = 16
"""Zero crossings of the resampling kernel to either side: passes 0 to 50 Hz within 1 % at 130.16 Hz."""
_CHUNK: Final = 8192


@dataclass(frozen=True, slots=True)
class Heart:
    """One period that repeats: samples in µV at `RATE_HZ`, and the R peaks in it, in seconds of the period."""

    microvolts: NDArray[np.int32]
    beats_s: tuple[float, ...]

    @property
    def period_s(self) -> float:
        return self.microvolts.size / RATE_HZ

    def samples(self, first: int, count: int) -> NDArray[np.int32]:
        """Samples `first` … `first + count - 1`, counted from the script's start."""
        return self.microvolts.take(range(first, first + count), mode="wrap")

    def intervals(self, since_s: float, until_s: float) -> tuple[float, ...]:
        """The RR intervals, in seconds, whose second beat lies after `since_s` and not after `until_s`.

        None reaches back before the script's start: what beat before it is unknown.
        """
        if not self.beats_s:
            return ()
        first, last = int((since_s - self.period_s) // self.period_s), int(until_s // self.period_s)
        beats = [beat + turn * self.period_s for turn in range(max(first, 0), last + 1) for beat in self.beats_s]
        return tuple(after - before for before, after in pairwise(beats) if since_s < after <= until_s)


def from_script(script: Script) -> Heart:
    """The heart that plays a published script."""
    rendered = physiology.render(script, script.seed, RATE_HZ)
    return Heart(_microvolts(rendered.mv), tuple(beat.time_s for beat in rendered.beats))


def from_recording(mv: NDArray[np.float64], rate_hz: float, beats_s: Sequence[float] = ()) -> Heart:
    """The heart that plays a recorded ECG of finite samples. `beats_s` are its R peaks, where they are known."""
    return Heart(_microvolts(resample(mv, rate_hz, RATE_HZ)), tuple(beats_s))


def resample(mv: NDArray[np.float64], from_hz: float, to_hz: float) -> NDArray[np.float64]:
    """Windowed-sinc interpolation (Hann) at any pair of rates, low-passed at half the lower; the ends are held."""
    cutoff = min(1.0, to_hz / from_hz)
    reach = int(np.ceil(_HALF_WIDTH / cutoff))
    padded = np.pad(mv, reach, mode="edge")
    taps = np.arange(-reach + 1, reach + 1)
    out = np.empty(int(mv.size * to_hz / from_hz))
    for start in range(0, out.size, _CHUNK):
        position = np.arange(start, min(start + _CHUNK, out.size)) * (from_hz / to_hz)
        centre = np.floor(position).astype(np.int64)
        distance = taps - (position - centre)[:, None]
        kernel = np.sinc(distance * cutoff) * np.cos(np.pi * distance / (2 * reach)) ** 2
        kernel /= kernel.sum(axis=1, keepdims=True)
        out[start : start + position.size] = (padded[centre[:, None] + taps + reach] * kernel).sum(axis=1)
    return out


def _microvolts(mv: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.clip(np.rint(mv * 1000), -(2**23), 2**23 - 1).astype(np.int32)
