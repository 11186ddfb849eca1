"""Streaming ECG chain of one lead: resampling, a ring buffer of the signal and QRS detection."""

from collections.abc import Iterator
from functools import lru_cache
from math import ceil, floor, inf, isfinite, isnan
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.signal.beat_classifier import BeatClassifier
from models.signal.candidates import RPeak
from models.signal.envelope import ENVELOPE_MARGIN, envelope
from models.signal.envelope_peaks import LOOKAHEAD_SAMPLES
from models.signal.filters import RingBuffer, Samples, hann, median
from models.signal.learning import QRS_PROMINENCE
from models.signal.noisy_qrs import NoisyQrsDetector
from models.signal.qrs import REFRACTORY_SAMPLES, QrsDetector
from models.signal.resample import RATE_HZ, Resampler
from models.signal.spikes import MIN_SPIKE_HZ, SpikeFilter
from models.signal.waves import T_WAVE_SAMPLES

BUFFER_S: Final = 45.0
"""Length of the signal kept: half a minute for the rhythm model, plus strips and beats that are still pending."""

FLAT_S: Final = 1.0
FLAT_MV: Final = 0.001
"""A signal that stays within `FLAT_MV` for `FLAT_S` comes from a detached electrode: even asystole shows some noise."""

JUMP_MV: Final = 1.5
"""A baseline shift of this size within a few seconds comes from the electrode, and the amplifier shows no beats until it has
recovered. Respiration and wander shift the baseline by a few tenths of a mV."""

MIN_QRS_ENVELOPE_MV: Final = 0.04
"""Height of the envelope at a QRS complex of 0.2 mV. The sharpest P waves of 0.2 mV reach 0.038 mV, noise of 50 uV rms 0.035
mV."""

_BASELINE_WINDOW: Final = hann(round(2 * RATE_HZ) | 1)
"""Smoothing window whose complement is a high-pass of 0.5 Hz (-6 dB), the lower edge of the monitoring bandwidth."""

_BASELINE_GAIN: Final = float(np.correlate(np.ones(_BASELINE_WINDOW.size), _BASELINE_WINDOW)[0])
"""Value of `_smoothing_weight` away from the ends."""

_MAX_CHUNK_S: Final = 2.0
"""Longer chunks are split, so that the data of one step fits into the processor's cache."""


class Beat(NamedTuple):
    """A detected QRS complex.

    Attributes:
        t_s: time of the R peak in seconds since the first sample of the stream, by the nominal rate and without filter delay.
        amplitude_mv: height over the baseline, negative in an inverted lead.
        after_gap: whether this is the first beat after a start or a gap, so that no RR interval ends at it.
    """

    t_s: float
    amplitude_mv: float
    after_gap: bool


class EcgChain:
    """Resamples one lead, detects its beats and keeps the last 45 s of it. The result is bit-identical for any chunk sizes.

    A beat is reported 0.33 s after its R peak, with three exceptions. A low beat is reported after 0.6 s, because it may be a P
    wave. In noise, a beat that the classifier doubts is reported after one RR interval. A beat found by a search-back is
    reported later still. The detector learns from the first two seconds of a stream and then reports their beats together.
    """

    def __init__(self, rate_hz: float, classifier: BeatClassifier | None = None) -> None:
        """Start a stream. Without a `classifier`, which separates beats from noise, detection is less accurate in noise."""
        self._rate_hz = rate_hz
        self._max_chunk_samples = ceil(_MAX_CHUNK_S * rate_hz)
        self._origin_s = 0.0
        self._count = 0
        self._resampler: Resampler | None = Resampler(rate_hz, 0.0)
        self._spikes = _spike_filter(rate_hz)
        self._buffer = RingBuffer(round(BUFFER_S * RATE_HZ))
        self._detector = NoisyQrsDetector(self._buffer, classifier) if classifier else QrsDetector(self._buffer)
        self.horizon_s = 0.0
        """Stream time before which every beat has been reported. In strong noise, one or two beats per hour are found later."""
        self._after_gap = True
        self._hidden_s = (0.0, 0.0)
        """The latest stretch in which no beat could have been seen."""

    @property
    def start_s(self) -> float:
        """Stream time of the oldest sample that is kept."""
        return self._buffer.first / RATE_HZ

    @property
    def end_s(self) -> float:
        """Stream time right after the last sample received."""
        return self._origin_s + self._count / self._rate_hz

    @property
    def in_gap(self) -> bool:
        """Whether no stretch of signal is in progress: samples are missing at present, or the signal has ended."""
        return self._resampler is None

    def push(self, mv: Samples) -> list[Beat]:
        """Process consecutive samples in mV, NaN where one is missing; return the beats that can now be reported, in order."""
        if 0 < mv.size <= self._max_chunk_samples and isfinite(mv.dot(mv)):  # ten times faster than testing each sample
            return self._extend(mv)
        beats: list[Beat] = []
        for part in self._split_chunk(mv):
            if isnan(part[0]):
                beats += self.finish()
                self._count += part.size
            else:
                beats += self._extend(part)
        return beats

    def gap(self, seconds: float) -> list[Beat]:
        """Skip a gap of `seconds` (not negative) and return the beats before it that were still pending."""
        beats = self.finish()
        self._origin_s = self.end_s + seconds
        self._count = 0
        return beats

    def finish(self) -> list[Beat]:
        """End the signal and return the beats that were still pending."""
        if self._resampler is None:
            return []
        if self._spikes:
            self._buffer.extend(self._resampler.push(self._spikes.finish()))
        self._buffer.extend(self._resampler.finish())
        beats = self._to_beats(self._detector.finish())
        self._resampler = None
        self._after_gap = True
        return beats

    def strip(self, start_s: float, end_s: float, until_s: float = inf) -> tuple[float, Samples]:
        """Return the signal between two times: the time of its first sample, and mV at 125 Hz, 0.5 to 40 Hz, NaN in gaps.

        The strip is limited to the signal kept. The baseline of its newest second is provisional: it depends on the samples up
        to `until_s`, and changes a little as they arrive.
        """
        first = max(ceil(start_s * RATE_HZ), self._buffer.first)
        end = max(min(floor(end_s * RATE_HZ) + 1, self._buffer.end), first)
        margin = _BASELINE_WINDOW.size // 2
        before = min(margin, first - self._buffer.first)
        newest = self._buffer.end if until_s == inf else floor(until_s * RATE_HZ) + 1
        signal = self._buffer[first - before : min(end + margin, newest)]
        if first < end and signal.size == end - first + 2 * margin and not isnan(np.add.reduce(signal)):
            return first / RATE_HZ, signal[margin:-margin] - np.correlate(signal, _BASELINE_WINDOW, "valid") / _BASELINE_GAIN
        return first / RATE_HZ, remove_baseline(signal)[before : before + end - first]

    def newest(self, samples: int) -> Samples:
        """Return the newest samples in mV at 125 Hz, with their baseline; NaN where one is missing."""
        kept = self._buffer[self._buffer.end - samples : self._buffer.end]
        return np.concatenate((np.full(samples - kept.size, np.nan), kept))

    def note_hidden(self, start_s: float) -> None:
        """Note that no beat could have been seen from `start_s` until now, as without skin contact."""
        since_s, until_s = self._hidden_s
        self._hidden_s = since_s if until_s == start_s else start_s, self.end_s

    def is_usable(self, start_s: float, end_s: float) -> bool:
        """Return whether the signal between two times is present, without a gap, not hidden and never flat for `FLAT_S`."""
        if self._hidden_s[0] < end_s and start_s < self._hidden_s[1]:
            return False
        signal = self._buffer[floor(start_s * RATE_HZ) : ceil(end_s * RATE_HZ)]
        if signal.size == 0 or np.isnan(signal).any():
            return False
        width = round(FLAT_S * RATE_HZ)
        if signal.size < width:
            return True
        return not (np.ptp(np.lib.stride_tricks.sliding_window_view(signal, width), axis=1) < FLAT_MV).any()

    def is_beat_free(self, start_s: float, end_s: float, max_peaks: int = 1) -> bool:
        """Return whether the signal after a beat at `start_s` contains no further beat, although it could have shown one.

        The two times are at least a second apart, and `end_s` is at most `horizon_s`.

        False if the signal is not usable (or no longer kept), if the baseline jumps, or if more than `max_peaks` peaks look
        like QRS complexes: after a sudden drop of the amplitude the detector misses beats until it has learnt the lower ones.
        Noise, fibrillation and P waves up to 0.2 mV do not look like QRS complexes; the default tolerates a single artefact.
        The T wave of the beat is left out.
        """
        first, last = ceil(start_s * RATE_HZ) + T_WAVE_SAMPLES, floor(end_s * RATE_HZ) - REFRACTORY_SAMPLES
        if self._buffer.first > first - ENVELOPE_MARGIN or not self.is_usable(start_s, end_s):
            return False
        return (
            not has_baseline_jump(self._buffer[first:last])
            and _count_qrs_like_peaks(self._buffer[first - ENVELOPE_MARGIN : last + ENVELOPE_MARGIN]) <= max_peaks
        )

    def _split_chunk(self, mv: Samples) -> Iterator[Samples]:
        """Split a chunk into parts that are all valid or all NaN, and short enough for the detector's buffers."""
        valid = np.isfinite(mv)
        runs = [mv]
        if not valid.all():
            runs = np.split(np.where(valid, mv, np.nan), np.flatnonzero(valid[1:] != valid[:-1]) + 1)
        for run in runs:
            for start in range(0, run.size, self._max_chunk_samples):
                yield run[start : start + self._max_chunk_samples]

    def _extend(self, mv: Samples) -> list[Beat]:
        if self._resampler is None:
            self._resampler = Resampler(self._rate_hz, self.end_s)
            self._spikes = _spike_filter(self._rate_hz)
            self._buffer.skip_to(self._resampler.next_index)
            self._detector.start(self._resampler.next_index)
        self._count += mv.size
        self._buffer.extend(self._resampler.push(self._spikes.push(mv) if self._spikes else mv))
        return self._to_beats(self._detector.push())

    def _to_beats(self, peaks: list[RPeak]) -> list[Beat]:
        """Return the beats that the detector just reported, and note up to when it has reported all."""
        self.horizon_s = max(self._detector.horizon / RATE_HZ, 0.0)
        beats = [Beat(index / RATE_HZ, amplitude_mv, False) for index, amplitude_mv in peaks]
        if beats and self._after_gap:
            beats[0] = beats[0]._replace(after_gap=True)
            self._after_gap = False
        return beats


def _spike_filter(rate_hz: float) -> SpikeFilter | None:
    return SpikeFilter(rate_hz) if rate_hz >= MIN_SPIKE_HZ else None


def remove_baseline(signal: Samples) -> Samples:
    """Return samples at 125 Hz minus their baseline, which is the smoothed signal; NaN in gaps.

    The edges of a gap are treated like the ends of the signal.
    """
    if signal.size == 0:
        return signal
    known = ~np.isnan(signal)
    if known.all():
        whole: Samples = signal - _smooth(signal) / _smoothing_weight(signal.size)
        return whole
    weight, level = _smooth(known), _smooth(np.where(known, signal, 0.0))
    flat: Samples = signal - np.divide(level, weight, out=np.full(signal.size, np.nan), where=known)
    return flat


def _smooth(signal: Samples | NDArray[np.bool_]) -> Samples:
    if signal.size >= _BASELINE_WINDOW.size:
        return np.convolve(signal, _BASELINE_WINDOW, "same")
    margin = _BASELINE_WINDOW.size // 2
    return np.convolve(signal, _BASELINE_WINDOW)[margin:][: signal.size]


def _smoothing_weight(size: int) -> Samples:
    """Return, for each sample of a signal of `size` samples, the sum of the smoothing window's taps that lie in the signal."""
    if size <= _BASELINE_WINDOW.size:
        return _short_smoothing_weight(size)
    margin, edges = _BASELINE_WINDOW.size // 2, _short_smoothing_weight(_BASELINE_WINDOW.size)
    weight = np.full(size, _BASELINE_GAIN)
    weight[:margin], weight[-margin:] = edges[:margin], edges[-margin:]
    return weight


@lru_cache(maxsize=64)
def _short_smoothing_weight(size: int) -> Samples:
    """Return `_smoothing_weight` of at most the window's length. It is cached, because many strips are that short."""
    return _smooth(np.ones(size)).copy()


def has_baseline_jump(signal: Samples) -> bool:
    """Return whether the baseline, the mean of each half second at 125 Hz, shifts by more than `JUMP_MV`."""
    width = round(0.5 * RATE_HZ)
    baseline = signal[: signal.size // width * width].reshape(-1, width).mean(axis=1)
    return bool(np.ptp(baseline) > JUMP_MV)


def _count_qrs_like_peaks(signal: Samples) -> int:
    """Return how many peaks of the QRS band's envelope could be QRS complexes, including low ones."""
    heights = envelope(signal)
    around = np.lib.stride_tricks.sliding_window_view(heights, 2 * LOOKAHEAD_SAMPLES + 1)
    peaks = around[around[:, LOOKAHEAD_SAMPLES] == around.max(axis=1), LOOKAHEAD_SAMPLES]
    return int(np.count_nonzero(peaks > max(MIN_QRS_ENVELOPE_MV, QRS_PROMINENCE * median(heights))))
