"""Measures whether successive intervals repeat. In AF they hardly do; in ectopy, group beating and blocked beats they do.

An ectopic rhythm has a few interval lengths (sinus, coupling, pause) in a few orders, so pairs of successive intervals fall
into clusters. In AF each interval is almost independent of the one before, so pairs are spread evenly.
"""

from typing import Final

import numpy as np

NEAR: Final = 0.04
"""Two pairs of intervals repeat if both intervals differ by less than this share. Ticks of 1/128 s and the variation of the
sinus node between similar beats are smaller."""

AROUND: Final = 4 * NEAR
"""Share within which pairs count as similar at all: the spread of intervals does not change much within it."""

MAYBE_AF_PROBABILITY: Final = 0.5
"""Repetition is measured only in windows with a higher probability of AF: it costs as much as the model."""

_EVEN: Final = (AROUND / NEAR) ** 2
"""How many times more pairs are within the larger share than within the smaller one, where they are spread evenly."""


def measure_repetition(
    rr_s: np.ndarray[tuple[int], np.dtype[np.float64]], valid: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> float:
    """Return how many times more often pairs of successive intervals repeat than if they were spread evenly.

    This is 1 for independent intervals, and 16 where all pairs are the same or belong to a few distinct ones. It is the ratio
    of two correlation sums in two dimensions (Grassberger & Procaccia 1983).

    Args:
        rr_s: (n,) intervals in seconds, oldest first; any value where not valid.
        valid: (n,) whether each is the interval between two consecutive beats.
    """
    log_rr = np.log(np.where(valid, rr_s, 1.0))
    known = valid[:-1] & valid[1:]
    first, second = log_rr[:-1][known], log_rr[1:][known]
    distance = np.maximum(np.abs(first[:, None] - first), np.abs(second[:, None] - second))
    itself = len(first)
    near, around = (int(np.count_nonzero(distance < share)) - itself for share in (NEAR, AROUND))
    return _EVEN * near / max(around, 1)
