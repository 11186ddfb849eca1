"""Labels and episodes of AF from made-up window probabilities: what must come out follows from the definitions alone."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rules.af_burden import (
    BLOCK_STEPS,
    CHANGES,
    EVIDENCE,
    LAG_STEPS,
    SETTLES,
    UNSETTLES,
    AfTracker,
    Burden,
    Episode,
    Stretch,
)

STEP_S = 4.0
WINDOW_S = 64.0
LONG = LAG_STEPS + 2 * BLOCK_STEPS


def track(probabilities: Sequence[float | None], tracker: AfTracker | None = None) -> tuple[list[Episode], list[Stretch]]:
    """One beat a second, a window of 64 beats every fourth."""
    tracker = tracker or AfTracker(0.9, 30.0)
    told: list[Episode] = []
    stretches: list[Stretch] = []
    now_s = WINDOW_S
    for probability in probabilities:
        told += tracker.judge(now_s, now_s - WINDOW_S, now_s - WINDOW_S / 2, probability)
        stretches += tracker.decided()
        now_s += STEP_S
    told += tracker.end(now_s - STEP_S)
    return told, stretches + tracker.decided()


def by_brute_force(probabilities: Sequence[float]) -> list[bool]:
    """The same states (lasting, passing, passing AF, lasting AF) and chances with matrices, over the whole recording."""
    change = np.zeros((4, 4))
    change[[1, 2], [2, 1]] = CHANGES
    change[[1, 2], [0, 3]] = SETTLES
    change[[0, 3], [1, 2]] = UNSETTLES
    change += np.diag(1 - change.sum(axis=1))
    likely = np.array([[1, 1, *[(p / (1 - p)) ** EVIDENCE] * 2] for p in probabilities])
    forward = [(np.full(4, 0.25) @ change) * likely[0]]
    for row in likely[1:]:
        forward.append((forward[-1] @ change) * row)
        forward[-1] /= forward[-1].sum()
    backward = [np.ones(4)]
    for row in likely[:0:-1]:
        backward.append(change @ (row * backward[-1]))
        backward[-1] /= backward[-1].sum()
    return [bool((a * b)[2:].sum() > (a * b)[:2].sum()) for a, b in zip(forward, reversed(backward), strict=True)]


def test_the_smoothing_is_that_of_a_model_of_four_states() -> None:
    random = np.random.default_rng(4)
    probabilities = np.clip(np.repeat([0.1, 0.8, 0.1, 0.9, 0.2], 40) + random.normal(0, 0.3, 200), 0.01, 0.99).tolist()
    _, stretches = track(probabilities)
    expected = by_brute_force(probabilities)
    assert 60 <= sum(expected) <= 100
    assert np.mean([stretch.af == want for stretch, want in zip(stretches, expected, strict=True)]) > 0.95  # the lag is fixed


def test_one_odd_window_changes_no_label_and_a_lasting_change_does() -> None:
    told, stretches = track([0.05] * LONG + [0.97] + [0.05] * LONG)
    assert told == []
    assert not any(stretch.af for stretch in stretches)
    _, stretches = track([0.05] * LONG + [0.97] * LONG)
    onset_s = next(stretch.start_s for stretch in stretches if stretch.af)
    assert abs(onset_s - (32 + STEP_S * (LONG - 1))) <= 2 * STEP_S


def test_an_episode_is_raised_once_and_ends_where_the_labels_say_so() -> None:
    told, stretches = track([0.05] * LONG + [0.97] * LONG + [0.05] * LONG)
    (raised, ended) = told
    in_af = [stretch for stretch in stretches if stretch.af]
    assert raised.end_s is None
    assert raised.decided_s - raised.onset_s >= 30
    assert ended.onset_s == raised.onset_s
    assert ended.end_s == in_af[-1].end_s
    assert (ended.end_s or 0) <= ended.decided_s


def test_nothing_is_raised_below_the_threshold_however_long() -> None:
    told, stretches = track([0.85] * 3 * LONG)
    assert told == []
    assert all(stretch.af for stretch in stretches)


def test_the_first_label_holds_from_the_first_beat_and_the_last_to_the_last() -> None:
    _, stretches = track([0.05] * 3)
    assert (stretches[0].start_s, stretches[-1].end_s) == (0.0, WINDOW_S + 2 * STEP_S)


def test_a_long_stretch_without_a_statement_ends_the_episode_and_is_no_burden() -> None:
    told, stretches = track([0.97] * LONG + [None] * 12 + [0.97] * LONG)
    assert [episode.end_s is None for episode in told] == [True, False, True, False]
    unknown = [stretch for stretch in stretches if stretch.af is None]
    assert len(unknown) == 12
    burden = Burden()
    for stretch in stretches:
        burden = burden.plus(stretch)
    assert burden.percent == 100
    assert burden.observed_s == pytest.approx(stretches[-1].end_s - 12 * STEP_S)


def test_after_the_end_nothing_is_left_of_what_was() -> None:
    tracker = AfTracker(0.9, 30.0)
    track([0.97] * LONG, tracker)
    again = track([0.05] * LONG, tracker)
    assert again == track([0.05] * LONG)


def test_burden_by_hand() -> None:
    burden = Burden().plus(Stretch(0, 60, True)).plus(Stretch(60, 240, False)).plus(Stretch(240, 300, None))
    assert (burden.af_s, burden.observed_s, burden.percent) == (60, 240, 25)
    assert Burden().percent is None


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=120))
def test_stretches_join_without_hole_or_overlap_and_episodes_come_in_pairs(probabilities: list[float | None]) -> None:
    told, stretches = track(probabilities)
    silent = next((place for place, probability in enumerate(probabilities) if probability is not None), len(probabilities))
    assert len(stretches) == len(probabilities) - silent
    assert all(a.end_s == b.start_s for a, b in pairwise(stretches))
    assert all(stretch.end_s >= stretch.start_s for stretch in stretches)
    assert [episode.end_s is None for episode in told] == [True, False] * (len(told) // 2)
    for raised, ended in zip(told[::2], told[1::2], strict=True):
        assert ended.onset_s == raised.onset_s <= (ended.end_s or 0)


@pytest.mark.parametrize(("rhythm", "other"), [(0.02, 0.97), (0.98, 0.03)])
def test_what_has_lasted_takes_more_to_change_than_what_is_new(rhythm: float, other: float) -> None:
    def changed(before: int) -> int:
        """Labels of the other rhythm, which is there for 12 steps after so many steps of the first."""
        _, stretches = track([rhythm] * before + [other] * 12 + [rhythm] * LONG)
        return sum(stretch.af == (other > 0.5) for stretch in stretches[before:])

    assert changed(5) == 12
    assert changed(10 * LONG) == 0
