"""How well `ecg_rhythm` fares: calibration on held-out recordings, and figures with their 95 % intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from evaluation.statistics import best_temperature, bootstrap, class_f1, coverage_curve, softmax, top_label_error
from models.inference.ecg_rhythm import CLASSES, features, windows

SCORED: Final = 3
"""N, A and O count in the Challenge's mean F1; noise does not."""

FRACTIONS: Final = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
_GRID: Final = np.arange(-6, 13) / 10

Values = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cut:
    """Recordings as windows: features (windows, rows, 3750) and the recording's place of each, (windows,)."""

    features: NDArray[np.float32]
    owner: Labels


@dataclass(frozen=True, slots=True)
class Calibration:
    """Logits are divided by `temperature`, then `offsets` (classes,) are added."""

    temperature: float
    offsets: tuple[float, ...]

    def probabilities(self, logits: Values) -> NDArray[np.float64]:
        return softmax(logits / self.temperature + np.array(self.offsets))


def cut(signals: Sequence[Values]) -> Cut:
    """Windows of whole recordings, each (samples,) of mV at 125 Hz."""
    parts = [windows(mv) for mv in signals]
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return Cut(features(np.concatenate(parts)), owner)


def averaged(probability: Values, owner: Labels) -> NDArray[np.float64]:
    """Of windows (windows, classes) to recordings (recordings, classes)."""
    out = np.zeros((int(owner[-1]) + 1, probability.shape[1]))
    np.add.at(out, owner, probability)
    return out / np.bincount(owner)[:, None]


def calibrate(logits: Values, owner: Labels, labels: Labels) -> Calibration:
    """Temperature by cross-entropy; offsets of A and O by the mean F1 of recordings: the average of the best tenth of a grid.

    The Challenge counts classes alike however rare they are, so the likeliest class is not the best answer. Behind the offsets
    the temperature is fitted again, now to recordings, whose probabilities are means over their windows.
    """
    first = best_temperature(logits, labels[owner])
    scored = []
    for of_af in _GRID.tolist():
        for of_other in _GRID.tolist():
            offsets = (0.0, of_af, of_other, 0.0)
            probability = averaged(Calibration(first, offsets).probabilities(logits), owner)
            scored.append((mean_f1(probability.argmax(-1), labels), offsets))
    scored.sort(reverse=True)
    best = np.mean([offsets for _, offsets in scored[: len(scored) // 10]], axis=0)
    sharper = [Calibration(first * by, tuple((best / by).tolist())) for by in np.exp(np.arange(-40, 41) / 50).tolist()]
    return min(sharper, key=lambda found: _cross_entropy(averaged(found.probabilities(logits), owner), labels))


def _cross_entropy(probability: Values, labels: Labels) -> float:
    return float(-np.mean(np.log(np.maximum(probability[np.arange(len(labels)), labels], 1e-12))))


def mean_f1(called: Labels, labels: Labels) -> float:
    """Of N, A and O."""
    return float(np.mean(class_f1(called, labels, len(CLASSES))[:SCORED]))


def summary(probability: Values, labels: Labels) -> dict[str, float]:
    """The Challenge's figures, in percent, and the calibration error."""
    called = probability.argmax(-1)
    f1 = class_f1(called, labels, len(CLASSES))
    most = np.argsort(-probability.max(-1), kind="stable")[: round(0.9 * len(labels))]
    return {f"f1_{name}": 100 * float(value) for name, value in zip(CLASSES, f1, strict=True)} | {
        "f1_mean": 100 * mean_f1(called, labels),
        "f1_mean_at_90_percent": 100 * mean_f1(called[most], labels[most]),
        "ece": top_label_error(probability, labels),
    }


def intervals(probability: Values, labels: Labels, seed: int) -> dict[str, list[float]]:
    """95 % intervals of the same figures, by drawing recordings."""

    def of(name: str) -> Callable[[Sequence[int]], float]:
        return lambda places: summary(probability[np.array(places)], labels[np.array(places)])[name]

    names = list(summary(probability, labels))
    return {name: list(bootstrap(range(len(labels)), of(name), seed, 300)) for name in names}


def coverage(probability: Values, labels: Labels) -> dict[str, dict[str, float]]:
    """Mean F1 of the most confident share of the recordings, and the confidence that it takes."""
    top = np.sort(probability.max(-1))[::-1]
    curve = coverage_curve(probability.max(-1), lambda kept: mean_f1(probability[kept].argmax(-1), labels[kept]), FRACTIONS)
    return {
        f"{100 * fraction:.0f} %": {"f1_mean": 100 * figure, "confidence": float(top[max(1, round(fraction * len(top))) - 1])}
        for fraction, figure in curve
    }


def confusion(probability: Values, labels: Labels) -> dict[str, dict[str, int]]:
    """How many recordings of each class (rows) were called what (columns)."""
    table = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    np.add.at(table, (labels, probability.argmax(-1)), 1)
    return {name: dict(zip(CLASSES, row, strict=True)) for name, row in zip(CLASSES, table.tolist(), strict=True)}
