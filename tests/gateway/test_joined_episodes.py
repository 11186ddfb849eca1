"""Episodes of one kind that are joined to one alert."""

import pytest

from config.limits import DEFAULT_LIMITS
from gateway.alert_series import FASTER_REASON, LONGER_REASON, MORE_OFTEN_REASON, SLOWER_REASON
from gateway.alerts import RECURRING_REASON
from gateway.priorities import PRIORITIES
from sync.records import AlertRecord
from tests.gateway.test_alerts import SecondsTracker, finding, to_us


def count(alert: AlertRecord) -> float:
    return (alert.measured or {}).get("episodes", 1.0)


class TestJoining:
    """Episodes of one kind that end by themselves."""

    def test_pauses_of_af_are_one_alert_with_their_number_and_the_longest(self) -> None:
        """35 pauses of 3.3 s in half an hour."""
        tracker, sent = SecondsTracker(has_rhythm=True), list[AlertRecord]()
        for n in range(35):
            sent += tracker.alerts("pause", 50.0 * n, 50.0 * n + 3.3, pause_s=3.3)
        assert len({alert.id for alert in sent}) == 1
        last = sent[-1]
        numbers = {"episodes": 35.0, "episode_s": 3.3, "longest_episode_s": 3.3, "an_hour": 72.0, "latest_s": 1703.3}
        assert last.measured == {"pause_s": 3.3, **numbers}
        assert (last.end_us, last.reasons) == (None, ("pause.criterion", RECURRING_REASON, MORE_OFTEN_REASON))
        assert len({alert.raised_us for alert in sent}) == 2, "at first, and when it is known how often they come"

    def test_the_length_of_the_latest_episode_is_stated_beside_that_of_the_longest(self) -> None:
        tracker, sent = SecondsTracker(has_rhythm=True), list[AlertRecord]()
        for onset_s, length_s in ((0.0, 2.0), (100.0, 6.0), (200.0, 3.0)):
            sent += tracker.alerts("vt", onset_s, onset_s + length_s, beats=6)
        lengths = [(one["episode_s"], one["longest_episode_s"]) for one in (alert.measured or {} for alert in sent[1:])]
        assert lengths == [(6.0, 6.0), (3.0, 6.0)]

    def test_an_episode_that_a_loss_of_the_signal_divides_has_one_length(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        for onset_s in (0.0, 100.0):
            tracker.alerts("tachycardia", onset_s, onset_s + 20.0, rate_bpm=140.0)
        (cut,) = tracker.lose("tachycardia", 200.0, 230.0)[-1:]
        (whole,) = tracker.alerts("tachycardia", 240.0, 245.0, rate_bpm=140.0)
        assert [(one.measured or {})["episode_s"] for one in (cut, whole)] == [30.0, 30.0]

    def test_the_first_episode_ends_its_alert_and_the_next_opens_it_again(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        (first,) = tracker.alerts("vt", 0.0, 2.0, beats=6)
        assert first.end_us == to_us(2)
        (second,) = tracker.alerts("vt", 27.0, beats=3)
        assert (second.id, second.end_us, second.priority, count(second)) == (first.id, None, "high", 2)
        (between,) = tracker.alerts("vt", 27.0, 29.0, beats=6)
        assert (between.end_us, between.raised_us) == (None, first.raised_us)

    @pytest.mark.parametrize(("kind", "wait_s"), [("af", 600.0), ("bigeminy", 1800.0)])
    def test_ends_at_its_last_episode_after_the_time_out(self, kind: str, wait_s: float) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        (first,) = tracker.alerts(kind, 0.0, 60.0)
        tracker.alerts(kind, 100.0, 160.0)
        assert tracker.pass_time(160.0 + wait_s - 0.2) == []
        (ended,) = tracker.pass_time(160.0 + wait_s)
        assert (ended.id, ended.end_us, count(ended)) == (first.id, to_us(160), 2)
        assert tracker.alerts(kind, 161.0 + wait_s)[0].id != first.id

    @pytest.mark.parametrize("kind", ["vf", "asystole"])
    def test_dangerous_kinds_are_never_joined(self, kind: str) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        ids = [tracker.alerts(kind, at_s, at_s + 12.0)[0].id for at_s in (0.0, 20.0, 40.0)]
        assert len(set(ids)) == 3

    def test_a_sustained_vt_is_alone_and_others_go_on(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        (first,) = tracker.alerts("vt", 0.0, 2.0, beats=6)
        tracker.alerts("vt", 20.0, 22.0, beats=6)
        tracker.alerts("vt", 40.0, beats=6)
        tracker.pass_time(60.0)
        rest, own = tracker.pass_time(75.0)
        assert (rest.id, rest.end_us, count(rest)) == (first.id, None, 2)
        assert (own.onset_us, own.priority, own.end_us, count(own)) == (to_us(40), "high", None, 1)
        (ended,) = tracker.alerts("vt", 40.0, 90.0, beats=100)
        assert (ended.id, ended.end_us) == (own.id, to_us(90))
        (next_,) = tracker.alerts("vt", 100.0, 102.0, beats=6)
        assert (next_.id, count(next_)) == (first.id, 3)

    def test_a_first_vt_that_becomes_sustained_keeps_its_alert_and_takes_no_other(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        (first,) = tracker.alerts("vt", 0.0, beats=6)
        (sustained,) = tracker.pass_time(35.0)
        (ended,) = tracker.alerts("vt", 0.0, 60.0, beats=150)
        assert first.id == sustained.id == ended.id
        assert ended.end_us == to_us(60)
        assert tracker.alerts("vt", 90.0, beats=6)[0].id != first.id

    def test_two_sustained_vts_are_two_alerts(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        ids = {tracker.alerts("vt", at_s, at_s + 40.0, beats=100)[-1].id for at_s in (0.0, 100.0, 200.0)}
        assert len(ids) == 3

    @pytest.mark.parametrize(
        ("kind", "first", "second", "reason"),
        [
            ("tachycardia", {"rate_bpm": 150}, {"rate_bpm": 180}, FASTER_REASON),
            ("bradycardia", {"rate_bpm": 40}, {"rate_bpm": 33}, SLOWER_REASON),
            ("pause", {"pause_s": 3.2}, {"pause_s": 4.9}, LONGER_REASON),
        ],
    )
    def test_is_raised_again_at_once_when_it_becomes_worse(
        self, kind: str, first: dict[str, float], second: dict[str, float], reason: str
    ) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        (raised,) = tracker.alerts(kind, 0.0, 3.0, **first)
        (same,) = tracker.alerts(kind, 20.0, 23.0, **first)
        assert same.raised_us == raised.raised_us
        (worse,) = tracker.alerts(kind, 40.0, **second)
        assert (worse.id, worse.raised_us, worse.reasons[-1]) == (raised.id, to_us(40), reason)
        (ended,) = tracker.alerts(kind, 40.0, 43.0, **second)
        assert ended.raised_us == worse.raised_us, "it is told once"

    @pytest.mark.parametrize(
        ("kind", "rates_bpm", "reason"),
        [
            ("tachycardia", (135.0, 161.8, 162.0, 195.0), FASTER_REASON),
            ("bradycardia", (39.6, 33.2, 33.0, 31.0), SLOWER_REASON),
        ],
    )
    def test_the_first_episode_is_raised_again_when_its_rate_is_worse_while_it_lasts(
        self, kind: str, rates_bpm: tuple[float, ...], reason: str
    ) -> None:
        tracker, sent = SecondsTracker(has_rhythm=True), list[AlertRecord]()
        for at_s, rate_bpm in zip((10.0, 40.0, 70.0, 100.0), rates_bpm, strict=True):
            reported = finding(kind, 0.0, at_s if at_s == 100.0 else None, None, rate_bpm=rate_bpm)
            sent += [one for one in tracker.on_finding(reported, to_us, to_us(at_s)) if isinstance(one, AlertRecord)]
        assert len({alert.id for alert in sent}) == 1
        assert [alert.raised_us for alert in sent] == [to_us(at_s) for at_s in (10.0, 10.0, 70.0, 70.0)]
        assert [reason in alert.reasons for alert in sent] == [False, False, True, True]

    def test_an_episode_that_lasts_is_raised_again_once_when_it_is_longer_than_those_before(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        tracker.alerts("af", 0.0, 40.0)
        tracker.alerts("af", 100.0)
        assert tracker.pass_time(164.9) == []
        (longer,) = tracker.pass_time(165.0)
        assert longer.reasons[-1] == LONGER_REASON
        assert [*tracker.pass_time(400.0), *tracker.pass_time(40_000.0)] == []

    def test_a_higher_priority_is_raised_at_once(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        (first,) = tracker.alerts("vt", 0.0, 1.0, beats=3)
        (same,) = tracker.alerts("vt", 20.0, beats=3)
        (high,) = tracker.alerts("vt", 20.0, beats=5)
        assert [alert.priority for alert in (first, same, high)] == ["medium", "medium", "high"]
        assert (same.raised_us, high.raised_us) == (first.raised_us, to_us(20))

    def test_continues_over_a_restart(self) -> None:
        before = SecondsTracker(has_rhythm=True)
        (first,) = before.alerts("bigeminy", 0.0, 10.0)
        before.alerts("bigeminy", 20.0, 30.0)
        after, (ended,) = before.restarted(35.0)
        assert (ended.end_us, count(ended)) == (to_us(30), 2)
        (more,) = after.alerts("bigeminy", 50.0, 60.0)
        assert (more.id, count(more)) == (first.id, 3)

    def test_one_kind_does_not_touch_another(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        ids = [tracker.alerts(kind, 0.0, 1.0)[0].id for kind in PRIORITIES]
        assert len(set(ids)) == len(PRIORITIES)

    def test_setting_the_clock_back_joins_nothing_of_the_future(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        (first,) = tracker.alerts("af", 90_000.0, 90_060.0)
        assert tracker.alerts("af", 100.0)[0].id != first.id

    def test_the_time_out_can_be_zero(self) -> None:
        tracker = SecondsTracker(DEFAULT_LIMITS.with_values({"repeat_medium": 0}))
        assert len({tracker.alerts("af", at_s, at_s + 60.0)[0].id for at_s in (0.0, 100.0)}) == 2


class TestTachycardiaThatIsFibrillation:
    """What is first called a tachycardia and then a fibrillation, in one episode."""

    def test_the_alert_keeps_its_id_and_changes_its_kind(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        sent = [*tracker.alerts("vt", 100.0, beats=6), *tracker.alerts("vf", 100.0), *tracker.alerts("vf", 100.0, 160.0)]
        assert len({alert.id for alert in sent}) == 1
        assert [(alert.kind, alert.end_us) for alert in sent] == [("vt", None), ("vf", None), ("vf", to_us(160))]
        assert sent[1].raised_us == sent[1].decided_us
        assert not tracker.ongoing_alerts()

    def test_an_alert_about_several_tachycardias_goes_on_without_it(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        (first, *_) = [one for at in (0.0, 20.0) for one in tracker.alerts("vt", at, at + 3.0, beats=6)]
        (third,) = tracker.alerts("vt", 100.0, beats=6)
        rest, own = tracker.alerts("vf", 100.0)
        assert first.id == third.id == rest.id != own.id
        assert (count(third), count(rest), count(own)) == (3.0, 2.0, 1.0)
        assert [alert.kind for alert in tracker.ongoing_alerts()] == ["vt", "vf"]

    def test_a_tachycardia_after_a_loss_of_the_signal_is_no_alert_beside_an_open_fibrillation(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        tracker.alerts("vf", 100.0)
        (lost,) = tracker.lose("vf", 100.0, 130.0)
        assert lost.end_us is None
        assert not tracker.alerts("vt", 150.0, beats=30)
        assert [alert.kind for alert in tracker.ongoing_alerts()] == ["vf"]
