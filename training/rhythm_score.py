"""Calibration of `ecg_rhythm` on held-out recordings, and its figures with their 95 % confidence intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evaluation.statistics import best_temperature, bootstrap, class_f1, coverage_curve, softmax, top_label_error
from models.inference.ecg_rhythm import CLASSES, features, windows

SCORED_CLASSES: Final = 3
"""The mean F1 of the Challenge includes N, A and O, but not noise."""

FRACTIONS: Final = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
_GRID: Final = np.arange(-6, 13) / 10

Values = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RecordingWindows:
    """Recordings as windows: features (windows, rows, 3750) and the index of the recording of each window, (windows,)."""

    features: NDArray[np.float32]
    recording_index: Labels


@dataclass(frozen=True, slots=True)
class Calibration:
    """Logits are divided by `temperature`, then `offsets` (classes,) are added."""

    temperature: float
    offsets: tuple[float, ...]

    def probabilities(self, logits: Values) -> NDArray[np.float64]:
        return softmax(logits / self.temperature + np.array(self.offsets))


def cut_windows(signals: Sequence[Values]) -> RecordingWindows:
    """Return the windows of whole recordings, each (samples,) of mV at 125 Hz."""
    parts = [windows(mv) for mv in signals]
    recording_index = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return RecordingWindows(features(np.concatenate(parts)), recording_index)


def average_windows(probability: Values, recording_index: Labels) -> NDArray[np.float64]:
    """Return the mean over the windows of each recording: (windows, classes) → (recordings, classes)."""
    out = np.zeros((int(recording_index[-1]) + 1, probability.shape[1]))
    np.add.at(out, recording_index, probability)
    return out / np.bincount(recording_index)[:, None]


def fit_calibration(logits: Values, recording_index: Labels, labels: Labels) -> Calibration:
    """Fit the temperature by cross-entropy, and the offsets of A and O by the mean F1 of recordings.

    The offsets are the mean of the best tenth of a grid. The Challenge gives all classes the same weight however rare they are,
    so the most probable class is not the best answer. After the offsets the temperature is fitted again, now to recordings,
    whose probabilities are means over their windows.
    """
    first = best_temperature(logits, labels[recording_index])
    candidates = []
    for of_af in _GRID.tolist():
        for of_other in _GRID.tolist():
            offsets = (0.0, of_af, of_other, 0.0)
            probability = average_windows(Calibration(first, offsets).probabilities(logits), recording_index)
            candidates.append((mean_f1(probability.argmax(-1), labels), offsets))
    candidates.sort(reverse=True)
    best = np.mean([offsets for _, offsets in candidates[: len(candidates) // 10]], axis=0)
    rescaled = [Calibration(first * by, tuple((best / by).tolist())) for by in np.exp(np.arange(-40, 41) / 50).tolist()]
    return min(
        rescaled, key=lambda found: _cross_entropy(average_windows(found.probabilities(logits), recording_index), labels)
    )


def _cross_entropy(probability: Values, labels: Labels) -> float:
    return float(-np.mean(np.log(np.maximum(probability[np.arange(len(labels)), labels], 1e-12))))


def mean_f1(called: Labels, labels: Labels) -> float:
    """Return the mean F1 of N, A and O."""
    return float(np.mean(class_f1(called, labels, len(CLASSES))[:SCORED_CLASSES]))


def summary(probability: Values, labels: Labels) -> dict[str, float]:
    """Return the Challenge's figures in percent, and the calibration error."""
    called = probability.argmax(-1)
    f1 = class_f1(called, labels, len(CLASSES))
    most = np.argsort(-probability.max(-1), kind="stable")[: round(0.9 * len(labels))]
    return {f"f1_{name}": 100 * float(value) for name, value in zip(CLASSES, f1, strict=True)} | {
        "f1_mean": 100 * mean_f1(called, labels),
        "f1_mean_at_90_percent": 100 * mean_f1(called[most], labels[most]),
        "ece": top_label_error(probability, labels),
    }


def confidence_intervals(probability: Values, labels: Labels, seed: int) -> dict[str, list[float]]:
    """Return 95 % confidence intervals of the same figures, by bootstrap over recordings."""

    def of(name: str) -> Callable[[Sequence[int]], float]:
        return lambda indices: summary(probability[np.array(indices)], labels[np.array(indices)])[name]

    names = list(summary(probability, labels))
    return {name: list(bootstrap(range(len(labels)), of(name), seed, 300)) for name in names}


def coverage(probability: Values, labels: Labels) -> dict[str, dict[str, float]]:
    """Return the mean F1 of the most confident share of the recordings, and the confidence required."""
    top = np.sort(probability.max(-1))[::-1]
    curve = coverage_curve(
        probability.max(-1), lambda chosen: mean_f1(probability[chosen].argmax(-1), labels[chosen]), FRACTIONS
    )
    return {
        f"{100 * fraction:.0f} %": {"f1_mean": 100 * figure, "confidence": float(top[max(1, round(fraction * len(top))) - 1])}
        for fraction, figure in curve
    }


def confusion(probability: Values, labels: Labels) -> dict[str, dict[str, int]]:
    """Return how many recordings of each class (rows) were classified as what (columns)."""
    table = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    np.add.at(table, (labels, probability.argmax(-1)), 1)
    return {name: dict(zip(CLASSES, row, strict=True)) for name, row in zip(CLASSES, table.tolist(), strict=True)}
