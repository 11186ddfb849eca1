"""`ecg_quality` at run time: its inputs, what plain measurement says, its verdicts and its limits."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from captures import open_recording
from models.inference.ecg_quality import CLASSES, WINDOW, EcgQuality, features, reason
from models.inference.release import RELEASED
from models.inference.session import ModelError
from models.signal.offline import condition
from models.signal.resample import RATE_HZ

CARD = RELEASED / "ecg_quality.json"
NAN = float("nan")


@pytest.fixture(scope="module")
def model() -> EcgQuality:
    return EcgQuality((RELEASED / "ecg_quality.onnx").read_bytes())


def heart(seed: int = 1) -> NDArray[np.float64]:
    """10 s of P, QRS and T as bumps, 75 times a minute, with a little noise."""
    t_s = np.arange(WINDOW) / RATE_HZ
    mv = np.random.default_rng(seed).normal(0, 0.005, WINDOW)
    for at_s, height, width_s in ((-0.16, 0.12, 0.02), (0.0, 1.0, 0.012), (0.03, -0.2, 0.012), (0.25, 0.25, 0.04)):
        mv += height * np.exp(-0.5 * ((t_s[:, None] - np.arange(0.5, 10, 0.8) - at_s) / width_s) ** 2).sum(-1)
    level: NDArray[np.float64] = mv - mv.mean()
    return level


def noise(rms_mv: float, seed: int = 2) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, rms_mv, WINDOW)


def cut(mv: NDArray[np.float64], first: int, end: int, value: float) -> NDArray[np.float64]:
    out = mv.copy()
    out[first:end] = value
    return out


class TestFeatures:
    def test_by_hand(self) -> None:
        """98 % of the samples are 1 mV or lower: they become 1/4; 20 mV is cut to 1; what is missing is 0 and marked."""
        mv = cut(cut(np.ones(WINDOW), 0, 10, 20.0), 10, 20, NAN)
        rows = features(mv)
        assert rows.shape == (2, WINDOW)
        assert rows.dtype == np.float32
        assert (rows[0, :10] == 1).all()
        assert (rows[:, 10:20] == 0).all()
        assert (rows[0, 20:] == 0.25).all()
        assert (rows[1, 20:] == 1).all()

    def test_gain_does_not_matter_but_for_faint_signals(self) -> None:
        np.testing.assert_allclose(features(heart()), features(5 * heart()), atol=1e-6)
        assert np.abs(features(heart() / 1000)[0]).max() < 0.01

    @given(st.lists(st.floats(-1e3, 1e3) | st.just(NAN), min_size=5, max_size=5))
    def test_bounded_and_many_at_once_are_the_same_as_one_by_one(self, levels: list[float]) -> None:
        mv = np.stack([np.repeat(levels, WINDOW // 5), heart()])
        rows = features(mv)
        assert np.abs(rows).max() <= 1
        assert np.array_equal(rows, np.stack([features(window) for window in mv]))


class TestReason:
    def test_nothing_is_wrong_with_a_heart(self) -> None:
        assert reason(heart()) is None
        assert reason(-heart()) is None

    @pytest.mark.parametrize(("missing", "expected"), [(WINDOW // 2, None), (WINDOW // 2 + 1, "gaps"), (WINDOW, "gaps")])
    def test_half_of_the_samples_are_needed(self, missing: int, expected: str | None) -> None:
        assert reason(cut(heart(), 0, missing, NAN)) == expected

    @pytest.mark.parametrize("level", [0.0, 3.2, -5.5])
    def test_flat_for_two_seconds_is_lead_off(self, level: float) -> None:
        assert reason(cut(heart(), 500, 500 + WINDOW // 5 + 2, level)) == "lead_off"
        assert reason(cut(heart(), 500, 600, level)) is None

    def test_a_rail_as_the_agent_sees_it(self) -> None:
        """The baseline filter bends the rail's ends, and it is lead-off still."""
        raw = np.concatenate([heart(), np.full(WINDOW, 4.0), heart()])
        assert reason(condition(raw, RATE_HZ).mv[WINDOW : 2 * WINDOW]) == "lead_off"

    def test_no_ecg_is_so_high(self) -> None:
        assert reason(noise(20.0)) == "lead_off"

    def test_noise(self) -> None:
        assert reason(noise(0.3)) == "noise"

    def test_a_standstill_is_not_lead_off(self) -> None:
        """Even in asystole there is some noise on a skin."""
        assert reason(noise(0.005)) != "lead_off"


class TestVerdicts:
    def test_a_heart_is_good(self, model: EcgQuality) -> None:
        verdict = model.judge(heart())
        assert (verdict.label, verdict.reason) == ("good", None)
        assert verdict.probability == max(verdict.probabilities)
        assert sum(verdict.probabilities) == pytest.approx(1, abs=1e-5)

    def test_noise_alone_is_bad(self, model: EcgQuality) -> None:
        verdict = model.judge(noise(0.5))
        assert (verdict.label, verdict.reason) == ("bad", "noise")

    def test_measured_facts_need_no_network(self, model: EcgQuality) -> None:
        for mv, expected in ((np.full(WINDOW, NAN), "gaps"), (np.zeros(WINDOW), "lead_off")):
            verdict = model.judge(mv)
            assert (verdict.label, verdict.probability, verdict.probabilities) == ("bad", 1.0, (0.0, 0.0, 1.0))
            assert verdict.reason == expected

    def test_whatever_is_not_good_has_a_reason(self, model: EcgQuality) -> None:
        labels = []
        for rms_mv in np.geomspace(0.01, 3, 25):
            verdict = model.judge(heart() + noise(rms_mv))
            labels.append(CLASSES.index(verdict.label))
            assert (verdict.reason is None) == (verdict.label == "good")
        assert labels[0] == 0
        assert labels[-1] == 2

    def test_a_lost_packet_changes_no_good_window(self, model: EcgQuality) -> None:
        assert model.judge(cut(heart(), 300, 370, NAN)).label == "good"

    @pytest.mark.parametrize("record", ["101", "115", "122", "209", "220"])
    def test_clean_records_are_mostly_good(self, model: EcgQuality, data: Path, record: str) -> None:
        recording = open_recording(data / "mitdb" / f"{record}.hea")
        mv = condition(recording.mv[: 360 * 300], recording.rate_hz).mv
        called = model.probabilities(mv[: 29 * WINDOW].reshape(-1, WINDOW)).argmax(-1)
        assert np.mean(called == 0) > 0.85

    def test_wrong_length(self, model: EcgQuality) -> None:
        with pytest.raises(ValueError, match="expected a window of 1250 samples"):
            model.judge(np.zeros(WINDOW - 1))

    def test_no_model(self) -> None:
        with pytest.raises(ModelError, match="ecg_quality cannot be loaded"):
            EcgQuality(b"no model")


class TestRelease:
    def test_within_its_limits(self, model: EcgQuality) -> None:
        card = json.loads(CARD.read_text())
        assert (card["name"], card["version"]) == (model.name, model.version)
        assert (RELEASED / "ecg_quality.onnx").stat().st_size == card["training"]["size_bytes"] <= 60_000
        assert card["int8_parity"]["agreement"] >= 0.995
        assert card["int8_parity"]["largest_change"] <= 0.05
        assert abs(card["int8_parity"]["change_of_f1_mean"]) <= 0.005
        assert card["figures"]["agreement"]["ece"]["value"] <= 0.03

    def test_a_window_takes_half_a_millisecond(self, model: EcgQuality) -> None:
        """The best of many: the machine may be busy."""
        mv, times = heart(), []
        for _ in range(200):
            begin = time.perf_counter()
            model.judge(mv)
            times.append(time.perf_counter() - begin)
        assert min(times) < 0.5e-3

    def test_inference_needs_only_numpy_and_onnxruntime(self) -> None:
        code = (
            "import sys, models.inference.ecg_quality; "
            "print([m for m in ('scipy', 'wfdb', 'torch', 'onnx', 'pandas') if m in sys.modules])"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        assert run.stdout.strip() == "[]"
