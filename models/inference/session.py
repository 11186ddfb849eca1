"""Runs one released network on one thread: model bytes in, probabilities out.

The released files are int8 models in ONNX's QDQ form (QuantizeLinear and DequantizeLinear nodes): most layers store their
weights as int8. That describes the files, not the arithmetic. ONNX Runtime's CPU provider, as configured here, dequantises the
weights to float32 once, when it loads a model, and runs most kernels in float32. Only the convolutions that a file holds as
QLinearConv compute in int8: one each in `ecg_organised` and `ecg_quality`, two each in `ppg_quality` and
`rr_af`. At the QuantizeLinear nodes that remain, activations are still rounded to 8 bits.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.inference.runtime import onnxruntime

PRECISE_INT8: Final = ("session.x64quantprecision", "1")
"""An option for every session whose results are used. Without it, ONNX Runtime's int8 kernels for x86 processors with AVX2
but without VNNI add products in 16 bits, which saturate: a probability of a test network was off by 0.05.
With the option the result is the same as with VNNI (docs/decisions/0013)."""


class ModelError(Exception):
    """A released model is missing, altered or cannot be run. The message says which one and what to do."""


class ModelSession:
    """A network with one input and one output.

    Attributes:
        name, version: of the model, from the file's metadata.
        metadata: all key-value pairs that the file states, such as thresholds.
    """

    def __init__(self, name: str, model_bytes: bytes) -> None:
        """Load the model `name` from the bytes of its `.onnx` file.

        Raises:
            ModelError: the bytes are not a model of this name, or this version cannot run it.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = False  # an arena for each model keeps the memory of its largest run
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.disable_quant_qdq", "1")  # dequantise the weights at load, not in every run
        options.add_session_config_entry(*PRECISE_INT8)
        try:
            self._session = onnxruntime.InferenceSession(model_bytes, options, providers=["CPUExecutionProvider"])
            self._session._model_bytes = None  # pyright: ignore[reportPrivateUsage]  only needed to build the session anew
            self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
            self.name, self.version = self.metadata["name"], self.metadata["version"]
            (self._input,) = (source.name for source in self._session.get_inputs())
            self._outputs = [source.name for source in self._session.get_outputs()]
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise ModelError(f"{name} cannot be loaded: {str(error).splitlines()[0]}. Reinstall pulsegate.") from error
        if self.name != name:
            raise ModelError(f"{name} cannot be loaded: the file holds {self.name}. Reinstall pulsegate.")

    def read_number(self, key: str) -> float:
        """Return a number from the file's metadata, such as a threshold.

        Raises:
            ModelError: the metadata has no such key, or its value is not a number.
        """
        try:
            return float(self.metadata[key])
        except (KeyError, ValueError) as error:
            raise ModelError(f"{self.name} does not state its {key}. Reinstall pulsegate.") from error

    def run(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network on a batch: features (n, …) to its output (n, …)."""
        (output,) = self._session.run(self._outputs, {self._input: features})
        return np.asarray(output, np.float32)
