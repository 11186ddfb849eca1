"""The time of results measured on demand: clocks that are right, wrong, set, drifting, or of another time zone."""

import json
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.readings import ClockState, Origin
from gateway.spot_times import MAX_AGE_US, MAX_POINTS, MAX_RUNS, SpotTime, SpotTimes

BERLIN = ZoneInfo("Europe/Berlin")
H, MIN, S, DAY = 3_600_000_000, 60_000_000, 1_000_000, 86_400_000_000
SUMMER = datetime(2026, 7, 15, 8, 0, tzinfo=BERLIN)
WINTER = datetime(2026, 12, 15, 8, 0, tzinfo=BERLIN)


def utc_us(at: datetime) -> int:
    return round(at.timestamp() * 1e6)


def shown(at_us: int, offset: timedelta) -> datetime:
    """What a clock shows that is so far ahead of UTC."""
    return datetime(1970, 1, 1) + timedelta(microseconds=at_us) + offset  # noqa: DTZ001 - a sensor's time has no zone


def find(
    times: SpotTimes,
    at_us: int,
    arrived_us: int,
    ahead: timedelta = timedelta(hours=2),
    *,
    stored: bool = False,
    clock: ClockState | None = "set",
) -> tuple[int, str]:
    """The error of a result's time in seconds, and its source."""
    time = times.find(Origin(at_us // S, shown(at_us, ahead), clock, is_stored=stored), arrived_us)
    return (time.at_us - at_us) // S, time.source


NOW = utc_us(SUMMER)


def test_a_right_clock_gives_the_time() -> None:
    times = SpotTimes(zone=BERLIN)
    assert find(times, NOW - 20 * S, NOW) == (0, "measured")
    assert find(times, NOW - 30 * DAY, NOW, stored=True) == (0, "measured")
    assert find(SpotTimes(zone=BERLIN), NOW - 30 * DAY, NOW, stored=True) == (0, "measured")


def test_the_sensors_own_time_measures_its_error() -> None:
    times = SpotTimes(zone=BERLIN)
    wrong = timedelta(hours=-9, minutes=-17)
    times.observe(shown(NOW, wrong).isoformat(), NOW)
    assert find(times, NOW - 3 * DAY, NOW + S, wrong, stored=True) == (0, "corrected")
    assert find(times, NOW - 40 * S, NOW + 2 * S, wrong) == (0, "corrected")


@pytest.mark.parametrize(
    "text", ["unknown", "invalid", "0001-01-01T00:00:00", "9999-12-31T23:59:59", "2026-07-15T08:00:00+02:00"]
)
def test_a_text_that_is_no_local_time_does_no_harm(text: str) -> None:
    times = SpotTimes(zone=BERLIN)
    times.observe(text, NOW)
    assert find(times, NOW - DAY, NOW, stored=True) == (0, "measured")


def test_a_clock_that_the_hub_set_is_right_from_then_on() -> None:
    """A cuff that was three hours behind still has a result from before, and stores one afterwards."""
    times = SpotTimes(zone=BERLIN)
    behind, right = timedelta(hours=-1), timedelta(hours=2)
    times.observe(shown(NOW, behind).isoformat(), NOW)
    times.on_clock_set(NOW + S)
    assert find(times, NOW - 30 * S, NOW + 5 * S, behind) == (0, "corrected")
    assert find(times, NOW - 2 * H, NOW + 6 * S, behind, stored=True) == (0, "corrected")
    assert find(times, NOW + 5 * H, NOW + DAY, right, stored=True) == (0, "measured")


def test_a_time_that_the_clock_skipped_when_it_was_set_is_taken_as_it_is() -> None:
    times = SpotTimes(zone=BERLIN)
    times.observe(shown(NOW, timedelta(hours=-1)).isoformat(), NOW)
    times.on_clock_set(NOW)
    assert find(times, NOW - H, NOW + DAY, stored=True) == (0, "measured")


def test_of_two_live_results_the_one_with_less_delay_counts() -> None:
    times = SpotTimes(zone=BERLIN)
    ahead = timedelta(hours=5)
    for after_us, delay_us in ((0, 100 * S), (H, 5 * S), (2 * H, 60 * S)):
        find(times, NOW + after_us, NOW + after_us + delay_us, ahead)
    assert find(times, NOW - DAY, NOW + DAY, ahead, stored=True) == (5, "corrected")


def test_a_clock_that_is_ahead_never_gives_a_future_time() -> None:
    times = SpotTimes(zone=BERLIN)
    ahead = timedelta(hours=5)
    assert find(times, NOW, NOW, ahead) == (0, "corrected")
    assert find(times, NOW - DAY, NOW + S, ahead, stored=True) == (0, "corrected")
    assert find(SpotTimes(zone=BERLIN), NOW - S, NOW, ahead, stored=True) == (1, "arrival")


def test_two_results_that_arrive_with_the_same_lead_are_live() -> None:
    """The patient set the clock twelve hours wrong. One such result could be a stored one; the second shows the error."""
    times = SpotTimes(zone=BERLIN)
    wrong = timedelta(hours=-10)
    assert find(times, NOW - 20 * S, NOW, wrong) == (-12 * 3600, "unconfirmed")
    assert find(times, NOW + DAY - 25 * S, NOW + DAY, wrong)[1] == "corrected"
    error_s, source = find(times, NOW + DAY - H, NOW + DAY + S, wrong, stored=True)
    assert (abs(error_s) <= 30, source) == (True, "corrected")


def test_stored_results_without_that_mark_are_not_taken_for_live_ones() -> None:
    """A cuff without record access sends all that it stores in one burst. Its latest result shows that its clock is right."""
    times = SpotTimes(zone=BERLIN)
    for i in range(60):
        at_us = NOW - (60 - i) * 7 * MIN
        assert find(times, at_us, NOW + i * S) == (0, "unconfirmed")
    assert find(times, NOW + 40 * S, NOW + 61 * S) == (0, "measured")
    assert find(times, NOW - 60 * 7 * MIN, NOW + 62 * S) == (0, "measured")


def test_a_clock_that_restarts_twice_at_the_factorys_date() -> None:
    """The same date is then that of two times. The clock that the sensor shows decides, and without it nothing does."""
    wrong = timedelta(days=-700)
    first, second = NOW, NOW + 5 * H
    again = wrong - timedelta(hours=5)
    times = SpotTimes(zone=BERLIN)
    times.observe(shown(first + 30 * MIN, wrong).isoformat(), first + 30 * MIN)
    times.on_clock_set(first + 30 * MIN + S)
    times.on_disconnected()
    unread = SpotTimes(json.loads(json.dumps(times.state())), BERLIN)
    assert find(unread, second + 20 * MIN, second + 20 * MIN, again) == (-5 * 3600, "unconfirmed")
    times.observe(shown(second + 20 * MIN + S, again).isoformat(), second + 20 * MIN + S)
    assert find(times, second + 20 * MIN, second + 20 * MIN, again) == (0, "corrected")
    assert find(times, second + 10 * MIN, second + 20 * MIN, again) == (0, "unconfirmed")  # it may be a stored one
    times.on_clock_set(second + 21 * MIN)
    assert find(times, second + 19 * MIN, second + 20 * MIN, again) == (0, "corrected")


def test_a_clock_that_cannot_be_read_and_restarts_twice_is_known_from_its_second_result() -> None:
    """A scale that only advertises: its first weighing could be one of the time before, its second one shows that it is not."""
    times, first, second = SpotTimes(zone=BERLIN), timedelta(days=-3000), timedelta(days=-3000, hours=-6)
    assert find(times, NOW + 40 * MIN, NOW + 40 * MIN, first) == (0, "corrected")  # it would be too old
    assert find(times, NOW + 3 * H, NOW + 3 * H) == (0, "measured")  # somebody set it
    later = NOW + 6 * H + 30 * MIN
    assert find(times, later, later, second) == (-6 * 3600, "unconfirmed")
    assert find(times, later + H, later + H, second) == (0, "corrected")
    assert find(times, later + 2 * H, later + 2 * H, second) == (0, "corrected")


def test_a_stored_result_from_before_a_clock_jumped() -> None:
    """The clock was right at 8:00, and is an hour ahead at 11:00. Nothing tells when it jumped, unless a time is too early."""
    times, ahead = SpotTimes(zone=BERLIN), timedelta(hours=3)
    times.observe(shown(NOW, timedelta(hours=2)).isoformat(), NOW)
    times.on_disconnected()
    times.observe(shown(NOW + 3 * H, ahead).isoformat(), NOW + 3 * H)
    assert find(times, NOW + 30 * MIN, NOW + 3 * H) == (0, "measured")  # else it would be from before 8:00
    assert find(times, NOW + 2 * H, NOW + 3 * H) == (0, "unconfirmed")
    assert find(times, NOW + 2 * H, NOW + 3 * H, stored=True) == (0, "unconfirmed")
    assert find(times, NOW + 150 * MIN, NOW + 3 * H, ahead) == (0, "corrected")  # else it would be from after 11:00


def test_a_time_is_confirmed_only_by_the_clock_of_the_same_connection() -> None:
    times = SpotTimes(zone=BERLIN)
    times.observe(shown(NOW, timedelta(hours=2)).isoformat(), NOW)
    assert find(times, NOW - H, NOW + S) == (0, "measured")
    times.on_disconnected()
    assert find(times, NOW - 2 * H, NOW + 5 * MIN) == (0, "unconfirmed")
    assert find(times, NOW - 2 * H, NOW + 5 * MIN, stored=True) == (0, "measured")
    times.observe(shown(NOW + 5 * MIN, timedelta(hours=2)).isoformat(), NOW + 5 * MIN)
    assert find(times, NOW - 2 * H, NOW + 5 * MIN) == (0, "measured")
    assert find(times, NOW - 2 * H, NOW + DAY) == (0, "unconfirmed")


def test_stored_results_that_arrive_with_the_same_age_are_not_live_where_the_clock_is_read() -> None:
    times = SpotTimes(zone=BERLIN)
    for day in (0, 1):
        arrived_us = NOW + day * DAY
        times.observe(shown(arrived_us, timedelta(hours=2)).isoformat(), arrived_us)
        assert find(times, arrived_us - H, arrived_us) == (0, "measured")
        times.on_disconnected()


def test_a_clock_that_counts_from_the_factorys_date_is_not_used() -> None:
    times = SpotTimes(zone=BERLIN)
    assert times.find(Origin(1, datetime(2017, 1, 1, 0, 3), "not_set"), NOW) == SpotTime(NOW, "arrival")  # noqa: DTZ001
    assert times.find(Origin(2, None, "unknown"), NOW) == SpotTime(NOW, "arrival")
    assert times.find(Origin(3, None, "invalid"), NOW) == SpotTime(NOW, "arrival")
    assert times.find(Origin(4), NOW) == SpotTime(NOW, "arrival")
    assert times.state()["runs"] == []


def test_a_clock_that_was_reset_is_measured_again() -> None:
    """A change of batteries set it to 2021. The result is live, because it cannot be five years old."""
    times = SpotTimes(zone=BERLIN)
    assert find(times, NOW - 30 * S, NOW) == (0, "measured")
    reset = timedelta(days=-365 * 5)
    later = NOW + 2 * DAY
    error_s, source = find(times, later - 30 * S, later, reset)
    assert (error_s, source) == (30, "corrected")
    assert find(times, later - H, later + S, reset, stored=True) == (30, "corrected")
    assert find(times, NOW - 3 * DAY, later + 2 * S, stored=True) == (0, "measured")


def test_a_record_that_would_be_too_old_has_the_time_of_arrival() -> None:
    times = SpotTimes(zone=BERLIN)
    assert find(times, NOW - MAX_AGE_US + DAY, NOW, stored=True) == (0, "measured")
    assert find(times, NOW - MAX_AGE_US - DAY, NOW, stored=True)[1] == "arrival"


def test_a_clock_that_does_not_follow_daylight_saving_time() -> None:
    """It keeps summer time in winter. Its results from before and after the change are dated alike."""
    times = SpotTimes(zone=BERLIN)
    summer, winter = NOW, utc_us(WINTER)
    assert find(times, summer - 20 * S, summer) == (0, "measured")
    live = find(times, winter - 20 * S, winter)
    assert live[1] == "corrected"
    assert abs(live[0]) <= 20
    for at_us in (winter - DAY, winter - 100 * DAY):
        assert abs(find(times, at_us, winter + S, stored=True)[0]) <= 20


def test_a_clock_that_follows_daylight_saving_time() -> None:
    times = SpotTimes(zone=BERLIN)
    winter = utc_us(WINTER)
    assert find(times, NOW - 20 * S, NOW) == (0, "measured")
    assert find(times, winter - 20 * S, winter, timedelta(hours=1)) == (0, "measured")


def test_the_hour_that_is_repeated_in_autumn() -> None:
    """Sensors do not say which of the two it is: it is the second, unless that is in the future."""
    first, second = (utc_us(datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=fold)) for fold in (0, 1))
    local = Origin(1, datetime(2026, 10, 25, 2, 30), "set", is_stored=True)  # noqa: DTZ001 - a sensor's time
    assert SpotTimes(zone=BERLIN).find(local, first + MIN) == SpotTime(first, "measured")
    assert SpotTimes(zone=BERLIN).find(local, second + DAY) == SpotTime(second, "measured")


def test_a_journey_with_the_sensor_and_the_hub() -> None:
    """The hub's zone changes, the sensor's clock does not."""
    times = SpotTimes(zone=BERLIN)
    assert find(times, NOW - 20 * S, NOW) == (0, "measured")
    there = SpotTimes(json.loads(json.dumps(times.state())), ZoneInfo("America/New_York"))
    assert abs(find(there, NOW + DAY, NOW + 2 * DAY, stored=True)[0]) <= 20
    assert abs(find(there, NOW + 3 * DAY - 9 * S, NOW + 3 * DAY)[0]) <= 20


def test_drift_over_weeks_is_removed_between_two_observations() -> None:
    """8 s a day: after six weeks the clock is nearly six minutes fast."""
    times = SpotTimes(zone=BERLIN)
    times.observe(shown(NOW, timedelta(hours=2)).isoformat(), NOW)
    end = NOW + 42 * DAY
    times.observe(shown(end, timedelta(hours=2, seconds=8 * 42)).isoformat(), end)
    for day in (10, 30, 41):
        at_us = NOW + day * DAY
        error_s, _ = find(times, at_us, end + S, timedelta(hours=2, seconds=8 * day), stored=True)
        assert abs(error_s) <= 60  # by the clock alone it would be up to 5.5 min
    assert find(times, NOW + 30 * DAY, end, timedelta(hours=2, seconds=240), stored=True) == (0, "corrected")


def test_a_hub_that_started_without_a_time_recovers() -> None:
    """Its clock counts from 1970 until it has a network; what it learnt until then is not used."""
    times = SpotTimes(zone=BERLIN)
    assert times.find(Origin(1, shown(NOW, timedelta(hours=2)), "set"), 60 * S) == SpotTime(60 * S, "corrected")
    assert find(times, NOW - DAY, NOW, stored=True) == (0, "measured")
    assert find(times, NOW - 20 * S, NOW) == (0, "measured")


def test_what_is_known_of_a_clock_survives_a_restart_and_is_bounded() -> None:
    times = SpotTimes(zone=BERLIN)
    for i in range(100):
        times.observe(shown(NOW + i * DAY, timedelta(hours=i // 40)).isoformat(), NOW + i * DAY)
    assert [len(points) for *_, points in times.state()["runs"]] == [MAX_POINTS, MAX_POINTS, MAX_POINTS]
    for i in range(20):
        times.on_clock_set(NOW + (100 + i) * DAY)
    saved = json.loads(json.dumps(times.state()))
    assert len(saved["runs"]) == MAX_RUNS
    assert SpotTimes(saved, BERLIN).state() == times.state()


instants = st.integers(0, 2**52).map(lambda us: shown(us, timedelta()))
locals_ = st.datetimes() | instants


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["result", "stored", "time", "set"]), locals_, st.integers(NOW - 900 * DAY, NOW + 900 * DAY)),
        max_size=12,
    )
)
def test_no_result_is_dated_after_its_arrival_or_absurdly_early(events: list[tuple[str, datetime, int]]) -> None:
    times = SpotTimes(zone=BERLIN)
    for what, local, arrived_us in events:
        if what == "time":
            times.observe(local.isoformat(), arrived_us)
        elif what == "set":
            times.on_clock_set(arrived_us)
        else:
            at_us, source = times.find(Origin(1, local, "set", is_stored=what == "stored"), arrived_us)
            assert arrived_us - MAX_AGE_US <= at_us <= arrived_us
            assert source in {"measured", "corrected", "arrival", "unconfirmed"}
        json.dumps(times.state())
