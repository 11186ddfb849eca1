"""The context of each heart beat of a stream: what is known about it when it is labelled.

A context is complete when the next beat is known, or 1.5 s after the R peak if that is late. It depends on the samples only,
not on the chunk sizes.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

import numpy as np

from models.beat_history import BackgroundRhythm, PWaveHistory, measure_variation
from models.inference.ecg_beat import (
    HISTORY_INTERVALS,
    LONG_TERM_INTERVALS,
    LONG_TERM_QUANTILES,
    MAX_NEXT_RR_S,
    SAMPLES_BEFORE_R,
    WAVE_SAMPLES,
    long_term_rr_quantiles,
)
from models.morphology_templates import MorphologyTemplates, measure_timing
from models.qrs_shapes import SAME_SHAPE_COSINE
from models.signal.chain import Beat, EcgChain
from models.signal.filters import Samples
from models.signal.resample import RATE_HZ

NEXT_QRS_S: Final = 0.25
"""Time from the latest possible R peak of the next beat to the end of its QRS complex. It is shorter than the delay of the
detector (0.33 s), so this signal has always arrived."""

WAVE_END_S: Final = (WAVE_SAMPLES - SAMPLES_BEFORE_R + 0.5) / RATE_HZ
"""Time from an R peak to the end of its waveform; the delay of the detector and the shortest interval are longer together."""

LONG_TERM_UPDATE_BEATS: Final = 8
"""Beats between two updates of the long-term RR quantiles; during the first beats they are updated at every beat."""


@dataclass(frozen=True, slots=True)
class BeatContext:
    """The inputs from which a beat is labelled: those of `models.inference.ecg_beat.features`, without the first axis."""

    beat: Beat
    wave_mv: Samples
    template_mv: Samples
    rr_s: Samples
    shape: tuple[float, ...]


class BeatContextBuilder:
    """Builds the context of each beat, in the agent and in training."""

    def __init__(self) -> None:
        self._pending: deque[Beat] = deque()
        self._rr_s: deque[float] = deque([np.nan] * HISTORY_INTERVALS, HISTORY_INTERVALS)
        self._long_term_rr_s: deque[float] = deque([np.nan] * LONG_TERM_INTERVALS, LONG_TERM_INTERVALS)
        self._dropped_rr_s = np.nan, np.nan
        """The oldest intervals of both histories before the last beat was added."""
        self._long_term_quantiles_s = np.full(len(LONG_TERM_QUANTILES), np.nan)
        self._variation_s = (np.nan, np.nan)
        self._background = BackgroundRhythm()
        self._p_wave = PWaveHistory()
        self._count = 0
        self._last_beat_s = np.nan
        self._templates = MorphologyTemplates()

    @property
    def pending_s(self) -> tuple[float, ...]:
        """The times of the beats whose context is not complete, in order."""
        return tuple(beat.t_s for beat in self._pending)

    def push(self, beats: Sequence[Beat], chain: EcgChain) -> Iterator[BeatContext]:
        """Add beats, and yield the contexts that are complete, in order."""
        self._pending.extend(beats)
        horizon_s = chain.horizon_s
        while self._pending and horizon_s >= self._complete_s():
            yield self._build_context(self._pending.popleft(), chain)

    def flush(self, chain: EcgChain) -> Iterator[BeatContext]:
        """Yield the contexts of the remaining beats; no beat follows them."""
        while self._pending:
            yield self._build_context(self._pending.popleft(), chain)

    def forget_last_beat(self) -> None:
        """Do not learn the beat whose context was built last: neither its shape nor the interval that ends at it."""
        self._templates.forget_last_beat()
        for history, dropped in zip((self._rr_s, self._long_term_rr_s), self._dropped_rr_s, strict=True):
            history.pop()
            history.appendleft(dropped)

    def forget_rhythm(self, wave_mv: Samples) -> None:
        """Forget the templates of this shape and all intervals: they are not those of the patient's usual rhythm."""
        self._templates.forget_shape(wave_mv)
        for history in (self._rr_s, self._long_term_rr_s):
            history.extend([np.nan] * len(history))
        self._long_term_quantiles_s = np.full(len(LONG_TERM_QUANTILES), np.nan)
        self._variation_s = (np.nan, np.nan)
        self._background, self._p_wave = BackgroundRhythm(), PWaveHistory()

    def _complete_s(self) -> float:
        """Return the time up to which all beats must be known before the context of the oldest beat can be built."""
        late_s = self._pending[0].t_s + MAX_NEXT_RR_S
        is_next_known = len(self._pending) > 1 and not self._pending[1].after_gap
        return min(self._pending[1].t_s, late_s) if is_next_known else late_s

    def _build_context(self, beat: Beat, chain: EcgChain) -> BeatContext:
        self._dropped_rr_s = self._rr_s[0], self._long_term_rr_s[0]
        self._rr_s.append(np.nan if beat.after_gap else beat.t_s - self._last_beat_s)
        self._last_beat_s = beat.t_s
        self._long_term_rr_s.append(self._rr_s[-1])
        if self._count < LONG_TERM_UPDATE_BEATS or self._count % LONG_TERM_UPDATE_BEATS == 0:
            long_term_s = np.array(self._long_term_rr_s)
            self._long_term_quantiles_s = long_term_rr_quantiles(long_term_s[None])[0]
            self._variation_s = measure_variation(long_term_s)
        self._count += 1
        background_s = self._background.push(self._rr_s[-1])
        rr_s = np.array(
            [*self._rr_s, self._next_rr(beat, chain), *self._long_term_quantiles_s, background_s, *self._variation_s]
        )
        is_next_known = rr_s[HISTORY_INTERVALS] < MAX_NEXT_RR_S
        until_s = beat.t_s + max(rr_s[HISTORY_INTERVALS] + NEXT_QRS_S, WAVE_END_S)
        wave = _cut_wave(beat, chain, until_s if is_next_known else None)
        following = _cut_wave(self._pending[0], chain, until_s) if is_next_known else None
        template, shape = self._templates.compare(wave, following, measure_timing(rr_s))
        is_usual = self._background.is_background and self._templates.last_similarity >= SAME_SHAPE_COSINE
        return BeatContext(beat, wave, template, rr_s, (*shape, *self._p_wave.compare(wave, is_usual)))

    def _next_rr(self, beat: Beat, chain: EcgChain) -> float:
        """Return the RR interval after the beat, `MAX_NEXT_RR_S` at most; NaN if a gap or the end of the stream comes first."""
        end_s = beat.t_s + MAX_NEXT_RR_S
        if self._pending and self._pending[0].t_s < end_s:
            following = self._pending[0]
            return np.nan if following.after_gap else following.t_s - beat.t_s
        _, signal = chain.strip(beat.t_s, end_s)
        return MAX_NEXT_RR_S if signal.size >= int(MAX_NEXT_RR_S * RATE_HZ) and not np.isnan(signal).any() else np.nan


def _cut_wave(beat: Beat, chain: EcgChain, until_s: float | None = None) -> Samples:
    """Return the signal around the R peak, (104,), NaN where it is missing or no longer kept.

    With `until_s`, only the signal before that time and before the first gap after the R peak is used, because later samples of
    a stream may not have arrived.
    """
    first = round(beat.t_s * RATE_HZ) - SAMPLES_BEFORE_R
    start_s, signal = chain.strip((first - 0.5) / RATE_HZ, until_s or (first + WAVE_SAMPLES - 0.5) / RATE_HZ, until_s or inf)
    offset = round(start_s * RATE_HZ) - first
    if until_s and (missing := np.flatnonzero(np.isnan(signal[max(SAMPLES_BEFORE_R - offset, 0) :]))).size:
        return _cut_wave(beat, chain, (first + max(SAMPLES_BEFORE_R, offset) + int(missing[0]) - 0.5) / RATE_HZ)
    wave = np.full(WAVE_SAMPLES, np.nan)
    wave[offset : offset + signal.size] = signal[: WAVE_SAMPLES - offset]
    return wave
