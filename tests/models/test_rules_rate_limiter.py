"""How long an alert suppresses further alerts of its kind."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from config.limits import DEFAULT_LIMITS
from models.rules.rate_limiter import RANKS, AlarmRateLimiter

MINUTE_US = 60 * 1_000_000


def make_limiter_after_alert(priority: str, end_us: int) -> AlarmRateLimiter:
    """Return a limiter that has emitted one alert, of an episode from 0 to `end_us`."""
    limiter = AlarmRateLimiter(DEFAULT_LIMITS)
    limiter.emit("af", priority, 0)
    limiter.end_episode("af", end_us)
    return limiter


def test_the_first_alert_of_a_kind_is_not_suppressed() -> None:
    limiter = make_limiter_after_alert("medium", MINUTE_US)
    assert not limiter.is_suppressed("vt", "low", 2 * MINUTE_US)
    assert limiter.is_suppressed("af", "medium", 2 * MINUTE_US)


def test_the_time_out_begins_at_the_end_of_the_emitted_episode() -> None:
    limiter = make_limiter_after_alert("medium", 60 * MINUTE_US)
    assert limiter.is_suppressed("af", "medium", 65 * MINUTE_US - 1)
    assert not limiter.is_suppressed("af", "medium", 65 * MINUTE_US)


def test_low_priority_is_suppressed_longer_and_high_never() -> None:
    assert make_limiter_after_alert("low", 0).is_suppressed("af", "low", 29 * MINUTE_US)
    assert not make_limiter_after_alert("low", 0).is_suppressed("af", "low", 30 * MINUTE_US)
    assert not make_limiter_after_alert("high", 0).is_suppressed("af", "high", 1)
    assert make_limiter_after_alert("high", 0).is_suppressed("af", "medium", MINUTE_US)


def test_a_more_urgent_alert_is_not_suppressed() -> None:
    limiter = make_limiter_after_alert("low", 0)
    assert not limiter.is_suppressed("af", "medium", 1)
    limiter.escalate("af", "medium")
    assert limiter.is_suppressed("af", "medium", 1)


def test_suppressed_alerts_are_counted_until_the_next_is_emitted() -> None:
    limiter = make_limiter_after_alert("medium", 0)
    limiter.suppress("af")
    limiter.suppress("af")
    assert limiter.emit("af", "medium", 10 * MINUTE_US) == 2
    assert limiter.emit("af", "medium", 20 * MINUTE_US) == 0


def test_the_time_out_survives_a_restart() -> None:
    limiter = make_limiter_after_alert("medium", MINUTE_US)
    limiter.suppress("af")
    resumed = AlarmRateLimiter(DEFAULT_LIMITS, json.loads(json.dumps(limiter.state())))
    assert resumed.is_suppressed("af", "medium", 2 * MINUTE_US)
    assert resumed.emit("af", "medium", 7 * MINUTE_US) == 1


def test_setting_the_clock_back_suppresses_no_alert() -> None:
    limiter = make_limiter_after_alert("medium", 600 * MINUTE_US)
    assert not limiter.is_suppressed("af", "medium", 60 * MINUTE_US)


def test_the_time_out_can_be_zero() -> None:
    limiter = AlarmRateLimiter(DEFAULT_LIMITS.with_values({"repeat_medium": 0, "repeat_low": 0}))
    limiter.emit("af", "medium", 0)
    assert not limiter.is_suppressed("af", "medium", 1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 600), st.sampled_from(list(RANKS))), max_size=50))
def test_medium_alerts_of_one_kind_are_never_closer_than_the_time_out(episodes: list[tuple[int, str]]) -> None:
    limiter, at_us, last, suppressed = AlarmRateLimiter(DEFAULT_LIMITS), 0, None, 0
    for apart_s, priority in episodes:
        at_us += apart_s * 1_000_000
        if limiter.is_suppressed("af", priority, at_us):
            assert last is not None
            assert priority != "high"
            limiter.suppress("af")
            suppressed += 1
        else:
            assert last is None or RANKS[priority] > RANKS[last[1]] or priority == "high" or at_us >= last[0] + 5 * MINUTE_US
            assert limiter.emit("af", priority, at_us) == suppressed
            last, suppressed = (at_us, priority), 0
