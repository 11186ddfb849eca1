"""A whole recording at once, exactly as the agent sees it piece by piece: for training and evaluation."""

from dataclasses import dataclass

import numpy as np

from models.signal.chain import Beat, EcgChain, baseline_free
from models.signal.filters import Samples
from models.signal.resample import RATE_HZ, Resampler


@dataclass(frozen=True, slots=True)
class Conditioned:
    """One lead at 125 Hz: `mv` (n,) between 0.5 and 40 Hz, NaN where samples are missing; sample k is measured at k / 125 s.

    `beats` are the detected QRS complexes, in order.
    """

    mv: Samples
    beats: tuple[Beat, ...]

    @property
    def beat_s(self) -> Samples:
        """R peaks in seconds, (beats,)."""
        return np.array([beat.t_s for beat in self.beats])


def condition(mv: Samples, rate_hz: float) -> Conditioned:
    """Samples in mV at any rate, NaN where one is missing.

    Raises:
        ValueError: the rate is none of an ECG.
    """
    chain = EcgChain(rate_hz)
    beats = (*chain.push(mv), *chain.finish())
    return Conditioned(baseline_free(resampled(mv, rate_hz)), beats)


def resampled(mv: Samples, rate_hz: float) -> Samples:
    """The samples of a recording at 125 Hz, NaN where they are missing."""
    known = np.isfinite(mv)
    out = np.full(int(np.floor((mv.size - 1) / rate_hz * RATE_HZ)) + 1 if mv.size else 0, np.nan)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], known, [False])).astype(np.int8)))
    for first, end in edges.reshape(-1, 2).tolist():
        resampler = Resampler(rate_hz, first / rate_hz)
        start = resampler.next_index
        x = np.concatenate((resampler.push(mv[first:end]), resampler.finish()))
        out[start : start + x.size] = x[: max(out.size - start, 0)]
    return out
