"""Classifies half a minute of one ECG lead as normal, atrial fibrillation, other rhythm or noise (model `ecg_rhythm`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from models.inference.release import read_release_file
from models.inference.session import ModelSession
from models.signal.chain import FLAT_MV
from models.signal.offline import Conditioned
from models.signal.resample import RATE_HZ

CLASSES: Final = ("N", "A", "O", "~")
"""Normal sinus rhythm, atrial fibrillation, another rhythm, too noisy to classify (PhysioNet/CinC Challenge 2017)."""

WINDOW_S: Final = 30.0
WINDOW_SAMPLES: Final = round(WINDOW_S * RATE_HZ)

ROWS: Final = 2
"""Rows of the features: the signal and the mask of known samples."""

MIN_LENGTH_S: Final = 9.0
"""Length of the Challenge's shortest recording; anything shorter is not classified."""

MIN_KNOWN_SHARE: Final = 0.6
"""A stretch with less than this share of its samples is not classified."""

MAX_FLAT_SHARE: Final = 0.4
"""A stretch with more than this share of flat seconds (within `FLAT_MV`) counts as lead-off."""

_HEIGHT_QUANTILE: Final = 0.99
_CLIP: Final = 3.0
_MIN_HEIGHT_MV: Final = 0.02

Values = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class RhythmClassification:
    """The rhythm of one window.

    Attributes:
        label: the likeliest class.
        probability: of `label`.
        probabilities: of all `CLASSES`, in their order.
        inconclusive: why the label must not be reported: `too_short`, `gaps`, `lead_off`, `noise` or `out_of_distribution`;
            None where it may be. For the first three the network was not run, and all probabilities are 0.
    """

    label: str
    probability: float
    probabilities: tuple[float, ...]
    inconclusive: str | None


def features(mv: Values) -> NDArray[np.float32]:
    """Compute the network's input for windows; training and inference share this function.

    Rows: the signal divided by the height that 1 % of its samples exceed (about the height of the R peaks), clipped to ±3, 0
    where samples are missing; and the mask of known samples.

    Args:
        mv: (n, 3750) mV at 125 Hz, 0.5 to 40 Hz, NaN where samples are missing or the recording is shorter.

    Returns:
        (n, 2, 3750) float32.
    """
    out = np.zeros((len(mv), ROWS, WINDOW_SAMPLES), np.float32)
    for rows, window in zip(out, mv, strict=True):
        known = np.isfinite(window)
        if known.any():
            rows[0], rows[1] = _scale_window(window, known), known
    return out


def windows(mv: Values) -> NDArray[np.float64]:
    """Cut a recording (n,) into windows (k, 3750): one padded with NaN, or several that overlap by at least half."""
    further = int(np.ceil(max(mv.size - WINDOW_SAMPLES, 0) / (WINDOW_SAMPLES / 2)))
    starts = np.rint(np.linspace(0, max(mv.size - WINDOW_SAMPLES, 0), further + 1)).astype(int)
    padded = np.pad(mv.astype(np.float64), (0, max(WINDOW_SAMPLES - mv.size, 0)), constant_values=np.nan)
    return np.stack([padded[start : start + WINDOW_SAMPLES] for start in starts.tolist()])


class EcgRhythm(ModelSession):
    """Classifies the rhythm of half a minute of ECG (model `ecg_rhythm`).

    Attributes:
        lowest_probability: below it the likeliest class is reported as inconclusive; chosen by cross-validation, see the card.
    """

    def __init__(self, model_bytes: bytes) -> None:
        """Build the session.

        Raises:
            ModelError: the bytes are not a model that this version can run.
        """
        super().__init__("ecg_rhythm", model_bytes)
        self.lowest_probability = self.read_number("lowest_probability")

    @classmethod
    def load_release(cls) -> Self:
        """Load the model that ships with this package.

        Raises:
            ModelError: the file or its manifest is missing, altered or cannot be run.
        """
        return cls(read_release_file("ecg_rhythm.onnx"))

    def probabilities(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the calibrated probabilities of `CLASSES` for a batch: the output of `features`, (n, 2, 3750), to (n, 4)."""
        return self.run(inputs)

    def classify(self, mv: Values) -> RhythmClassification:
        """Classify the last seconds of a lead.

        Args:
            mv: (n,) at most 30 s of mV at 125 Hz, 0.5 to 40 Hz, NaN where samples are missing.

        Raises:
            ValueError: more than 30 s, or not one row.
        """
        if mv.ndim != 1 or mv.size > WINDOW_SAMPLES:
            raise ValueError(f"expected one row of at most {WINDOW_SAMPLES} samples, found shape {mv.shape}")
        reason = rejection_reason(mv)
        if reason:
            return RhythmClassification(CLASSES[-1], 0.0, (0.0,) * len(CLASSES), reason)
        return self._choose_class(self.probabilities(features(windows(mv)))[0])

    def classify_recording(self, mv: Values, earlier: Sequence[Sequence[float]]) -> RhythmClassification:
        """Classify a recording by the mean over its windows: the last one, as for `classify`, and the probabilities of others.

        Raises:
            ValueError: as `classify`.
        """
        last = self.classify(mv)
        if not any(last.probabilities):
            return last
        return self._choose_class(np.array([*earlier, last.probabilities]).mean(0))

    def _choose_class(self, probability: Values) -> RhythmClassification:
        best = int(probability.argmax())
        label, top = CLASSES[best], float(probability[best])
        reason = "noise" if label == "~" else "out_of_distribution" if top < self.lowest_probability else None
        return RhythmClassification(label, top, tuple(probability.tolist()), reason)


def record_probabilities(model: EcgRhythm, conditioned: Conditioned) -> NDArray[np.float64]:
    """Compute the probabilities of a whole short recording, (4,): the mean over its windows (see `windows`)."""
    probability = model.probabilities(features(windows(conditioned.mv)))
    mean: NDArray[np.float64] = probability.astype(np.float64).mean(0)
    return mean


def rejection_reason(mv: Values) -> str | None:
    """Return why a stretch (n,) of mV at 125 Hz cannot be classified: `too_short`, `gaps` or `lead_off`; None where it can."""
    if mv.size < MIN_LENGTH_S * RATE_HZ:
        return "too_short"
    if np.isfinite(mv).mean() < MIN_KNOWN_SHARE:
        return "gaps"
    return "lead_off" if _flat_seconds_share(mv) > MAX_FLAT_SHARE else None


def _flat_seconds_share(mv: Values) -> float:
    """Return the share of whole seconds in which the signal stays within `FLAT_MV`; those with missing samples are not flat."""
    seconds = mv[: mv.size // round(RATE_HZ) * round(RATE_HZ)].reshape(-1, round(RATE_HZ))
    return float((seconds.max(-1) - seconds.min(-1) < FLAT_MV).mean())


def _scale_window(mv: Values, known: NDArray[np.bool_]) -> NDArray[np.float64]:
    sizes = np.abs(mv[known])
    rank = int(_HEIGHT_QUANTILE * (sizes.size - 1))
    height = max(float(np.partition(sizes, rank)[rank]), _MIN_HEIGHT_MV)
    return np.clip(np.where(known, mv, 0.0) / height, -_CLIP, _CLIP)
