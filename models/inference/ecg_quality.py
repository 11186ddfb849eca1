"""Classifies ten seconds of ECG: reliable for beats and waveform, for beats only, or not at all (model `ecg_quality`)."""

from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from models.inference.release import read_release_file
from models.inference.session import ModelSession
from models.signal.envelope import envelope
from models.signal.filters import median
from models.signal.resample import RATE_HZ

CLASSES: Final = ("good", "beats_only", "bad")
"""good: the detected beats and the shape of the waves are reliable; beats_only: only the beats are; bad: not even the beats."""

GOOD, BEATS_ONLY, BAD = range(3)

WINDOW_S: Final = 10.0
WINDOW_SAMPLES: Final = round(WINDOW_S * RATE_HZ)
ROWS: Final = 2

MIN_KNOWN_SHARE: Final = 0.5
"""A window with less than this share of its samples is bad: five seconds hold the three beats that a rate needs at 36/min."""

STRAIGHT_S: Final = 0.4
STRAIGHT_MV: Final = 0.001
"""Maximum second difference of the samples in a straight stretch, and its minimum length. Such a straight signal comes from
an open input or a saturated amplifier, not from an electrode on skin: at 125 Hz even 5 uV of noise bends it by as much.
(`EcgChain.is_usable` looks for a single second without change; here the straight stretches add up.)"""

OVER_RANGE_MV: Final = 5.0
"""An ECG never exceeds this: IEC 60601-2-47, 201.12.4.4.101 requires an input range of 10 mV peak to peak."""

LEAD_OFF_SHARE: Final = 0.2
"""A window counts as lead-off if at least this share of its samples is straight or over the range."""

MIN_PEAK_RATIO: Final = 3.0
"""QRS complexes reach more than this multiple of the median of the QRS band's envelope; noise reaches 2.5
(`models.signal.chain`)."""

_SCALE_QUANTILE: Final = 0.98
"""Quantile of the absolute samples that sets the scale. It lies within the QRS complexes, which fill a tenth of a window, and
below their peaks."""

_MIN_SCALE_MV: Final = 0.05
_RANGE: Final = 4.0
_MIN_STRAIGHT: Final = round(STRAIGHT_S * RATE_HZ)

Quality = Literal["good", "beats_only", "bad"]
Reason = Literal["noise", "gaps", "lead_off"]


@dataclass(frozen=True, slots=True)
class QualityClassification:
    """The quality of one window.

    Attributes:
        label: the class.
        probability: of `label`.
        probabilities: of all `CLASSES`, in their order.
        reason: why the window is not good; None where it is.
    """

    label: Quality
    probability: float
    probabilities: tuple[float, float, float]
    reason: Reason | None


def features(mv: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Compute the network's input for windows; training and inference share this function.

    Two rows: the signal divided by 4 times its 98th percentile (at least 0.05 mV), clipped to ±1, zero where it is missing; and
    the mask of known samples.

    Args:
        mv: (…, 1250) at 125 Hz, 0.5 to 40 Hz, NaN where samples are missing, as `EcgChain.strip` returns it.

    Returns:
        (…, 2, 1250) float32.
    """
    known = np.isfinite(mv)
    signal = np.where(known, mv, 0.0).astype(np.float32)
    scale = np.maximum(_quantile(np.abs(signal), _SCALE_QUANTILE)[..., None], _MIN_SCALE_MV)
    return np.stack([np.clip(signal / (_RANGE * scale), -1.0, 1.0), known], -2).astype(np.float32)


def find_signal_defect(mv: NDArray[np.floating[Any]]) -> Reason | None:
    """Return the first defect of a window (1250,) that needs no network: gaps, lead-off or noise; None without a defect."""
    known = np.isfinite(mv)
    if np.mean(known) < MIN_KNOWN_SHARE:
        return "gaps"
    received = mv[known]
    if np.mean(_mark_straight_stretches(mv)) + np.mean(np.abs(received) > OVER_RANGE_MV) >= LEAD_OFF_SHARE:
        return "lead_off"
    return None if _has_qrs_peaks(received) else "noise"


class EcgQuality:
    """Classifies the quality of the last ten seconds of ECG (model `ecg_quality`).

    Attributes:
        name, version: of the model, for findings (`ecg_quality@1`).
    """

    def __init__(self, model_bytes: bytes) -> None:
        """Build the session.

        Raises:
            ModelError: the bytes are not a model that this version can run.
        """
        self._session = ModelSession("ecg_quality", model_bytes)
        self.name, self.version = self._session.name, self._session.version

    @classmethod
    def load_release(cls) -> Self:
        """Load the model that ships with this package.

        Raises:
            ModelError: the file or its manifest is missing, altered or cannot be run.
        """
        return cls(read_release_file("ecg_quality.onnx"))

    def classify(self, mv: NDArray[np.floating[Any]]) -> QualityClassification:
        """Classify one window (1250,) at 125 Hz, 0.5 to 40 Hz, NaN where samples are missing.

        Windows with gaps or lead-off (see `find_signal_defect`) are bad by definition, without the network.

        Raises:
            ValueError: the window has another length.
        """
        if mv.shape != (WINDOW_SAMPLES,):
            raise ValueError(f"expected a window of {WINDOW_SAMPLES} samples, found shape {mv.shape}")
        defect = find_signal_defect(mv)
        if defect in ("gaps", "lead_off"):
            return QualityClassification("bad", 1.0, (0.0, 0.0, 1.0), defect)
        good, beats_only, bad = self.probabilities(mv[None])[0].tolist()
        index = int(np.argmax((good, beats_only, bad)))
        label: Quality = CLASSES[index]
        return QualityClassification(
            label, (good, beats_only, bad)[index], (good, beats_only, bad), None if index == GOOD else defect or "noise"
        )

    def probabilities(self, mv: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Compute the network's probabilities of `CLASSES` for many windows: (n, 1250) to (n, 3)."""
        return self._session.run(features(mv))


def _mark_straight_stretches(mv: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Mark the samples of a window that lie in a straight stretch, (samples,). Missing samples are not marked."""
    steps = mv[1:] - mv[:-1]
    straight = np.zeros(mv.size + 2, np.bool_)
    straight[2:-2] = np.abs(steps[1:] - steps[:-1]) < STRAIGHT_MV
    marked = np.zeros(mv.size, np.bool_)
    if np.count_nonzero(straight) < _MIN_STRAIGHT:
        return marked
    edges = np.flatnonzero(straight[1:] != straight[:-1]).reshape(-1, 2)
    for first, end in edges[edges[:, 1] - edges[:, 0] >= _MIN_STRAIGHT].tolist():
        marked[first:end] = True
    return marked


def _has_qrs_peaks(signal: NDArray[np.floating[Any]]) -> bool:
    """Return whether peaks stand out of the QRS band's envelope as QRS complexes do."""
    heights = envelope(signal)
    return bool(_quantile(heights, 0.95) > MIN_PEAK_RATIO * median(heights))


def _quantile(values: NDArray[Any], share: float) -> NDArray[Any]:
    """Compute `numpy.quantile` along the last axis, without the megabytes of modules that it would load into the agent."""
    rank = share * (values.shape[-1] - 1)
    low = int(rank)
    high = min(low + 1, values.shape[-1] - 1)
    ordered = np.partition(values, (low, high), -1)
    found: NDArray[Any] = ordered[..., low] + (rank - low) * (ordered[..., high] - ordered[..., low])
    return found
