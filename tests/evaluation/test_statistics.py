"""Calibration, intervals and coverage against values computed by hand or by scipy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax as scipy_softmax

from evaluation.statistics import (
    best_temperature,
    bootstrap,
    calibration_error,
    class_f1,
    coverage_curve,
    softmax,
    top_label_error,
)

logit_rows = st.lists(st.lists(st.floats(-50, 50), min_size=3, max_size=3), min_size=1, max_size=5)


@given(logit_rows, st.floats(0.2, 5))
def test_softmax_agrees_with_scipy(rows: list[list[float]], temperature: float) -> None:
    logits = np.array(rows)
    np.testing.assert_allclose(softmax(logits, temperature), scipy_softmax(logits / temperature, axis=-1), atol=1e-12)


def drawn(temperature: float, seed: int = 1) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits, and classes drawn with the probabilities of the logits at this temperature."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, (20_000, 3))
    shares = softmax(logits, temperature)
    classes = (random.random((len(logits), 1)) > shares.cumsum(-1)).sum(-1)
    return logits, np.minimum(classes, 2)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_finds_the_temperature(temperature: float) -> None:
    logits, classes = drawn(temperature)
    assert best_temperature(logits, classes) == pytest.approx(temperature, rel=0.05)
    assert top_label_error(softmax(logits, temperature), classes) < 0.015


def test_windows_of_weight_zero_do_not_count() -> None:
    logits, classes = drawn(2.0)
    wrong = np.concatenate([classes, (classes + 1) % 3])
    twice = np.concatenate([logits, logits])
    weights = np.repeat([1.0, 0.0], len(classes))
    assert best_temperature(twice, wrong, weights) == pytest.approx(best_temperature(logits, classes), rel=1e-3)


def test_calibration_error_by_hand() -> None:
    """Two bins: four events at 0.1, of which one happened (off by 0.15); four at 0.9, which all happened (off by 0.1)."""
    probability = np.array([0.1] * 4 + [0.9] * 4)
    happened = np.array([True, False, False, False, True, True, True, True])
    assert calibration_error(probability, happened) == pytest.approx((4 * 0.15 + 4 * 0.1) / 8)
    assert calibration_error(np.array([1.0]), np.array([True])) == 0
    assert calibration_error(np.array([]), np.array([], np.bool_)) == 0


def test_top_label_by_hand() -> None:
    probability = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    assert top_label_error(probability, np.array([0, 0])) == pytest.approx((0.3 + 0.8) / 2)


def test_class_f1_by_hand() -> None:
    called, classes = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    f1 = class_f1(called, classes, 3)
    np.testing.assert_allclose(f1[:2], [2 / 3, 0.8])
    assert np.isnan(f1[2])


def test_coverage_keeps_the_most_confident() -> None:
    confidence, right = np.array([0.9, 0.5, 0.8, 0.6]), np.array([1.0, 0.0, 1.0, 0.0])
    curve = coverage_curve(confidence, lambda chosen: float(right[chosen].mean()), (1.0, 0.75, 0.5))
    assert curve == [(1.0, 0.5), (0.75, pytest.approx(2 / 3)), (0.5, 1.0)]


def test_bootstrap_interval_of_a_mean_has_the_expected_width() -> None:
    values = np.random.default_rng(3).normal(10, 2, 100)
    low, high = bootstrap(values.tolist(), lambda chosen: float(np.mean(chosen)), seed=1)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 10, rel=0.12)
    assert low < values.mean() < high


def test_bootstrap_leaves_undefined_results_out() -> None:
    assert bootstrap([1.0, 1.0], lambda _: float("nan"), seed=1) == pytest.approx((float("nan"), float("nan")), nan_ok=True)
    once = iter([float("nan")] + [2.0] * 1000)
    assert bootstrap([1.0], lambda _: next(once), seed=1, replicates=10) == (2.0, 2.0)


@given(st.integers(0, 1000))
def test_the_same_seed_gives_the_same_interval(seed: int) -> None:
    def mean(chosen: object) -> float:
        return float(np.mean(np.asarray(chosen)))

    patients = [1.0, 2.0, 5.0]
    assert bootstrap(patients, mean, seed, 20) == bootstrap(patients, mean, seed, 20)
