"""Labels and episodes of AF from made-up window probabilities; the expected results follow from the definitions."""

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rules.af_tracker import (
    ALERT_EVIDENCE,
    BLOCK_STEPS,
    BRIEF_EPISODE_S,
    BRIEF_EVIDENCE,
    BRIEF_MEMORY_S,
    EVIDENCE_PER_STEP,
    LAG_STEPS,
    P_CHANGE,
    P_DESTABILISE,
    P_STABILISE,
    REPETITION_IN_AF,
    AfTracker,
    Burden,
    Episode,
    Stretch,
)

STEP_S = 4.0
WINDOW_S = 64.0
LONG_STEPS = LAG_STEPS + 2 * BLOCK_STEPS


def track(
    probabilities: Sequence[float | None], tracker: AfTracker | None = None, repetition: float = 1.0
) -> tuple[list[Episode], list[Stretch]]:
    """Run the tracker with one beat per second and a 64-beat window at every fourth beat; return all episodes and stretches."""
    tracker = tracker or AfTracker(0.9, 30.0)
    episodes: list[Episode] = []
    stretches: list[Stretch] = []
    now_s = WINDOW_S
    for probability in probabilities:
        episodes += tracker.add_window(now_s, now_s - WINDOW_S, now_s - WINDOW_S / 2, probability, repetition)
        stretches += tracker.take_labelled()
        now_s += STEP_S
    episodes += tracker.end(now_s - STEP_S)
    return episodes, stretches + tracker.take_labelled()


def smooth_by_matrices(probabilities: Sequence[float]) -> list[bool]:
    """Return whether each window is AF: the same four states and probabilities, computed with matrices over the recording."""
    transitions = np.zeros((4, 4))
    transitions[[1, 2], [2, 1]] = P_CHANGE
    transitions[[1, 2], [0, 3]] = P_STABILISE
    transitions[[0, 3], [1, 2]] = P_DESTABILISE
    transitions += np.diag(1 - transitions.sum(axis=1))
    likelihood = np.array([[1, 1, *[(p / (1 - p)) ** EVIDENCE_PER_STEP] * 2] for p in probabilities])
    forward = [(np.full(4, 0.25) @ transitions) * likelihood[0]]
    for row in likelihood[1:]:
        forward.append((forward[-1] @ transitions) * row)
        forward[-1] /= forward[-1].sum()
    backward = [np.ones(4)]
    for row in likelihood[:0:-1]:
        backward.append(transitions @ (row * backward[-1]))
        backward[-1] /= backward[-1].sum()
    return [bool((a * b)[2:].sum() > (a * b)[:2].sum()) for a, b in zip(forward, reversed(backward), strict=True)]


def test_smoothing_agrees_with_the_four_state_model() -> None:
    random = np.random.default_rng(4)
    probabilities = np.clip(np.repeat([0.1, 0.8, 0.1, 0.9, 0.2], 40) + random.normal(0, 0.3, 200), 0.01, 0.99).tolist()
    _, stretches = track(probabilities)
    expected = smooth_by_matrices(probabilities)
    assert 60 <= sum(expected) <= 100
    assert (
        np.mean([stretch.af == want for stretch, want in zip(stretches, expected, strict=True)]) > 0.95
    )  # not 1: the lag is fixed


def test_a_single_outlying_window_changes_no_label_but_a_lasting_change_does() -> None:
    episodes, stretches = track([0.05] * LONG_STEPS + [0.97] + [0.05] * LONG_STEPS)
    assert episodes == []
    assert not any(stretch.af for stretch in stretches)
    _, stretches = track([0.05] * LONG_STEPS + [0.97] * LONG_STEPS)
    onset_s = next(stretch.start_s for stretch in stretches if stretch.af)
    assert abs(onset_s - (32 + STEP_S * (LONG_STEPS - 1))) <= 2 * STEP_S


def test_an_episode_is_raised_once_and_ends_where_its_labels_end() -> None:
    episodes, stretches = track([0.05] * LONG_STEPS + [0.97] * LONG_STEPS + [0.05] * LONG_STEPS)
    (raised, ended) = episodes
    in_af = [stretch for stretch in stretches if stretch.af]
    assert raised.end_s is None
    assert raised.decided_s - raised.onset_s >= 30
    assert ended.onset_s == raised.onset_s
    assert ended.end_s == in_af[-1].end_s
    assert (ended.end_s or 0) <= ended.decided_s


def test_no_episode_is_raised_below_the_threshold() -> None:
    episodes, stretches = track([0.85] * 3 * LONG_STEPS)
    assert episodes == []
    assert all(stretch.af for stretch in stretches)


def test_labels_cover_the_first_to_the_last_beat() -> None:
    _, stretches = track([0.05] * 3)
    assert (stretches[0].start_s, stretches[-1].end_s) == (0.0, WINDOW_S + 2 * STEP_S)


def test_a_long_unknown_stretch_ends_the_episode_and_does_not_count_as_burden() -> None:
    episodes, stretches = track([0.97] * LONG_STEPS + [None] * 12 + [0.97] * LONG_STEPS)
    assert [episode.end_s is None for episode in episodes] == [True, False, True, False]
    unknown = [stretch for stretch in stretches if stretch.af is None]
    assert len(unknown) == 12
    burden = Burden()
    for stretch in stretches:
        burden = burden.plus(stretch)
    assert burden.percent == 100
    assert burden.observed_s == pytest.approx(stretches[-1].end_s - 12 * STEP_S)


def test_the_tracker_starts_over_after_the_end() -> None:
    tracker = AfTracker(0.9, 30.0)
    track([0.97] * LONG_STEPS, tracker)
    second = track([0.05] * LONG_STEPS, tracker)
    assert second == track([0.05] * LONG_STEPS)


def test_burden_is_the_share_of_the_known_time() -> None:
    burden = Burden().plus(Stretch(0, 60, True)).plus(Stretch(60, 240, False)).plus(Stretch(240, 300, None))
    assert (burden.af_s, burden.observed_s, burden.percent) == (60, 240, 25)
    assert Burden().percent is None


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=120))
def test_stretches_are_contiguous_and_every_episode_is_raised_and_ended(probabilities: list[float | None]) -> None:
    episodes, stretches = track(probabilities)
    unknown_at_start = next(
        (index for index, probability in enumerate(probabilities) if probability is not None), len(probabilities)
    )
    assert len(stretches) == len(probabilities) - unknown_at_start
    assert all(a.end_s == b.start_s for a, b in pairwise(stretches))
    assert all(stretch.end_s >= stretch.start_s for stretch in stretches)
    assert [episode.end_s is None for episode in episodes] == [True, False] * (len(episodes) // 2)
    for raised, ended in zip(episodes[::2], episodes[1::2], strict=True):
        assert ended.onset_s == raised.onset_s <= (ended.end_s or 0)


@pytest.mark.parametrize(("rhythm", "other"), [(0.02, 0.97), (0.98, 0.03)])
def test_a_stable_rhythm_needs_more_evidence_to_change_than_a_new_one(rhythm: float, other: float) -> None:
    def count_changed(before: int) -> int:
        """Count the steps labelled as the other rhythm, which lasts 12 steps after `before` steps of the first."""
        _, stretches = track([rhythm] * before + [other] * 12 + [rhythm] * LONG_STEPS)
        return sum(stretch.af == (other > 0.5) for stretch in stretches[before:])

    assert count_changed(5) == 12
    assert count_changed(10 * LONG_STEPS) == 0


BRIEF: list[float | None] = [0.01] * 60 + [0.99] * 40
"""Four minutes of another rhythm, then AF for 160 s."""
STEP_EVIDENCE = EVIDENCE_PER_STEP * log(0.99 / 0.01)
"""Evidence of a step of AF in `BRIEF`."""


def waits_s(episodes: list[Episode]) -> list[float]:
    return [episode.decided_s - episode.onset_s for episode in episodes if episode.end_s is None]


@given(st.floats(0.92, 0.999))
def test_an_episode_waits_for_its_evidence_so_that_clear_af_is_raised_sooner(probability: float) -> None:
    episodes, _ = track([0.01] * LONG_STEPS + [probability] * LONG_STEPS)
    (wait_s,) = waits_s(episodes)
    steps = ceil(ALERT_EVIDENCE / (EVIDENCE_PER_STEP * log(probability / (1 - probability))))
    assert abs(wait_s - max(30.0 + WINDOW_S / 2, steps * STEP_S + WINDOW_S / 2)) <= 3 * STEP_S + WINDOW_S / 2


def test_labelled_evidence_counts_and_evidence_against_is_subtracted() -> None:
    strong, weak = 0.95, 0.45
    pattern = [strong, weak] * LONG_STEPS
    episodes, stretches = track(pattern)
    assert all(stretch.af for stretch in stretches)
    (wait_s,) = waits_s(episodes)
    pair = EVIDENCE_PER_STEP * (log(strong / (1 - strong)) + log(weak / (1 - weak)))
    assert wait_s == pytest.approx(WINDOW_S + 2 * STEP_S * ALERT_EVIDENCE / pair, abs=2 * STEP_S)
    assert wait_s > (LAG_STEPS + BLOCK_STEPS) * STEP_S / 2  # longer than what is not labelled yet


def test_intervals_that_repeat_lower_the_evidence_and_no_label() -> None:
    pattern = [0.01] * LONG_STEPS + [0.97] * 2 * LONG_STEPS
    plain, labels = track(pattern)
    log_odds = log(0.97 / 0.03)
    slower, same = track(pattern, repetition=REPETITION_IN_AF + log_odds / 2)
    assert same == labels
    steps = ceil(ALERT_EVIDENCE / (EVIDENCE_PER_STEP * log_odds / 2))
    assert waits_s(slower)[0] - waits_s(plain)[0] == pytest.approx(steps / 2 * STEP_S, abs=2 * STEP_S)
    assert track(pattern, repetition=REPETITION_IN_AF + log_odds) == ([], labels)


def test_each_brief_episode_adds_to_the_evidence_that_the_next_one_needs() -> None:
    episodes, stretches = track([*BRIEF * 7, *[0.01] * 60])
    needed = [ceil((ALERT_EVIDENCE + BRIEF_EVIDENCE * min(brief, 4)) / STEP_EVIDENCE) * STEP_S for brief in range(7)]
    waited_s = waits_s(episodes)
    assert [wait_s - waited_s[0] for wait_s in waited_s] == [seconds - needed[0] for seconds in needed]
    assert waited_s[-1] - waited_s[-2] == 0.0
    found_s = sum(stretch.end_s - stretch.start_s for stretch in stretches if stretch.af)
    assert found_s == pytest.approx(7 * 160, abs=7 * 4 * STEP_S)  # the burden counts all of them


def test_a_long_episode_is_not_brief() -> None:
    long = [*[0.01] * 60, *[0.99] * (int(BRIEF_EPISODE_S / STEP_S) + 4)]
    episodes, _ = track([*long * 3, *BRIEF])
    assert len(set(waits_s(episodes))) == 1


def test_brief_episodes_are_forgotten_after_a_day() -> None:
    day = [0.01] * int(BRIEF_MEMORY_S / STEP_S)
    episodes, _ = track([*BRIEF * 3, *day, *BRIEF])
    first, second, _, last = waits_s(episodes)
    assert last == first < second


def test_an_episode_that_a_gap_ended_is_not_brief() -> None:
    tracker = AfTracker(0.9, 30.0)
    assert len({waits_s(track([0.99] * 40, tracker)[0])[0] for _ in range(4)}) == 1
    assert tracker.brief_ages_s(1000.0) == []


@pytest.mark.parametrize(("away_s", "is_known"), [(60.0, True), (BRIEF_MEMORY_S, False)])
def test_brief_episodes_are_known_after_a_restart(away_s: float, is_known: bool) -> None:
    before = AfTracker(0.9, 30.0)
    earlier, _ = track([*BRIEF * 2, *[0.01] * 60], before)
    ages_s = before.brief_ages_s(WINDOW_S + 260 * STEP_S)
    ends_s = [episode.end_s for episode in earlier if episode.end_s is not None]
    assert ages_s == [WINDOW_S + 260 * STEP_S - end_s for end_s in ends_s]
    after = AfTracker(0.9, 30.0, ages_s)
    after.add_time_away(away_s)
    (wait_s,) = waits_s(track(BRIEF, after)[0])
    assert (wait_s > waits_s(track(BRIEF)[0])[0]) == is_known
