"""The shapes of a patient's QRS complexes: what is usual, how often, and at which timing."""

from math import isnan, log
from typing import Final, NamedTuple

import numpy as np

from models.inference.ecg_beat import HISTORY_INTERVALS, WAVE_SAMPLES
from models.qrs_shapes import SAME_SHAPE_COSINE, best_cosine, best_cosines, shift_qrs
from models.signal.filters import Samples, median

MAX_TEMPLATES: Final = 6
"""Largest number of templates; few patients have more than three shapes."""

TEMPLATE_BEATS: Final = 32
"""Effective number of beats averaged in a template: enough to suppress noise, few enough to follow a change of posture."""

WEIGHT_DECAY: Final = 1 / 300
"""Decay of the template weights per beat: a beat of five minutes ago (300 beats) counts about a third of a new one."""

EARLY_RR_SHARE: Final = 0.88
EARLY_BEAT_WEIGHT: Final = 0.25
"""A beat may be ectopic if its RR interval is below `EARLY_RR_SHARE` of the median, or if it follows a gap. Such a beat has the
weight `EARLY_BEAT_WEIGHT` in the templates; other beats have weight 1."""


class BeatTiming(NamedTuple):
    """Timing of a beat.

    Attributes:
        log_rr: logarithms of the RR intervals before and after the beat over the median, NaN where unknown.
        weight: weight of the beat in the templates.
    """

    log_rr: tuple[float, float]
    weight: float


class _PendingBeat(NamedTuple):
    """A beat to learn: its waveform, the number of its template (None for a new one), the shift to it, and its timing."""

    wave: Samples
    template: int | None
    shift: int
    timing: BeatTiming


class MorphologyTemplates:
    """Templates of the patient's QRS shapes, with the frequency and the typical timing of each."""

    def __init__(self) -> None:
        self._template_waves = np.zeros((0, WAVE_SAMPLES))
        self._timings: list[list[float]] = []
        self._beat_counts: list[int] = []
        self._weights = np.zeros(0)
        self._last_wave: Samples | None = None
        self.last_similarity = 0.0
        self._pending: _PendingBeat | None = None

    def compare(self, wave: Samples, following: Samples | None, timing: BeatTiming) -> tuple[Samples, tuple[float, ...]]:
        """Compare a beat with the templates. It is learnt when the next one is compared, unless it is forgotten before.

        Returns:
            The dominant template before this beat, and the shape features of `models.inference.ecg_beat.features`.
        """
        self._learn_pending()
        has_templates = bool(self._beat_counts)
        dominant_index = int(self._weights.argmax()) if has_templates else -1
        template = self._template_waves[dominant_index].copy() if has_templates else np.full(WAVE_SAMPLES, np.nan)
        total = max(float(self._weights.sum()), 1e-9)
        dominant_share = float(self._weights[dominant_index]) / total if has_templates else 0.0
        next_similarity = best_cosine(shift_qrs(following), template) if has_templates and following is not None else 0.0
        previous_similarity, self.last_similarity = self.last_similarity, 0.0
        shifted = shift_qrs(wave)
        if shifted is None:
            return template, (dominant_share, 0.0, 0.0, 0.0, 0.0, previous_similarity, next_similarity)
        similarity, shift = best_cosines(shifted, self._template_waves)
        similarity_to_last = best_cosine(shifted, self._last_wave) if self._last_wave is not None else 0.0
        nearest_index = int(similarity.argmax()) if has_templates else -1
        is_known = has_templates and float(similarity[nearest_index]) >= SAME_SHAPE_COSINE
        nearest_share = float(self._weights[nearest_index]) / total if is_known else 0.0
        log_rr_before, log_rr_after = self._timings[nearest_index] if is_known else (0.0, 0.0)
        self.last_similarity = float(similarity[dominant_index]) if has_templates else 0.0
        if shifted.is_complete:
            self._last_wave = wave
            self._pending = _PendingBeat(
                wave, nearest_index if is_known else None, int(shift[nearest_index]) if is_known else 0, timing
            )
        return template, (
            dominant_share,
            nearest_share,
            similarity_to_last,
            log_rr_before,
            log_rr_after,
            previous_similarity,
            next_similarity,
        )

    def forget_last_beat(self) -> None:
        """Do not learn the beat that was compared last."""
        self._pending = None

    def forget_shape(self, wave: Samples) -> None:
        """Remove the templates of the same shape."""
        shifted = shift_qrs(wave)
        if shifted is None or not self._beat_counts:
            return
        kept = np.flatnonzero(best_cosines(shifted, self._template_waves)[0] < SAME_SHAPE_COSINE)
        self._template_waves, self._weights = self._template_waves[kept], self._weights[kept]
        self._timings = [self._timings[index] for index in kept.tolist()]
        self._beat_counts = [self._beat_counts[index] for index in kept.tolist()]

    def _learn_pending(self) -> None:
        pending, self._pending = self._pending, None
        if pending is None:
            return
        self._weights *= 1 - WEIGHT_DECAY
        if pending.template is None:
            self._add(pending.wave, pending.timing)
        else:
            self._update(pending.template, pending.wave, pending.shift, pending.timing)

    def _update(self, index: int, wave: Samples, shift: int, timing: BeatTiming) -> None:
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

    def _add(self, wave: Samples, timing: BeatTiming) -> None:
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


def measure_timing(rr_s: Samples) -> BeatTiming:
    """Return the timing of a beat from its intervals, those of `models.inference.ecg_beat.features`."""
    previous = rr_s[: HISTORY_INTERVALS - 1]
    known = previous[np.isfinite(previous)]
    if not known.size:
        return BeatTiming((np.nan, np.nan), 1.0)
    median_s = median(known)
    log_rr_before, log_rr_after = (
        min(max(log(rr / median_s), -1.0), 1.0) for rr in rr_s[HISTORY_INTERVALS - 1 : HISTORY_INTERVALS + 1].tolist()
    )
    return BeatTiming((log_rr_before, log_rr_after), 1.0 if log_rr_before >= log(EARLY_RR_SHARE) else EARLY_BEAT_WEIGHT)
