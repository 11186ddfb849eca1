"""`ecg_qrs` at run time, in the detector and by itself: its gain in noise, and independence of chunk sizes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.detection import detect
from evaluation.ec57 import Reference, pair
from evaluation.noise import add_noise, load_noise
from evaluation.records import load_annotated
from models.inference.ecg_qrs import EcgQrs
from models.inference.release import RELEASE_DIR
from models.inference.session import ModelError
from models.signal.beat_classifier import INPUT_SIZE
from models.signal.chain import Beat, EcgChain

CARD = RELEASE_DIR / "ecg_qrs.json"


@pytest.fixture(scope="module")
def model() -> EcgQrs:
    return EcgQrs((RELEASE_DIR / "ecg_qrs.onnx").read_bytes())


def load_in_muscle_noise(data: Path, record: str, minutes: int) -> tuple[Reference, NDArray[np.float64]]:
    """Return reference beats and signal of a record's first minutes, with muscle noise at 6 dB for QRS complexes of 2 mV."""
    annotated = load_annotated(data / "mitdb" / f"{record}.hea")
    mv = annotated.recording.mv[: minutes * 60 * 360]
    noisy = add_noise(mv, 360, load_noise(data / "noise"), "MA", 6, 2.0, record)
    return annotated.reference.until(minutes * 60), noisy


class TestInTheDetector:
    def test_detection_in_noise_has_at_most_half_the_errors(self, model: EcgQrs, data: Path) -> None:
        truth, mv = load_in_muscle_noise(data, "122", 5)
        without, with_model = (pair(truth, detect(mv, 360, classifier), 0.05, 10.0).counts for classifier in (None, model))
        assert with_model.f1 > 0.95
        assert 1 - with_model.f1 < 0.5 * (1 - without.f1)

    def test_beats_are_bit_identical_for_any_chunk_size(self, model: EcgQrs, data: Path) -> None:
        _, mv = load_in_muscle_noise(data, "209", 1)

        def beats(size: int) -> list[Beat]:
            chain = EcgChain(360, model)
            return [beat for i in range(0, mv.size, size) for beat in chain.push(mv[i : i + size])] + chain.finish()

        whole = beats(mv.size)
        assert len(whole) > 50
        assert all(beats(size) == whole for size in (17, 73, 360, 5000))


class TestByItself:
    def test_returns_a_probability_and_an_r_peak_offset(self, model: EcgQrs) -> None:
        classification = model(np.zeros(INPUT_SIZE, np.float32))
        assert 0 <= classification.probability <= 1
        assert abs(classification.r_peak_offset) < 25

    def test_bytes_that_are_not_a_model_are_refused(self) -> None:
        with pytest.raises(ModelError, match="ecg_qrs cannot be loaded"):
            EcgQrs(b"not a model")


class TestRelease:
    def test_the_model_matches_its_card_and_its_limits(self, model: EcgQrs) -> None:
        card = json.loads(CARD.read_text())
        assert (card["name"], card["version"]) == (model.name, model.version)
        assert (RELEASE_DIR / "ecg_qrs.onnx").stat().st_size == card["training"]["size_bytes"] <= 60_000
        assert card["int8_parity"]["agreement"] >= 0.995
        assert card["int8_parity"]["largest_change"] <= 0.05
        assert card["int8_parity"]["r_peak_moved_ms"]["99 %"] <= 5
        assert card["figures"]["ece"] <= 0.02

    def test_inference_needs_only_numpy_and_onnxruntime(self) -> None:
        code = (
            "import sys, models.inference.ecg_qrs, models.signal.chain; "
            "print([m for m in ('scipy', 'wfdb', 'torch', 'onnx', 'pandas') if m in sys.modules])"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        assert run.stdout.strip() == "[]"
