"""`ecg_quality` at run time: its inputs, defects found without the network, its classifications and its limits."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from captures import open_recording
from models.inference.ecg_quality import CLASSES, WINDOW_SAMPLES, EcgQuality, features, find_signal_defect
from models.inference.release import RELEASE_DIR
from models.inference.session import ModelError
from models.signal.offline import condition
from models.signal.resample import RATE_HZ

CARD = RELEASE_DIR / "ecg_quality.json"
NAN = float("nan")


@pytest.fixture(scope="module")
def model() -> EcgQuality:
    return EcgQuality((RELEASE_DIR / "ecg_quality.onnx").read_bytes())


def clean_ecg(seed: int = 1) -> NDArray[np.float64]:
    """Return 10 s of P, QRS and T waves as Gaussians, at 75/min, with a little noise."""
    t_s = np.arange(WINDOW_SAMPLES) / RATE_HZ
    mv = np.random.default_rng(seed).normal(0, 0.005, WINDOW_SAMPLES)
    for at_s, height, width_s in ((-0.16, 0.12, 0.02), (0.0, 1.0, 0.012), (0.03, -0.2, 0.012), (0.25, 0.25, 0.04)):
        mv += height * np.exp(-0.5 * ((t_s[:, None] - np.arange(0.5, 10, 0.8) - at_s) / width_s) ** 2).sum(-1)
    level: NDArray[np.float64] = mv - mv.mean()
    return level


def noise(rms_mv: float, seed: int = 2) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, rms_mv, WINDOW_SAMPLES)


def replace_stretch(mv: NDArray[np.float64], first: int, end: int, value: float) -> NDArray[np.float64]:
    """Return a copy of the signal with one stretch set to a value."""
    out = mv.copy()
    out[first:end] = value
    return out


class TestFeatures:
    def test_a_known_window(self) -> None:
        """98 % of the samples are 1 mV or less and become 1/4; 20 mV is clipped to 1; missing samples are 0 and masked."""
        mv = replace_stretch(replace_stretch(np.ones(WINDOW_SAMPLES), 0, 10, 20.0), 10, 20, NAN)
        rows = features(mv)
        assert rows.shape == (2, WINDOW_SAMPLES)
        assert rows.dtype == np.float32
        assert (rows[0, :10] == 1).all()
        assert (rows[:, 10:20] == 0).all()
        assert (rows[0, 20:] == 0.25).all()
        assert (rows[1, 20:] == 1).all()

    def test_gain_does_not_matter_except_for_faint_signals(self) -> None:
        np.testing.assert_allclose(features(clean_ecg()), features(5 * clean_ecg()), atol=1e-6)
        assert np.abs(features(clean_ecg() / 1000)[0]).max() < 0.01

    @given(st.lists(st.floats(-1e3, 1e3) | st.just(NAN), min_size=5, max_size=5))
    def test_features_are_bounded_and_a_batch_gives_the_same_as_single_windows(self, levels: list[float]) -> None:
        mv = np.stack([np.repeat(levels, WINDOW_SAMPLES // 5), clean_ecg()])
        rows = features(mv)
        assert np.abs(rows).max() <= 1
        assert np.array_equal(rows, np.stack([features(window) for window in mv]))


class TestFindSignalDefect:
    def test_a_clean_ecg_has_no_defect(self) -> None:
        assert find_signal_defect(clean_ecg()) is None
        assert find_signal_defect(-clean_ecg()) is None

    @pytest.mark.parametrize(
        ("missing", "expected"), [(WINDOW_SAMPLES // 2, None), (WINDOW_SAMPLES // 2 + 1, "gaps"), (WINDOW_SAMPLES, "gaps")]
    )
    def test_less_than_half_of_the_samples_is_a_gap(self, missing: int, expected: str | None) -> None:
        assert find_signal_defect(replace_stretch(clean_ecg(), 0, missing, NAN)) == expected

    @pytest.mark.parametrize("level", [0.0, 3.2, -5.5])
    def test_a_straight_line_for_two_seconds_is_lead_off(self, level: float) -> None:
        assert find_signal_defect(replace_stretch(clean_ecg(), 500, 500 + WINDOW_SAMPLES // 5 + 2, level)) == "lead_off"
        assert find_signal_defect(replace_stretch(clean_ecg(), 500, 600, level)) is None

    def test_a_saturated_stretch_is_lead_off_after_the_baseline_filter(self) -> None:
        """The baseline filter bends the ends of the stretch."""
        raw = np.concatenate([clean_ecg(), np.full(WINDOW_SAMPLES, 4.0), clean_ecg()])
        assert find_signal_defect(condition(raw, RATE_HZ).mv[WINDOW_SAMPLES : 2 * WINDOW_SAMPLES]) == "lead_off"

    def test_a_signal_over_the_range_is_lead_off(self) -> None:
        assert find_signal_defect(noise(20.0)) == "lead_off"

    def test_noise_is_reported_as_noise(self) -> None:
        assert find_signal_defect(noise(0.3)) == "noise"

    def test_asystole_is_not_lead_off(self) -> None:
        """An electrode on skin picks up some noise even in asystole."""
        assert find_signal_defect(noise(0.005)) != "lead_off"


class TestClassify:
    def test_a_clean_ecg_is_good(self, model: EcgQuality) -> None:
        quality = model.classify(clean_ecg())
        assert (quality.label, quality.reason) == ("good", None)
        assert quality.probability == max(quality.probabilities)
        assert sum(quality.probabilities) == pytest.approx(1, abs=1e-5)

    def test_noise_alone_is_bad(self, model: EcgQuality) -> None:
        quality = model.classify(noise(0.5))
        assert (quality.label, quality.reason) == ("bad", "noise")

    def test_gaps_and_lead_off_are_bad_without_the_network(self, model: EcgQuality) -> None:
        for mv, expected in ((np.full(WINDOW_SAMPLES, NAN), "gaps"), (np.zeros(WINDOW_SAMPLES), "lead_off")):
            quality = model.classify(mv)
            assert (quality.label, quality.probability, quality.probabilities) == ("bad", 1.0, (0.0, 0.0, 1.0))
            assert quality.reason == expected

    def test_every_window_that_is_not_good_has_a_reason(self, model: EcgQuality) -> None:
        labels = []
        for rms_mv in np.geomspace(0.01, 3, 25):
            quality = model.classify(clean_ecg() + noise(rms_mv))
            labels.append(CLASSES.index(quality.label))
            assert (quality.reason is None) == (quality.label == "good")
        assert labels[0] == 0
        assert labels[-1] == 2

    def test_a_good_window_with_a_lost_packet_stays_good(self, model: EcgQuality) -> None:
        assert model.classify(replace_stretch(clean_ecg(), 300, 370, NAN)).label == "good"

    @pytest.mark.parametrize("record", ["101", "115", "122", "209", "220"])
    def test_clean_records_are_mostly_good(self, model: EcgQuality, data: Path, record: str) -> None:
        recording = open_recording(data / "mitdb" / f"{record}.hea")
        mv = condition(recording.mv[: 360 * 300], recording.rate_hz).mv
        classes = model.probabilities(mv[: 29 * WINDOW_SAMPLES].reshape(-1, WINDOW_SAMPLES)).argmax(-1)
        assert np.mean(classes == 0) > 0.85

    def test_a_window_of_the_wrong_length_is_refused(self, model: EcgQuality) -> None:
        with pytest.raises(ValueError, match="expected a window of 1250 samples"):
            model.classify(np.zeros(WINDOW_SAMPLES - 1))

    def test_bytes_that_are_not_a_model_are_refused(self) -> None:
        with pytest.raises(ModelError, match="ecg_quality cannot be loaded"):
            EcgQuality(b"not a model")


class TestRelease:
    def test_the_model_matches_its_card_and_its_limits(self, model: EcgQuality) -> None:
        card = json.loads(CARD.read_text())
        assert (card["name"], card["version"]) == (model.name, model.version)
        assert (RELEASE_DIR / "ecg_quality.onnx").stat().st_size == card["training"]["size_bytes"] <= 60_000
        assert card["int8_parity"]["agreement"] >= 0.995
        assert card["int8_parity"]["largest_change"] <= 0.05
        assert abs(card["int8_parity"]["change_of_f1_mean"]) <= 0.005
        assert card["figures"]["agreement"]["ece"]["value"] <= 0.03

    def test_inference_needs_only_numpy_and_onnxruntime(self) -> None:
        code = (
            "import sys, models.inference.ecg_quality; "
            "print([m for m in ('scipy', 'wfdb', 'torch', 'onnx', 'pandas') if m in sys.modules])"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        assert run.stdout.strip() == "[]"
