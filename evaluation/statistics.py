"""Calibration error, confidence intervals and coverage curves."""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

Record = TypeVar("Record")
Probabilities = NDArray[np.floating[Any]]

BINS: Final = 15
"""Bins of a calibration curve (Guo et al., On Calibration of Modern Neural Networks, 2017)."""

REPLICATES: Final = 1000
"""Replicates of a bootstrap; the ends of the 95 % interval then vary by about 2 % of its width."""


def softmax(logits: Probabilities, temperature: float = 1.0) -> NDArray[np.float64]:
    """Returns the probabilities of (…, classes) logits."""
    scaled = np.asarray(logits, np.float64) / temperature
    power = np.exp(scaled - scaled.max(-1, keepdims=True))
    shares: NDArray[np.float64] = power / power.sum(-1, keepdims=True)
    return shares


def best_temperature(logits: Probabilities, classes: NDArray[np.integer[Any]], weights: Probabilities | None = None) -> float:
    """Returns the divisor of (n, classes) logits with the least cross-entropy on held-out windows, by golden-section search.

    Temperature scaling as in Guo 2017.

    For two classes with one logit z, pass `np.stack([0 * z, z], -1)`.
    """
    weight = np.ones(len(classes)) if weights is None else weights

    def loss(log_divisor: float) -> float:
        chosen = softmax(logits, np.exp(log_divisor))[np.arange(len(classes)), classes]
        return float(np.average(-np.log(np.maximum(chosen, 1e-12)), weights=weight))

    low, high, ratio = -2.0, 2.0, (5**0.5 - 1) / 2
    while high - low > 1e-4:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return float(np.exp((low + high) / 2))


def calibration_error(probability: Probabilities, happened: NDArray[np.bool_], bins: int = BINS) -> float:
    """Returns the expected calibration error: weighted mean distance of probability and frequency over bins; a fraction.

    Args:
        probability: (n,) of an event; for several classes, that of the most probable class (top-label).
        happened: (n,) whether the event happened.
        bins: number of equal bins from 0 to 1.
    """
    bin_of = np.minimum((probability * bins).astype(int), bins - 1)
    gap = [abs(float(np.sum(probability[bin_of == b]) - np.sum(happened[bin_of == b]))) for b in range(bins)]
    return sum(gap) / max(len(probability), 1)


def top_label_error(probability: Probabilities, classes: NDArray[np.integer[Any]]) -> float:
    """Returns the expected calibration error of the most probable class, from (n, classes) and (n,)."""
    return calibration_error(probability.max(-1), probability.argmax(-1) == classes)


def class_f1(called: NDArray[np.integer[Any]], classes: NDArray[np.integer[Any]], count: int) -> NDArray[np.float64]:
    """Returns the F1 of every class, (count,), as fractions; NaN for a class that is in neither array."""
    both = np.array([np.sum((called == c) & (classes == c)) for c in range(count)], np.float64)
    total = np.array([np.sum(called == c) + np.sum(classes == c) for c in range(count)], np.float64)
    shares: NDArray[np.float64] = np.divide(2 * both, total, out=np.full(count, np.nan), where=total > 0)
    return shares


def coverage_curve(
    confidence: Probabilities, figure: Callable[[NDArray[np.int64]], float], fractions: Sequence[float]
) -> list[tuple[float, float]]:
    """Returns (fraction, figure) for the most confident share of the cases; `figure` takes their indices."""
    order = np.argsort(-confidence, kind="stable")
    return [(fraction, figure(order[: max(1, round(fraction * len(order)))])) for fraction in fractions]


def bootstrap(
    patients: Sequence[Record], figure: Callable[[Sequence[Record]], float], seed: int, replicates: int = REPLICATES
) -> tuple[float, float]:
    """Returns the 95 % percentile interval of a figure by drawing whole patients with replacement (Efron & Tibshirani 1993).

    `figure` takes one entry per patient, such as counts to be summed; NaN results (a class that was not drawn) are left out.
    """
    random = np.random.default_rng(seed)
    draws = random.integers(0, len(patients), (replicates, len(patients)))
    values = np.array([figure([patients[index] for index in draw]) for draw in draws.tolist()])
    known = values[np.isfinite(values)]
    if not known.size:
        return float("nan"), float("nan")
    low, high = np.percentile(known, (2.5, 97.5))
    return float(low), float(high)
