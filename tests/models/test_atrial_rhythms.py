"""An abrupt atrial run and atrial bigeminy are recognised by intervals alone; sinus rhythm and AF are neither."""

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.atrial_rhythms import BIGEMINY_INTERVALS, RUN_INTERVALS, AtrialRhythms

SINUS = [0.8] * 20


def ectopic(intervals: Iterable[float]) -> list[bool]:
    rhythms = AtrialRhythms()
    return [rhythms.push(rr_s) for rr_s in intervals]


def test_the_beats_of_an_abrupt_run_are_ectopic_from_the_sixth_however_long_it_lasts() -> None:
    run = [0.45] * 1800
    assert ectopic([*SINUS, *run, *SINUS]) == [
        *[False] * (len(SINUS) + RUN_INTERVALS - 1),
        *[True] * (len(run) - RUN_INTERVALS + 1),
        *[False] * len(SINUS),
    ]


def test_a_rate_that_rises_gradually_is_no_run() -> None:
    assert not any(ectopic([*SINUS, *np.linspace(0.8, 0.4, 40), *[0.4] * 100]))


@pytest.mark.parametrize(("before_s", "run_s"), [(0.8, 0.62), (0.7, 0.55)], ids=["below 100/min", "little faster"])
def test_what_may_be_sinus_rhythm_is_no_run(before_s: float, run_s: float) -> None:
    assert not any(ectopic([*[before_s] * 20, *[run_s] * 50]))


def test_a_run_is_not_judged_after_a_gap_until_the_background_was_heard_again() -> None:
    run = [0.45] * 20
    assert not any(ectopic([*SINUS, np.nan, *run])[len(SINUS) :])
    assert any(ectopic([*SINUS, np.nan, *SINUS, *run]))


def test_in_bigeminy_only_the_short_intervals_end_at_ectopic_beats() -> None:
    pairs = [0.95, 0.75] * 20
    found = ectopic(pairs)
    assert found == [number >= BIGEMINY_INTERVALS - 1 and number % 2 == 1 for number in range(len(pairs))]


@pytest.mark.parametrize("beats_a_breath", [2.6, 3.4, 5.0])
def test_respiratory_arrhythmia_is_neither(beats_a_breath: float) -> None:
    """Intervals of 0.8 s that change by 12 % with each breath, and by 2 % besides."""
    random, number = np.random.default_rng(1), np.arange(2000)
    intervals = 0.8 * (1 + 0.12 * np.sin(2 * np.pi * number / beats_a_breath)) * random.normal(1, 0.02, number.size)
    assert np.mean(ectopic(intervals.tolist())) < 0.01


def test_atrial_fibrillation_is_neither() -> None:
    """Independent intervals of 0.4 to 0.8 s, as of the ventricular response in AF."""
    found = ectopic([*SINUS, *np.random.default_rng(2).uniform(0.4, 0.8, 5000).tolist()])
    assert np.mean(found) < 0.002


@given(st.lists(st.floats(0.2, 3.0) | st.just(float("nan")), max_size=60), st.integers(0, 60))
def test_a_gap_separates_what_is_before_from_what_follows(intervals: Sequence[float], at: int) -> None:
    after = [0.9, 0.7] * BIGEMINY_INTERVALS
    found = ectopic([*intervals[:at], float("nan"), *after])[-len(after) :]
    assert found == ectopic(after)
