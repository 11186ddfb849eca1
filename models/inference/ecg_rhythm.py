"""Normal, atrial fibrillation, other rhythm or noise, from half a minute of one ECG lead (model `ecg_rhythm`)."""

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from models.inference.release import released
from models.inference.session import Session
from models.signal.offline import Conditioned
from models.signal.resample import RATE_HZ

CLASSES: Final = ("N", "A", "O", "~")
"""Normal sinus rhythm, atrial fibrillation, another rhythm, too noisy to tell (PhysioNet/CinC Challenge 2017)."""

WINDOW_S: Final = 30.0
WINDOW: Final = round(WINDOW_S * RATE_HZ)

ROWS: Final = 2
"""Of features: the signal and its gap mask."""

SHORTEST_S: Final = 9.0
"""The shortest recording of the Challenge: what is shorter is not judged."""

LEAST_KNOWN: Final = 0.6
"""Share of the time that must not be lost."""

MOST_FLAT: Final = 0.4
"""Share of the seconds that may be flat."""

FLAT_MV: Final = 0.001
"""A signal that stays within it for a second comes from no electrode on a skin (as in `models.signal.chain`)."""

_HIGHEST: Final = 0.99
_CLIP: Final = 3.0
_SMALLEST_MV: Final = 0.02

Values = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class RhythmVerdict:
    """What the model says of a window.

    `label` is the likeliest class and `probability` its own, of `probabilities` in the order of `CLASSES`. Where
    `inconclusive` holds a reason (`too_short`, `gaps`, `lead_off`, `noise`, `out_of_distribution`), the label is not to be
    reported; for the first three nothing was computed, and all probabilities are 0.
    """

    label: str
    probability: float
    probabilities: tuple[float, ...]
    inconclusive: str | None


def features(mv: Values) -> NDArray[np.float32]:
    """What the network sees; used by training and inference alike.

    Rows: the signal over the height that 1 % of its samples exceed (about that of the R peaks), within ±3, 0 where samples are
    missing; 1 where they are known.

    Args:
        mv: (n, 3750) mV at 125 Hz, 0.5 to 40 Hz, NaN where samples are missing or the recording is shorter.

    Returns:
        (n, 2, 3750) float32.
    """
    out = np.zeros((len(mv), ROWS, WINDOW), np.float32)
    for rows, window in zip(out, mv, strict=True):
        known = np.isfinite(window)
        if known.any():
            rows[0], rows[1] = _scaled(window, known), known
    return out


def windows(mv: Values) -> NDArray[np.float64]:
    """A recording (n,) as windows (windows, 3750): one, padded with NaN, or several that overlap by half or more."""
    further = int(np.ceil(max(mv.size - WINDOW, 0) / (WINDOW / 2)))
    starts = np.rint(np.linspace(0, max(mv.size - WINDOW, 0), further + 1)).astype(int)
    padded = np.pad(mv.astype(np.float64), (0, max(WINDOW - mv.size, 0)), constant_values=np.nan)
    return np.stack([padded[start : start + WINDOW] for start in starts.tolist()])


class EcgRhythm(Session):
    """Rhythm of half a minute of ECG (model `ecg_rhythm`).

    Attributes:
        lowest_probability: a likeliest class below it is reported as inconclusive; chosen by cross-validation, see the card.
    """

    def __init__(self, model_bytes: bytes) -> None:
        """Build the session.

        Raises:
            ModelError: the bytes are no model that this version can run.
        """
        super().__init__("ecg_rhythm", model_bytes)
        self.lowest_probability = self.number("lowest_probability")

    @classmethod
    def load_release(cls) -> Self:
        """The model that this package was released with.

        Raises:
            ModelError: the file or its manifest is missing, altered or cannot be run.
        """
        return cls(released("ecg_rhythm.onnx"))

    def probabilities(self, windows_features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Calibrated probabilities of many windows, (n, 2, 3750) → (n, 4)."""
        return self.run(windows_features)

    def judge(self, mv: Values) -> RhythmVerdict:
        """Judge the last seconds of a lead.

        Args:
            mv: (n,) at most 30 s of mV at 125 Hz, 0.5 to 40 Hz, NaN where samples are missing.

        Raises:
            ValueError: more than 30 s, or not one row.
        """
        if mv.ndim != 1 or mv.size > WINDOW:
            raise ValueError(f"expected one row of at most {WINDOW} samples, found shape {mv.shape}")
        reason = unusable(mv)
        if reason:
            return RhythmVerdict(CLASSES[-1], 0.0, (0.0,) * len(CLASSES), reason)
        return self._verdict(self.probabilities(features(windows(mv)))[0])

    def _verdict(self, probability: Values) -> RhythmVerdict:
        best = int(probability.argmax())
        label, top = CLASSES[best], float(probability[best])
        reason = "noise" if label == "~" else "out_of_distribution" if top < self.lowest_probability else None
        return RhythmVerdict(label, top, tuple(probability.tolist()), reason)


def record_probabilities(model: EcgRhythm, conditioned: Conditioned) -> NDArray[np.float64]:
    """Probabilities of a whole short recording, (4,): the mean over windows that overlap by half or more."""
    probability = model.probabilities(features(windows(conditioned.mv)))
    mean: NDArray[np.float64] = probability.astype(np.float64).mean(0)
    return mean


def unusable(mv: Values) -> str | None:
    """Why a stretch (n,) of mV at 125 Hz cannot be judged at all: `too_short`, `gaps`, `lead_off`, or None."""
    if mv.size < SHORTEST_S * RATE_HZ:
        return "too_short"
    if np.isfinite(mv).mean() < LEAST_KNOWN:
        return "gaps"
    seconds = mv[: mv.size // round(RATE_HZ) * round(RATE_HZ)].reshape(-1, round(RATE_HZ))
    flat = seconds.max(-1) - seconds.min(-1) < FLAT_MV
    return "lead_off" if flat.mean() > MOST_FLAT else None


def _scaled(mv: Values, known: NDArray[np.bool_]) -> NDArray[np.float64]:
    sizes = np.abs(mv[known])
    rank = int(_HIGHEST * (sizes.size - 1))
    height = max(float(np.partition(sizes, rank)[rank]), _SMALLEST_MV)
    return np.clip(np.where(known, mv, 0.0) / height, -_CLIP, _CLIP)
