"""Knows this patient's P wave from the signal before each QRS complex, so that it is not taken for a beat in a standstill.

Height alone does not tell a P wave from a low QRS complex: some are 0.4 mV high, or half as high as the complex. But the P
waves of a standstill have the shape and the height of those before it.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.rules.strip import Strip
from models.signal.filters import Samples, median
from models.signal.latest import Latest
from models.signal.resample import RATE_HZ

BEFORE_R_S: Final = (0.36, 0.05)
"""Signal before an R peak that holds the P wave; the PR interval is 0.12 to 0.20 s, or longer in a first-degree block."""

HALF_P_S: Final = 0.06
"""Half the length of a normal P wave, 0.12 s (Surawicz et al. 2009, JACC 53:976)."""

LEARNT_COMPLEXES: Final = 16
MIN_COMPLEXES: Final = 8
"""QRS complexes before which the signal is compared, in its median: one ectopic beat in two does not change it."""

MIN_STEADINESS: Final = 0.8
"""Median correlation of the signals before the complexes with their median: in fibrillation and noise nothing is learnt."""

MAX_OFFSET_S: Final = 0.03
"""Largest distance between the middle of a P wave and the peak that is taken for an R peak."""

MIN_CORRELATION: Final = 0.92
MIN_GAIN: Final = 0.6
MAX_GAIN: Final = 1.4
"""A P wave correlates so with the learnt one, and is so many times as high; it varies with the breath."""

MIDDLE_SAMPLES: Final = 2
"""Largest distance of a wave's highest deflection from its middle, in samples: P waves are not quite symmetric."""

_HALF: Final = round(HALF_P_S * RATE_HZ)
_LENGTH: Final = 2 * _HALF + 1
_BEFORE: Final = round((BEFORE_R_S[0] - BEFORE_R_S[1]) * RATE_HZ)


class KnownPWave:
    """The signal before the latest QRS complexes of one lead, in the median."""

    def __init__(self) -> None:
        self._before_mv = Latest[Samples](LEARNT_COMPLEXES)
        self._templates: Samples | None = None

    def learn(self, t_s: float, signal: Strip) -> None:
        """Learn the signal before a QRS complex whose R peak is at `t_s`."""
        _, mv = signal.strip(t_s - BEFORE_R_S[0], t_s - BEFORE_R_S[1])
        if mv.size >= _BEFORE and np.isfinite(mv).all():
            self._before_mv.append(mv[-_BEFORE:].copy())  # a view would keep the whole strip in memory
            self._templates = None

    def find(self, mv: Samples) -> NDArray[np.intp]:
        """Return the middles of what is like this patient's P wave in (n,) samples at 125 Hz without baseline, as indices."""
        if mv.size < _LENGTH or len(self._before_mv) < MIN_COMPLEXES:
            return np.empty(0, dtype=np.intp)
        parts, known = _centred(np.nan_to_num(mv)), self._known()
        norms, known_norms = np.linalg.norm(parts, axis=1), np.linalg.norm(known, axis=1)
        products = parts @ known.T
        is_alike = products >= MIN_CORRELATION * norms[:, None] * known_norms
        is_as_high = (products >= MIN_GAIN * known_norms**2) & (products <= MAX_GAIN * known_norms**2) & (known_norms > 0)
        return np.flatnonzero((is_alike & is_as_high).any(axis=1)) + _HALF

    def is_p_wave(self, t_s: float, signal: Strip) -> bool:
        """Return whether the complex at `t_s` is like this patient's P wave."""
        reach_s = HALF_P_S + MAX_OFFSET_S
        _, mv = signal.strip(t_s - reach_s, t_s + reach_s)
        return self.find(mv).size > 0

    def blank(self, mv: Samples) -> Samples:
        """Return the samples with zeros in the place of P waves."""
        blanked = mv.copy()
        for middle in self.find(mv):
            blanked[middle - _HALF : middle + _HALF + 1] = 0.0
        return blanked

    def count(self, start_s: float, end_s: float, signal: Strip) -> int:
        """Return the number of P waves between two times."""
        middles = self.find(signal.strip(start_s, end_s)[1])
        return 0 if not middles.size else 1 + int(np.count_nonzero(np.diff(middles) > _HALF))

    def _known(self) -> Samples:
        """Return the (k, length) waves of the median signal before a QRS complex; none if it varies."""
        if self._templates is None:
            parts = np.array(self._before_mv)
            usual = np.array([median(values) for values in parts.T])
            usual -= usual.mean()
            parts -= parts.mean(axis=1, keepdims=True)
            fits = parts @ usual / np.maximum(np.linalg.norm(parts, axis=1) * np.linalg.norm(usual), 1e-9)
            is_steady = median(fits) >= MIN_STEADINESS
            self._templates = _waves(usual) if is_steady else np.empty((0, _LENGTH))
        return self._templates


def _waves(mv: Samples) -> Samples:
    """Return the parts whose highest deflection is in the middle, so that no edge of a QRS complex is among them."""
    parts = _centred(mv)
    waves: Samples = parts[np.abs(np.abs(parts).argmax(axis=1) - _HALF) <= MIDDLE_SAMPLES]
    return waves


def _centred(mv: Samples) -> Samples:
    parts = np.lib.stride_tricks.sliding_window_view(mv, _LENGTH)
    centred: Samples = parts - parts.mean(axis=1, keepdims=True)
    return centred
