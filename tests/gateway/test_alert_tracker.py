"""Alerts of high priority that outlast a loss of the signal, change their kind, or were closed by the clinic."""

from dataclasses import replace

import pytest

from config.limits import DEFAULT_LIMITS
from gateway.alerts import ORGANISED_REASON, SIGNAL_LOST_REASON
from gateway.priorities import RANKS
from tests.gateway.test_alerts import SecondsTracker, finding, to_us

HIGH: dict[str, dict[str, float]] = {
    "vf": {},
    "asystole": {},
    "pause": {"pause_s": 3.1},
    "vt": {"beats": 9.0},
    "no_beats": {"seconds": 60.0},
    "tachycardia": {"rate_bpm": 210.0},
    "bradycardia": {"rate_bpm": 25.0},
}
"""The kinds of an ECG that can have high priority, and what raises them to it."""
ON_HIGH = pytest.mark.parametrize("kind", HIGH)


class TestLatching:
    """An alert of high priority whose signal was lost."""

    @ON_HIGH
    def test_stays_open_and_says_so(self, kind: str) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        (first,) = tracker.alerts(kind, 10.0, **HIGH[kind])
        (lost,) = tracker.lose(kind, 10.0, 20.0, **HIGH[kind])
        assert (lost.id, lost.priority, lost.end_us) == (first.id, "high", None)
        assert lost.reasons == (f"{kind}.criterion", SIGNAL_LOST_REASON)
        assert lost.raised_us == first.raised_us
        for at_s in (30.0, 600.0, 86_400.0):
            assert tracker.pass_time(at_s) == []
        assert [alert.id for alert in tracker.ongoing_alerts()] == [first.id]

    @ON_HIGH
    def test_ends_after_30_s_of_organised_rhythm_and_not_before(self, kind: str) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        (first,) = tracker.lose(kind, 10.0, 20.0, **HIGH[kind])
        assert tracker.pass_time(80.0, organised_since_s=50.1) == []
        (ended,) = tracker.pass_time(80.2, organised_since_s=50.1)
        assert (ended.id, ended.end_us, ended.priority) == (first.id, to_us(80.1), "high")
        assert ended.reasons == (f"{kind}.criterion", ORGANISED_REASON)
        assert tracker.ongoing_alerts() == ()

    def test_counts_the_organised_rhythm_from_the_loss_on(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        tracker.lose("pause", 10.0, 20.0)
        assert tracker.pass_time(49.0, organised_since_s=5.0) == []
        (ended,) = tracker.pass_time(50.0, organised_since_s=5.0)
        assert ended.end_us == to_us(50)

    @ON_HIGH
    def test_survives_a_restart_even_without_a_word_from_the_rule(self, kind: str) -> None:
        before = SecondsTracker(has_rhythm=True)
        (first,) = before.alerts(kind, 10.0, **HIGH[kind])
        after, said = before.restarted(20.0)
        (lost,) = said
        assert (lost.id, lost.end_us, lost.reasons[-1]) == (first.id, None, SIGNAL_LOST_REASON)
        again, said = after.restarted(300.0)
        assert said == []
        assert [alert.id for alert in again.ongoing_alerts()] == [first.id]
        (ended,) = again.pass_time(400.0, organised_since_s=370.0)
        assert ended.id == first.id

    @ON_HIGH
    def test_new_evidence_continues_the_alert(self, kind: str) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        (first,) = tracker.lose(kind, 10.0, 20.0, **HIGH[kind])
        (more,) = tracker.alerts(kind, 900.0, **HIGH[kind])
        assert (more.id, more.onset_us, more.end_us) == (first.id, first.onset_us, None)
        assert SIGNAL_LOST_REASON not in more.reasons
        assert "episodes" not in (more.measured or {})

    def test_the_end_of_a_continued_episode_needs_an_organised_rhythm_too(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        tracker.lose("vf", 10.0, 20.0)
        tracker.alerts("vf", 30.0)
        (ended,) = tracker.alerts("vf", 30.0, 40.0)
        assert (ended.end_us, ended.reasons[-1]) == (None, SIGNAL_LOST_REASON)
        (released,) = tracker.pass_time(75.0, organised_since_s=45.0)
        assert released.end_us == to_us(75)

    def test_a_pause_or_no_beats_continue_a_lost_asystole_without_lowering_it(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        (first,) = tracker.lose("asystole", 10.0, 20.0)
        assert tracker.alerts("no_beats", 25.0, seconds=20) == []
        assert tracker.alerts("pause", 60.0, 64.0) == []
        (still,) = tracker.ongoing_alerts()
        assert (still.id, still.kind, still.priority) == (first.id, "asystole", "high")

    def test_a_lost_pause_that_becomes_an_asystole_changes_its_kind(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        (first,) = tracker.lose("pause", 10.0, 20.0)
        (worse,) = tracker.alerts("asystole", 30.0)
        assert (worse.id, worse.kind, worse.raised_us) == (first.id, "asystole", to_us(30))

    @ON_HIGH
    def test_another_kind_gets_its_own_alert_meanwhile(self, kind: str) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        (first,) = tracker.lose(kind, 10.0, 20.0, **HIGH[kind])
        (other,) = tracker.alerts("af", 30.0)
        assert {alert.id for alert in tracker.ongoing_alerts()} == {first.id, other.id}

    def test_the_clinic_can_close_it_and_new_evidence_raises_another(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        (first,) = tracker.lose("vf", 10.0, 20.0)
        assert tracker.close(first.id, to_us(25), "ended.closed_by_clinic", 7) is not None
        (second,) = tracker.alerts("vf", 30.0)
        assert second.id != first.id

    def test_an_alert_of_lower_priority_ends_with_its_signal(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        tracker.alerts("af", 10.0)
        (ended,) = tracker.lose("af", 10.0, 70.0)
        assert ended.end_us == to_us(70)

    def test_alerts_of_lower_priority_end_at_a_restart_and_may_continue(self) -> None:
        before = SecondsTracker(has_rhythm=True)
        (first,) = before.alerts("af", 10.0)
        after, (ended,) = before.restarted(70.0)
        assert (ended.id, ended.end_us) == (first.id, to_us(70))
        (more,) = after.alerts("af", 100.0)
        assert (more.id, more.end_us) == (first.id, None)
        assert "episodes" not in (more.measured or {})

    def test_a_recurring_high_alert_outlasts_a_long_gap_and_a_restart(self) -> None:
        before = SecondsTracker(has_rhythm=True)
        (first,) = before.alerts("pause", 10.0, 14.0, pause_s=4.0)
        before.alerts("pause", 30.0, 34.0, pause_s=4.0)
        after, said = before.restarted(40.0)
        assert said == []
        assert after.pass_time(100_000.0) == []
        (ended,) = after.pass_time(100_031.0, organised_since_s=100_000.0)
        assert (ended.id, ended.end_us) == (first.id, to_us(34))

    def test_a_recurring_alert_whose_signal_is_lost_says_so_and_not_when_its_last_episode_ended(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        tracker.alerts("pause", 10.0, 14.0, pause_s=4.0)
        (lost,) = tracker.lose("pause", 30.0, 34.0, pause_s=4.0)
        assert lost.reasons[-1] == SIGNAL_LOST_REASON
        assert "latest_s" not in (lost.measured or {})

    def test_an_alert_that_is_not_open_at_the_clinic_any_more_is_forgotten_at_a_restart(self) -> None:
        before = SecondsTracker(has_rhythm=True)
        before.alerts("vf", 10.0)
        after = SecondsTracker(DEFAULT_LIMITS, before.state(), open_ids=(), has_rhythm=True)
        assert after.ongoing_alerts() == ()

    def test_without_a_rhythm_the_next_episode_ends_it(self) -> None:
        """The alerts of vital signs: a value says that the episode goes on or has ended."""
        before = SecondsTracker()
        (first,) = before.alerts("spo2_low", 10.0, limit_percent=85)
        after, _ = before.restarted(20.0)
        assert after.pass_time(500.0, organised_since_s=0.0) == []
        (ended,) = after.alerts("spo2_low", 30.0, 60.0, limit_percent=85)
        assert (ended.id, ended.end_us) == (first.id, to_us(60))

    def test_a_newer_value_within_the_limits_ends_an_alert_whose_episode_was_lost(self) -> None:
        before = SecondsTracker()
        (first,) = before.alerts("spo2_low", 10.0, limit_percent=85)
        after, _ = before.restarted(20.0)
        recovered = replace(finding("spo2_low", 10.0, 90.0, limit_percent=85), recovered=True)
        (ended,) = after.report(recovered)
        assert (ended.id, ended.end_us, ended.reasons) == (first.id, to_us(90), ("spo2_low.criterion",))
        assert after.report(recovered) == []


class TestKindChange:
    """A pause, or no beats, that becomes an asystole."""

    @pytest.mark.parametrize("kind", ["pause", "no_beats"])
    def test_keeps_id_and_onset_and_is_raised_again(self, kind: str) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        (first,) = tracker.alerts(kind, 10.0)
        (worse,) = tracker.alerts("asystole", 10.0)
        assert (worse.id, worse.onset_us, worse.kind, worse.priority) == (first.id, first.onset_us, "asystole", "high")
        (ended,) = tracker.alerts("asystole", 10.0, 90.0)
        assert (ended.id, ended.kind, ended.end_us) == (first.id, "asystole", to_us(90))
        assert tracker.ongoing_alerts() == ()

    def test_an_asystole_after_other_pauses_gets_an_alert_of_its_own(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        (first,) = tracker.alerts("pause", 10.0, 14.0, pause_s=4.0)
        tracker.alerts("pause", 30.0, 34.0, pause_s=4.0)
        tracker.alerts("pause", 50.0, pause_s=3.0)
        rest, own = tracker.alerts("asystole", 50.0)
        assert (rest.id, rest.kind, rest.end_us) == (first.id, "pause", None)
        assert (rest.measured or {})["episodes"] == 2
        assert (own.kind, own.onset_us, own.raised_us) == ("asystole", to_us(50), to_us(50))
        assert own.id != first.id

    def test_a_closed_pause_that_becomes_an_asystole_is_a_new_alert(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        (first,) = tracker.alerts("pause", 10.0)
        tracker.close(first.id, to_us(15), "r", 7)
        (worse,) = tracker.alerts("asystole", 10.0)
        assert worse.kind == "asystole"
        assert worse.id != first.id


class TestNoSignal:
    """A signal that is lost after an alert of high priority is more urgent."""

    def test_is_medium_at_once_after_a_high_alert(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        tracker.alerts("pause", 10.0, 14.0)
        assert tracker.alerts("no_signal", 600.0)[0].priority == "medium"

    def test_is_low_10_min_later(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        tracker.alerts("vf", 10.0, 14.0)
        assert tracker.alerts("no_signal", 615.0)[0].priority == "low"

    def test_is_medium_while_a_high_alert_is_latched_also_after_a_restart(self) -> None:
        before = SecondsTracker(has_rhythm=True)
        before.lose("vf", 10.0, 14.0)
        after, _ = before.restarted(5000.0)
        assert after.alerts("no_signal", 6000.0)[0].priority == "medium"


class TestAfterClosing:
    """What the clinic's closing of an alert means for what follows."""

    @pytest.mark.parametrize("kind", ["vf", "asystole"])
    def test_a_dangerous_episode_that_goes_on_is_raised_again_after_2_min(self, kind: str) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        (first,) = tracker.alerts(kind, 10.0)
        tracker.close(first.id, to_us(20), "r", 7)
        assert tracker.pass_time(139.8) == []
        (again,) = tracker.pass_time(140.0)
        assert (again.kind, again.priority, again.end_us) == (kind, "high", None)
        assert again.id != first.id
        (ended,) = tracker.alerts(kind, 10.0, 200.0)
        assert (ended.id, ended.end_us) == (again.id, to_us(200))

    def test_one_that_ended_is_not(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        (first,) = tracker.alerts("vf", 10.0)
        tracker.close(first.id, to_us(20), "r", 7)
        assert tracker.alerts("vf", 10.0, 30.0) == []
        assert tracker.pass_time(500.0) == []

    def test_the_next_high_episode_raises_another_alert_at_once(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        (first,) = tracker.alerts("pause", 10.0, pause_s=3.0)
        tracker.close(first.id, to_us(12), "r", 7)
        tracker.alerts("pause", 10.0, 14.0, pause_s=4.0)
        (second,) = tracker.alerts("pause", 30.0, pause_s=3.0)
        assert second.id != first.id

    def test_the_next_episode_of_lower_priority_waits_for_the_time_out(self) -> None:
        tracker = SecondsTracker(has_rhythm=True)
        (first,) = tracker.alerts("af", 10.0)
        tracker.close(first.id, to_us(50), "r", 7)
        tracker.alerts("af", 10.0, 60.0)
        assert tracker.alerts("af", 100.0) == []
        assert tracker.pass_time(649.0) == []
        (lasting,) = tracker.pass_time(650.0)
        assert lasting.id != first.id
        assert RANKS[lasting.priority] == RANKS["medium"]


def test_a_lost_asystole_beside_lost_no_beats_goes_on_as_itself() -> None:
    tracker = SecondsTracker(has_rhythm=True)
    sent = tracker.alerts("no_beats", 10.0, seconds=60.0)
    sent += tracker.lose("no_beats", 10.0, 20.0, seconds=60.0)
    sent += tracker.alerts("no_beats", 30.0, seconds=60.0)
    sent += tracker.alerts("no_beats", 30.0, 40.0, seconds=60.0)
    for onset_s in (50.0, 70.0):
        sent += tracker.alerts("asystole", onset_s)
        sent += tracker.lose("asystole", onset_s, onset_s + 10.0)
    shown = {alert.id: alert for alert in sent}
    assert sorted(alert.kind for alert in shown.values()) == ["asystole", "no_beats"]
    assert {alert.id for alert in tracker.ongoing_alerts()} == set(shown)
