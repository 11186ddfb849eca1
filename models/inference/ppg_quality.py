"""Whether the pulses of a stretch of PPG can be trusted (model `ppg_quality`)."""

from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from models.inference.release import released
from models.inference.session import Session

RATE_HZ: Final = 50.0
WINDOW: Final = 500
"""Samples: 10 s, eight pulses or more."""

MIN_KNOWN: Final = 0.4
"""Share of a window that must be there: 4 s, so that the beginning of a signal can be judged by what follows it."""

CHANNELS: Final = 2
BASELINE: Final = 51
"""Samples of the moving mean that is taken twice for the baseline: together a high-pass of about 0.6 Hz."""

CLIP: Final = 4.0
"""In robust standard deviations: pulses reach 3, artefacts are cut."""

FLAT: Final = 1e-9
"""What varies by less than this share of its own level is flat."""


def quality_features(ppg: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """What the network sees of windows of PPG; used by training and inference alike.

    Rows: the signal without its baseline, in robust standard deviations over `CLIP`, cut to ±1, 0 where it is missing; and the
    mask of the samples that are there. Gain, offset and unit do not matter; polarity is left to the network.

    Args:
        ppg: (..., 500) at 50 Hz in any unit, NaN where samples are missing.

    Returns:
        (..., 2, 500) float32.
    """
    known = np.isfinite(ppg)
    some = known.any(-1, keepdims=True)
    largest = np.max(np.where(known, np.abs(ppg), 0.0), axis=-1, keepdims=True)
    x = np.where(some, ppg, 0.0) / np.where(largest > 0, largest, 1.0)
    x = np.where(known, x - np.nanmedian(x, axis=-1, keepdims=True), 0.0)
    reach = np.max(np.abs(x), axis=-1, keepdims=True)
    x = x / np.where(reach > FLAT, reach, 1.0)
    x = np.where(known, x - _moving_mean(_moving_mean(x, known), known), 0.0)
    height = np.where(known, np.abs(x), np.where(some, np.nan, 0.0))
    spread = 1.4826 * np.nanmedian(height, axis=-1, keepdims=True)
    flat = (spread <= FLAT) | (reach <= FLAT)
    features = np.empty((*ppg.shape[:-1], CHANNELS, ppg.shape[-1]), np.float32)
    features[..., 0, :] = np.clip(np.where(flat, 0.0, x / np.where(flat, 1.0, CLIP * spread)), -1.0, 1.0)
    features[..., 1, :] = known
    return features


def _moving_mean(x: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean of the known samples within half of `BASELINE` on either side; 0 where there are none."""
    total, count = (_moving_sum(part) for part in (np.where(known, x, 0.0), known.astype(np.float64)))
    mean: NDArray[np.float64] = total / np.maximum(count, 1.0)
    return mean


def _moving_sum(x: NDArray[np.float64]) -> NDArray[np.float64]:
    half = BASELINE // 2
    sums = np.cumsum(np.pad(x, [(0, 0)] * (x.ndim - 1) + [(half + 1, half)]), axis=-1)
    moved: NDArray[np.float64] = sums[..., BASELINE:] - sums[..., :-BASELINE]
    return moved


class PpgQuality:
    """Whether the pulses of 10 s of PPG can be trusted (model `ppg_quality`).

    Attributes:
        name, version: of the model, for findings (`ppg_quality@1`).
        threshold: the probability from which a window counts as good; chosen by cross-validation, see the model's card.
    """

    def __init__(self, model_bytes: bytes) -> None:
        """Build the session.

        Raises:
            ModelError: the bytes are no model that this version can run.
        """
        self._session = Session("ppg_quality", model_bytes)
        self.name, self.version = self._session.name, self._session.version
        self.threshold = self._session.number("threshold")

    @classmethod
    def load_release(cls) -> Self:
        """The model that this package was released with.

        Raises:
            ModelError: the file or its manifest is missing, altered or cannot be run.
        """
        return cls(released("ppg_quality.onnx"))

    def probability(self, ppg: NDArray[np.float64]) -> float:
        """The calibrated probability that a detector finds every pulse of the window, at the right time, and no other.

        0 where less than `MIN_KNOWN` of the window is there.

        Args:
            ppg: (500,) at 50 Hz, in any unit, NaN where samples are missing.

        Raises:
            ValueError: another shape.
        """
        if ppg.shape != (WINDOW,):
            raise ValueError(f"expected {WINDOW} samples, found shape {ppg.shape}")
        if np.isfinite(ppg).mean() < MIN_KNOWN:
            return 0.0
        return float(self.probabilities(ppg[None])[0])

    def probabilities(self, ppg: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Many windows at once, (windows, 500); returns (windows,)."""
        return self._session.run(quality_features(ppg)).reshape(-1)
