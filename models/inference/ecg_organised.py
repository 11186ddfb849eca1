"""Classifies four seconds of ECG: organised rhythm, tachycardia, fibrillation, asystole, or noise (`ecg_organised`)."""

from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from models.inference.release import read_release_file
from models.inference.session import ModelSession
from models.signal.rhythm_window import WINDOW_SAMPLES

ROWS: Final = 2
COLUMNS: Final = WINDOW_SAMPLES // 2
"""The network sees the means of two samples, 62.5 Hz: fibrillation ends at 10 Hz, and most of a QRS complex at 30 Hz."""

_SCALE_RANK: Final = round(0.95 * COLUMNS)
"""Rank among the absolute samples that sets the scale of the first row."""
_MIN_SCALE_MV: Final = 0.02
_RANGE: Final = 4.0
_KNEE_MV: Final = 0.05
"""Below this, the second row is linear in the signal; above, logarithmic. Fine fibrillation has 0.1 to 0.2 mV."""
_LOG_RANGE: Final = float(np.log1p(5.0 / _KNEE_MV))


def features(mv: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Compute the network's input for windows; training and inference share this function.

    Two rows: the shape, which is the signal over 4 times its 95th percentile, clipped to ±1; and the amplitude, which is the
    logarithm of 1 + the signal over 0.05 mV, with the signal's sign. Zero where samples are missing.

    Args:
        mv: (…, 500) from `prepare`.

    Returns:
        (…, 2, 250) float32.
    """
    known = np.where(np.isnan(mv), 0.0, mv).astype(np.float32)
    signal = 0.5 * (known[..., ::2] + known[..., 1::2])
    size = np.abs(signal)
    scale = np.maximum(np.partition(size, _SCALE_RANK, -1)[..., _SCALE_RANK, None], _MIN_SCALE_MV)
    rows = np.empty((*signal.shape[:-1], ROWS, COLUMNS), np.float32)
    rows[..., 0, :] = np.minimum(np.maximum(signal / (_RANGE * scale), -1.0), 1.0)
    rows[..., 1, :] = np.copysign(np.log1p(size / _KNEE_MV) / _LOG_RANGE, signal)
    return rows


class EcgOrganised:
    """Classifies the last four seconds of ECG (model `ecg_organised`).

    Attributes:
        name, version: of the model, for findings (`ecg_organised@1`).
    """

    def __init__(self, model_bytes: bytes) -> None:
        """Build the session.

        Raises:
            ModelError: the bytes are not a model that this version can run.
        """
        self._session = ModelSession("ecg_organised", model_bytes)
        self.name, self.version = self._session.name, self._session.version

    @classmethod
    def load_release(cls) -> Self:
        """Load the model that ships with this package.

        Raises:
            ModelError: the file or its manifest is missing, altered or cannot be run.
        """
        return cls(read_release_file("ecg_organised.onnx"))

    def classify(self, mv: NDArray[np.floating[Any]]) -> tuple[float, ...]:
        """Return the probabilities of `rhythm_window.CLASSES` for one window (500,) from `rhythm_window.prepare`.

        Raises:
            ValueError: the window has another length.
        """
        if mv.shape != (WINDOW_SAMPLES,):
            raise ValueError(f"expected a window of {WINDOW_SAMPLES} samples, found shape {mv.shape}")
        return tuple(self._session.run(features(mv)[None])[0].tolist())
