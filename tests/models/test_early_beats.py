"""Early beats of one patient are judged together: the odds of S are drawn towards those of earlier early beats."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.early_beats import MEMORY_BEATS, EarlyBeats
from models.inference.ecg_beat import N, S, V


def shares(of_s: float, of_v: float = 0.02) -> NDArray[np.float64]:
    """Return probabilities of N, S, V and F; `of_s` is the share of S in what is not V, 0.05 that of F."""
    return np.array([(0.95 - of_s) * (1 - of_v), of_s * (1 - of_v), of_v, 0.05 * (1 - of_v)])


def log_odds(of_s: float) -> float:
    return float(np.log(of_s / (0.95 - of_s)))


def test_the_first_early_beat_is_judged_alone() -> None:
    np.testing.assert_allclose(EarlyBeats().adjust(shares(0.5)), shares(0.5))


@pytest.mark.parametrize("usual", [0.1, 0.9])
def test_a_doubtful_early_beat_is_judged_as_the_early_beats_of_the_patient(usual: float) -> None:
    """After ten early beats their mean weighs a quarter as much as the beat itself."""
    early_beats = EarlyBeats()
    for _ in range(10):
        early_beats.adjust(shares(usual))
    found, alone = early_beats.adjust(shares(0.5)), shares(0.5)
    assert np.log(found[S] / found[N]) == pytest.approx((log_odds(0.5) + 0.25 * log_odds(usual)) / 1.25)
    np.testing.assert_array_equal(found[V:], alone[V:])


def test_ventricular_beats_are_neither_changed_nor_learnt() -> None:
    early_beats = EarlyBeats()
    for _ in range(20):
        np.testing.assert_array_equal(early_beats.adjust(shares(0.1, of_v=0.9)), shares(0.1, of_v=0.9))
    np.testing.assert_allclose(early_beats.adjust(shares(0.5)), shares(0.5))


def test_forgets_what_was_long_ago() -> None:
    early_beats = EarlyBeats()
    for of_s in [0.9] * MEMORY_BEATS + [0.1] * 8 * MEMORY_BEATS:
        early_beats.adjust(shares(of_s))
    found = early_beats.adjust(shares(0.5))
    assert np.log(found[S] / found[N]) == pytest.approx((log_odds(0.5) + 0.5 * log_odds(0.1)) / 1.5, rel=0.05)


@given(of_s=st.lists(st.floats(0.0, 0.95), min_size=2, max_size=20))
def test_probabilities_add_up(of_s: list[float]) -> None:
    early_beats = EarlyBeats()
    for one in of_s:
        after = early_beats.adjust(shares(one))
        assert after.sum() == pytest.approx(1.0)
        assert (after >= 0).all()
