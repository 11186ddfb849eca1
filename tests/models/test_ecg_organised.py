"""`ecg_organised` at run time: its inputs, its outputs and its limits."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.inference.ecg_organised import COLUMNS, EcgOrganised, features
from models.inference.release import RELEASE_DIR
from models.inference.session import ModelError
from models.signal.rhythm_window import INPUT_SAMPLES, WINDOW_SAMPLES, prepare

CARD = RELEASE_DIR / "ecg_organised.json"
NAN = float("nan")


@pytest.fixture(scope="module")
def model() -> EcgOrganised:
    return EcgOrganised((RELEASE_DIR / "ecg_organised.onnx").read_bytes())


def noise(rms_mv: float, size: int = WINDOW_SAMPLES) -> NDArray[np.float64]:
    return np.random.default_rng(2).normal(0, rms_mv, size)


class TestFeatures:
    def test_a_known_window(self) -> None:
        """95 % of the samples are 1 mV or less and become 1/4; 8 mV is clipped to 1; missing samples are 0."""
        mv = np.ones(WINDOW_SAMPLES)
        mv[:10], mv[10:20] = 8.0, NAN
        shape, level = features(mv)
        assert shape.dtype == np.float32
        assert (shape[:5] == 1).all()
        assert (shape[5:10] == 0).all()
        assert (shape[10:] == 0.25).all()
        assert level[20] == pytest.approx(np.log(21) / np.log(101), abs=1e-6)
        assert (level[5:10] == 0).all()

    def test_the_amplitude_is_in_the_second_row_only(self) -> None:
        small, large = features(noise(0.1)), features(noise(1.0))
        np.testing.assert_allclose(small[0], large[0], atol=1e-5)
        assert np.abs(large[1]).mean() > 1.5 * np.abs(small[1]).mean()

    def test_polarity_turns_both_rows(self) -> None:
        np.testing.assert_array_equal(features(-noise(0.3)), -features(noise(0.3)))

    @given(st.lists(st.floats(-1e3, 1e3) | st.just(NAN), min_size=5, max_size=5))
    def test_a_batch_gives_the_same_as_single_windows(self, levels: list[float]) -> None:
        mv = np.stack([np.repeat(levels, WINDOW_SAMPLES // 5), noise(0.2)])
        rows = features(mv)
        assert rows.shape == (2, 2, COLUMNS)
        assert np.isfinite(rows).all()
        assert np.abs(rows[:, 0]).max() <= 1
        assert np.array_equal(rows, np.stack([features(window) for window in mv]))

    def test_a_constant_offset_and_slow_drift_are_removed(self) -> None:
        drift = 3.0 + 0.5 * np.sin(2 * np.pi * 0.05 * np.arange(INPUT_SAMPLES) / 125)
        window = prepare(drift)
        assert window.shape == (WINDOW_SAMPLES,)
        assert np.abs(window).max() < 0.1


class TestModel:
    def test_probabilities_sum_to_one(self, model: EcgOrganised) -> None:
        for level_mv in (0.0, 0.05, 2.0):
            assert sum(model.classify(noise(level_mv))) == pytest.approx(1, abs=1e-5)

    def test_a_window_of_the_wrong_length_is_refused(self, model: EcgOrganised) -> None:
        with pytest.raises(ValueError, match="expected a window of 500 samples"):
            model.classify(np.zeros(WINDOW_SAMPLES - 1))

    def test_bytes_that_are_not_a_model_are_refused(self) -> None:
        with pytest.raises(ModelError, match="ecg_organised cannot be loaded"):
            EcgOrganised(b"not a model")


class TestRelease:
    def test_the_model_matches_its_card_and_its_limits(self, model: EcgOrganised) -> None:
        card = json.loads(CARD.read_text())
        assert (card["name"], card["version"]) == (model.name, model.version)
        assert (RELEASE_DIR / "ecg_organised.onnx").stat().st_size == card["training"]["size_bytes"] <= 60_000
        assert card["int8_parity"]["agreement"] >= 0.995
        assert card["int8_parity"]["largest_change"] <= 0.05
        found = card["figures"]["episodes of 10 s and longer in cudb and vfdb"]["all"]
        assert found["found"] >= 0.95 * found["episodes"]
        assert found["time covered, percent"] >= 90
        assert found["latency p95 in s"] <= 12

    def test_inference_needs_only_numpy_and_onnxruntime(self) -> None:
        code = (
            "import sys, models.inference.ecg_organised; "
            "print([m for m in ('scipy', 'wfdb', 'torch', 'onnx', 'pandas') if m in sys.modules])"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        assert run.stdout.strip() == "[]"
