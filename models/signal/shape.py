"""What this patient's QRS complex looks like, and how to tell it best from what lies between the beats.

In noise a filter matched to the patient's own complex sees beats that an envelope does not: Fisher's linear discriminant, the
mean complex over the covariance of the signal between beats (a whitened matched filter; Van Trees 1968, section 4.3).
"""

from collections import deque
from dataclasses import dataclass
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
"""Beats that tell how far the R peak lies from where the filter fits best."""


@dataclass(frozen=True, slots=True)
class Match:
    """How a peak compares: `height` of the filter's output (1 for the mean complex), correlation with the nearest shape, with
    the usual shape, and where the filter fits best, in samples from the envelope's peak.
    """

    height: float
    likeness: float
    usual: float
    shift: float


class QrsShape:
    """Learns from every accepted beat; samples are those of `SHAPE_BAND`."""

    def __init__(self) -> None:
        self._count = 0
        self._mean: Samples = np.zeros(2 * REACH + 1)
        self._other: Samples | None = None
        self._covariance: Samples | None = None
        self._filter: Samples | None = None
        self._offsets = deque[float](maxlen=MEMORY)

    def match(self, around: Samples) -> Match | None:
        """Compare the 2 `AROUND` + 1 samples around a peak; None while too little has been learnt."""
        if self._filter is None:
            return None
        output = np.correlate(around, self._filter, "valid")
        place = int(output.argmax())
        windows = np.lib.stride_tricks.sliding_window_view(around, 2 * REACH + 1)
        usual = _likeness(windows[max(place - 2, 0) : place + 3], self._mean)
        likeness = usual if self._other is None else max(usual, _likeness(windows, self._other))
        return Match(max(float(output[place]), 0.0), likeness, usual, place - SHIFT + summit(output, place))

    def offset(self, match: Match, peak: float) -> float | None:
        """How far the R peak lies from the filter's place in the latest beats; None while that is not known.

        `peak` is where the R peak of this beat seems to be, in the samples of `match.shift`.
        """
        if match.usual < SAME:
            return None
        self._offsets.append(peak - match.shift)
        return float(np.median(self._offsets)) if len(self._offsets) >= MEMORY // 4 else None

    def learn(self, around: Samples, between: Samples, match: Match | None, noise: float) -> None:
        """Take in one beat: the samples around it, those between it and the beat before, noise as a share of a beat."""
        shift = round(match.shift) if match else 0
        complexes = around[SHIFT + shift : SHIFT + shift + 2 * REACH + 1]
        if match and match.usual < SAME and noise < QUIET:
            self._learn_other(around)
        self._count += 1
        if self._count == 1 or _likeness(complexes[None], self._mean) > SAME:
            weight = max(1 / self._count, RECENT)
            self._mean = (1 - weight) * self._mean + weight * complexes
        if between.size > 2 * REACH + 1:
            self._learn_noise(between - between.mean())
        if self._covariance is not None and self._count >= ENOUGH:
            lags = np.abs(np.subtract.outer(np.arange(2 * REACH + 1), np.arange(2 * REACH + 1)))
            covariance = self._covariance[lags]
            covariance[np.diag_indices_from(covariance)] += RIDGE * self._covariance[0] + 1e-6
            whitened = np.linalg.solve(covariance, self._mean)
            self._filter = whitened / float(whitened @ self._mean)

    def _learn_other(self, around: Samples) -> None:
        if self._other is None:
            self._other = around[SHIFT : SHIFT + 2 * REACH + 1].copy()
        else:
            place = int(np.correlate(around, self._other, "valid").argmax())
            self._other = 0.8 * self._other + 0.2 * around[place : place + 2 * REACH + 1]

    def _learn_noise(self, between: Samples) -> None:
        lags: Samples = np.correlate(between, between, "full")[between.size - 1 : between.size + 2 * REACH] / between.size
        before = lags if self._covariance is None else self._covariance
        mean: Samples = (1 - RECENT_NOISE) * before + RECENT_NOISE * lags
        self._covariance = mean


def _likeness(windows: Samples, shape: Samples) -> float:
    """The best correlation of any of the windows (n, samples) with a shape."""
    norms = np.sqrt((windows * windows).sum(axis=1) * float(shape @ shape)) + 1e-9
    return float((windows @ shape / norms).max())


def summit(values: Samples, place: int) -> float:
    """How far the top of the parabola through a maximum and its neighbours lies from it."""
    if not 0 < place < values.size - 1:
        return 0.0
    before, at, after = values[place - 1 : place + 2].tolist()
    return float(0.5 * (before - after) / (before - 2 * at + after)) if at > min(before, after) else 0.0
