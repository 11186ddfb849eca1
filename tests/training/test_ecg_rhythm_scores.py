"""Calibration and figures of `ecg_rhythm`."""

import numpy as np
import pytest

from evaluation.statistics import softmax, top_label_error
from models.inference.ecg_rhythm import WINDOW_SAMPLES
from training.rhythm_score import (
    Calibration,
    average_windows,
    confidence_intervals,
    confusion,
    coverage,
    cut_windows,
    fit_calibration,
    mean_f1,
    summary,
)

LABELS = np.array([0] * 6 + [1] * 2 + [2] * 3 + [3])


def one_hot(called: np.ndarray) -> np.ndarray:
    return np.eye(4)[called]


class TestScores:
    def test_figures_match_a_manual_count(self) -> None:
        called = np.array([0, 0, 0, 0, 0, 2, 1, 0, 2, 2, 1, 3])
        figures = summary(one_hot(called), LABELS)
        # N: 5 right of 6 called and 6 true; A: 1 of 2 and 2; O: 2 of 3 and 3.
        assert figures["f1_N"] == pytest.approx(100 * 10 / 12)
        assert figures["f1_A"] == pytest.approx(50)
        assert figures["f1_O"] == pytest.approx(100 * 4 / 6)
        assert figures["f1_~"] == pytest.approx(100)
        assert figures["f1_mean"] == pytest.approx((1000 / 12 + 50 + 400 / 6) / 3)
        assert figures["ece"] == pytest.approx(3 / 12)  # always certain, wrong in three of twelve
        assert confusion(one_hot(called), LABELS)["A"] == {"N": 1, "A": 1, "O": 0, "~": 0}

    def test_confidence_intervals_contain_the_figure(self) -> None:
        random = np.random.default_rng(0)
        labels = random.integers(0, 4, 200)
        probability = softmax(2 * one_hot(labels) + random.normal(0, 1, (200, 4)))
        figure, limits = summary(probability, labels)["f1_mean"], confidence_intervals(probability, labels, 1)["f1_mean"]
        assert limits[0] < figure < limits[1]

    def test_full_coverage_gives_the_overall_figure(self) -> None:
        random = np.random.default_rng(0)
        labels = random.integers(0, 4, 100)
        probability = softmax(random.normal(0, 1, (100, 4)))
        curve = coverage(probability, labels)
        assert curve["100 %"]["f1_mean"] == pytest.approx(100 * mean_f1(probability.argmax(-1), labels))
        assert curve["50 %"]["confidence"] >= curve["90 %"]["confidence"]


class TestWindowsOfRecordings:
    def test_assigns_windows_to_recordings_and_averages_them(self) -> None:
        parts = cut_windows([np.ones(WINDOW_SAMPLES // 2), np.ones(2 * WINDOW_SAMPLES), np.ones(WINDOW_SAMPLES)])
        assert parts.recording_index.tolist() == [0, 1, 1, 1, 2]
        assert len(parts.features) == 5
        probability = np.arange(20.0).reshape(5, 4)
        np.testing.assert_allclose(average_windows(probability, parts.recording_index)[1], probability[1:4].mean(0))


class TestCalibration:
    def test_recovers_a_known_temperature(self) -> None:
        random = np.random.default_rng(3)
        logits = random.normal(0, 2, (4000, 4))
        draws = random.random((4000, 1))
        labels = (softmax(logits).cumsum(-1) < draws).sum(-1)
        found = fit_calibration(5 * logits, np.arange(4000), labels)
        plain = Calibration(1.0, (0.0, 0.0, 0.0, 0.0))
        assert 3.5 < found.temperature < 6.5
        assert top_label_error(found.probabilities(5 * logits), labels) < 0.03
        assert top_label_error(plain.probabilities(5 * logits), labels) > 0.1

    def test_offsets_compensate_for_a_suppressed_class(self) -> None:
        random = np.random.default_rng(4)
        labels = random.integers(0, 4, 2000)
        logits = 2 * one_hot(labels) + random.normal(0, 1, (2000, 4))
        logits[:, 2] -= 1.0
        found = fit_calibration(logits, np.arange(2000), labels)
        before = mean_f1(logits.argmax(-1), labels)
        assert found.offsets[2] > 0.3
        assert mean_f1(found.probabilities(logits).argmax(-1), labels) > before
