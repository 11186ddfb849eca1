"""Classifies a heart beat as normal, supraventricular, ventricular or fusion (model `ecg_beat`).

The inputs are the beat's waveform, the patient's template beat, and the RR intervals around the beat.

Classes of ANSI/AAMI EC57: N (normal, bundle branch block, escape beats), S (supraventricular ectopic), V (ventricular ectopic
and ventricular escape), F (fusion of N and V).
"""

from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from models.inference.release import read_release_file
from models.inference.session import ModelError, ModelSession

CLASSES: Final = ("N", "S", "V", "F")
N, S, V, F = range(4)

SAMPLES_BEFORE_R: Final = 45
SAMPLES_AFTER_R: Final = 59
WAVE_SAMPLES: Final = SAMPLES_BEFORE_R + SAMPLES_AFTER_R
"""Samples of a beat at 125 Hz, 0.36 s before the R peak to 0.46 s after it: P wave, QRS complex and most of the T wave."""

QRS: Final = slice(SAMPLES_BEFORE_R - 12, SAMPLES_BEFORE_R + 20)
"""Samples of the QRS complex. A wide one lasts 0.2 s, and its R peak may be its first or its last deflection."""

HISTORY_INTERVALS: Final = 33
"""RR intervals up to and including the one that ends at the beat."""
RR_INPUTS: Final = HISTORY_INTERVALS + 6
"""RR inputs of a beat: its `HISTORY_INTERVALS`, the next interval, the two quantiles of `long_term_rr_quantiles`, and from
`models.beat_history` the background interval and two quantiles of the change between intervals."""
BACKGROUND: Final = HISTORY_INTERVALS + 3
"""Column of the background interval; two columns with the usual change follow it."""

LONG_TERM_INTERVALS: Final = 256
LONG_TERM_QUANTILES: Final = (0.5, 0.8)
"""These quantiles of the last 256 intervals (some minutes) show whether a fast run differs from the rhythm before it. The 0.8
quantile belongs to the sinus rhythm even if most beats are premature."""

P_FEATURES: Final = 4
SHAPE_FEATURES: Final = 7 + P_FEATURES
"""Numbers that compare the beat with the patient's morphology templates and usual P wave: see `features`."""

ROWS: Final = 5
WAVE_ROWS: Final = 4
SCALARS: Final = 64
"""The network's input has 5 rows: beat, template, their difference, the mask of known samples, and a row of 53 scalars."""

RR_RANGE_S: Final = (0.2, 3.0)
"""Intervals outside this range count as unknown, as in `models.inference.rr_af`."""

MAX_NEXT_RR_S: Final = 1.5
"""How long to wait for the next beat; a longer interval counts as this long."""

EARLY_RATIOS: Final = (0.88, 0.7, 0.92)
"""A beat is early if its interval is below 0.88 of the median of the 32 before it or of the background interval
(`models.beat_history`), below 0.7 of the higher of the `LONG_TERM_QUANTILES`, or below 0.92 of both intervals beside it. In a
long run or in bigeminy the median is already that of early beats. Supraventricular ectopic beats are early by definition, and
sinus rhythm rarely changes that much between two beats. 0.88 and 0.7 were chosen by cross-validation on mitdb from
0.85 to 0.9 and 0.6 to 0.75; only one value of the last, 0.92, was tried."""

RUN_WEIGHT: Final = 5.0
RUN_MAX_RATIO: Final = 1.12
"""The weight of S is multiplied by 5 for an early beat that follows an S beat, if its interval is at most 1.12 times the S
beat's. A run keeps its rate until it ends, whereas a lone ectopic beat is followed by a longer interval (Goldberger's Clinical
Electrocardiography, 15). Chosen by cross-validation with packets lost: weights of 4 to 30 and ratios of 1.12 to 1.2 perform
about equally, a ratio of 1.06 is worse."""

V_ODDS_FACTOR_IN_AF: Final = 0.5
"""Factor for the odds of V in atrial fibrillation. Early beats are not a sign of V there, and conduction through the ventricles
is often aberrant if a short interval follows a long one (Gouaux & Ashman, Am Heart J 34, 1947)."""

_REGIONS: Final = (0, QRS.start, QRS.stop)
"""First samples of P wave, QRS complex and T wave."""
_QRS_SIZE: Final = QRS.stop - QRS.start
_QUANTILES: Final = np.array([0.1, 0.5, 0.9])
_MOMENTS: Final = np.linspace(0.0, 1.0, _QRS_SIZE)[:, None] ** np.arange(3)
_MIN_SCALE_MV: Final = 0.05
_REFERENCE_LOG_RR: Final = np.log(0.8)
"""75 beats a minute."""
_EPSILON: Final = 1e-6

Values = NDArray[np.floating[Any]]


def features(wave_mv: Values, template_mv: Values, rr_s: Values, shape: Values) -> NDArray[np.float32]:
    """Compute the network's input for a batch of beats; training and inference share this function.

    Args:
        wave_mv: (n, 104) around the R peaks at 125 Hz, 0.5 to 40 Hz, NaN where missing.
        template_mv: (n, 104) the patient's template beat before this beat, NaN where there is none yet.
        rr_s: (n, 39) seconds: 33 intervals up to the one that ends at the beat, the next one, `long_term_rr_quantiles` of the
            intervals up to the beat, the background interval, and the median and the 0.9 quantile of the change between
            intervals (`models.beat_history`); NaN where unknown.
        shape: (n, 11) the share of the patient's beats that match the template; the share that match this beat; this beat's
            similarity to the latest beat that was received in full; how early beats of this shape come and how late the beats
            after them (logarithms of intervals over the median); how similar the previous and the next beat are to the
            template; how far the P wave is from the usual one (logarithm of the distance over the usual distance); their
            cosine; how clear the usual one is (logarithm of its height over the usual distance); whether it is known.

    Returns:
        (n, 5, 104) float32 within ±3: beat and template, both divided by the template's height; their difference; the mask of
        known samples; 64 scalars followed by zeros.
    """
    both = np.empty((len(wave_mv), 2, WAVE_SAMPLES), np.result_type(wave_mv, template_mv))
    both[:, 0], both[:, 1] = wave_mv, template_mv
    known = np.isfinite(both)
    both[~known] = 0.0
    height = np.maximum.reduce(np.abs(both[:, :, QRS]), -1)
    has_template = known[:, 1, SAMPLES_BEFORE_R : SAMPLES_BEFORE_R + 1]
    scale = np.maximum(np.where(has_template, height[:, 1:], height[:, :1]), _MIN_SCALE_MV)
    both /= scale[:, None]
    out = np.zeros((len(both), ROWS, WAVE_SAMPLES), np.float32)
    out[:, :2] = both
    out[:, 2] = (both[:, 0] - both[:, 1]) * (known[:, 0] & has_template)
    out[:, 3] = known[:, 0]
    known_share = _row_sums(known[:, 0, QRS]) / _QRS_SIZE
    scalars = (*_rhythm_features(rr_s), *_shape_features(both), shape, has_template, known_share)
    np.concatenate(scalars, -1, out[:, WAVE_ROWS, :SCALARS], casting="same_kind")
    np.maximum(out, -3.0, out=out)
    return np.minimum(out, 3.0, out=out)


def _rhythm_features(rr_s: Values) -> tuple[Values, ...]:
    """Return features of prematurity, of the next interval and of the irregularity before the beat: columns, 37 in all."""
    intervals_s = rr_s[:, :BACKGROUND]
    known = (intervals_s >= RR_RANGE_S[0]) & (intervals_s <= RR_RANGE_S[1])
    log_rr = np.log(np.where(known, intervals_s, 1.0))
    is_known = known[:, : HISTORY_INTERVALS - 1]
    count = _row_sums(is_known)
    ordered = np.where(is_known, log_rr[:, : HISTORY_INTERVALS - 1], np.inf)
    ordered.sort(-1)
    ranks = (np.maximum(count - 1, 0) * _QUANTILES).astype(np.int64)
    quantiles = ordered[np.arange(len(ordered))[:, None], ranks]
    quantiles[count[:, 0] == 0] = 0.0
    median = quantiles[:, 1:2]
    level = np.where(known, np.minimum(np.maximum(log_rr - median, -1.0), 1.0), 0.0)
    past, now, after = (
        level[:, : HISTORY_INTERVALS - 1],
        level[:, HISTORY_INTERVALS - 1 : HISTORY_INTERVALS],
        level[:, HISTORY_INTERVALS : HISTORY_INTERVALS + 1],
    )
    latest = _row_sums(past[:, -8:])
    at_least_one = np.maximum(count, 1)
    pair = is_known[:, 1:] & is_known[:, :-1]
    change = np.where(pair, np.abs(past[:, 1:] - past[:, :-1]), 0.0)
    pairs = np.maximum(_row_sums(pair), 1)
    return (
        *_background_features(rr_s, known, log_rr, median),
        now - np.minimum(past[:, -1:], np.where(known[:, HISTORY_INTERVALS : HISTORY_INTERVALS + 1], after, past[:, -1:])),
        level[:, HISTORY_INTERVALS - 8 : HISTORY_INTERVALS + 1],
        np.where(known[:, HISTORY_INTERVALS:], now - level[:, HISTORY_INTERVALS:], 0.0)[:, 1:],
        np.where(known[:, HISTORY_INTERVALS + 1 :], latest / 8 - level[:, HISTORY_INTERVALS + 1 :], 0.0),
        known[:, HISTORY_INTERVALS - 2 : HISTORY_INTERVALS + 1].astype(np.float64),
        median - _REFERENCE_LOG_RR,
        after - now,
        now - past[:, -1:],
        np.log((np.exp(now) + np.exp(after)) / 2),
        4 * _row_sums(change) / pairs,
        _row_sums(change > 0.1) / pairs,
        3 * np.sqrt(_row_sums(past * past) / at_least_one),
        quantiles[:, ::2] - median,
        now - quantiles[:, :1] + median,
        _row_sums(is_known & (past < now + 0.02)) / at_least_one,
        _row_sums(past < -0.12) / at_least_one,
        latest / np.maximum(_row_sums(is_known[:, -8:]), 1),
        count / (HISTORY_INTERVALS - 1),
    )


def _background_features(rr_s: Values, known: NDArray[np.bool_], log_rr: Values, median: Values) -> tuple[Values, ...]:
    """Return how the interval before the beat stands to the background rhythm and to the patient's usual changes: 6 columns."""
    background_s, change_s, large_change_s = (rr_s[:, column : column + 1] for column in range(BACKGROUND, RR_INPUTS))
    has_background = (background_s >= RR_RANGE_S[0]) & (background_s <= RR_RANGE_S[1])
    background = np.where(has_background, np.log(np.where(has_background, background_s, 1.0)), median)
    usual_s = np.where(change_s <= RR_RANGE_S[1], change_s, 0.0)
    large_s = np.where(large_change_s <= RR_RANGE_S[1], large_change_s, 0.0)
    before, now = slice(HISTORY_INTERVALS - 2, HISTORY_INTERVALS - 1), slice(HISTORY_INTERVALS - 1, HISTORY_INTERVALS)
    change_now_s = np.where(known[:, before] & known[:, now], rr_s[:, now] - rr_s[:, before], 0.0)
    return (
        np.where(known[:, now], log_rr[:, now] - background, 0.0),
        2 * (median - background),
        np.arcsinh(change_now_s / (usual_s + 0.008)) / 3,
        np.arcsinh(change_now_s / (large_s + 0.02)),
        np.log(usual_s + 0.004) / 2 + 2,
        np.log(large_s + 0.008) + 2,
    )


def _shape_features(both: Values) -> tuple[Values, ...]:
    """Return similarity, height, width and area of beat and template (n, 2, 104): columns, 14 in all."""
    wave, template = both[:, 0], both[:, 1]
    cross = np.add.reduceat(wave * template, _REGIONS, -1)
    heights = np.sqrt(np.add.reduceat(both * both, _REGIONS, -1))
    height, template_height = heights[:, 0], heights[:, 1]
    qrs = both[:, :, QRS]
    size, power = np.abs(qrs), qrs * qrs
    peak = np.maximum.reduce(size, -1) + _EPSILON
    moments = power @ _MOMENTS
    centre = moments[..., 1:] / (moments[..., :1] + _EPSILON)
    spread = np.sqrt(np.maximum(moments[..., 2] / (moments[..., 0] + _EPSILON) - centre[..., 0] ** 2, 0.0))
    steepest = np.maximum.reduce(np.abs(qrs[..., 1:] - qrs[..., :-1]), -1)
    return (
        cross / (height * template_height + _EPSILON),
        np.log((height + 0.1) / (template_height + 0.1)),
        2 * (np.add.reduce(size, -1) / _QRS_SIZE) / peak,
        5 * spread,
        steepest / peak,
        np.add.reduce(qrs, -1) / _QRS_SIZE,
    )


def _row_sums(rows: NDArray[Any]) -> NDArray[Any]:
    """Return the sum over the last axis, kept with length 1. For so few numbers, the method `sum` takes twice as long."""
    total: NDArray[Any] = np.add.reduce(rows, -1, keepdims=True)
    return total


def long_term_rr_quantiles(rr_s: Values) -> Values:
    """Return `LONG_TERM_QUANTILES` of the last intervals.

    Args:
        rr_s: (n, 256) seconds, NaN where unknown.

    Returns:
        (n, 2) seconds, NaN where no interval is known.
    """
    ordered = np.sort(rr_s, -1)
    count = np.isfinite(ordered).sum(-1, keepdims=True)
    ranks = (np.maximum(count - 1, 0) * np.array(LONG_TERM_QUANTILES)).astype(np.int64)
    return np.take_along_axis(ordered, ranks, -1)


class EcgBeat:
    """Classifies single beats (model `ecg_beat`).

    Attributes:
        name, version: of the model, for findings (`ecg_beat@1`).
        weights: (4,) factors of the class probabilities; the class with the greatest product is chosen.
    """

    def __init__(self, model_bytes: bytes) -> None:
        """Build the session.

        Raises:
            ModelError: the bytes are not a model that this version can run.
        """
        self._session = ModelSession("ecg_beat", model_bytes)
        self.name, self.version = self._session.name, self._session.version
        self.weights = np.array([self._session.read_number(f"weight_{name}") for name in CLASSES])
        if not (self.weights > 0).all():
            raise ModelError("ecg_beat cannot be loaded: its weights are not positive. Reinstall pulsegate.")

    @classmethod
    def load_release(cls) -> Self:
        """Load the model that ships with this package.

        Raises:
            ModelError: the file or its manifest is missing, altered or cannot be run.
        """
        return cls(read_release_file("ecg_beat.onnx"))

    def probabilities(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the probabilities of `CLASSES` for a batch: the output of `features`, (n, 5, 104), to (n, 4)."""
        return self._session.run(inputs)

    def choose_classes(
        self, probabilities: Values, is_early: NDArray[np.bool_], rr_before_s: Values, previous_ectopic_rr_s: float = np.nan
    ) -> NDArray[np.int64]:
        """Choose the classes by this model's weights: see the function `choose_classes`."""
        return choose_classes(probabilities, self.weights, is_early, rr_before_s, previous_ectopic_rr_s)


def adjust_for_af(probabilities: NDArray[Any], *, follows_v: bool = False) -> NDArray[Any]:
    """Adjust the probabilities (n, 4) of `CLASSES` for atrial fibrillation: S becomes N, and V becomes less probable.

    A beat that follows a V is not less probably V: an aberrant beat follows a long interval, but a run goes on.
    """
    weighted = probabilities.copy()
    weighted[:, N] += weighted[:, S]
    weighted[:, S] = 0.0
    if not follows_v:
        weighted[:, V] *= V_ODDS_FACTOR_IN_AF
    adjusted: NDArray[Any] = weighted / weighted.sum(-1, keepdims=True)
    return adjusted


def find_early_beats(rr_s: Values) -> NDArray[np.bool_]:
    """Return which beats came early (`EARLY_RATIOS`), by their intervals as in `features`: (n, 39) to (n,).

    A beat without a known next interval, before a gap or at the end, does not count as early: the evidence is too weak.
    """
    before = rr_s[:, : HISTORY_INTERVALS - 1].copy()
    before.sort(-1)
    middle = np.maximum(np.add.reduce(np.isfinite(before), -1) - 1, 0) // 2
    median = before[np.arange(len(before)), middle]
    last, now, after = (rr_s[:, column] for column in range(HISTORY_INTERVALS - 2, HISTORY_INTERVALS + 1))
    is_early: NDArray[np.bool_] = (now < EARLY_RATIOS[0] * median) | (now < EARLY_RATIOS[1] * rr_s[:, HISTORY_INTERVALS + 2])
    is_early |= (now < EARLY_RATIOS[0] * rr_s[:, BACKGROUND]) | (now < EARLY_RATIOS[2] * np.minimum(last, after))
    return is_early & np.isfinite(after)


def choose_classes(
    probabilities: Values,
    weights: Values,
    is_early: NDArray[np.bool_],
    rr_before_s: Values,
    previous_ectopic_rr_s: float = np.nan,
) -> NDArray[np.int64]:
    """Choose the class of each of consecutive beats: the one with the greatest product of probability and weight.

    Only early beats can be S: a supraventricular ectopic beat is early by definition. Where S is not likely enough, or a beat
    cannot be judged, the class is N. The weight of S applies only between S and N, with a higher weight in a run
    (`RUN_WEIGHT`). It can therefore neither hide a ventricular beat nor turn a steady rhythm into an ectopic one.

    Args:
        probabilities: (n, 4).
        weights: (4,).
        is_early: (n,) see `find_early_beats`.
        rr_before_s: (n,) the intervals that end at the beats, NaN where unknown.
        previous_ectopic_rr_s: the interval that ends at the beat before the first one if that is an S beat, otherwise NaN.

    Returns:
        (n,) indices into `CLASSES`.
    """
    without_s = weights.copy()
    without_s[S] = 1.0
    indices: NDArray[np.int64] = (probabilities * without_s).argmax(-1)
    indices[(indices == S) & ~is_early] = N
    for beat in np.flatnonzero(is_early & (indices < V)).tolist():
        if beat:
            previous_ectopic_rr_s = float(rr_before_s[beat - 1]) if indices[beat - 1] == S else np.nan
        weight = weights[S] * (RUN_WEIGHT if rr_before_s[beat] <= RUN_MAX_RATIO * previous_ectopic_rr_s else 1.0)
        indices[beat] = S if probabilities[beat, S] * weight > probabilities[beat, N] * weights[N] else N
    return indices
