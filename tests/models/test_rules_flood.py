"""How long an alert keeps the next of its kind quiet."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from config.limits import DEFAULT_LIMITS
from models.rules.flood import RANKS, FloodGuard

MINUTE = 60 * 1_000_000


def told(priority: str, end_us: int) -> FloodGuard:
    """A guard that has seen one alert, of an episode from 0 to `end_us`."""
    guard = FloodGuard(DEFAULT_LIMITS)
    guard.tell("af", priority, 0)
    guard.end("af", end_us)
    return guard


def test_the_first_of_a_kind_never_waits() -> None:
    guard = told("medium", MINUTE)
    assert not guard.waits("vt", "low", 2 * MINUTE)
    assert guard.waits("af", "medium", 2 * MINUTE)


def test_the_time_out_begins_with_the_end_of_what_was_told() -> None:
    guard = told("medium", 60 * MINUTE)
    assert guard.waits("af", "medium", 65 * MINUTE - 1)
    assert not guard.waits("af", "medium", 65 * MINUTE)


def test_low_priority_waits_longer_and_high_never() -> None:
    assert told("low", 0).waits("af", "low", 29 * MINUTE)
    assert not told("low", 0).waits("af", "low", 30 * MINUTE)
    assert not told("high", 0).waits("af", "high", 1)
    assert told("high", 0).waits("af", "medium", MINUTE)


def test_a_more_urgent_one_breaks_through() -> None:
    guard = told("low", 0)
    assert not guard.waits("af", "medium", 1)
    guard.rise("af", "medium")
    assert guard.waits("af", "medium", 1)


def test_what_is_held_back_is_counted_until_the_next_is_told() -> None:
    guard = told("medium", 0)
    guard.hold("af")
    guard.hold("af")
    assert guard.tell("af", "medium", 10 * MINUTE) == 2
    assert guard.tell("af", "medium", 20 * MINUTE) == 0


def test_a_time_out_survives_a_restart() -> None:
    guard = told("medium", MINUTE)
    guard.hold("af")
    again = FloodGuard(DEFAULT_LIMITS, json.loads(json.dumps(guard.state())))
    assert again.waits("af", "medium", 2 * MINUTE)
    assert again.tell("af", "medium", 7 * MINUTE) == 1


def test_a_clock_that_is_set_back_silences_no_alert() -> None:
    guard = told("medium", 600 * MINUTE)
    assert not guard.waits("af", "medium", 60 * MINUTE)


def test_a_patient_may_have_none() -> None:
    guard = FloodGuard(DEFAULT_LIMITS.with_values({"repeat_medium": 0, "repeat_low": 0}))
    guard.tell("af", "medium", 0)
    assert not guard.waits("af", "medium", 1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 600), st.sampled_from(list(RANKS))), max_size=50))
def test_medium_alerts_of_one_kind_are_never_closer_than_the_time_out(episodes: list[tuple[int, str]]) -> None:
    guard, at, last, held = FloodGuard(DEFAULT_LIMITS), 0, None, 0
    for apart_s, priority in episodes:
        at += apart_s * 1_000_000
        if guard.waits("af", priority, at):
            assert last is not None
            assert priority != "high"
            guard.hold("af")
            held += 1
        else:
            assert last is None or RANKS[priority] > RANKS[last[1]] or priority == "high" or at >= last[0] + 5 * MINUTE
            assert guard.tell("af", priority, at) == held
            last, held = (at, priority), 0
