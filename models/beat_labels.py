"""A label for every heart beat of a stream: normal (N), supraventricular (S) or ventricular ectopic (V), fusion (F).

A beat is judged 1.5 s after its R peak, when the next beat is known or is late. What is said depends on the samples alone, not
on how they came in chunks.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, isnan, log
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.inference.ecg_beat import (
    BEFORE,
    CLASSES,
    HISTORY,
    LONG,
    LONG_SHARES,
    NEXT_S,
    QRS,
    WAVE,
    EcgBeat,
    N,
    S,
    V,
    early,
    features,
    usual_intervals,
)
from models.signal.chain import Beat, EcgChain
from models.signal.filters import Samples, median
from models.signal.resample import RATE_HZ

FOLLOWED_S: Final = 0.25
"""So long after the next beat's latest R peak its QRS complex is over, and no longer does the detector wait (0.33 s)."""

UNKNOWN: Final = "?"
"""Half of the QRS complex or more was not received: its class is not known."""

LEAST_KNOWN: Final = 0.5

ALIKE: Final = 0.9
"""Cosine of two QRS complexes from which they have one shape."""

SHIFT: Final = 4
"""Samples by which QRS complexes are moved to compare them: the R peak of a wide one jitters."""

_MOVED: Final = np.arange(-SHIFT, SHIFT + 1)[:, None] + np.arange(QRS.start, QRS.stop)
"""The places of the QRS complex, moved by each number of samples."""
_WIDTH: Final = QRS.stop - QRS.start
_ALL_KNOWN: Final = np.ones(_MOVED.shape)

FAMILIES: Final = 6
"""Shapes that are remembered; few patients have more than three."""

MEAN_OF: Final = 32
"""Beats that a shape is averaged over, in effect: long enough to quiet noise, short enough to follow a change of posture."""

FORGETTING: Final = 1 / 300
"""Per beat: what was usual five minutes ago counts a third."""

USUAL_EVERY: Final = 8
"""Beats between two looks at the intervals of the last minutes, but for the first few."""

VENTRICULAR_IN_AF: Final = 0.5
"""What the odds of V are multiplied by in atrial fibrillation: there early beats are no sign of it, and conduction through the
ventricles is often aberrant after a long interval and a short one (Gouaux & Ashman, Am Heart J 34, 1947)."""

RATHER_EARLY: Final = 0.88
EARLY_WEIGHT: Final = 0.25
"""A beat that comes earlier than this share of the median interval, or after a gap, hardly says what is usual: it may be
ectopic."""


@dataclass(frozen=True, slots=True)
class LabelledBeat:
    """A beat, its label and the probability of it: 1 where there is no model, 0 where the label is "?"."""

    t_s: float
    amplitude_mv: float
    after_gap: bool
    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class Context:
    """All that a beat is judged by: see `models.inference.ecg_beat.features`, without the first axis of its arrays."""

    beat: Beat
    wave_mv: Samples
    usual_mv: Samples
    rr_s: Samples
    shape: tuple[float, ...]


class BeatLabeller:
    """Labels the beats of one `EcgChain`; without a model every beat is N."""

    def __init__(self, model: EcgBeat | None) -> None:
        self._model = model
        self._contexts = BeatContexts()
        self._in_af = False
        self._run_s = np.nan
        """The interval that ended at the latest beat if that was called S, otherwise NaN."""

    def push(self, beats: Sequence[Beat], chain: EcgChain, in_af: bool = False) -> list[LabelledBeat]:
        """What the chain just reported; the beats that can be judged now, in order.

        `in_af`: the rhythm is atrial fibrillation, see `in_fibrillation`.
        """
        self._in_af = in_af
        return self._judged(self._contexts.push(beats, chain))

    def finish(self, chain: EcgChain) -> list[LabelledBeat]:
        """No more will come (`chain` has been finished and its beats pushed): the rest."""
        return self._judged(self._contexts.flush(chain))

    def gap(self, chain: EcgChain) -> list[LabelledBeat]:
        """Nothing will come for a while: the same."""
        return self._judged(self._contexts.flush(chain))

    def _judged(self, contexts: Iterator[Context]) -> list[LabelledBeat]:
        return [self._label(context) for context in contexts]

    def _label(self, context: Context) -> LabelledBeat:
        beat = context.beat
        before_s, self._run_s = self._run_s, np.nan
        if self._model is None:
            return LabelledBeat(beat.t_s, beat.amplitude_mv, beat.after_gap, "N", 1.0)
        if np.count_nonzero(np.isfinite(context.wave_mv[QRS])) <= LEAST_KNOWN * _WIDTH:
            return LabelledBeat(beat.t_s, beat.amplitude_mv, beat.after_gap, UNKNOWN, 0.0)
        # One by one: sums may differ in the last bit between batch sizes.
        rr_s, shape = context.rr_s[None], np.array([context.shape])
        probabilities = self._model.probabilities(features(context.wave_mv[None], context.usual_mv[None], rr_s, shape))
        if self._in_af:
            probabilities = in_fibrillation(probabilities)
        now_s = rr_s[:, HISTORY - 1]
        place = int(self._model.called(probabilities, early(rr_s), now_s, before_s)[0])
        if place == S:
            self._run_s = float(now_s[0])
        return LabelledBeat(beat.t_s, beat.amplitude_mv, beat.after_gap, CLASSES[place], float(probabilities[0, place]))


def in_fibrillation(probabilities: NDArray[Any]) -> NDArray[Any]:
    """The probabilities (n, 4) of `CLASSES` in atrial fibrillation: no early beat of atrial origin is ectopic, V is doubted."""
    shares = probabilities.copy()
    shares[:, N] += shares[:, S]
    shares[:, S] = 0.0
    shares[:, V] *= VENTRICULAR_IN_AF
    doubted: NDArray[Any] = shares / shares.sum(-1, keepdims=True)
    return doubted


class BeatContexts:
    """Collects what each beat is judged by; training uses it as the agent does."""

    def __init__(self) -> None:
        self._waiting: deque[Beat] = deque()
        self._rr_s: deque[float] = deque([np.nan] * HISTORY, HISTORY)
        self._long_s: deque[float] = deque([np.nan] * LONG, LONG)
        self._usual_s = np.full(len(LONG_SHARES), np.nan)
        self._count = 0
        self._last_s = np.nan
        self._families = _Families()

    def push(self, beats: Sequence[Beat], chain: EcgChain) -> Iterator[Context]:
        """The beats whose context is complete, in order."""
        self._waiting.extend(beats)
        horizon_s = chain.horizon_s
        while self._waiting and horizon_s >= self._waiting[0].t_s + NEXT_S:
            yield self._context(self._waiting.popleft(), chain)

    def flush(self, chain: EcgChain) -> Iterator[Context]:
        """Nothing follows what has come."""
        while self._waiting:
            yield self._context(self._waiting.popleft(), chain)

    def _context(self, beat: Beat, chain: EcgChain) -> Context:
        self._rr_s.append(np.nan if beat.after_gap else beat.t_s - self._last_s)
        self._last_s = beat.t_s
        self._long_s.append(self._rr_s[-1])
        if self._count < USUAL_EVERY or self._count % USUAL_EVERY == 0:
            self._usual_s = usual_intervals(np.array(self._long_s)[None])[0]
        self._count += 1
        rr_s = np.array([*self._rr_s, self._next(beat, chain), *self._usual_s])
        wave = _wave(beat, chain)
        following = _wave(self._waiting[0], chain, beat.t_s + NEXT_S + FOLLOWED_S) if rr_s[HISTORY] < NEXT_S else None
        usual, shape = self._families.compare(wave, following, _timing(rr_s))
        return Context(beat, wave, usual, rr_s, shape)

    def _next(self, beat: Beat, chain: EcgChain) -> float:
        """The interval after the beat, `NEXT_S` at most; NaN where a gap or the end comes first."""
        end_s = beat.t_s + NEXT_S
        if self._waiting and self._waiting[0].t_s < end_s:
            following = self._waiting[0]
            return np.nan if following.after_gap else following.t_s - beat.t_s
        _, signal = chain.strip(beat.t_s, end_s)
        return NEXT_S if signal.size >= int(NEXT_S * RATE_HZ) and not np.isnan(signal).any() else np.nan


class _Timing(NamedTuple):
    """How early a beat came and how late the next one was: logarithms of the intervals over the median, NaN where unknown;
    how much the beat says about what is usual.
    """

    intervals: tuple[float, float]
    weight: float


class _Moved(NamedTuple):
    """A QRS complex moved by each number of samples, less its mean, 0 where it was not received (9, 32); the root of its power
    (9, 1); which samples are known, 1 or 0 (9, 32), and how many of them (9, 1).
    """

    rows: Samples
    size: Samples
    known: Samples
    received: Samples

    @property
    def whole(self) -> bool:
        """Whether all of it was received."""
        return self.known is _ALL_KNOWN


class _Families:
    """The shapes of QRS complexes that a patient has, how common each is, and when such beats come."""

    def __init__(self) -> None:
        self._means = np.zeros((0, WAVE))
        self._timings: list[list[float]] = []
        self._seen: list[int] = []
        self._weights = np.zeros(0)
        self._last: Samples | None = None
        self._last_usual = 0.0

    def compare(self, wave: Samples, following: Samples | None, timing: _Timing) -> tuple[Samples, tuple[float, ...]]:
        """The usual beat so far, and the numbers of `features`; then learn this one."""
        known = bool(self._seen)
        leader = int(self._weights.argmax()) if known else -1
        usual = self._means[leader].copy() if known else np.full(WAVE, np.nan)
        total = max(float(self._weights.sum()), 1e-9)
        share = float(self._weights[leader]) / total if known else 0.0
        next_usual = _alike(_moved(following), usual) if known and following is not None else 0.0
        before, self._last_usual = self._last_usual, 0.0
        moved = _moved(wave)
        if moved is None:
            return usual, (share, 0.0, 0.0, 0.0, 0.0, before, next_usual)
        likeness, lag = _likeness(moved, self._means)
        to_last = _alike(moved, self._last) if self._last is not None else 0.0
        own = int(likeness.argmax()) if known else -1
        familiar = known and float(likeness[own]) >= ALIKE
        own_share = float(self._weights[own]) / total if familiar else 0.0
        sooner, later = self._timings[own] if familiar else (0.0, 0.0)
        self._last_usual = float(likeness[leader]) if known else 0.0
        if moved.whole:
            self._last = wave
            self._weights *= 1 - FORGETTING
            if familiar:
                self._learn(own, wave, int(lag[own]), timing)
            else:
                self._add(wave, timing)
        return usual, (share, own_share, to_last, sooner, later, before, next_usual)

    def _learn(self, family: int, wave: Samples, lag: int, timing: _Timing) -> None:
        self._seen[family] += 1
        share = 1 / min(self._seen[family], MEAN_OF)
        mean = self._means[family]
        step = np.concatenate((wave[lag:], wave[:lag]))
        step -= mean
        step[np.isnan(step)] = 0.0
        mean += share * step
        usual = self._timings[family]
        usual[:] = [old if isnan(new) else old + share * (new - old) for old, new in zip(usual, timing.intervals, strict=True)]
        self._weights[family] += timing.weight

    def _add(self, wave: Samples, timing: _Timing) -> None:
        mean = np.where(np.isnan(wave), 0.0, wave)
        when = [0.0 if isnan(interval) else interval for interval in timing.intervals]
        if len(self._seen) == FAMILIES:
            rarest = int(self._weights.argmin())
            self._means[rarest], self._timings[rarest] = mean, when
            self._seen[rarest], self._weights[rarest] = 1, timing.weight
            return
        self._means = np.vstack((self._means, mean))
        self._timings.append(when)
        self._seen.append(1)
        self._weights = np.append(self._weights, timing.weight)


def _moved(wave: Samples) -> _Moved | None:
    """None where too little of the QRS complex, or of what lies `SHIFT` samples around it, was received."""
    rows = wave[_MOVED]
    known = _ALL_KNOWN
    if isnan(np.add.reduce(wave[QRS.start - SHIFT : QRS.stop + SHIFT])):
        known = np.isfinite(rows).astype(np.float64)
        rows[known == 0] = 0.0
    received = np.add.reduce(known, -1, keepdims=True)
    if received.min() <= LEAST_KNOWN * _WIDTH:
        return None
    rows -= known * (np.add.reduce(rows, -1, keepdims=True) / received)
    return _Moved(rows, np.sqrt(np.vecdot(rows, rows))[:, None], known, received)


def _alike(moved: _Moved | None, other: Samples) -> float:
    """The greatest cosine of two QRS complexes; 0 where the first is not known."""
    return float(_likeness(moved, other[None])[0][0]) if moved else 0.0


def _likeness(moved: _Moved, means: Samples) -> tuple[Samples, Samples]:
    """The greatest cosine of the QRS complex with each mean (k, 104), moved by up to `SHIFT` samples, and that move.

    Of the known samples alone, both less their means there.
    """
    shapes = means[:, QRS].T
    power = moved.known @ (shapes * shapes) - (moved.known @ shapes) ** 2 / moved.received
    cosine = moved.rows @ shapes / (moved.size * np.sqrt(np.maximum(power, 0.0)) + 1e-9)
    best = cosine.argmax(0)
    return np.maximum.reduce(cosine, 0), best - SHIFT


def _wave(beat: Beat, chain: EcgChain, until_s: float | None = None) -> Samples:
    """The signal around the R peak, NaN where it is missing or no longer kept.

    With `until_s` by what came before that time, and before a gap that begins earlier: of a stream, no more may be there yet.
    """
    first = round(beat.t_s * RATE_HZ) - BEFORE
    start_s, signal = chain.strip((first - 0.5) / RATE_HZ, until_s or (first + WAVE - 0.5) / RATE_HZ, until_s or inf)
    place = round(start_s * RATE_HZ) - first
    if until_s and (lost := np.flatnonzero(np.isnan(signal[max(BEFORE - place, 0) :]))).size:
        return _wave(beat, chain, (first + max(BEFORE, place) + int(lost[0]) - 0.5) / RATE_HZ)
    wave = np.full(WAVE, np.nan)
    wave[place : place + signal.size] = signal[: WAVE - place]
    return wave


def _timing(rr_s: Samples) -> _Timing:
    before = rr_s[: HISTORY - 1]
    known = before[np.isfinite(before)]
    if not known.size:
        return _Timing((np.nan, np.nan), 1.0)
    usual = median(known)
    sooner, later = (min(max(log(rr / usual), -1.0), 1.0) for rr in rr_s[HISTORY - 1 : HISTORY + 1].tolist())
    return _Timing((sooner, later), 1.0 if sooner >= log(RATHER_EARLY) else EARLY_WEIGHT)
