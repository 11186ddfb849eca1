"""One released network at run time: bytes in, a session on one thread, probabilities out."""

from collections.abc import Mapping

import numpy as np
import onnxruntime
from numpy.typing import NDArray


class ModelError(Exception):
    """A released model is missing, altered or cannot be run. The message says which and what to do."""


class Session:
    """A network with one input and one output; what the file says of itself is in `facts`."""

    def __init__(self, name: str, model_bytes: bytes) -> None:
        """Build it.

        Raises:
            ModelError: the bytes are no model of this name, or none that this version can run.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.disable_quant_qdq", "1")  # weights become float once, not in every run
        try:
            self._session = onnxruntime.InferenceSession(model_bytes, options, providers=["CPUExecutionProvider"])
            self.facts: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
            self.name, self.version = self.facts["name"], self.facts["version"]
            (self._input,) = (source.name for source in self._session.get_inputs())
            self._outputs = [source.name for source in self._session.get_outputs()]
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise ModelError(f"{name} cannot be loaded: {str(error).splitlines()[0]}. Reinstall pulsegate.") from error
        if self.name != name:
            raise ModelError(f"{name} cannot be loaded: the file holds {self.name}. Reinstall pulsegate.")

    def number(self, fact: str) -> float:
        """A number that the file states, such as a threshold.

        Raises:
            ModelError: it states none of this name.
        """
        try:
            return float(self.facts[fact])
        except (KeyError, ValueError) as error:
            raise ModelError(f"{self.name} does not state its {fact}. Reinstall pulsegate.") from error

    def run(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Many windows at once, (n, …); the network's output, (n, …)."""
        (output,) = self._session.run(self._outputs, {self._input: features})
        return np.asarray(output, np.float32)
