"""What this patient's QRS complex looks like, and how to tell it best from what lies between the beats.

In noise a filter matched to the patient's own complex sees beats that an envelope does not: Fisher's linear discriminant, the
mean complex over the covariance of the signal between beats (a whitened matched filter; Van Trees 1968, section 4.3).
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np

from models.signal.filters import Samples, bandpass
from models.signal.resample import RATE_HZ

SHAPE_BAND: Final = bandpass(3.0, 30.0, RATE_HZ, half=round(0.128 * RATE_HZ))
"""What a complex is compared in: nearly all of it, without wander."""

REACH: Final = round(0.096 * RATE_HZ)
"""Half of a complex: a wide one lasts 0.16 s."""

SHIFT: Final = 4
"""How far, in samples, a complex may lie from the envelope's peak."""

AROUND: Final = REACH + SHIFT
"""Samples on either side of a peak that a comparison needs."""

GUARD: Final = round(0.112 * RATE_HZ)
"""So far from a beat begins what lies between beats."""

RIDGE: Final = 0.05
"""Share of the power added as white noise: no filter hangs on a frequency that happens to be silent."""

RECENT: Final = 0.1
"""Weight of the newest complex in the mean."""

RECENT_NOISE: Final = 0.05
"""Weight of the newest interval in the covariance."""

ENOUGH: Final = 4
"""Complexes from which on the mean is used."""

SAME: Final = 0.5
"""Correlation from which on a complex has the usual shape; normal beats in clean signal have 0.83 and more."""

QUIET: Final = 0.25
"""In noise under this share of a beat, another shape is the heart's: a second one is learnt, for ventricular beats."""

MEMORY: Final = 32
"""Beats that tell how far the R peak lies from where the filter fits best, and that wait to be learnt from."""

RENEWED: Final = 4
"""Beats after which the filter is made anew."""

LEAST_HEIGHT_MV: Final = 0.01
"""A mean complex counts as at least so high, so that nothing is divided by zero."""

MARGIN: Final = SHAPE_BAND.size // 2
"""Samples on either side that the band's filter takes."""

_LAGS: Final = np.abs(np.subtract.outer(np.arange(2 * REACH + 1), np.arange(2 * REACH + 1)))

_WIDTH: Final = np.ones(2 * REACH + 1)


@dataclass(frozen=True, slots=True)
class Match:
    """How a peak compares: `height` of the filter's output (1 for the mean complex), correlation with the nearest shape, with
    the usual shape, and where the filter fits best, in samples from the envelope's peak.
    """

    height: float
    likeness: float
    usual: float
    shift: float


@dataclass(frozen=True, slots=True)
class BeatSignal:
    """What can be learnt from a beat.

    The samples around it and those `between` the beat before and it (empty at a start), both with `MARGIN` more at either end;
    its match, if there is one; its R peak, in samples from the envelope's; the noise as a share of a beat.
    """

    around: Samples
    between: Samples
    match: Match | None
    peak: float
    noise: float


class QrsShape:
    """Learns from accepted beats, but only when a comparison is due: in a clean signal none is."""

    def __init__(self) -> None:
        self._unlearnt = deque[BeatSignal](maxlen=MEMORY)
        self._count = 0
        self._mean: Samples = np.zeros(2 * REACH + 1)
        self._other: Samples | None = None
        self._covariance: Samples | None = None
        self._filter: Samples | None = None
        self._offsets = deque[float](maxlen=MEMORY)

    def add(self, beat: BeatSignal) -> None:
        """A beat was accepted."""
        self._unlearnt.append(beat)

    def match(self, around: Samples) -> Match | None:
        """Compare the samples around a peak, `AROUND` + `MARGIN` on either side; None while too little has been learnt."""
        self._catch_up()
        return None if self._filter is None else self._compare(_in_band(around), self._filter)

    def view(self, around: Samples) -> Samples | None:
        """The signal in the shape's band, in heights of the mean complex and upright, and the filter's output for it, (2, n).

        None while too little has been learnt. `around` has `MARGIN` samples more before them.
        """
        self._catch_up()
        if self._filter is None:
            return None
        band = _in_band(np.concatenate((around, np.full(MARGIN, around[-1]))))
        high, low = float(self._mean.max()), float(self._mean.min())
        upright = max(high - low, LEAST_HEIGHT_MV) * (1 if high >= -low else -1)
        return np.stack((band / upright, np.correlate(band, self._filter, "same")))

    def offset(self, match: Match) -> float | None:
        """How far the R peak lies from the filter's place in the latest beats; None while that is not known."""
        self._catch_up()
        if match.usual < SAME or len(self._offsets) < MEMORY // 4:
            return None
        return _median(self._offsets)

    def _catch_up(self) -> None:
        while self._unlearnt:
            beat = self._unlearnt.popleft()
            around, match = _in_band(beat.around), beat.match
            if match is None and self._filter is not None:
                match = self._compare(around, self._filter)
            if match and match.usual >= SAME:
                self._offsets.append(beat.peak - match.shift)
            self._learn(around, match, beat.noise)
            if beat.between.size > 2 * (REACH + MARGIN) + 1:
                self._learn_noise(_in_band(beat.between))
            if self._covariance is not None and (self._count == ENOUGH or self._count % RENEWED == 0 or self._filter is None):
                self._renew(self._covariance)

    def _compare(self, around: Samples, matched: Samples) -> Match:
        output = np.correlate(around, matched, "valid")
        place = int(output.argmax())
        power = np.correlate(around * around, _WIDTH, "valid")
        near = slice(max(place - 2, 0), place + 3)
        usual = _likeness(around, power, self._mean, near)
        likeness = usual if self._other is None else max(usual, _likeness(around, power, self._other, slice(0, None)))
        return Match(max(float(output[place]), 0.0), likeness, usual, place - SHIFT + summit(output, place))

    def _learn(self, around: Samples, match: Match | None, noise: float) -> None:
        """Take in one beat."""
        shift = round(match.shift) if match else 0
        complexes = around[SHIFT + shift : SHIFT + shift + 2 * REACH + 1]
        if match and match.usual < SAME and noise < QUIET:
            self._learn_other(around)
        self._count += 1
        if self._count == 1 or _correlation(complexes, self._mean) > SAME:
            weight = max(1 / self._count, RECENT)
            self._mean = (1 - weight) * self._mean + weight * complexes

    def _learn_other(self, around: Samples) -> None:
        if self._other is None:
            self._other = around[SHIFT : SHIFT + 2 * REACH + 1].copy()
        else:
            place = int(np.correlate(around, self._other, "valid").argmax())
            self._other = 0.8 * self._other + 0.2 * around[place : place + 2 * REACH + 1]

    def _learn_noise(self, between: Samples) -> None:
        between = between - between.sum() / between.size
        lags: Samples = np.correlate(np.concatenate((between, np.zeros(2 * REACH))), between, "valid") / between.size
        before = lags if self._covariance is None else self._covariance
        mean: Samples = (1 - RECENT_NOISE) * before + RECENT_NOISE * lags
        self._covariance = mean

    def _renew(self, lags: Samples) -> None:
        if self._count < ENOUGH:
            return
        covariance = lags[_LAGS]
        covariance.flat[:: 2 * REACH + 2] += RIDGE * lags[0] + 1e-6
        whitened = np.asarray(np.linalg.solve(covariance, self._mean), np.float64)
        matched: Samples = whitened / float(whitened @ self._mean)
        self._filter = matched


def _in_band(x: Samples) -> Samples:
    return np.correlate(x, SHAPE_BAND, "valid")


def _likeness(around: Samples, power: Samples, shape: Samples, near: slice) -> float:
    """The best correlation with a shape of the windows that begin in `near`; `power` is their sum of squares."""
    alike = np.correlate(around, shape, "valid")[near]
    return float((alike / (np.sqrt(power[near] * float(shape @ shape)) + 1e-9)).max())


def _correlation(x: Samples, shape: Samples) -> float:
    return float(x @ shape) / (sqrt(float(x @ x) * float(shape @ shape)) + 1e-9)


def _median(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return 0.5 * (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2])


def summit(values: Samples, place: int) -> float:
    """How far the top of the parabola through a maximum and its neighbours lies from it."""
    if not 0 < place < values.size - 1:
        return 0.0
    before, at, after = values[place - 1 : place + 2].tolist()
    return float(0.5 * (before - after) / (before - 2 * at + after)) if at > min(before, after) else 0.0
