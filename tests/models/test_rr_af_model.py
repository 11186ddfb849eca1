"""`rr_af` at run time: its inputs, its refusals, and what it says of rhythms that everyone can name."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models import inference
from models.inference.rr_af import MIN_VALID, WINDOW, RrAf, rr_features
from models.inference.session import ModelError
from models.recordings.rhythms import load_rhythm, windows

ALL = np.ones(WINDOW, np.bool_)


@pytest.fixture(scope="module")
def model() -> RrAf:
    return RrAf.load_release()


def bigeminy() -> NDArray[np.float64]:
    return np.tile([0.55, 1.05], WINDOW // 2)


def trigeminy() -> NDArray[np.float64]:
    return np.tile([0.8, 0.5, 1.1], WINDOW)[:WINDOW]


def breathing() -> NDArray[np.float64]:
    return 0.9 + 0.12 * np.sin(2 * np.pi * np.arange(WINDOW) / 5)


def fibrillation(seed: int) -> NDArray[np.float64]:
    """Irregularly irregular: independent intervals, as of a ventricle driven at random with a refractory time."""
    return np.random.default_rng(seed).gamma(9, 0.045, WINDOW) + 0.32


class TestFeatures:
    def test_bigeminy_by_hand(self) -> None:
        features = rr_features(bigeminy(), ALL)
        ratio = np.log(1.05 / 0.55)
        assert features.shape == (6, WINDOW)
        np.testing.assert_allclose(features[0], np.tile([0, ratio], 32), atol=1e-6)  # the lower median is 0.55 s
        assert (features[1] == 1).all()
        np.testing.assert_allclose(features[2, 1:4], [ratio, -ratio, ratio], atol=1e-6)
        assert features[3] == pytest.approx(0, abs=1e-6)
        np.testing.assert_allclose(features[5], np.log(0.55 / 0.8), atol=1e-6)

    @given(
        rr_s=st.lists(st.floats(0.0, 5.0), min_size=WINDOW, max_size=WINDOW),
        valid=st.lists(st.booleans(), min_size=WINDOW, max_size=WINDOW),
    )
    def test_bounded_and_blind_to_what_is_not_valid(self, rr_s: list[float], valid: list[bool]) -> None:
        rr, mask = np.array(rr_s), np.array(valid)
        features = rr_features(rr, mask)
        assert np.isfinite(features).all()
        assert np.abs(features).max() <= 1
        assert np.array_equal(features, rr_features(np.where(mask, rr, 99.0), mask))
        assert (features[:, ~mask] == 0).all()

    def test_many_at_once_are_the_same_as_one_by_one(self) -> None:
        rr = np.stack([bigeminy(), trigeminy(), fibrillation(1)])
        mask = np.stack([ALL, np.arange(WINDOW) > 30, np.arange(WINDOW) % 3 > 0])
        assert np.array_equal(rr_features(rr, mask), np.stack([rr_features(*one) for one in zip(rr, mask, strict=True)]))


class TestRhythms:
    @pytest.mark.parametrize("rate_bpm", [45, 60, 75, 100, 140])
    def test_regular_rhythms_are_not_af(self, model: RrAf, rate_bpm: int) -> None:
        assert model.probability(np.full(WINDOW, 60 / rate_bpm), ALL) < 0.05

    @pytest.mark.parametrize("rhythm", [bigeminy(), trigeminy(), breathing()], ids=["bigeminy", "trigeminy", "breathing"])
    def test_patterns_are_not_af(self, model: RrAf, rhythm: NDArray[np.float64]) -> None:
        assert model.probability(rhythm, ALL) < 0.2

    @pytest.mark.parametrize("seed", range(5))
    def test_independent_intervals_are_af(self, model: RrAf, seed: int) -> None:
        assert model.probability(fibrillation(seed), ALL) > model.on_threshold

    @pytest.mark.parametrize("seed", range(5))
    def test_af_is_seen_after_half_a_minute(self, model: RrAf, seed: int) -> None:
        assert model.probability(fibrillation(seed)[:40], ALL[:40]) > model.on_threshold

    def test_a_single_premature_beat_changes_nothing(self, model: RrAf) -> None:
        rr = np.full(WINDOW, 0.8)
        rr[40:42] = 0.5, 1.1
        assert model.probability(rr, ALL) < 0.05

    def test_a_short_history_is_the_same_as_a_masked_one(self, model: RrAf) -> None:
        rr = fibrillation(3)
        masked = np.arange(WINDOW) >= WINDOW - 30
        assert model.probability(rr[-30:], ALL[:30]) == model.probability(rr, masked)

    @pytest.mark.parametrize(
        ("record", "is_af"), [("101", False), ("112", False), ("122", False), ("201", True), ("203", True)]
    )
    def test_real_records(self, model: RrAf, data: Path, record: str, is_af: bool) -> None:
        cut = windows(load_rhythm(data / "mitdb" / f"{record}.atr", "mitdb"), 8)
        probability = model.probabilities(cut.rr_s, np.ones(cut.rr_s.shape, np.bool_))
        assert (probability >= model.on_threshold).any() == is_af


class TestRefusals:
    def test_too_few_valid(self, model: RrAf) -> None:
        with pytest.raises(ValueError, match=f"23 valid intervals are too few: {MIN_VALID} are needed"):
            model.probability(np.full(WINDOW, 0.8), np.arange(WINDOW) < 23)

    def test_shapes(self, model: RrAf) -> None:
        with pytest.raises(ValueError, match="at most 64 intervals"):
            model.probability(np.full(65, 0.8), np.ones(65, np.bool_))
        with pytest.raises(ValueError, match="at most 64 intervals"):
            model.probability(np.full(64, 0.8), np.ones(63, np.bool_))

    def test_no_model(self) -> None:
        with pytest.raises(ModelError, match="rr_af cannot be loaded: ") as caught:
            RrAf(b"no model")
        assert "\n" not in str(caught.value)

    @pytest.fixture
    def release(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A copy of the released files, which `released` reads instead."""
        source = Path(inference.__file__).parent / "release"
        folder = tmp_path / "release"
        folder.mkdir()
        for file in source.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        monkeypatch.setattr("models.inference.release.resources.files", lambda _: tmp_path)
        return folder

    def test_the_copy_is_accepted(self, release: Path) -> None:
        assert inference.released("rr_af.onnx") == (release / "rr_af.onnx").read_bytes()

    def test_altered_file(self, release: Path) -> None:
        content = bytearray((release / "rr_af.onnx").read_bytes())
        content[len(content) // 2] ^= 1
        (release / "rr_af.onnx").write_bytes(content)
        with pytest.raises(ModelError, match=r"rr_af\.onnx is not the released file .* Reinstall pulsegate\.$"):
            RrAf.load_release()

    @pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"files": {}}', '{"files": {"rr_af.onnx": {"size": "x"}}}'])
    def test_damaged_manifest(self, release: Path, manifest: str) -> None:
        (release / "manifest.json").write_text(manifest)
        with pytest.raises(ModelError, match=r"rr_af\.onnx or its manifest is missing or damaged"):
            RrAf.load_release()

    def test_missing_file(self, release: Path) -> None:
        (release / "rr_af.onnx").unlink()
        with pytest.raises(ModelError, match="missing or damaged"):
            RrAf.load_release()


class TestRelease:
    def test_size_and_card(self, model: RrAf) -> None:
        card = json.loads(inference.released("rr_af.json"))
        assert len(inference.released("rr_af.onnx")) == card["size_bytes"] <= 40_000
        assert (card["name"], card["version"]) == (model.name, model.version)
        assert card["thresholds"]["on"] == model.on_threshold > card["thresholds"]["off"] == model.off_threshold
        assert "Not a medical device" in inference.released("rr_af.md").decode()

    def test_the_figures_for_mitdb_on_the_card_can_be_had_again(self, model: RrAf, data: Path) -> None:
        card = json.loads(inference.released("rr_af.json"))
        cut = windows(load_rhythm(data / "mitdb" / "201.atr", "mitdb"), card["step_beats"])
        called = model.probabilities(cut.rr_s, np.ones(cut.rr_s.shape, np.bool_)) >= 0.5
        figures = card["not_trained_on"]["mitdb"]["records"]["201"]
        assert 100 * np.mean(called[cut.labels == 1]) == pytest.approx(figures["se"], abs=0.5)
        assert 100 * np.mean(~called[cut.labels == 0]) == pytest.approx(figures["sp"], abs=0.5)

    def test_inference_needs_only_numpy_and_onnxruntime(self) -> None:
        code = (
            "import sys, models.inference.rr_af as i; i.RrAf.load_release(); "
            "print([m for m in ('scipy', 'wfdb', 'torch', 'onnx', 'pandas') if m in sys.modules])"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        assert run.stdout.strip() == "[]"
