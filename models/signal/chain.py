"""From the ECG samples of one lead to heart beats, as they come."""

from collections.abc import Iterator
from functools import lru_cache
from math import ceil, floor, inf, isfinite, isnan
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.signal.candidate import Judge
from models.signal.envelope import ENVELOPE_MARGIN, envelope
from models.signal.filters import Samples, Tape, hann, median
from models.signal.judged import JudgedQrsDetector
from models.signal.qrs import AHEAD, REFRACTORY, T_WAVE, Peak, QrsDetector
from models.signal.resample import RATE_HZ, Resampler

KEPT_S: Final = 45.0
"""How much signal is kept: half a minute for the rhythm's model, a strip, and the beats that are still undecided."""

FLAT_S: Final = 1.0
FLAT_MV: Final = 0.001
"""A signal that stays within `FLAT_MV` for `FLAT_S` comes from no electrode on a skin: even in asystole there is some noise."""

JUMP_MV: Final = 1.5
"""A baseline that moves so far within a few seconds is an electrode's: the amplifier recovers, and shows no beats meanwhile.
Respiration and wander move it by some tenths of a mV."""

LOW_QRS_MV: Final = 0.04
"""Envelope of a QRS complex of 0.2 mV. P waves of 0.2 mV reach 0.038 at their sharpest, noise of 50 uV rms 0.035."""

STANDS_OUT: Final = 3.0
"""A QRS complex is so many times higher than the median of the envelope around it. Noise is up to 2.5, fibrillation 2 times."""

_BASELINE: Final = hann(round(2 * RATE_HZ) | 1)
"""Smoother whose complement is a high-pass of 0.5 Hz (-6 dB), the lower edge of the monitoring bandwidth."""

_WHOLE: Final = float(np.correlate(np.ones(_BASELINE.size), _BASELINE)[0])
"""What `_smoothed_ones` gives away from the ends."""

_PIECE_S: Final = 2.0
"""Longer chunks are cut, so that the work of one step stays in the processor's cache."""


class Beat(NamedTuple):
    """A detected QRS complex.

    `t_s` is the R peak in seconds since the stream's first sample, by the nominal rate and without the filters' delay;
    `amplitude_mv` is its height over the baseline, negative in an inverted lead. `after_gap` marks the first beat after a
    start or a gap: no RR interval ends at it.
    """

    t_s: float
    amplitude_mv: float
    after_gap: bool


class EcgChain:
    """Resampling, QRS detection and a tape of the last minute, for one lead. Chunks do not matter, bit for bit.

    A beat is reported 0.33 s after its R peak; after 0.6 s where it is lower than usual, since it may be a P wave; after an
    interval where the judge is less than sure of it in noise; and later still when it was found by search back. The first two
    seconds of a stream are learnt from and reported together.
    """

    def __init__(self, rate_hz: float, judge: Judge | None = None) -> None:
        """`judge` tells beats from noise; without one the detector does it alone, in noise less well."""
        self._rate_hz = rate_hz
        self._longest = ceil(_PIECE_S * rate_hz)
        self._origin_s = 0.0
        self._count = 0
        self._resampler: Resampler | None = Resampler(rate_hz, 0.0)
        self._tape = Tape(round(KEPT_S * RATE_HZ))
        self._detector = JudgedQrsDetector(self._tape, judge) if judge else QrsDetector(self._tape)
        self._after_gap = True

    @property
    def end_s(self) -> float:
        """The stream's time right after the last sample that came."""
        return self._origin_s + self._count / self._rate_hz

    @property
    def horizon_s(self) -> float:
        """Every beat before this time has been reported; in strong noise one or two an hour are found later."""
        return max(self._detector.horizon / RATE_HZ, 0.0)

    def push(self, mv: Samples) -> list[Beat]:
        """Consecutive samples in mV; NaN for a sample that is missing. The beats that they decide, in order."""
        if 0 < mv.size <= self._longest and isfinite(mv.dot(mv)):  # in a tenth of the time of a look at each sample
            return self._extend(mv)
        beats: list[Beat] = []
        for piece in self._pieces(mv):
            if isnan(piece[0]):
                beats += self.finish()
                self._count += piece.size
            else:
                beats += self._extend(piece)
        return beats

    def gap(self, seconds: float) -> list[Beat]:
        """Nothing came for so long (not negative): what came before is decided, and time goes on."""
        beats = self.finish()
        self._origin_s = self.end_s + seconds
        self._count = 0
        return beats

    def finish(self) -> list[Beat]:
        """The signal ends here: the beats that were still undecided."""
        if self._resampler is None:
            return []
        self._tape.extend(self._resampler.finish())
        beats = self._beats(self._detector.finish())
        self._resampler = None
        self._after_gap = True
        return beats

    def strip(self, start_s: float, end_s: float, until_s: float = inf) -> tuple[float, Samples]:
        """The signal between two times: the time of its first sample, and mV at 125 Hz, 0.5 to 40 Hz, NaN in gaps.

        Cut to what is kept. The baseline of the newest second is provisional: it moves a little with what follows, up to
        `until_s`.
        """
        first = max(ceil(start_s * RATE_HZ), self._tape.first)
        end = max(min(floor(end_s * RATE_HZ) + 1, self._tape.end), first)
        margin = _BASELINE.size // 2
        before = min(margin, first - self._tape.first)
        newest = self._tape.end if until_s == inf else floor(until_s * RATE_HZ) + 1
        signal = self._tape[first - before : min(end + margin, newest)]
        if first < end and signal.size == end - first + 2 * margin and not isnan(np.add.reduce(signal)):
            return first / RATE_HZ, signal[margin:-margin] - np.correlate(signal, _BASELINE, "valid") / _WHOLE
        return first / RATE_HZ, baseline_free(signal)[before : before + end - first]

    def usable(self, start_s: float, end_s: float) -> bool:
        """Whether the signal between two times may be judged: it is there, without gap, and never flat for `FLAT_S`."""
        signal = self._tape[floor(start_s * RATE_HZ) : ceil(end_s * RATE_HZ)]
        if signal.size == 0 or np.isnan(signal).any():
            return False
        width = round(FLAT_S * RATE_HZ)
        if signal.size < width:
            return True
        return not (np.ptp(np.lib.stride_tricks.sliding_window_view(signal, width), axis=1) < FLAT_MV).any()

    def quiet(self, start_s: float, end_s: float, bumps: int = 1) -> bool:
        """Whether the signal from a beat to a second later or more, up to `horizon_s`, could have shown beats but shows none.

        False where it is not usable (or no longer kept), where the baseline jumps, and where more than `bumps` look like QRS
        complexes: after a sudden fall of the amplitude the detector does not report them before it has learnt the lower beats.
        Noise, fibrillation, P waves up to 0.2 mV and a single artefact are no such bumps. The beat's own T wave is left out.
        """
        first, last = ceil(start_s * RATE_HZ) + T_WAVE, floor(end_s * RATE_HZ) - REFRACTORY
        if self._tape.first > first - ENVELOPE_MARGIN or not self.usable(start_s, end_s):
            return False
        return (
            not _jumps(self._tape[first:last])
            and _qrs_like(self._tape[first - ENVELOPE_MARGIN : last + ENVELOPE_MARGIN]) <= bumps
        )

    def _pieces(self, mv: Samples) -> Iterator[Samples]:
        """All valid or all NaN, and short enough for the detector's tapes."""
        valid = np.isfinite(mv)
        runs = [mv]
        if not valid.all():
            runs = np.split(np.where(valid, mv, np.nan), np.flatnonzero(valid[1:] != valid[:-1]) + 1)
        for run in runs:
            for start in range(0, run.size, self._longest):
                yield run[start : start + self._longest]

    def _extend(self, mv: Samples) -> list[Beat]:
        if self._resampler is None:
            self._resampler = Resampler(self._rate_hz, self.end_s)
            self._tape.skip_to(self._resampler.next_index)
            self._detector.start(self._resampler.next_index)
        self._count += mv.size
        self._tape.extend(self._resampler.push(mv))
        return self._beats(self._detector.push())

    def _beats(self, peaks: list[Peak]) -> list[Beat]:
        beats = [Beat(at / RATE_HZ, amplitude_mv, False) for at, amplitude_mv in peaks]
        if beats and self._after_gap:
            beats[0] = beats[0]._replace(after_gap=True)
            self._after_gap = False
        return beats


def baseline_free(signal: Samples) -> Samples:
    """Samples at 125 Hz less their baseline, the smoothed signal; NaN in gaps, whose edges count as the signal's ends."""
    known = ~np.isnan(signal)
    if known.all():
        whole: Samples = signal - _smoothed(signal) / _smoothed_ones(signal.size)
        return whole
    weight, level = _smoothed(known), _smoothed(np.where(known, signal, 0.0))
    flat: Samples = signal - np.divide(level, weight, out=np.full(signal.size, np.nan), where=known)
    return flat


def _smoothed(signal: Samples | NDArray[np.bool_]) -> Samples:
    if signal.size >= _BASELINE.size:
        return np.convolve(signal, _BASELINE, "same")
    margin = _BASELINE.size // 2
    return np.convolve(signal, _BASELINE)[margin:][: signal.size]


@lru_cache(maxsize=64)
def _smoothed_ones(size: int) -> Samples:
    """What is left of the smoother's weight at the ends of so many samples. Strips have few lengths."""
    return _smoothed(np.ones(size))


def _jumps(signal: Samples) -> bool:
    """Whether the baseline, the mean of half a second, moves as it does on a skin only when the electrode does."""
    width = round(0.5 * RATE_HZ)
    baseline = signal[: signal.size // width * width].reshape(-1, width).mean(axis=1)
    return bool(np.ptp(baseline) > JUMP_MV)


def _qrs_like(signal: Samples) -> int:
    """How many peaks of the QRS band's envelope could be QRS complexes, low ones included."""
    heights = envelope(signal)
    around = np.lib.stride_tricks.sliding_window_view(heights, 2 * AHEAD + 1)
    peaks = around[around[:, AHEAD] == around.max(axis=1), AHEAD]
    return int(np.count_nonzero(peaks > max(LOW_QRS_MV, STANDS_OUT * median(heights))))
