"""`rr_af` at run time: its inputs, what it refuses, and its probabilities for well-known rhythms."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from captures.rhythms import load_rhythm, windows
from evaluation.rr_af import record_report
from evaluation.rr_tracking import score_windows, track_episodes
from models.inference.release import RELEASE_DIR
from models.inference.rr_af import MIN_VALID, WINDOW_INTERVALS, RrAf, is_conclusive, rr_features
from models.inference.session import ModelError

ALL_VALID = np.ones(WINDOW_INTERVALS, np.bool_)


@pytest.fixture(scope="module")
def model() -> RrAf:
    return RrAf((RELEASE_DIR / "rr_af.onnx").read_bytes())


def bigeminy() -> NDArray[np.float64]:
    return np.tile([0.55, 1.05], WINDOW_INTERVALS // 2)


def trigeminy() -> NDArray[np.float64]:
    return np.tile([0.8, 0.5, 1.1], WINDOW_INTERVALS)[:WINDOW_INTERVALS]


def sinus_arrhythmia() -> NDArray[np.float64]:
    return 0.9 + 0.12 * np.sin(2 * np.pi * np.arange(WINDOW_INTERVALS) / 5)


def fibrillation(seed: int) -> NDArray[np.float64]:
    """Return irregularly irregular intervals: independent, as from a ventricle driven at random, with a refractory period."""
    return np.random.default_rng(seed).gamma(9, 0.045, WINDOW_INTERVALS) + 0.32


class TestFeatures:
    def test_features_of_bigeminy(self) -> None:
        features = rr_features(bigeminy(), ALL_VALID)
        ratio = np.log(1.05 / 0.55)
        assert features.shape == (6, WINDOW_INTERVALS)
        np.testing.assert_allclose(features[0], np.tile([0, ratio], 32), atol=1e-6)  # the lower median is 0.55 s
        assert (features[1] == 1).all()
        np.testing.assert_allclose(features[2, 1:4], [ratio, -ratio, ratio], atol=1e-6)
        assert features[3] == pytest.approx(0, abs=1e-6)
        np.testing.assert_allclose(features[5], np.log(0.55 / 0.8), atol=1e-6)

    @given(
        rr_s=st.lists(st.floats(0.0, 5.0), min_size=WINDOW_INTERVALS, max_size=WINDOW_INTERVALS),
        valid=st.lists(st.booleans(), min_size=WINDOW_INTERVALS, max_size=WINDOW_INTERVALS),
    )
    def test_features_are_bounded_and_independent_of_invalid_intervals(self, rr_s: list[float], valid: list[bool]) -> None:
        rr, mask = np.array(rr_s), np.array(valid)
        features = rr_features(rr, mask)
        assert np.isfinite(features).all()
        assert np.abs(features).max() <= 1
        assert np.array_equal(features, rr_features(np.where(mask, rr, 99.0), mask))
        assert (features[:, ~mask] == 0).all()

    def test_a_batch_gives_the_same_as_single_windows(self) -> None:
        rr = np.stack([bigeminy(), trigeminy(), fibrillation(1)])
        mask = np.stack([ALL_VALID, np.arange(WINDOW_INTERVALS) > 30, np.arange(WINDOW_INTERVALS) % 3 > 0])
        assert np.array_equal(rr_features(rr, mask), np.stack([rr_features(*one) for one in zip(rr, mask, strict=True)]))


class TestRhythms:
    @pytest.mark.parametrize("rate_bpm", range(35, 225, 5))
    def test_regular_rhythms_are_not_af(self, model: RrAf, rate_bpm: int) -> None:
        assert model.probability(np.full(WINDOW_INTERVALS, 60 / rate_bpm), ALL_VALID) < 0.2

    @pytest.mark.parametrize(
        "rhythm", [bigeminy(), trigeminy(), sinus_arrhythmia()], ids=["bigeminy", "trigeminy", "sinus_arrhythmia"]
    )
    def test_regular_patterns_are_not_af(self, model: RrAf, rhythm: NDArray[np.float64]) -> None:
        assert model.probability(rhythm, ALL_VALID) < 0.2

    @pytest.mark.parametrize("seed", range(5))
    def test_independent_intervals_are_af(self, model: RrAf, seed: int) -> None:
        assert model.probability(fibrillation(seed), ALL_VALID) > 0.5

    @pytest.mark.parametrize("seed", range(5))
    def test_af_is_detected_after_half_a_minute(self, model: RrAf, seed: int) -> None:
        # an alert needs a higher probability and may come later
        assert model.probability(fibrillation(seed)[:40], ALL_VALID[:40]) > 0.5

    def test_a_single_premature_beat_is_not_af(self, model: RrAf) -> None:
        rr = np.full(WINDOW_INTERVALS, 0.8)
        rr[40:42] = 0.5, 1.1
        assert model.probability(rr, ALL_VALID) < 0.05

    def test_a_short_history_gives_the_same_as_a_masked_one(self, model: RrAf) -> None:
        rr = fibrillation(3)
        masked = np.arange(WINDOW_INTERVALS) >= WINDOW_INTERVALS - 30
        assert model.probability(rr[-30:], ALL_VALID[:30]) == model.probability(rr, masked)

    @pytest.mark.parametrize(
        ("record", "is_af"), [("101", False), ("112", False), ("122", False), ("201", True), ("203", True)]
    )
    def test_recordings_with_and_without_af(self, model: RrAf, data: Path, record: str, is_af: bool) -> None:
        cut = windows(load_rhythm(data / "mitdb" / f"{record}.atr", "mitdb"), 8)
        probability = model.probabilities(cut.rr_s, cut.valid)[cut.valid.sum(-1) >= MIN_VALID]
        assert (probability >= model.on_threshold).any() == is_af


class TestRefusal:
    def test_too_few_valid_intervals_are_refused(self, model: RrAf) -> None:
        with pytest.raises(ValueError, match=f"23 valid intervals are too few: {MIN_VALID} are needed"):
            model.probability(np.full(WINDOW_INTERVALS, 0.8), np.arange(WINDOW_INTERVALS) < 23)

    def test_wrong_shapes_are_refused(self, model: RrAf) -> None:
        with pytest.raises(ValueError, match="at most 64 intervals"):
            model.probability(np.full(65, 0.8), np.ones(65, np.bool_))
        with pytest.raises(ValueError, match="at most 64 intervals"):
            model.probability(np.full(64, 0.8), np.ones(63, np.bool_))

    def test_bytes_that_are_not_a_model_are_refused(self) -> None:
        with pytest.raises(ModelError, match="rr_af cannot be loaded: ") as caught:
            RrAf(b"not a model")
        assert "\n" not in str(caught.value)


class TestIsConclusive:
    def test_24_valid_intervals_are_enough_and_23_are_not(self) -> None:
        rr = np.full(WINDOW_INTERVALS, 0.8)
        assert is_conclusive(rr, np.arange(WINDOW_INTERVALS) >= WINDOW_INTERVALS - 24)
        assert not is_conclusive(rr, np.arange(WINDOW_INTERVALS) >= WINDOW_INTERVALS - 23)

    @pytest.mark.parametrize(("missed", "expected"), [(16, True), (17, False)])
    @pytest.mark.parametrize("interval_s", [2.2, 5.0])
    def test_many_missed_beats_are_inconclusive(self, missed: int, interval_s: float, expected: bool) -> None:
        rr = np.where(np.arange(WINDOW_INTERVALS) < missed, interval_s, 0.9)
        assert is_conclusive(rr, ALL_VALID) == expected

    def test_the_methods_agree_with_the_function(self, model: RrAf) -> None:
        rr = np.stack([np.full(WINDOW_INTERVALS, 0.8), np.full(WINDOW_INTERVALS, 2.5)])
        many = np.stack([ALL_VALID, ALL_VALID])
        assert model.find_conclusive_windows(rr, many).tolist() == [True, False]
        assert [model.is_conclusive(*one) for one in zip(rr, many, strict=True)] == [True, False]


class TestRelease:
    def test_the_model_matches_its_card_and_its_limits(self, model: RrAf) -> None:
        card = json.loads((RELEASE_DIR / "rr_af.json").read_text())
        assert (RELEASE_DIR / "rr_af.onnx").stat().st_size == card["training"]["size_bytes"] <= 40_000
        assert (card["name"], card["version"]) == (model.name, model.version)
        assert card["calibration"]["on_threshold"] == model.on_threshold
        for name in ("as_recorded", "augmented"):
            parity = card["int8_parity"][name]
            assert parity["agreement"] >= 0.995
            assert parity["largest_change"] <= 0.05
            assert abs(parity["f1_change"]) <= 0.005
        assert "Not a medical device" in (RELEASE_DIR / "rr_af.md").read_text()

    def test_the_cards_figures_of_an_unseen_record_are_reproducible(self, model: RrAf, data: Path) -> None:
        card = json.loads((RELEASE_DIR / "rr_af.json").read_text())
        report = record_report(track_episodes(score_windows(load_rhythm(data / "ltafdb" / "38.qrs", "ltafdb"), model), model))
        figures = card["per_record"]["ltafdb"]["38"]
        for key in ("se", "sp", "coverage"):
            assert report["duration"][key] == pytest.approx(figures[key], abs=0.5)
        assert report["alerts"]["af"] == figures["alerts_in_af"]

    def test_inference_needs_only_numpy_and_onnxruntime(self) -> None:
        code = (
            "import sys, models.inference.rr_af as i, models.rules.af; "
            f"i.RrAf(open({str(RELEASE_DIR / 'rr_af.onnx')!r}, 'rb').read()); "
            "print([m for m in ('scipy', 'wfdb', 'torch', 'onnx', 'pandas') if m in sys.modules])"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        assert run.stdout.strip() == "[]"
