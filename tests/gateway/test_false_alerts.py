"""AF after the clinic marked an alert of it as false."""

from dataclasses import replace

import pytest

from gateway.alerts import CLOSED_REASON, FALSE_REASON
from sync.records import AlertRecord, FindingRecord
from tests.gateway.test_alerts import SecondsTracker, finding, to_us


class TestFalseAf:
    """AF after the clinic marked an alert of AF as false: twice the evidence for 30 days."""

    DAY_S = 86_400.0

    def marked(self, kind: str = "af", reason: str = FALSE_REASON) -> SecondsTracker:
        """A tracker one of whose alerts the clinic ended a minute ago, at 60 s."""
        tracker = SecondsTracker(has_rhythm=True)
        (first,) = tracker.alerts(kind, 10.0)
        assert tracker.close(first.id, to_us(60), reason, 7) is not None
        tracker.alerts(kind, 10.0, 70.0)
        return tracker

    @staticmethod
    def found(
        tracker: SecondsTracker, onset_s: float, at_s: float, end_s: float | None = None, kind: str = "af", **measured: float
    ) -> list[AlertRecord]:
        """The alerts of an episode that the model found, or whose end it found, at `at_s`."""
        by_model = replace(finding(kind, onset_s, end_s, None, **measured), probability=0.97)
        return [one for one in tracker.on_finding(by_model, to_us, to_us(at_s)) if isinstance(one, AlertRecord)]

    @pytest.mark.parametrize("kind", ["af", "irregular_pulse"])
    def test_an_episode_must_last_twice_as_long_as_it_took_to_be_found(self, kind: str) -> None:
        tracker = self.marked(kind)
        assert self.found(tracker, 5000.0, 5050.0, kind=kind) == []
        assert tracker.pass_time(5099.8) == []
        (raised,) = tracker.pass_time(5100.0)
        assert (raised.onset_us, raised.raised_us, raised.end_us) == (to_us(5000), to_us(5100), None)
        (ended,) = self.found(tracker, 5000.0, 5400.0, 5300.0, kind)
        assert (ended.id, ended.end_us) == (raised.id, to_us(5300))

    @pytest.mark.parametrize(("length_s", "n"), [(99.0, 0), (100.0, 1)])
    def test_an_episode_that_has_ended_counts_by_its_length(self, length_s: float, n: int) -> None:
        tracker = self.marked()
        assert self.found(tracker, 5000.0, 5050.0) == []
        assert len(self.found(tracker, 5000.0, 5090.0, 5000.0 + length_s)) == n
        assert tracker.pass_time(9000.0) == []

    def test_an_episode_that_seems_to_have_ended_waits_until_it_goes_on(self) -> None:
        tracker = self.marked()
        assert self.found(tracker, 5000.0, 5050.0) == []
        assert self.found(tracker, 5000.0, 5080.0, maybe_ended=1.0) == []
        assert tracker.pass_time(5150.0) == []
        assert self.found(tracker, 5000.0, 5160.0) == []
        (raised,) = tracker.pass_time(5160.0)
        assert raised.onset_us == to_us(5000)

    def test_it_holds_for_30_days_over_restarts(self) -> None:
        tracker, _ = self.marked().restarted(100.0)
        assert self.found(tracker, 29.9 * self.DAY_S, 29.9 * self.DAY_S + 50) == []
        tracker, _ = tracker.restarted(30 * self.DAY_S)
        assert len(self.found(tracker, 60 + 30 * self.DAY_S, 110 + 30 * self.DAY_S)) == 1

    @pytest.mark.parametrize(("kind", "reason"), [("af", CLOSED_REASON), ("vt", FALSE_REASON)])
    def test_another_end_or_kind_changes_nothing(self, kind: str, reason: str) -> None:
        tracker = self.marked(kind, reason)
        assert len(self.found(tracker, 5000.0, 5050.0)) == 1

    def test_other_kinds_are_raised_as_before_and_the_finding_is_recorded(self) -> None:
        tracker = self.marked()
        assert len(tracker.alerts("vt", 5000.0, beats=5)) == 1
        (record,) = tracker.on_finding(replace(finding("af", 6000.0), probability=0.97), to_us, to_us(6050))
        assert isinstance(record, FindingRecord)

    def test_the_irregular_readings_of_a_cuff_do_not_wait(self) -> None:
        tracker = self.marked("irregular_pulse")
        assert len(tracker.alerts("irregular_pulse", 5000.0)) == 1

    def test_it_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level("INFO", logger="gateway.false_alerts"):
            self.marked()
        assert "needs twice the evidence" in caplog.text
