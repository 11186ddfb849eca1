"""What a network sees of a bump of the envelope in noise, to tell whether it is a beat and where its R peak lies.

The network looks at the patient's own signal beside what the patient's own matched filter makes of it, and at what is known of
the beats before. Without a network the detector decides by itself.
"""

from collections.abc import Callable, Sequence
from math import log
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.signal.filters import Samples, middle
from models.signal.resample import RATE_HZ

BEFORE: Final = 96
AFTER: Final = 32
"""Samples before a bump, three quarters of a second, and after it: what has come for certain when it is judged."""

WINDOW: Final = BEFORE + 1 + AFTER
ROWS: Final = 2
NUMBERS: Final = 7
SIZE: Final = ROWS * WINDOW + NUMBERS
"""Values that the network takes in."""

LARGEST: Final = 3.0
"""Signal and filter's output are cut at so many heights of the mean complex: artefacts have no end."""

FULL: Final = 8
"""Intervals from which on their spread is known."""

FARTHEST: Final = 18
"""Samples from a bump within which the R peak may be placed: a burst of noise beside a beat draws the bump to itself."""

UNIT: Final = 8.0
"""Samples that make 1 in the network's place of the R peak."""

Values = NDArray[np.float32]


class Verdict(NamedTuple):
    """How likely a bump is a beat, and where its R peak then lies, in samples from the envelope's."""

    probability: float
    place: float


Judge = Callable[[Values], Verdict]
"""Takes the `SIZE` values of one bump."""


class Situation(NamedTuple):
    """What is known when a bump comes. Heights and noise are shares of the usual beat, times are in samples.

    `height` is the envelope's, `before` that of the last beat, `tall` that of a tall one; `since` the time since the last beat,
    infinite without one; `intervals` the last ones.
    """

    height: float
    noise: float
    before: float
    tall: float
    since: float
    intervals: Sequence[int]


def values(rows: Samples, situation: Situation) -> Values:
    """What the network takes in: the rows (2, 129) that `QrsShape.view` gives, then the situation's numbers."""
    out = np.empty(SIZE, np.float32)
    out[:-NUMBERS] = np.minimum(np.maximum(rows, -LARGEST), LARGEST).ravel()  # clip takes twice as long
    out[-NUMBERS:] = _numbers(situation)
    return out


def _numbers(now: Situation) -> tuple[float, ...]:
    """Each about 0 on average and some 1 wide."""
    ordered = sorted(now.intervals)
    usual = middle(ordered) if ordered else RATE_HZ
    spread = (ordered[-2] - ordered[1]) / usual if len(ordered) >= FULL else 1.0
    return (
        _log(now.height) + 0.9,
        1.5 * _log(now.noise) + 2.4,
        min(now.since / usual, 2.5) - 0.7,
        min(now.since / RATE_HZ, 2.5) - 0.5,
        2.0 * min(spread, 1.0) - 0.6,
        _log(now.before),
        2.0 * _log(now.tall) - 0.3,
    )


def _log(share: float) -> float:
    return log(min(max(share, 0.01), 10.0))
