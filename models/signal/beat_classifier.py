"""The interface of the beat classifier: its input, and the classification that it returns.

In noise, the QRS detector asks the classifier whether a peak candidate is a beat and where its R peak lies. The input holds the
signal, the output of the patient's matched filter for the same samples, and features of the preceding beats. The detector also
works without a classifier.
"""

from collections.abc import Callable, Sequence
from math import log
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.signal.filters import Samples, median_of_sorted
from models.signal.resample import RATE_HZ

SAMPLES_BEFORE: Final = 96
SAMPLES_AFTER: Final = 32
"""Samples before a candidate (0.77 s) and after it. The samples after it have always arrived when it is classified."""

WINDOW_SAMPLES: Final = SAMPLES_BEFORE + 1 + SAMPLES_AFTER
ROWS: Final = 2
FEATURE_COUNT: Final = 7
INPUT_SIZE: Final = ROWS * WINDOW_SAMPLES + FEATURE_COUNT
"""Signal rows, scalar features and total length of the classifier's input."""

CLIP_LEVEL: Final = 3.0
"""Signal and filter output are clipped at this multiple of the QRS template's height: artefacts can be arbitrarily high."""

MIN_SPREAD_INTERVALS: Final = 8
"""RR intervals needed before their spread counts as known."""

MAX_R_PEAK_OFFSET_SAMPLES: Final = 18
"""Largest offset of an R peak from its candidate, in samples (144 ms): a noise burst near a beat shifts the envelope's peak."""

OFFSET_UNIT_SAMPLES: Final = 8.0
"""Samples per unit of the R peak offset in the network's output."""

InputVector = NDArray[np.float32]


class Classification(NamedTuple):
    """The probability that a candidate is a beat, and the offset of its R peak in samples from the candidate."""

    probability: float
    r_peak_offset: float


BeatClassifier = Callable[[InputVector], Classification]
"""Classifies one candidate from its `INPUT_SIZE` input values."""


class CandidateFeatures(NamedTuple):
    """What is known about a candidate. Heights and noise are ratios to the running median beat height; times are in samples.

    Attributes:
        height: of the candidate.
        noise: the noise-to-beat ratio.
        previous_height: of the last beat.
        tall_height: of a tall beat, the third highest of the last eight.
        since_last_beat: time since the last beat; infinite if there is none.
        rr_intervals: the latest RR intervals.
    """

    height: float
    noise: float
    previous_height: float
    tall_height: float
    since_last_beat: float
    rr_intervals: Sequence[int]


def input_vector(rows: Samples, features: CandidateFeatures) -> InputVector:
    """Return the classifier's input: the rows (2, 129) of `QrsShape.classifier_rows`, then the scaled features."""
    out = np.empty(INPUT_SIZE, np.float32)
    out[:-FEATURE_COUNT] = np.minimum(np.maximum(rows, -CLIP_LEVEL), CLIP_LEVEL).ravel()  # np.clip takes twice as long
    out[-FEATURE_COUNT:] = _scale_features(features)
    return out


def _scale_features(features: CandidateFeatures) -> tuple[float, ...]:
    """Return the features, each scaled to a mean near 0 and a spread near 1."""
    ordered = sorted(features.rr_intervals)
    median_rr = median_of_sorted(ordered) if ordered else RATE_HZ
    spread = (ordered[-2] - ordered[1]) / median_rr if len(ordered) >= MIN_SPREAD_INTERVALS else 1.0
    return (
        _clipped_log(features.height) + 0.9,
        1.5 * _clipped_log(features.noise) + 2.4,
        min(features.since_last_beat / median_rr, 2.5) - 0.7,
        min(features.since_last_beat / RATE_HZ, 2.5) - 0.5,
        2.0 * min(spread, 1.0) - 0.6,
        _clipped_log(features.previous_height),
        2.0 * _clipped_log(features.tall_height) - 0.3,
    )


def _clipped_log(ratio: float) -> float:
    return log(min(max(ratio, 0.01), 10.0))
