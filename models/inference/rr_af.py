"""Detects atrial fibrillation from RR or PP intervals (model `rr_af`)."""

from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from models.inference.release import read_release_file
from models.inference.session import ModelSession

WINDOW_INTERVALS: Final = 64
"""RR intervals that `rr_af` sees: 40 to 60 s of heart beats."""

MIN_VALID: Final = 24
"""Minimum number of valid intervals: `rr_af` must work after 30 s, the shortest AF episode (ESC 2024), also at 50 bpm."""

RR_RANGE_S: Final = (0.2, 3.0)
"""Intervals outside this range are not valid: 300 bpm is beyond any conducted rhythm, and 3 s is a pause or a missed beat."""

LONG_RR_S: Final = 2.0
MAX_MISSED_SHARE: Final = 0.25
"""If more than this share of the intervals is longer than 2 s or outside `RR_RANGE_S`, the detector is missing beats: a patient
at home does not have a ventricular rate below 30 bpm for a minute. The remaining intervals could then look like AF or like any
other rhythm."""

ROWS: Final = 6
_REFERENCE_RR_S: Final = 0.8


def rr_features(rr_s: NDArray[np.floating[Any]], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Compute the network's input for RR intervals; training and inference share this function.

    Six rows within ±1, zero where an interval (or the one it is compared with) is not valid: the logarithm of RR over the
    window's median; validity; the change of the first row from 1, 2 and 3 intervals earlier (it vanishes at lag 2 in bigeminy,
    at lag 3 in trigeminy, at no lag in AF); the logarithm of the median over 0.8 s.

    Args:
        rr_s: (..., 64) seconds, oldest first; any value where not valid.
        valid: (..., 64) true where the interval lies between two consecutive beats.

    Returns:
        (..., 6, 64) float32.
    """
    known = valid & (rr_s >= RR_RANGE_S[0]) & (rr_s <= RR_RANGE_S[1])
    log_rr = np.log(np.where(known, rr_s, 1.0), dtype=np.float64)
    middle = np.maximum(known.sum(-1, keepdims=True) - 1, 0) // 2
    median = np.take_along_axis(np.sort(np.where(known, log_rr, np.inf), -1), middle, -1)
    median = np.where(np.isfinite(median), median, 0.0)
    deviation = np.where(known, log_rr - median, 0.0)
    features = np.zeros((*rr_s.shape[:-1], ROWS, rr_s.shape[-1]), np.float32)
    features[..., 0, :] = deviation
    features[..., 1, :] = known
    for lag in (1, 2, 3):
        pair = known[..., lag:] & known[..., :-lag]
        features[..., 1 + lag, lag:] = np.where(pair, deviation[..., lag:] - deviation[..., :-lag], 0.0)
    features[..., 5, :] = np.where(known, median - np.log(_REFERENCE_RR_S), 0.0)
    return np.clip(features, -1.0, 1.0, out=features)


def is_conclusive(rr_s: NDArray[np.floating[Any]], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return whether `rr_af` is conclusive: with at least 24 valid intervals and few missed beats. (..., n) each to (...)."""
    known = valid & (rr_s >= RR_RANGE_S[0]) & (rr_s <= RR_RANGE_S[1])
    short = np.count_nonzero(known & (rr_s <= LONG_RR_S), -1)
    enough_valid = np.count_nonzero(known, -1) >= MIN_VALID
    return np.asarray(enough_valid & (short >= (1 - MAX_MISSED_SHARE) * np.count_nonzero(valid, -1)))


class RrAf:
    """Estimates the probability of AF from the last RR or PP intervals (model `rr_af`).

    Attributes:
        name, version: of the model, for findings (`rr_af@1`).
        window, min_valid: how many intervals it sees, and how many of them must be valid.
        on_threshold: the probability at which an alert may be raised; chosen by cross-validation, see the model's card.
    """

    def __init__(self, model_bytes: bytes) -> None:
        """Build the session.

        Raises:
            ModelError: the bytes are not a model that this version can run.
        """
        self.window, self.min_valid = WINDOW_INTERVALS, MIN_VALID
        self._session = ModelSession("rr_af", model_bytes)
        self.name, self.version = self._session.name, self._session.version
        self.on_threshold = self._session.read_number("on_threshold")

    @classmethod
    def load_release(cls) -> Self:
        """Load the model that ships with this package.

        Raises:
            ModelError: the file or its manifest is missing, altered or cannot be run.
        """
        return cls(read_release_file("rr_af.onnx"))

    def is_conclusive(self, rr_s: NDArray[np.float64], valid: NDArray[np.bool_]) -> bool:
        """Return whether the model is conclusive for these intervals, (n,) each."""
        return bool(is_conclusive(rr_s, valid))

    def probability(self, rr_s: NDArray[np.float64], valid: NDArray[np.bool_]) -> float:
        """Compute the calibrated probability that the patient is in AF during these intervals.

        Args:
            rr_s: (n,) seconds, n ≤ 64, oldest first.
            valid: (n,) false for an interval across a gap or at a doubtful beat.

        Raises:
            ValueError: more than 64 intervals, or fewer than 24 valid ones (`min_valid`).
        """
        if rr_s.shape != valid.shape or rr_s.ndim != 1 or len(rr_s) > WINDOW_INTERVALS:
            raise ValueError(
                f"expected two arrays of at most {WINDOW_INTERVALS} intervals, found shapes {rr_s.shape} and {valid.shape}"
            )
        if np.count_nonzero(valid) < MIN_VALID:
            raise ValueError(f"{np.count_nonzero(valid)} valid intervals are too few: {MIN_VALID} are needed")
        missing = WINDOW_INTERVALS - len(rr_s)
        window_s, is_valid = np.zeros((1, WINDOW_INTERVALS)), np.zeros((1, WINDOW_INTERVALS), np.bool_)
        window_s[0, missing:], is_valid[0, missing:] = rr_s, valid
        return float(self.probabilities(window_s, is_valid)[0])

    def probabilities(self, rr_s: NDArray[np.floating[Any]], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Compute the probabilities of many windows: (n, 64) each to (n,)."""
        return self._session.run(rr_features(rr_s, valid)).reshape(-1)

    def find_conclusive_windows(self, rr_s: NDArray[np.floating[Any]], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return for which of many windows the model is conclusive: (n, 64) each to (n,)."""
        return is_conclusive(rr_s, valid)
