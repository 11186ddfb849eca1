"""The daily AF burden: time in atrial fibrillation as a share of the observed time."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.limits import DEFAULT_LIMITS
from models.rules.burden import DailyBurden

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


def test_a_day_is_reported_with_af_share_and_observed_hours_when_the_next_begins() -> None:
    burden = DailyBurden(DEFAULT_LIMITS)
    assert [*burden.add(0, 9 * HOUR_S, is_af=False), *burden.add(10 * HOUR_S, 11 * HOUR_S, is_af=True)] == []
    (day,) = burden.add(DAY_S + 5, DAY_S + 6, is_af=True)
    assert (day.kind, day.onset_s, day.end_s, day.inconclusive) == ("af_burden", 0.0, DAY_S, None)
    assert day.measured == {"af_percent": 10.0, "observed_h": 10.0, "limit_percent": 11.4}


def test_a_stretch_across_midnight_is_split_between_the_days() -> None:
    burden = DailyBurden(DEFAULT_LIMITS)
    (first,) = burden.add(12 * HOUR_S, DAY_S + 6 * HOUR_S, is_af=True)
    (second,) = burden.finish()
    assert (first.measured["observed_h"], second.measured["observed_h"]) == (12.0, 6.0)
    assert (second.onset_s, second.end_s) == (DAY_S, 2 * DAY_S)


def test_a_day_with_too_little_observed_time_is_inconclusive() -> None:
    burden = DailyBurden(DEFAULT_LIMITS)
    list(burden.add(0, 7.9 * HOUR_S, is_af=True))
    (day,) = burden.finish()
    assert (day.inconclusive, day.measured["af_percent"], day.measured["observed_h"]) == ("too_short", 100.0, 7.9)
    assert list(burden.finish()) == []


def test_days_begin_at_day_zero() -> None:
    burden = DailyBurden(DEFAULT_LIMITS, day_zero_s=6 * HOUR_S)
    (night,) = burden.add(5 * HOUR_S, 7 * HOUR_S, is_af=False)
    assert (night.onset_s, night.end_s) == (-18 * HOUR_S, 6 * HOUR_S)


def test_the_state_survives_a_restart() -> None:
    burden = DailyBurden(DEFAULT_LIMITS)
    assert burden.state() is None
    list(burden.add_total(3 * HOUR_S, af_s=1 * HOUR_S, observed_s=5 * HOUR_S))
    resumed = DailyBurden(DEFAULT_LIMITS, state=burden.state())
    (day,) = [*resumed.add_total(20 * HOUR_S, af_s=0, observed_s=5 * HOUR_S), *resumed.finish()]
    assert day.measured["af_percent"] == 10.0
    assert day.measured["observed_h"] == 10.0


@settings(deadline=None)
@given(cuts=st.lists(st.floats(0, 3 * DAY_S), max_size=20), af=st.booleans())
def test_the_days_add_up_to_the_observed_time_for_any_split(cuts: list[float], af: bool) -> None:
    burden, times = DailyBurden(DEFAULT_LIMITS), sorted({0.0, 3 * DAY_S, *cuts})
    days = [day for start, end in pairwise(times) for day in burden.add(start, end, is_af=af)]
    days += burden.finish()
    assert [day.onset_s for day in days] == [0.0, DAY_S, 2 * DAY_S]
    assert [day.measured["observed_h"] for day in days] == pytest.approx([24, 24, 24])
    assert [day.measured["af_percent"] for day in days] == pytest.approx([100 * af] * 3)
