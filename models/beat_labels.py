"""Labels every heart beat of a stream: normal (N), supraventricular ectopic (S), ventricular ectopic (V) or fusion (F).

A beat is labelled 1.5 s after its R peak, when the next beat is known or late. Labels depend on the samples only, not on the
chunk sizes.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, isnan, log
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.inference.ecg_beat import (
    CLASSES,
    HISTORY_INTERVALS,
    LONG_TERM_INTERVALS,
    LONG_TERM_QUANTILES,
    MAX_NEXT_RR_S,
    QRS,
    SAMPLES_BEFORE_R,
    WAVE_SAMPLES,
    EcgBeat,
    N,
    S,
    V,
    features,
    find_early_beats,
    long_term_rr_quantiles,
)
from models.signal.chain import Beat, EcgChain
from models.signal.filters import Samples, median
from models.signal.resample import RATE_HZ

NEXT_QRS_S: Final = 0.25
"""Time from the latest possible R peak of the next beat to the end of its QRS complex. It is shorter than the delay of the
detector (0.33 s), so this signal has always arrived."""

UNKNOWN: Final = "?"
"""Label of a beat whose class is unknown, because too little of its QRS complex was received."""

MIN_KNOWN_SHARE: Final = 0.5
"""A beat is unknown if this share of its QRS complex or less was received."""

SAME_SHAPE_COSINE: Final = 0.9
"""Cosine of two QRS complexes at and above which they have the same shape."""

MAX_SHIFT_SAMPLES: Final = 4
"""Largest shift between two QRS complexes that are compared, in samples: the R peak of a wide complex jitters."""

_SHIFTED_INDICES: Final = np.arange(-MAX_SHIFT_SAMPLES, MAX_SHIFT_SAMPLES + 1)[:, None] + np.arange(QRS.start, QRS.stop)
"""Sample indices of the QRS complex for each shift, (9, 32)."""
_QRS_SAMPLES: Final = QRS.stop - QRS.start
_ALL_KNOWN: Final = np.ones(_SHIFTED_INDICES.shape)

MAX_TEMPLATES: Final = 6
"""Largest number of templates; few patients have more than three shapes."""

TEMPLATE_BEATS: Final = 32
"""Effective number of beats averaged in a template: enough to suppress noise, few enough to follow a change of posture."""

WEIGHT_DECAY: Final = 1 / 300
"""Decay of the template weights per beat: a beat of five minutes ago (300 beats) counts about a third of a new one."""

LONG_TERM_UPDATE_BEATS: Final = 8
"""Beats between two updates of the long-term RR quantiles; during the first beats they are updated at every beat."""

V_ODDS_FACTOR_IN_AF: Final = 0.5
"""Factor for the odds of V in atrial fibrillation. Early beats are not a sign of V there, and conduction through the ventricles
is often aberrant if a short interval follows a long one (Gouaux & Ashman, Am Heart J 34, 1947)."""

EARLY_RR_SHARE: Final = 0.88
EARLY_BEAT_WEIGHT: Final = 0.25
"""A beat may be ectopic if its RR interval is below `EARLY_RR_SHARE` of the median, or if it follows a gap. Such a beat has the
weight `EARLY_BEAT_WEIGHT` in the templates; other beats have weight 1."""


@dataclass(frozen=True, slots=True)
class LabelledBeat:
    """A beat with its label and the label's probability, which is 1 without a model and 0 for the label "?"."""

    t_s: float
    amplitude_mv: float
    after_gap: bool
    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class BeatContext:
    """The inputs from which a beat is labelled: those of `models.inference.ecg_beat.features`, without the first axis."""

    beat: Beat
    wave_mv: Samples
    template_mv: Samples
    rr_s: Samples
    shape: tuple[float, ...]


class BeatLabeller:
    """Labels the beats of one `EcgChain`; without a model every beat is N."""

    def __init__(self, model: EcgBeat | None) -> None:
        self._model = model
        self._context_builder = BeatContextBuilder()
        self._in_af = False
        self._previous_ectopic_rr_s = np.nan
        """RR interval that ends at the previous beat if that beat is labelled S, otherwise NaN; in seconds."""

    def push(self, beats: Sequence[Beat], chain: EcgChain, in_af: bool = False) -> list[LabelledBeat]:
        """Add the beats that the chain just reported, and return those that can be labelled now, in order.

        `in_af`: whether the rhythm is atrial fibrillation, see `adjust_for_af`.
        """
        self._in_af = in_af
        return self._label_all(self._context_builder.push(beats, chain))

    def flush(self, chain: EcgChain) -> list[LabelledBeat]:
        """Return the remaining beats before a gap or the end; the stretch of `chain` has been finished and its beats pushed."""
        return self._label_all(self._context_builder.flush(chain))

    def _label_all(self, contexts: Iterator[BeatContext]) -> list[LabelledBeat]:
        return [self._label(context) for context in contexts]

    def _label(self, context: BeatContext) -> LabelledBeat:
        beat = context.beat
        previous_ectopic_rr_s, self._previous_ectopic_rr_s = self._previous_ectopic_rr_s, np.nan
        if self._model is None:
            return LabelledBeat(beat.t_s, beat.amplitude_mv, beat.after_gap, "N", 1.0)
        if np.count_nonzero(np.isfinite(context.wave_mv[QRS])) <= MIN_KNOWN_SHARE * _QRS_SAMPLES:
            return LabelledBeat(beat.t_s, beat.amplitude_mv, beat.after_gap, UNKNOWN, 0.0)
        # Classify one beat at a time, because sums may differ in the last bit between batch sizes.
        rr_s, shape = context.rr_s[None], np.array([context.shape])
        probabilities = self._model.probabilities(features(context.wave_mv[None], context.template_mv[None], rr_s, shape))
        if self._in_af:
            probabilities = adjust_for_af(probabilities)
        rr_before_s = rr_s[:, HISTORY_INTERVALS - 1]
        index = int(self._model.choose_classes(probabilities, find_early_beats(rr_s), rr_before_s, previous_ectopic_rr_s)[0])
        if index == S:
            self._previous_ectopic_rr_s = float(rr_before_s[0])
        return LabelledBeat(beat.t_s, beat.amplitude_mv, beat.after_gap, CLASSES[index], float(probabilities[0, index]))


def adjust_for_af(probabilities: NDArray[Any]) -> NDArray[Any]:
    """Adjust the probabilities (n, 4) of `CLASSES` for atrial fibrillation: S becomes N, and V becomes less probable."""
    weighted = probabilities.copy()
    weighted[:, N] += weighted[:, S]
    weighted[:, S] = 0.0
    weighted[:, V] *= V_ODDS_FACTOR_IN_AF
    adjusted: NDArray[Any] = weighted / weighted.sum(-1, keepdims=True)
    return adjusted


class BeatContextBuilder:
    """Builds the context of each beat, in the agent and in training."""

    def __init__(self) -> None:
        self._pending: deque[Beat] = deque()
        self._rr_s: deque[float] = deque([np.nan] * HISTORY_INTERVALS, HISTORY_INTERVALS)
        self._long_term_rr_s: deque[float] = deque([np.nan] * LONG_TERM_INTERVALS, LONG_TERM_INTERVALS)
        self._long_term_quantiles_s = np.full(len(LONG_TERM_QUANTILES), np.nan)
        self._count = 0
        self._last_beat_s = np.nan
        self._templates = _MorphologyTemplates()

    def push(self, beats: Sequence[Beat], chain: EcgChain) -> Iterator[BeatContext]:
        """Add beats, and yield the contexts that are complete, in order."""
        self._pending.extend(beats)
        horizon_s = chain.horizon_s
        while self._pending and horizon_s >= self._pending[0].t_s + MAX_NEXT_RR_S:
            yield self._build_context(self._pending.popleft(), chain)

    def flush(self, chain: EcgChain) -> Iterator[BeatContext]:
        """Yield the contexts of the remaining beats; no beat follows them."""
        while self._pending:
            yield self._build_context(self._pending.popleft(), chain)

    def _build_context(self, beat: Beat, chain: EcgChain) -> BeatContext:
        self._rr_s.append(np.nan if beat.after_gap else beat.t_s - self._last_beat_s)
        self._last_beat_s = beat.t_s
        self._long_term_rr_s.append(self._rr_s[-1])
        if self._count < LONG_TERM_UPDATE_BEATS or self._count % LONG_TERM_UPDATE_BEATS == 0:
            self._long_term_quantiles_s = long_term_rr_quantiles(np.array(self._long_term_rr_s)[None])[0]
        self._count += 1
        rr_s = np.array([*self._rr_s, self._next_rr(beat, chain), *self._long_term_quantiles_s])
        wave = _cut_wave(beat, chain)
        following = (
            _cut_wave(self._pending[0], chain, beat.t_s + MAX_NEXT_RR_S + NEXT_QRS_S)
            if rr_s[HISTORY_INTERVALS] < MAX_NEXT_RR_S
            else None
        )
        template, shape = self._templates.compare(wave, following, _measure_timing(rr_s))
        return BeatContext(beat, wave, template, rr_s, shape)

    def _next_rr(self, beat: Beat, chain: EcgChain) -> float:
        """Return the RR interval after the beat, `MAX_NEXT_RR_S` at most; NaN if a gap or the end of the stream comes first."""
        end_s = beat.t_s + MAX_NEXT_RR_S
        if self._pending and self._pending[0].t_s < end_s:
            following = self._pending[0]
            return np.nan if following.after_gap else following.t_s - beat.t_s
        _, signal = chain.strip(beat.t_s, end_s)
        return MAX_NEXT_RR_S if signal.size >= int(MAX_NEXT_RR_S * RATE_HZ) and not np.isnan(signal).any() else np.nan


class _BeatTiming(NamedTuple):
    """Timing of a beat.

    Attributes:
        log_rr: logarithms of the RR intervals before and after the beat over the median, NaN where unknown.
        weight: weight of the beat in the templates.
    """

    log_rr: tuple[float, float]
    weight: float


class _ShiftedQrs(NamedTuple):
    """A QRS complex at each shift.

    Attributes:
        rows: (9, 32) the complex minus its mean; 0 where it was not received.
        size: (9, 1) root of the sum of squares of each row.
        known: (9, 32) 1 where samples were received, otherwise 0.
        received: (9, 1) number of samples received.
    """

    rows: Samples
    size: Samples
    known: Samples
    received: Samples

    @property
    def is_complete(self) -> bool:
        """Whether all samples were received."""
        return self.known is _ALL_KNOWN


class _MorphologyTemplates:
    """Templates of the patient's QRS shapes, with the frequency and the typical timing of each."""

    def __init__(self) -> None:
        self._template_waves = np.zeros((0, WAVE_SAMPLES))
        self._timings: list[list[float]] = []
        self._beat_counts: list[int] = []
        self._weights = np.zeros(0)
        self._last_wave: Samples | None = None
        self._last_similarity = 0.0

    def compare(self, wave: Samples, following: Samples | None, timing: _BeatTiming) -> tuple[Samples, tuple[float, ...]]:
        """Compare a beat with the templates, then learn it.

        Returns:
            The dominant template before this beat, and the shape features of `models.inference.ecg_beat.features`.
        """
        has_templates = bool(self._beat_counts)
        dominant_index = int(self._weights.argmax()) if has_templates else -1
        template = self._template_waves[dominant_index].copy() if has_templates else np.full(WAVE_SAMPLES, np.nan)
        total = max(float(self._weights.sum()), 1e-9)
        dominant_share = float(self._weights[dominant_index]) / total if has_templates else 0.0
        next_similarity = _best_cosine(_shift_qrs(following), template) if has_templates and following is not None else 0.0
        previous_similarity, self._last_similarity = self._last_similarity, 0.0
        shifted = _shift_qrs(wave)
        if shifted is None:
            return template, (dominant_share, 0.0, 0.0, 0.0, 0.0, previous_similarity, next_similarity)
        similarity, shift = _best_cosines(shifted, self._template_waves)
        similarity_to_last = _best_cosine(shifted, self._last_wave) if self._last_wave is not None else 0.0
        nearest_index = int(similarity.argmax()) if has_templates else -1
        is_known = has_templates and float(similarity[nearest_index]) >= SAME_SHAPE_COSINE
        nearest_share = float(self._weights[nearest_index]) / total if is_known else 0.0
        log_rr_before, log_rr_after = self._timings[nearest_index] if is_known else (0.0, 0.0)
        self._last_similarity = float(similarity[dominant_index]) if has_templates else 0.0
        if shifted.is_complete:
            self._last_wave = wave
            self._weights *= 1 - WEIGHT_DECAY
            if is_known:
                self._update(nearest_index, wave, int(shift[nearest_index]), timing)
            else:
                self._add(wave, timing)
        return template, (
            dominant_share,
            nearest_share,
            similarity_to_last,
            log_rr_before,
            log_rr_after,
            previous_similarity,
            next_similarity,
        )

    def _update(self, index: int, wave: Samples, shift: int, timing: _BeatTiming) -> None:
        self._beat_counts[index] += 1
        share = 1 / min(self._beat_counts[index], TEMPLATE_BEATS)
        template = self._template_waves[index]
        step = np.concatenate((wave[shift:], wave[:shift]))
        step -= template
        step[np.isnan(step)] = 0.0
        template += share * step
        means = self._timings[index]
        means[:] = [old if isnan(new) else old + share * (new - old) for old, new in zip(means, timing.log_rr, strict=True)]
        self._weights[index] += timing.weight

    def _add(self, wave: Samples, timing: _BeatTiming) -> None:
        template = np.where(np.isnan(wave), 0.0, wave)
        intervals = [0.0 if isnan(interval) else interval for interval in timing.log_rr]
        if len(self._beat_counts) == MAX_TEMPLATES:
            rarest = int(self._weights.argmin())
            self._template_waves[rarest], self._timings[rarest] = template, intervals
            self._beat_counts[rarest], self._weights[rarest] = 1, timing.weight
            return
        self._template_waves = np.vstack((self._template_waves, template))
        self._timings.append(intervals)
        self._beat_counts.append(1)
        self._weights = np.append(self._weights, timing.weight)


def _shift_qrs(wave: Samples) -> _ShiftedQrs | None:
    """Return the QRS complex at each shift, or None if too little of it, or of the samples around it, was received."""
    rows = wave[_SHIFTED_INDICES]
    known = _ALL_KNOWN
    if isnan(np.add.reduce(wave[QRS.start - MAX_SHIFT_SAMPLES : QRS.stop + MAX_SHIFT_SAMPLES])):
        known = np.isfinite(rows).astype(np.float64)
        rows[known == 0] = 0.0
    received = np.add.reduce(known, -1, keepdims=True)
    if received.min() <= MIN_KNOWN_SHARE * _QRS_SAMPLES:
        return None
    rows -= known * (np.add.reduce(rows, -1, keepdims=True) / received)
    return _ShiftedQrs(rows, np.sqrt(np.vecdot(rows, rows))[:, None], known, received)


def _best_cosine(shifted: _ShiftedQrs | None, other: Samples) -> float:
    """Return the largest cosine of two QRS complexes over all shifts; 0 if the first is unknown."""
    return float(_best_cosines(shifted, other[None])[0][0]) if shifted else 0.0


def _best_cosines(shifted: _ShiftedQrs, means: Samples) -> tuple[Samples, Samples]:
    """Return the largest cosine of a QRS complex with each template (k, 104), and the shift at which it occurs.

    Only received samples count. The mean over these samples is subtracted from both complexes.
    """
    shapes = means[:, QRS].T
    power = shifted.known @ (shapes * shapes) - (shifted.known @ shapes) ** 2 / shifted.received
    cosine = shifted.rows @ shapes / (shifted.size * np.sqrt(np.maximum(power, 0.0)) + 1e-9)
    best = cosine.argmax(0)
    return np.maximum.reduce(cosine, 0), best - MAX_SHIFT_SAMPLES


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


def _measure_timing(rr_s: Samples) -> _BeatTiming:
    previous = rr_s[: HISTORY_INTERVALS - 1]
    known = previous[np.isfinite(previous)]
    if not known.size:
        return _BeatTiming((np.nan, np.nan), 1.0)
    median_s = median(known)
    log_rr_before, log_rr_after = (
        min(max(log(rr / median_s), -1.0), 1.0) for rr in rr_s[HISTORY_INTERVALS - 1 : HISTORY_INTERVALS + 1].tolist()
    )
    return _BeatTiming((log_rr_before, log_rr_after), 1.0 if log_rr_before >= log(EARLY_RR_SHARE) else EARLY_BEAT_WEIGHT)
