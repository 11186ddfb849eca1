"""Decides whether the pulses of ten seconds of PPG can be trusted (model `ppg_quality`)."""

from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from models.inference.release import read_release_file
from models.inference.session import ModelSession

RATE_HZ: Final = 50.0
WINDOW_SAMPLES: Final = 500
"""Samples of 10 s, which hold eight pulses or more."""

MIN_KNOWN_SHARE: Final = 0.4
"""If less than this share of the samples is known, the probability is 0. Four seconds are enough, so that the beginning of a
signal can be classified by what follows it."""

ROWS: Final = 2
BASELINE_SAMPLES: Final = 51
"""Width of the moving mean that is applied twice to get the baseline: together a high-pass of about 0.6 Hz."""

CLIP: Final = 4.0
"""Clipping level in robust standard deviations: pulses reach 3; artefacts are clipped."""

FLAT_RATIO: Final = 1e-9
"""A signal that varies by less than this share of its own level is flat."""


def quality_features(ppg: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Compute the network's input for windows of PPG; training and inference share this function.

    Rows: the signal without its baseline, divided by `CLIP` robust standard deviations and clipped to ±1, 0 where it is
    missing; and the mask of known samples. Gain, offset and unit do not matter; polarity is left to the network.

    Args:
        ppg: (..., 500) at 50 Hz in any unit, NaN where samples are missing.

    Returns:
        (..., 2, 500) float32.
    """
    known = np.isfinite(ppg)
    any_known = known.any(-1, keepdims=True)
    largest = np.max(np.where(known, np.abs(ppg), 0.0), axis=-1, keepdims=True)
    x = np.where(any_known, ppg, 0.0) / np.where(largest > 0, largest, 1.0)
    x = np.where(known, x - np.nanmedian(x, axis=-1, keepdims=True), 0.0)
    reach = np.max(np.abs(x), axis=-1, keepdims=True)
    x = x / np.where(reach > FLAT_RATIO, reach, 1.0)
    x = np.where(known, x - _moving_mean(_moving_mean(x, known), known), 0.0)
    height = np.where(known, np.abs(x), np.where(any_known, np.nan, 0.0))
    spread = 1.4826 * np.nanmedian(height, axis=-1, keepdims=True)
    is_flat = (spread <= FLAT_RATIO) | (reach <= FLAT_RATIO)
    features = np.empty((*ppg.shape[:-1], ROWS, ppg.shape[-1]), np.float32)
    features[..., 0, :] = np.clip(np.where(is_flat, 0.0, x / np.where(is_flat, 1.0, CLIP * spread)), -1.0, 1.0)
    features[..., 1, :] = known
    return features


def _moving_mean(x: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the mean of the known samples within half of `BASELINE_SAMPLES` on either side; 0 where there are none."""
    total, count = (_moving_sum(part) for part in (np.where(known, x, 0.0), known.astype(np.float64)))
    mean: NDArray[np.float64] = total / np.maximum(count, 1.0)
    return mean


def _moving_sum(x: NDArray[np.float64]) -> NDArray[np.float64]:
    half = BASELINE_SAMPLES // 2
    sums = np.cumsum(np.pad(x, [(0, 0)] * (x.ndim - 1) + [(half + 1, half)]), axis=-1)
    moving: NDArray[np.float64] = sums[..., BASELINE_SAMPLES:] - sums[..., :-BASELINE_SAMPLES]
    return moving


class PpgQuality:
    """Estimates whether the pulses of 10 s of PPG can be trusted (model `ppg_quality`).

    Attributes:
        name, version: of the model, for findings (`ppg_quality@1`).
        threshold: the probability at and above which a window counts as good; chosen by cross-validation, see the model's card.
    """

    def __init__(self, model_bytes: bytes) -> None:
        """Build the session.

        Raises:
            ModelError: the bytes are not a model that this version can run.
        """
        self._session = ModelSession("ppg_quality", model_bytes)
        self.name, self.version = self._session.name, self._session.version
        self.threshold = self._session.read_number("threshold")

    @classmethod
    def load_release(cls) -> Self:
        """Load the model that ships with this package.

        Raises:
            ModelError: the file or its manifest is missing, altered or cannot be run.
        """
        return cls(read_release_file("ppg_quality.onnx"))

    def probability(self, ppg: NDArray[np.float64]) -> float:
        """Compute the calibrated probability that a detector finds every pulse of the window, on time, and no false one.

        0 where less than `MIN_KNOWN_SHARE` of the window is known.

        Args:
            ppg: (500,) at 50 Hz, in any unit, NaN where samples are missing.

        Raises:
            ValueError: another shape.
        """
        if ppg.shape != (WINDOW_SAMPLES,):
            raise ValueError(f"expected {WINDOW_SAMPLES} samples, found shape {ppg.shape}")
        if np.isfinite(ppg).mean() < MIN_KNOWN_SHARE:
            return 0.0
        return float(self.probabilities(ppg[None])[0])

    def probabilities(self, ppg: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Compute the probabilities of many windows, (n, 500) to (n,), by the network alone."""
        return self._session.run(quality_features(ppg)).reshape(-1)
