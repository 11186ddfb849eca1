"""How much successive intervals repeat: known answers of constructed rhythms."""

import numpy as np
import pytest

from models.rules.af_repetition import measure_repetition
from models.rules.af_tracker import REPETITION_IN_AF

WINDOW = 64
ALL_VALID = np.ones(WINDOW, np.bool_)


def repetition(intervals_s: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    return measure_repetition(intervals_s, ALL_VALID)


def test_independent_intervals_do_not_repeat() -> None:
    rng = np.random.default_rng(1)
    measured = [
        repetition(np.clip(rng.normal(0.7, spread_s, WINDOW), 0.3, 1.5)) for spread_s in (0.1, 0.15, 0.2) for _ in range(50)
    ]
    assert np.mean(measured) == pytest.approx(1.2, abs=0.2)
    assert np.quantile(measured, 0.95) < REPETITION_IN_AF


@pytest.mark.parametrize(
    "kinds",
    [((0.8,), (0.8,), (0.5, 1.1)), ((0.9,), (0.9,), (0.9,), (0.57, 0.52, 0.61, 1.2)), ((0.98,), (0.98,), (1.49,))],
    ids=["premature beats", "runs of three", "blocked beats"],
)
def test_groups_of_beats_in_any_order_repeat(kinds: tuple[tuple[float, ...], ...]) -> None:
    rng = np.random.default_rng(2)
    intervals = np.concatenate([kinds[kind] for kind in rng.integers(0, len(kinds), WINDOW)])[:WINDOW]
    assert repetition(intervals * rng.normal(1.0, 0.01, WINDOW)) > 2 * REPETITION_IN_AF


def test_a_steady_rhythm_repeats_as_much_as_possible() -> None:
    assert repetition(np.full(WINDOW, 0.8)) == 16.0


def test_intervals_that_are_not_valid_and_their_pairs_do_not_count() -> None:
    rng = np.random.default_rng(3)
    intervals = rng.uniform(0.4, 1.0, WINDOW)
    valid = rng.random(WINDOW) < 0.8
    other = np.where(valid, intervals, 0.7)
    assert measure_repetition(intervals, valid) == measure_repetition(other, valid)
    assert measure_repetition(other, ALL_VALID) != measure_repetition(other, valid)
    assert measure_repetition(intervals, ~ALL_VALID) == 0.0
