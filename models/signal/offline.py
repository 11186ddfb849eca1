"""Conditions a whole recording at once, exactly as the agent conditions a stream. Used in training and evaluation."""

from dataclasses import dataclass

import numpy as np

from models.signal.chain import Beat, EcgChain, remove_baseline
from models.signal.filters import Samples
from models.signal.resample import RATE_HZ, Resampler


@dataclass(frozen=True, slots=True)
class Conditioned:
    """One conditioned lead.

    Attributes:
        mv: (n,) signal at 125 Hz, 0.5 to 40 Hz, NaN where samples are missing; sample k lies at k / 125 s.
        beats: the detected QRS complexes, in order.
    """

    mv: Samples
    beats: tuple[Beat, ...]

    @property
    def beat_s(self) -> Samples:
        """Times of the R peaks in seconds, (beats,)."""
        return np.array([beat.t_s for beat in self.beats])


def condition(mv: Samples, rate_hz: float) -> Conditioned:
    """Resample a recording, remove its baseline and detect its beats.

    Args:
        mv: samples in mV, NaN where one is missing.
        rate_hz: their sampling rate.

    Raises:
        ValueError: the rate is outside the supported range of an ECG.
    """
    chain = EcgChain(rate_hz)
    beats = (*chain.push(mv), *chain.finish())
    return Conditioned(remove_baseline(resample_recording(mv, rate_hz)), beats)


def resample_recording(mv: Samples, rate_hz: float) -> Samples:
    """Return the samples of a recording at 125 Hz, NaN where they are missing."""
    known = np.isfinite(mv)
    out = np.full(int(np.floor((mv.size - 1) / rate_hz * RATE_HZ)) + 1 if mv.size else 0, np.nan)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], known, [False])).astype(np.int8)))
    for first, end in edges.reshape(-1, 2).tolist():
        resampler = Resampler(rate_hz, first / rate_hz)
        start = resampler.next_index
        x = np.concatenate((resampler.push(mv[first:end]), resampler.finish()))
        out[start : start + x.size] = x[: max(out.size - start, 0)]
    return out
