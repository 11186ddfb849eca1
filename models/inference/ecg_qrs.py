"""Whether a bump of the ECG's envelope is a heart beat, and where its R peak lies, in noise (model `ecg_qrs`)."""

from typing import Self

import numpy as np

from models.inference.release import released
from models.inference.session import Session
from models.signal.candidate import UNIT, Values, Verdict


class EcgQrs:
    """The judge of a `QrsDetector`. Keeps nothing from one bump to the next, so that detectors share it.

    Attributes:
        name, version: of the model, for findings (`ecg_qrs@1`).
    """

    def __init__(self, model_bytes: bytes) -> None:
        """Build the session.

        Raises:
            ModelError: the bytes are no model that this version can run.
        """
        self._session = Session("ecg_qrs", model_bytes)
        self.name, self.version = self._session.name, self._session.version

    @classmethod
    def load_release(cls) -> Self:
        """The model that this package came with.

        Raises:
            ModelError: it is missing, altered or cannot be run.
        """
        return cls(released("ecg_qrs.onnx"))

    def __call__(self, values: Values) -> Verdict:
        """Judge one bump by what `candidate.values` made of it."""
        probability, place = self._session.run(values[np.newaxis])[0].tolist()
        return Verdict(probability, UNIT * place)
