"""The features of `ppg_quality`, and the size, the card agreement and simple classifications of the released model."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from models.inference.ppg_quality import MIN_KNOWN_SHARE, WINDOW_SAMPLES, PpgQuality, quality_features
from models.inference.session import ModelError

RELEASE = Path(__file__).parents[2] / "models" / "release"
Samples = NDArray[np.float64]


@pytest.fixture(scope="module")
def model() -> PpgQuality:
    return PpgQuality((RELEASE / "ppg_quality.onnx").read_bytes())


@pytest.fixture(scope="module")
def clean(synthesise: Callable[..., tuple[Samples, Samples]]) -> Samples:
    """Thirty seconds of a clean pulse."""
    ppg, _ = synthesise(np.random.default_rng(12).normal(0.85, 0.03, 40), noise=0.01)
    return ppg


@given(
    ppg=arrays.arrays(np.float64, (2, WINDOW_SAMPLES), elements=st.just(np.nan) | st.floats(-1e300, 1e300)),
)
@settings(max_examples=40, deadline=None)
def test_features_are_finite_and_bounded_for_any_samples(ppg: Samples) -> None:
    features = quality_features(ppg)
    assert features.shape == (2, 2, WINDOW_SAMPLES)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    assert np.abs(features).max() <= 1.0
    assert np.array_equal(features[:, 1] == 1, np.isfinite(ppg))
    assert not features[:, 0][~np.isfinite(ppg)].any()


@pytest.mark.parametrize(("gain", "offset"), [(1e-6, 0.0), (1.0, 250.0), (255.0, -1e4), (1e12, 1e13)])
def test_features_do_not_depend_on_gain_and_offset(gain: float, offset: float, clean: Samples) -> None:
    window = clean[300:800]
    assert np.abs(quality_features(gain * window + offset) - quality_features(window)).max() < 1e-5


def test_features_keep_the_polarity(clean: Samples) -> None:
    window = clean[300:800]
    assert np.allclose(quality_features(-window)[0], -quality_features(window)[0], atol=1e-6)


def test_features_of_flat_and_missing_windows_are_zero() -> None:
    assert not quality_features(np.full(WINDOW_SAMPLES, 255.1))[0].any()
    assert not quality_features(np.full(WINDOW_SAMPLES, np.nan)).any()


def test_features_of_windows_are_independent(clean: Samples) -> None:
    windows = clean[np.arange(0, 1000, 250)[:, None] + np.arange(WINDOW_SAMPLES)]
    windows[1, 100:200] = np.nan
    together = quality_features(windows)
    assert all(np.array_equal(one, quality_features(window)) for one, window in zip(together, windows, strict=True))


def test_released_model_meets_its_size_limit_and_its_card(model: PpgQuality) -> None:
    card = json.loads((RELEASE / "ppg_quality.json").read_text())
    size = (RELEASE / "ppg_quality.onnx").stat().st_size
    assert size <= 60_000
    assert (card["name"], card["version"]) == (model.name, model.version) == ("ppg_quality", "2")
    assert card["training"]["size_bytes"] == pytest.approx(size, rel=1e-3)
    for kind in ("as_recorded", "augmented"):
        assert card["int8_parity"][kind]["agreement"] >= 0.995
        assert card["int8_parity"][kind]["largest_change"] <= 0.05


def test_a_clean_pulse_is_good_in_either_polarity(model: PpgQuality, clean: Samples) -> None:
    starts = np.arange(100, 1000, 50)
    windows = clean[starts[:, None] + np.arange(WINDOW_SAMPLES)]
    assert (model.probabilities(windows) > model.threshold).mean() > 0.9
    assert (model.probabilities(-windows) > model.threshold).mean() > 0.9


def test_noise_motion_and_a_flat_signal_are_bad(model: PpgQuality, clean: Samples) -> None:
    rng = np.random.default_rng(13)
    t = np.arange(WINDOW_SAMPLES) / 50
    noise = rng.normal(size=(20, WINDOW_SAMPLES))
    walk = np.cumsum(rng.normal(size=(20, WINDOW_SAMPLES)), axis=-1)
    in_motion = clean[300:800] + 5 * np.array([np.convolve(row, np.hanning(15), "same") for row in noise])
    flat = np.full((1, WINDOW_SAMPLES), 0.7)
    for windows in (noise, walk, in_motion, flat, np.sin(2 * np.pi * 7.3 * t)[None]):
        assert (model.probabilities(windows) < model.threshold).mean() >= 0.9


def test_too_little_signal_is_never_good(model: PpgQuality, clean: Samples) -> None:
    window = clean[300:800].copy()
    window[int(WINDOW_SAMPLES * MIN_KNOWN_SHARE) - 1 :] = np.nan
    assert model.probability(window) == 0.0
    assert model.probability(np.full(WINDOW_SAMPLES, np.nan)) == 0.0


def test_single_windows_and_batches_give_the_same_probabilities(model: PpgQuality, clean: Samples) -> None:
    windows = clean[np.arange(0, 1000, 100)[:, None] + np.arange(WINDOW_SAMPLES)]
    assert [model.probability(window) for window in windows] == pytest.approx(model.probabilities(windows).tolist(), abs=1e-6)


def test_rejects_wrong_shapes_and_invalid_model_files(model: PpgQuality) -> None:
    with pytest.raises(ValueError, match="500"):
        model.probability(np.zeros(499))
    with pytest.raises(ModelError):
        PpgQuality(b"not a model")
