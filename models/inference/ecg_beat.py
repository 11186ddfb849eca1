"""Normal, supraventricular, ventricular or fusion beat, from its shape, the patient's usual shape and the intervals around it
(model `ecg_beat`).

Classes of ANSI/AAMI EC57: N (normal, bundle branch block, escape beats), S (supraventricular ectopic), V (ventricular ectopic
and ventricular escape), F (fusion of N and V).
"""

from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from models.inference.release import released
from models.inference.session import ModelError, Session

CLASSES: Final = ("N", "S", "V", "F")
N, S, V, F = range(4)

BEFORE: Final = 45
AFTER: Final = 59
WAVE: Final = BEFORE + AFTER
"""Samples at 125 Hz around the R peak, 0.36 s before to 0.46 s after it: P wave, QRS complex and most of the T wave."""

QRS: Final = slice(BEFORE - 12, BEFORE + 20)
"""Where the QRS complex lies: a wide one lasts 0.2 s and its R peak may be its first or its last deflection."""

HISTORY: Final = 33
INTERVALS: Final = HISTORY + 3
"""RR intervals: 33 up to the one that ends at the beat, the one after it, two of the last minutes (`usual_intervals`)."""

LONG: Final = 256
LONG_SHARES: Final = (0.5, 0.8)
"""Intervals by which a fast run is told from the rhythm before it, and their quantiles. The higher one is that of the sinus
rhythm even where most beats are premature."""

SHAPES: Final = 7
"""Numbers from the patient's history of shapes: see `features`."""

ROWS: Final = 5
WAVES: Final = 4
SCALARS: Final = 53
"""Rows of the network's input: beat, usual beat, their difference, which samples are known; then a row of numbers."""

RR_RANGE_S: Final = (0.2, 3.0)
"""Intervals outside count as unknown, as in `models.inference.rr_af`."""

NEXT_S: Final = 1.5
"""The interval after the beat is only waited for so long; a longer one counts as this long."""

EARLY: Final = (0.88, 0.7)
"""A beat is early when its interval is shorter than so much of the median of the 32 before it, or of the slow ones (the higher
of `LONG_SHARES`) of the last minutes: in a run that lasts the median is that of early beats. Supraventricular ectopic beats are
early by definition; sinus rhythm hardly changes as much from one beat to the next. Chosen by cross-validation, between 0.85 and
0.9 and between 0.6 and 0.75."""

RUN_WEIGHT: Final = 5.0
RUN_LONGER: Final = 1.12
"""S weighs so many times more in an early beat that follows one called S after an interval at most so many times as long: a run
goes on at its rate until it ends, where a lone ectopic beat is followed by a longer interval (Goldberger's Clinical
Electrocardiography, 15). Chosen by cross-validation with packets lost: 4 to 30 and 1.12 to 1.2 do about as well, 1.06 not."""

_REGIONS: Final = (0, QRS.start, QRS.stop)
"""Where P wave, QRS complex and T wave begin."""
_QRS_SIZE: Final = QRS.stop - QRS.start
_SHARES: Final = np.array([0.1, 0.5, 0.9])
_MOMENTS: Final = np.linspace(0.0, 1.0, _QRS_SIZE)[:, None] ** np.arange(3)
_LEAST_SCALE_MV: Final = 0.05
_REFERENCE_LOG_RR: Final = np.log(0.8)
"""Of 75 beats a minute."""
_TINY: Final = 1e-6

Values = NDArray[np.floating[Any]]


def features(wave_mv: Values, usual_mv: Values, rr_s: Values, shape: Values) -> NDArray[np.float32]:
    """What the network sees of beats; used by training and inference alike.

    Args:
        wave_mv: (n, 104) around the R peaks at 125 Hz, 0.5 to 40 Hz, NaN where missing.
        usual_mv: (n, 104) the patient's usual beat before this one, NaN where there is none yet.
        rr_s: (n, 36) seconds: 33 intervals up to the one that ends at the beat, the one after it, `usual_intervals` of those
            up to the beat; NaN where unknown.
        shape: (n, 7) the share of the patient's beats that look like the usual one, the share of those that look like this one,
            this one's likeness to the latest beat received in full, how early beats of this shape come and how late the next
            ones (logarithms of intervals over the median), how much the beats before and after are like the usual one.

    Returns:
        (n, 5, 104) float32, all within ±3: beat and usual beat over the usual beat's height, their difference, which samples
        are known, and numbers (53, then zeros).
    """
    both = np.empty((len(wave_mv), 2, WAVE), np.result_type(wave_mv, usual_mv))
    both[:, 0], both[:, 1] = wave_mv, usual_mv
    known = np.isfinite(both)
    both[~known] = 0.0
    height = np.maximum.reduce(np.abs(both[:, :, QRS]), -1)
    has_usual = known[:, 1, BEFORE : BEFORE + 1]
    scale = np.maximum(np.where(has_usual, height[:, 1:], height[:, :1]), _LEAST_SCALE_MV)
    both /= scale[:, None]
    out = np.zeros((len(both), ROWS, WAVE), np.float32)
    out[:, :2] = both
    out[:, 2] = (both[:, 0] - both[:, 1]) * (known[:, 0] & has_usual)
    out[:, 3] = known[:, 0]
    share = _sum(known[:, 0, QRS]) / _QRS_SIZE
    np.concatenate((*_rhythm(rr_s), *_shapes(both), shape, has_usual, share), -1, out[:, WAVES, :SCALARS], casting="same_kind")
    np.maximum(out, -3.0, out=out)
    return np.minimum(out, 3.0, out=out)


def _rhythm(rr_s: Values) -> tuple[Values, ...]:
    """How early the beat came, what followed, and how irregular the rhythm was before: (n, 31)."""
    known = (rr_s >= RR_RANGE_S[0]) & (rr_s <= RR_RANGE_S[1])
    log_rr = np.log(np.where(known, rr_s, 1.0))
    is_known = known[:, : HISTORY - 1]
    count = _sum(is_known)
    ordered = np.where(is_known, log_rr[:, : HISTORY - 1], np.inf)
    ordered.sort(-1)
    places = (np.maximum(count - 1, 0) * _SHARES).astype(np.int64)
    quantiles = ordered[np.arange(len(ordered))[:, None], places]
    quantiles[count[:, 0] == 0] = 0.0
    median = quantiles[:, 1:2]
    level = np.where(known, np.minimum(np.maximum(log_rr - median, -1.0), 1.0), 0.0)
    past, now, after = level[:, : HISTORY - 1], level[:, HISTORY - 1 : HISTORY], level[:, HISTORY : HISTORY + 1]
    latest = _sum(past[:, -8:])
    some = np.maximum(count, 1)
    pair = is_known[:, 1:] & is_known[:, :-1]
    change = np.where(pair, np.abs(past[:, 1:] - past[:, :-1]), 0.0)
    pairs = np.maximum(_sum(pair), 1)
    return (
        level[:, HISTORY - 8 : HISTORY + 1],
        np.where(known[:, HISTORY:], now - level[:, HISTORY:], 0.0)[:, 1:],
        np.where(known[:, HISTORY + 1 :], latest / 8 - level[:, HISTORY + 1 :], 0.0),
        known[:, HISTORY - 2 : HISTORY + 1].astype(np.float64),
        median - _REFERENCE_LOG_RR,
        after - now,
        now - past[:, -1:],
        np.log((np.exp(now) + np.exp(after)) / 2),
        4 * _sum(change) / pairs,
        _sum(change > 0.1) / pairs,
        3 * np.sqrt(_sum(past * past) / some),
        quantiles[:, ::2] - median,
        now - quantiles[:, :1] + median,
        _sum(is_known & (past < now + 0.02)) / some,
        _sum(past < -0.12) / some,
        latest / np.maximum(_sum(is_known[:, -8:]), 1),
        count / (HISTORY - 1),
    )


def _shapes(both: Values) -> tuple[Values, ...]:
    """Likeness, height, width and area of beat and usual beat (n, 2, 104): (n, 14)."""
    wave, usual = both[:, 0], both[:, 1]
    cross = np.add.reduceat(wave * usual, _REGIONS, -1)
    heights = np.sqrt(np.add.reduceat(both * both, _REGIONS, -1))
    height, usual_height = heights[:, 0], heights[:, 1]
    qrs = both[:, :, QRS]
    size, power = np.abs(qrs), qrs * qrs
    peak = np.maximum.reduce(size, -1) + _TINY
    moments = power @ _MOMENTS
    middle = moments[..., 1:] / (moments[..., :1] + _TINY)
    spread = np.sqrt(np.maximum(moments[..., 2] / (moments[..., 0] + _TINY) - middle[..., 0] ** 2, 0.0))
    steepest = np.maximum.reduce(np.abs(qrs[..., 1:] - qrs[..., :-1]), -1)
    return (
        cross / (height * usual_height + _TINY),
        np.log((height + 0.1) / (usual_height + 0.1)),
        2 * (np.add.reduce(size, -1) / _QRS_SIZE) / peak,
        5 * spread,
        steepest / peak,
        np.add.reduce(qrs, -1) / _QRS_SIZE,
    )


def _sum(rows: NDArray[Any]) -> NDArray[Any]:
    """Of each row; for so few numbers the method of the array takes twice as long."""
    total: NDArray[Any] = np.add.reduce(rows, -1, keepdims=True)
    return total


def usual_intervals(rr_s: Values) -> Values:
    """Quantiles `LONG_SHARES` of the intervals (n, 256) of the last minutes, NaN where unknown: (n, 2), NaN where none is."""
    ordered = np.sort(rr_s, -1)
    count = np.isfinite(ordered).sum(-1, keepdims=True)
    places = (np.maximum(count - 1, 0) * np.array(LONG_SHARES)).astype(np.int64)
    return np.take_along_axis(ordered, places, -1)


class EcgBeat:
    """Classes of single beats (model `ecg_beat`).

    Attributes:
        name, version: of the model, for findings (`ecg_beat@1`).
        weights: (4,) a beat is called the class with the greatest product of probability and weight.
    """

    def __init__(self, model_bytes: bytes) -> None:
        """Build the session.

        Raises:
            ModelError: the bytes are no model that this version can run.
        """
        self._session = Session("ecg_beat", model_bytes)
        self.name, self.version = self._session.name, self._session.version
        self.weights = np.array([self._session.number(f"weight_{name}") for name in CLASSES])
        if not (self.weights > 0).all():
            raise ModelError("ecg_beat cannot be loaded: its weights are not positive. Reinstall pulsegate.")

    @classmethod
    def load_release(cls) -> Self:
        """The model that this package was released with.

        Raises:
            ModelError: the file or its manifest is missing, altered or cannot be run.
        """
        return cls(released("ecg_beat.onnx"))

    def probabilities(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of `CLASSES`, for many beats at once: what `features` gives, (n, 5, 104), to (n, 4)."""
        return self._session.run(inputs)

    def called(
        self, probabilities: Values, is_early: NDArray[np.bool_], now_s: Values, before_s: float = np.nan
    ) -> NDArray[np.int64]:
        """The places in `CLASSES` of the classes that are called, by this model's weights: see `called`."""
        return called(probabilities, self.weights, is_early, now_s, before_s)


def early(rr_s: Values) -> NDArray[np.bool_]:
    """Which beats came early (`EARLY`), by intervals as in `features`, (n, 36) to (n,).

    Not those that no known interval follows, before gaps and at the end: too little speaks for them.
    """
    before = rr_s[:, : HISTORY - 1].copy()
    before.sort(-1)
    middle = np.maximum(np.add.reduce(np.isfinite(before), -1) - 1, 0) // 2
    usual = before[np.arange(len(before)), middle]
    now = rr_s[:, HISTORY - 1]
    is_early: NDArray[np.bool_] = (now < EARLY[0] * usual) | (now < EARLY[1] * rr_s[:, -1])
    return is_early & np.isfinite(rr_s[:, HISTORY])


def called(
    probabilities: Values, weights: Values, is_early: NDArray[np.bool_], now_s: Values, before_s: float = np.nan
) -> NDArray[np.int64]:
    """The classes of consecutive beats: the greatest product of probability and weight; what S weighs counts only between S
    and N, and only in beats that came early, more in a run (`RUN_WEIGHT`).

    So no ventricular beat is lost to it, and no steady rhythm becomes ectopic.

    Args:
        probabilities: (n, 4).
        weights: (4,).
        is_early: (n,) see `early`.
        now_s: (n,) the intervals that end at the beats, NaN where unknown.
        before_s: that of the beat before them where that was called S, otherwise NaN.

    Returns:
        (n,) places in `CLASSES`.
    """
    without = weights.copy()
    without[S] = 1.0
    place: NDArray[np.int64] = (probabilities * without).argmax(-1)
    for beat in np.flatnonzero(is_early & (place < V)).tolist():
        if beat:
            before_s = float(now_s[beat - 1]) if place[beat - 1] == S else np.nan
        weight = weights[S] * (RUN_WEIGHT if now_s[beat] <= RUN_LONGER * before_s else 1.0)
        place[beat] = S if probabilities[beat, S] * weight > probabilities[beat, N] * weights[N] else N
    return place
