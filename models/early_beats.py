"""Judges an early beat together with the patient's earlier early beats: they often have the same origin.

The model judges each beat alone. In respiratory sinus arrhythmia it doubts each early beat, and calls some of them
supraventricular. The mean over a patient's early beats is low there, and high beside true ectopy.
"""

from math import exp, log
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.inference.ecg_beat import N, S, V

MEAN_WEIGHT: Final = 0.5
"""The mean of many early beats weighs half as much as the beat itself, because they may have several origins."""

HALF_WEIGHT_BEATS: Final = 10
"""After this many early beats their mean has half of its weight."""

MEMORY_BEATS: Final = 256
"""Effective number of beats in the mean, so that what was hours ago is forgotten."""

MAX_LOG_ODDS: Final = 4.0
"""Limit of a beat's log odds in the mean (98 %), so that no single beat decides."""

_LEAST: Final = 1e-9


class EarlyBeats:
    """Remembers how supraventricular one patient's early beats looked."""

    def __init__(self) -> None:
        self._mean_log_odds, self._count = 0.0, 0

    def adjust(self, probabilities: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Return the probabilities (4,) of an early beat with the odds of S against N drawn towards the mean; then learn it.

        A ventricular beat is neither changed nor learnt.
        """
        if probabilities[V] > 0.5:
            return probabilities
        of_s, of_n = (max(float(probabilities[index]), _LEAST) for index in (S, N))
        log_odds, weight = log(of_s / of_n), MEAN_WEIGHT * self._count / (self._count + HALF_WEIGHT_BEATS)
        share_of_s = 1 / (1 + exp(-(log_odds + weight * self._mean_log_odds) / (1 + weight)))
        self._count += 1
        limited = min(max(log_odds, -MAX_LOG_ODDS), MAX_LOG_ODDS)
        self._mean_log_odds += (limited - self._mean_log_odds) / min(self._count, MEMORY_BEATS)
        adjusted = probabilities.copy()
        adjusted[S], adjusted[N] = share_of_s * (of_s + of_n), (1 - share_of_s) * (of_s + of_n)
        return adjusted
