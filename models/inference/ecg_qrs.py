"""Decides in noise whether a peak of the ECG's envelope is a heart beat, and where its R peak lies (model `ecg_qrs`)."""

from typing import Self

import numpy as np

from models.inference.release import read_release_file
from models.inference.session import ModelSession
from models.signal.beat_classifier import OFFSET_UNIT_SAMPLES, Classification, InputVector


class EcgQrs:
    """The beat classifier of a `NoisyQrsDetector`. It is stateless, so several detectors can share it.

    Attributes:
        name, version: of the model, for findings (`ecg_qrs@1`).
    """

    def __init__(self, model_bytes: bytes) -> None:
        """Build the session.

        Raises:
            ModelError: the bytes are not a model that this version can run.
        """
        self._session = ModelSession("ecg_qrs", model_bytes)
        self.name, self.version = self._session.name, self._session.version

    @classmethod
    def load_release(cls) -> Self:
        """Load the model that ships with this package.

        Raises:
            ModelError: the file or its manifest is missing, altered or cannot be run.
        """
        return cls(read_release_file("ecg_qrs.onnx"))

    def __call__(self, values: InputVector) -> Classification:
        """Classify one peak candidate by its input vector, as `beat_classifier.input_vector` builds it."""
        probability, scaled_offset = self._session.run(values[np.newaxis])[0].tolist()
        return Classification(probability, OFFSET_UNIT_SAMPLES * scaled_offset)
