"""The released models at run time: verified bytes in, probabilities out. Only numpy and onnxruntime are needed."""

import hashlib
import json
from importlib import resources
from typing import Any, Final, Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray

WINDOW: Final = 64
"""RR intervals that `rr_af` looks at: 40 to 60 s of heart beats."""

MIN_VALID: Final = 24
"""Valid intervals without which `rr_af` says nothing: it must decide after 30 s (ESC 2024: the shortest AF), at 50 bpm too."""

RR_RANGE_S: Final = (0.2, 3.0)
"""Intervals outside count as not valid: 300 bpm is beyond any conducted rhythm, and 3 s is a pause or a missed beat."""

FEATURES: Final = 6
_REFERENCE_RR_S: Final = 0.8


class ModelError(Exception):
    """A released model is missing, altered or cannot be run. The message says which and what to do."""


def rr_features(rr_s: NDArray[np.floating[Any]], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """What the network sees of RR intervals; used by training and inference alike.

    Rows, all zero where an interval (or its partner) is not valid, and within ±1: the logarithm of RR over the window's
    median; validity; the change of the first row against 1, 2 and 3 intervals earlier (it vanishes at lag 2 in bigeminy, at
    lag 3 in trigeminy, at none in AF); the logarithm of the median over 0.8 s.

    Args:
        rr_s: (..., 64) seconds, oldest first; anything where not valid.
        valid: (..., 64) true where the interval lies between two beats in sequence.

    Returns:
        (..., 6, 64) float32.
    """
    known = valid & (rr_s >= RR_RANGE_S[0]) & (rr_s <= RR_RANGE_S[1])
    log_rr = np.log(np.where(known, rr_s, 1.0), dtype=np.float64)
    middle = np.maximum(known.sum(-1, keepdims=True) - 1, 0) // 2
    median = np.take_along_axis(np.sort(np.where(known, log_rr, np.inf), -1), middle, -1)
    median = np.where(np.isfinite(median), median, 0.0)
    deviation = np.where(known, log_rr - median, 0.0)
    features = np.zeros((*rr_s.shape[:-1], FEATURES, rr_s.shape[-1]), np.float32)
    features[..., 0, :] = deviation
    features[..., 1, :] = known
    for lag in (1, 2, 3):
        pair = known[..., lag:] & known[..., :-lag]
        features[..., 1 + lag, lag:] = np.where(pair, deviation[..., lag:] - deviation[..., :-lag], 0.0)
    features[..., 5, :] = np.where(known, median - np.log(_REFERENCE_RR_S), 0.0)
    return np.clip(features, -1.0, 1.0, out=features)


class RrAf:
    """Atrial fibrillation from the last RR or PP intervals (model `rr_af`).

    Attributes:
        name, version: of the model, for findings (`rr_af@1`).
        window, min_valid: intervals that it looks at, and valid ones that it needs.
        on_threshold, off_threshold: an episode begins when the probability reaches the first and ends when it falls below the
            second; chosen by cross-validation, see the model's card.
    """

    def __init__(self, model_bytes: bytes) -> None:
        """Build the session.

        Raises:
            ModelError: the bytes are no model that this version can run.
        """
        self.window, self.min_valid = WINDOW, MIN_VALID
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(model_bytes, options, providers=["CPUExecutionProvider"])
            facts = self._session.get_modelmeta().custom_metadata_map
            self.name: str = facts["name"]
            self.version: str = facts["version"]
            self.on_threshold = float(facts["on_threshold"])
            self.off_threshold = float(facts["off_threshold"])
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise ModelError(f"rr_af cannot be loaded: {str(error).splitlines()[0]}. Reinstall pulsegate.") from error

    @classmethod
    def load_release(cls) -> Self:
        """The model that this package was released with.

        Raises:
            ModelError: the file or its manifest is missing, altered or cannot be run.
        """
        return cls(released("rr_af.onnx"))

    def probability(self, rr_s: NDArray[np.float64], valid: NDArray[np.bool_]) -> float:
        """The calibrated probability that the patient is in AF during these intervals.

        Args:
            rr_s: (n,) seconds, n ≤ 64, oldest first.
            valid: (n,) false for an interval across a gap or at a doubtful beat.

        Raises:
            ValueError: more than 64 intervals, or fewer than 24 valid ones (`min_valid`).
        """
        if rr_s.shape != valid.shape or rr_s.ndim != 1 or len(rr_s) > WINDOW:
            raise ValueError(f"expected two arrays of at most {WINDOW} intervals, found shapes {rr_s.shape} and {valid.shape}")
        if np.count_nonzero(valid) < MIN_VALID:
            raise ValueError(f"{np.count_nonzero(valid)} valid intervals are too few: {MIN_VALID} are needed")
        missing = (WINDOW - len(rr_s), 0)
        return float(self.probabilities(np.pad(rr_s, missing)[None], np.pad(valid, missing)[None])[0])

    def probabilities(self, rr_s: NDArray[np.floating[Any]], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Many windows at once: both arrays (windows, 64); returns (windows,)."""
        (output,) = self._session.run(None, {"features": rr_features(rr_s, valid)})
        return np.asarray(output, np.float32).reshape(-1)


def released(file: str) -> bytes:
    """The bytes of one released file, read once and checked against size and SHA-256 in the manifest.

    Raises:
        ModelError: the file or the manifest is missing or damaged, or they do not belong together.
    """
    folder = resources.files("models") / "release"
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        entry = manifest["files"][file]
        data = (folder / file).read_bytes()
        expected = (int(entry["size"]), str(entry["sha256"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file} or its manifest is missing or damaged ({error}). Reinstall pulsegate.") from error
    found = (len(data), hashlib.sha256(data).hexdigest())
    if found != expected:
        raise ModelError(
            f"{file} is not the released file (SHA-256 {found[1][:12]}…, manifest {expected[1][:12]}…). Reinstall pulsegate."
        )
    return data
