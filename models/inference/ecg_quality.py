"""Whether ten seconds of ECG can be trusted: for beats and waveform, for beats only, or not at all (model `ecg_quality`)."""

from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from models.inference.release import released
from models.inference.session import Session
from models.signal.envelope import envelope
from models.signal.filters import median
from models.signal.resample import RATE_HZ

CLASSES: Final = ("good", "beats_only", "bad")
"""The detector's beats and the shape of the waves hold; the beats hold, their shape does not; not even the beats hold."""

GOOD, BEATS_ONLY, BAD = range(3)

WINDOW_S: Final = 10.0
WINDOW: Final = round(WINDOW_S * RATE_HZ)
FEATURES: Final = 2

LEAST_KNOWN: Final = 0.5
"""Share of the samples without which nothing is said: five seconds hold the three beats that a rate needs at 36/min."""

FLAT_S: Final = 0.4
FLAT_MV: Final = 0.001
"""A signal that bends less than this from sample to sample for so long comes from no electrode on a skin, but from an open
input or an amplifier at the end of its range: at 125 Hz even 5 uV of noise bends it by as much. (`EcgChain.usable` asks for a
second; here the stretches are added up.)"""

OVER_RANGE_MV: Final = 5.0
"""No ECG is so high: IEC 60601-2-47, 201.12.4.4.101 has devices take 10 mV peak to peak."""

LEAST_OFF: Final = 0.2
"""Share of the samples, flat or over the range, that makes a window one of an electrode that is off."""

STANDS_OUT: Final = 3.0
"""QRS complexes are so many times higher than the middle of the QRS band, noise is up to 2.5 (`models.signal.chain`)."""

_SCALE_SHARE: Final = 0.98
"""Of the absolute samples: within the QRS complexes, which fill a tenth of a window, and below their peaks."""
_LEAST_SCALE_MV: Final = 0.05
_RANGE: Final = 4.0
_SHORTEST_FLAT: Final = round(FLAT_S * RATE_HZ)

Quality = Literal["good", "beats_only", "bad"]
Reason = Literal["noise", "gaps", "lead_off"]


@dataclass(frozen=True, slots=True)
class QualityVerdict:
    """`probability` is that of `label`; `probabilities` those of `CLASSES`; `reason` says why it is not good."""

    label: Quality
    probability: float
    probabilities: tuple[float, float, float]
    reason: Reason | None


def features(mv: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """What the network sees of windows; used by training and inference alike.

    Two rows: the signal over 4 times its 98th percentile (at least 0.05 mV), cut to ±1, zero where it is missing; and 1 where
    it is there.

    Args:
        mv: (…, 1250) at 125 Hz, 0.5 to 40 Hz, NaN where samples are missing, as `EcgChain.strip` gives it.

    Returns:
        (…, 2, 1250) float32.
    """
    known = np.isfinite(mv)
    signal = np.where(known, mv, 0.0).astype(np.float32)
    scale = np.maximum(_quantile(np.abs(signal), _SCALE_SHARE)[..., None], _LEAST_SCALE_MV)
    return np.stack([np.clip(signal / (_RANGE * scale), -1.0, 1.0), known], -2).astype(np.float32)


def reason(mv: NDArray[np.floating[Any]]) -> Reason | None:
    """What plain measurement finds wrong with a window (1250,): the first of gaps, lead-off, noise; None where nothing is."""
    known = np.isfinite(mv)
    if np.mean(known) < LEAST_KNOWN:
        return "gaps"
    there = mv[known]
    if np.mean(_flat(mv)) + np.mean(np.abs(there) > OVER_RANGE_MV) >= LEAST_OFF:
        return "lead_off"
    return None if _peaked(there) else "noise"


class EcgQuality:
    """Quality of the last ten seconds of ECG (model `ecg_quality`).

    Attributes:
        name, version: of the model, for findings (`ecg_quality@1`).
    """

    def __init__(self, model_bytes: bytes) -> None:
        """Build the session.

        Raises:
            ModelError: the bytes are no model that this version can run.
        """
        self._session = Session("ecg_quality", model_bytes)
        self.name, self.version = self._session.name, self._session.version

    @classmethod
    def load_release(cls) -> Self:
        """The model that this package was released with.

        Raises:
            ModelError: the file or its manifest is missing, altered or cannot be run.
        """
        return cls(released("ecg_quality.onnx"))

    def judge(self, mv: NDArray[np.floating[Any]]) -> QualityVerdict:
        """One window (1250,) at 125 Hz, 0.5 to 40 Hz, NaN where samples are missing.

        Too little signal and an electrode that is off are bad by definition, measured and not asked of the network.

        Raises:
            ValueError: the window has another length.
        """
        if mv.shape != (WINDOW,):
            raise ValueError(f"expected a window of {WINDOW} samples, found shape {mv.shape}")
        measured = reason(mv)
        if measured in ("gaps", "lead_off"):
            return QualityVerdict("bad", 1.0, (0.0, 0.0, 1.0), measured)
        good, beats_only, bad = self.probabilities(mv[None])[0].tolist()
        place = int(np.argmax((good, beats_only, bad)))
        label: Quality = CLASSES[place]
        return QualityVerdict(
            label, (good, beats_only, bad)[place], (good, beats_only, bad), None if place == GOOD else measured or "noise"
        )

    def probabilities(self, mv: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Of `CLASSES`, for many windows at once: (n, 1250) to (n, 3), by the network alone."""
        return self._session.run(features(mv))


def _flat(mv: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Which samples of a window lie in a flat stretch, (samples,). What is missing is not flat."""
    steps = mv[1:] - mv[:-1]
    still = np.zeros(mv.size + 2, np.bool_)
    still[2:-2] = np.abs(steps[1:] - steps[:-1]) < FLAT_MV
    flat = np.zeros(mv.size, np.bool_)
    if np.count_nonzero(still) < _SHORTEST_FLAT:
        return flat
    edges = np.flatnonzero(still[1:] != still[:-1]).reshape(-1, 2)
    for first, end in edges[edges[:, 1] - edges[:, 0] >= _SHORTEST_FLAT].tolist():
        flat[first:end] = True
    return flat


def _peaked(signal: NDArray[np.floating[Any]]) -> bool:
    """Whether something stands out of the QRS band's envelope as QRS complexes do."""
    heights = envelope(signal)
    return bool(_quantile(heights, 0.95) > STANDS_OUT * median(heights))


def _quantile(values: NDArray[Any], share: float) -> NDArray[Any]:
    """As `numpy.quantile` gives it along the last axis, without the megabytes that the agent would load with that."""
    place = share * (values.shape[-1] - 1)
    low = int(place)
    high = min(low + 1, values.shape[-1] - 1)
    ordered = np.partition(values, (low, high), -1)
    found: NDArray[Any] = ordered[..., low] + (place - low) * (ordered[..., high] - ordered[..., low])
    return found
