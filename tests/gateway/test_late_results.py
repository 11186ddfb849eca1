"""Results measured on demand that arrive late: their alerts, and what they count in."""

from dataclasses import replace

from drivers.readings import Origin, Reading, Vital
from sync.records import AlertRecord
from tests.gateway.spot_pipeline import DAY, MIN, MINE, NOW, S, alerts, feed, origin, pipeline, pressure, weight, with_history


def test_a_late_alert_is_sent_and_marked() -> None:
    pipe = pipeline()
    (on_time,) = alerts(feed(pipe, pressure(NOW - 20 * S, 85.0, 50.0, user=MINE), NOW))
    assert on_time.reasons == ("hypotension.criterion",)
    (late,) = alerts(feed(pipe, pressure(NOW - DAY, 84.0, 50.0, user=MINE, is_stored=True), NOW + S))
    assert late.reasons == ("hypotension.criterion", "late.received")
    assert (late.onset_us, late.end_us, late.decided_us) == (NOW - DAY, NOW - DAY, NOW + S)


def test_late_alerts_are_not_suppressed_and_suppress_none() -> None:
    """Three severe results within five minutes, from the sensor's memory; then one that is measured now."""
    pipe = pipeline()
    normal = pressure(NOW - 2 * DAY + 90 * S, user=MINE)
    late = (
        [*pressure(NOW - 2 * DAY, 85.0, 50.0, user=MINE)],
        normal,
        [*pressure(NOW - 2 * DAY + 3 * MIN, 85.0, 50.0, user=MINE)],
    )
    onsets = {alert.onset_us for one in late for alert in alerts(feed(pipe, one, NOW))}
    assert onsets == {NOW - 2 * DAY, NOW - 2 * DAY + 3 * MIN}
    feed(pipe, pressure(NOW - 2 * DAY + 4 * MIN, user=MINE), NOW)
    assert len(alerts(feed(pipe, pressure(NOW, 85.0, 50.0, user=MINE), NOW + S))) == 1


def test_a_late_alert_of_low_priority_is_not_suppressed_either() -> None:
    """Two episodes of fever half an hour ago: the second would be suppressed for thirty minutes after the first."""
    pipe, found = pipeline(), list[AlertRecord]()
    for minutes, celsius in ((25, 38.2), (20, 36.9), (15, 38.3)):
        found += alerts(feed(pipe, [Vital("temperature", celsius, (), origin(NOW - minutes * MIN))], NOW))
    assert [alert.onset_us for alert in found if alert.end_us is None] == [NOW - 25 * MIN, NOW - 15 * MIN]
    assert all(alert.reasons == ("fever.criterion", "late.received") for alert in found)


def test_after_the_hubs_clock_was_set_back_results_are_no_earlier_ones() -> None:
    pipe = pipeline()
    feed(pipe, pressure(NOW + 300 * DAY, user=MINE), NOW + 300 * DAY + S)
    (alert,) = alerts(feed(pipe, pressure(NOW, 85.0, 50.0, user=MINE), NOW + S))
    assert alert.end_us is None


def test_an_earlier_result_does_not_end_an_episode_that_lasts() -> None:
    pipe = pipeline()
    (open_alert,) = alerts(feed(pipe, pressure(NOW - 20 * S, 85.0, 50.0, user=MINE), NOW))
    assert open_alert.end_us is None
    assert alerts(feed(pipe, pressure(NOW - DAY, user=MINE), NOW + S)) == []
    (end,) = alerts(feed(pipe, pressure(NOW + MIN, user=MINE), NOW + MIN + S))
    assert (end.id, end.end_us) == (open_alert.id, NOW + MIN)


def test_two_severe_results_from_the_memory_confirm_each_other() -> None:
    pipe = pipeline()
    feed(pipe, pressure(NOW, user=MINE), NOW + S)
    first = alerts(feed(pipe, pressure(NOW - DAY, 190.0, 115.0, user=MINE, is_stored=True), NOW + 2 * S))
    second = alerts(feed(pipe, pressure(NOW - DAY + 5 * MIN, 192.0, 116.0, user=MINE, is_stored=True), NOW + 3 * S))
    assert {alert.priority for alert in first} == {"medium"}
    assert second[-1].priority == "high"
    assert second[-1].id == first[0].id
    assert all(alert.end_us is not None and "late.received" in alert.reasons for alert in first + second)


def test_earlier_results_count_in_the_mean_of_the_week() -> None:
    pipe = pipeline()
    feed(pipe, pressure(NOW, 150.0, 95.0, user=MINE), NOW + S)
    found: list[AlertRecord] = []
    for i in range(12):
        found += alerts(feed(pipe, pressure(NOW - 3 * DAY + i * DAY // 4, 150.0, 95.0, user=MINE, is_stored=True), NOW + 2 * S))
    found += alerts(feed(pipe, pressure(NOW + MIN, 150.0, 95.0, user=MINE), NOW + MIN + S))
    assert {alert.kind for alert in found} == {"bp_trend"}
    feed(pipe, weight(NOW, 80.0, user=MINE), NOW + MIN + 2 * S)
    feed(pipe, weight(NOW - DAY, 79.0, user=MINE, is_stored=True), NOW + MIN + 3 * S)
    rules = pipe.state()["vitals"]["rules"]
    assert (len(rules["pressure"]), [kg for _, kg in rules["weight"]]) == (14, [80.0, 79.0])


def test_a_stored_result_without_a_time_raises_an_alert_but_counts_in_no_mean() -> None:
    pipe = with_history()
    before = pipe.state()["vitals"]
    undated = [replace(one, origin=Origin(9, None, "unknown", user=MINE, is_stored=True)) for one in pressure(NOW, 85.0, 50.0)]
    (alert,) = alerts(feed(pipe, undated, NOW))  # type: ignore[arg-type]
    assert alert.reasons == ("hypotension.criterion", "late.unknown_time")
    heavy: list[Reading] = [Vital("weight", 84.0, (), Origin(10, None, "unknown", user=MINE, is_stored=True))]
    assert alerts(feed(pipe, heavy, NOW)) == []
    assert pipe.state()["vitals"] == before
