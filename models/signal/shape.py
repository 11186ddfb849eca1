"""What this patient's QRS complex looks like, and how to tell it best from what lies between the beats.

In noise a filter matched to the patient's own complex sees beats that an envelope does not: Fisher's linear discriminant, the
mean complex over the covariance of the signal between beats (a whitened matched filter; Van Trees 1968, section 4.3).
"""

from collections import deque
from math import sqrt
from typing import Final, NamedTuple

import numpy as np

from models.signal.filters import Samples, bandpass, diagonals, median_of, windows
from models.signal.peak import summit
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

LIKE_QRS: Final = 0.8
"""Correlation from which on a peak is as like a complex as it needs to be: beats in muscle noise at 12 dB have 0.8 and more."""

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

_SILENCE: Final = np.zeros(2 * REACH)

_PLACES: Final = 2 * SHIFT + 1
"""Where a complex may begin in the samples around a peak."""

_SUMS: Final = windows(np.ones(2 * REACH + 1), _PLACES)

_IN_BAND: Final = windows(SHAPE_BAND, 2 * AROUND + 1)


class Match(NamedTuple):
    """How a peak compares: `height` of the filter's output (1 for the mean complex), correlation with the nearest shape (the
    usual one, when that is near enough), with the usual shape, where the filter fits best, in samples from the envelope's peak,
    and the samples around the peak in `SHAPE_BAND`, `AROUND` on either side.
    """

    height: float
    likeness: float
    usual: float
    shift: float
    around: Samples


class BeatSignal(NamedTuple):
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
        self._known = False
        """Whether enough has been learnt for a filter."""
        self._mean: Samples = np.zeros(2 * REACH + 1)
        self._upright = LEAST_HEIGHT_MV
        """The mean's height, negative where it points down."""
        self._other: Samples = np.zeros(2 * REACH + 1)
        self._energy = self._other_energy = 0.0
        """Their sums of squares; 0 while there is no other shape."""
        self._covariance: Samples | None = None
        self._windows: Samples = np.zeros((2 * AROUND + 1, 3 * _PLACES))
        """Filter, mean and other shape at each place: what the samples around a peak are multiplied with."""
        thirds = [self._windows[:, start : start + _PLACES] for start in range(0, 3 * _PLACES, _PLACES)]
        self._filter_at, self._mean_at, self._other_at = (diagonals(third, 2 * REACH + 1) for third in thirds)
        self._offsets = deque[float](maxlen=MEMORY)

    def wants(self, noise: float) -> bool:
        """Whether to learn from a beat in noise of this share of it."""
        return True

    def add(self, beat: BeatSignal) -> None:
        """A beat was accepted."""
        self._unlearnt.append(beat)

    def match(self, around: Samples) -> Match | None:
        """Compare the samples around a peak, `AROUND` + `MARGIN` on either side; None while too little has been learnt."""
        self._catch_up()
        return self._compare(around.dot(_IN_BAND)) if self._known else None

    def view(self, around: Samples) -> Samples | None:
        """The signal in the shape's band, in heights of the mean complex and upright, and the filter's output for it, (2, n).

        None while too little has been learnt. `around` has `MARGIN` samples more before them.
        """
        self._catch_up()
        if not self._known:
            return None
        continued = np.empty(around.size + MARGIN)
        continued[:-MARGIN] = around
        continued[-MARGIN:] = around[-1]
        band = np.correlate(continued, SHAPE_BAND, "valid")
        rows = np.empty((2, band.size))
        np.divide(band, self._upright, out=rows[0])
        rows[1] = np.correlate(band, self._filter_at[0], "same")
        return rows

    def offset(self, match: Match) -> float | None:
        """How far the R peak lies from the filter's place in the latest beats; None while that is not known."""
        self._catch_up()
        if match.usual < SAME or len(self._offsets) < MEMORY // 4:
            return None
        return median_of(self._offsets)

    def _catch_up(self) -> None:
        while self._unlearnt:
            beat = self._unlearnt.popleft()
            match = beat.match
            around = match.around if match else beat.around.dot(_IN_BAND)
            if match is None and self._known:
                match = self._compare(around)
            if match and match.usual >= SAME:
                self._offsets.append(beat.peak - match.shift)
            self._learn(around, match, beat.noise)
            if beat.between.size > 2 * (REACH + MARGIN) + 1:
                self._learn_noise(np.correlate(beat.between, SHAPE_BAND, "valid"))
            if self._covariance is not None and (self._count == ENOUGH or self._count % RENEWED == 0 or not self._known):
                self._renew(self._covariance)

    def _compare(self, around: Samples) -> Match:
        products = around.dot(self._windows).tolist()
        power = (around * around).dot(_SUMS).tolist()
        output = products[:_PLACES]
        highest = max(output)
        place = output.index(highest)
        near = slice(max(place - 2, 0), place + 3)
        usual = likeness = _likeness(products[_PLACES : 2 * _PLACES][near], power[near], self._energy)
        if self._other_energy and usual < LIKE_QRS:
            likeness = max(usual, _likeness(products[2 * _PLACES :], power, self._other_energy))
        return Match(max(highest, 0.0), likeness, usual, place - SHIFT + summit(output, place), around)

    def _learn(self, around: Samples, match: Match | None, noise: float) -> None:
        """Take in one beat."""
        shift = round(match.shift) if match else 0
        complexes = around[SHIFT + shift : SHIFT + shift + 2 * REACH + 1]
        if match and match.usual < SAME and noise < QUIET:
            self._learn_other(around)
        self._count += 1
        if self._count == 1 or self._correlation(complexes) > SAME:
            weight = max(1 / self._count, RECENT)
            self._mean *= 1 - weight
            self._mean += weight * complexes
            self._energy = float(self._mean.dot(self._mean))
            self._mean_at[:] = self._mean
            mean = self._mean.tolist()
            high, low = max(mean), min(mean)
            self._upright = max(high - low, LEAST_HEIGHT_MV) * (1 if high >= -low else -1)

    def _correlation(self, complexes: Samples) -> float:
        """With the mean."""
        return float(complexes.dot(self._mean)) / (sqrt(float(complexes.dot(complexes)) * self._energy) + 1e-9)

    def _learn_other(self, around: Samples) -> None:
        if self._other_energy:
            place = int(np.correlate(around, self._other, "valid").argmax())
            self._other = 0.8 * self._other + 0.2 * around[place : place + 2 * REACH + 1]
        else:
            self._other = around[SHIFT : SHIFT + 2 * REACH + 1].copy()
        self._other_energy = float(self._other.dot(self._other))
        self._other_at[:] = self._other

    def _learn_noise(self, between: Samples) -> None:
        between -= np.add.reduce(between) / between.size
        lags: Samples = np.correlate(np.concatenate((between, _SILENCE)), between, "valid")
        if self._covariance is None:
            self._covariance = lags / between.size
        else:
            self._covariance *= 1 - RECENT_NOISE
            lags *= RECENT_NOISE / between.size
            self._covariance += lags

    def _renew(self, lags: Samples) -> None:
        if self._count < ENOUGH:
            return
        ridged = lags.copy()
        ridged[0] += RIDGE * lags[0] + 1e-6
        whitened = np.asarray(np.linalg.solve(ridged[_LAGS], self._mean), np.float64)
        self._filter_at[:] = whitened / float(whitened.dot(self._mean))
        self._known = True


def _likeness(products: list[float], power: list[float], energy: float) -> float:
    """The best correlation of windows with a shape: their products with it, their sums of squares and its own."""
    return max([product / (sqrt(squares * energy) + 1e-9) for product, squares in zip(products, power, strict=True)])
