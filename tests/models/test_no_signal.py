"""The technical finding `no_signal`: when it is reported, again, at once, and when it ends."""

from collections.abc import Sequence

import pytest

from config.limits import DEFAULT_LIMITS
from models.findings import Finding
from models.rules.no_signal import AFTER_HIGH_DELAY_S, BACK_S, NoSignalRule
from models.signal.defects import Defect


def run(defects: Sequence[Defect | None], *, is_urgent: bool = False) -> list[tuple[int, Finding]]:
    """Feed one state a second; return the findings with their seconds."""
    rule = NoSignalRule(DEFAULT_LIMITS)
    rule.is_urgent = is_urgent
    return [(second, finding) for second, defect in enumerate(defects) for finding in rule.advance_to(second, defect)]


@pytest.mark.parametrize("defect", ["flat", "rail", "hum", "noise"])
def test_one_finding_after_a_minute_with_its_reason(defect: Defect) -> None:
    ((second, finding),) = run([defect] * 300)
    assert second == 60
    assert (finding.kind, finding.onset_s, finding.end_s, finding.reasons) == ("no_signal", 0, None, (f"no_signal.{defect}",))
    assert finding.measured == {"seconds": 60.0, "limit_s": 60.0}


def test_a_shorter_loss_is_not_reported() -> None:
    assert not run([*["flat"] * 59, *[None] * 30])


def test_it_is_reported_again_after_ten_minutes() -> None:
    findings = run(["flat"] * 2000)
    assert [second for second, _ in findings] == [60, 600]
    assert findings[1][1].measured["seconds"] == 600
    assert findings[0][1].episode == findings[1][1].episode


def test_it_ends_when_the_signal_has_been_back_for_some_seconds() -> None:
    findings = run([*["rail"] * 70, *[None] * 3, *["rail"] * 10, *[None] * 20])
    (_, (second, ended)) = findings
    assert second == 83 + BACK_S
    assert (ended.end_s, ended.reasons, ended.lost) == (83, ("no_signal.rail",), False)


def test_the_reason_is_the_most_frequent_defect() -> None:
    ((_, finding),) = run([*["noise"] * 10, *["flat"] * 55])
    assert finding.reasons == ("no_signal.flat",)


def test_after_an_alert_of_high_priority_it_does_not_wait() -> None:
    ((second, _),) = run(["flat"] * 30, is_urgent=True)
    assert second == AFTER_HIGH_DELAY_S


def test_a_loss_that_lasts_becomes_urgent() -> None:
    rule = NoSignalRule(DEFAULT_LIMITS)
    assert not [finding for second in range(20) for finding in rule.advance_to(second, "flat")]
    rule.is_urgent = True
    assert [finding.onset_s for finding in rule.advance_to(20, "flat")] == [0]


def test_a_gap_ends_it_as_lost() -> None:
    rule = NoSignalRule(DEFAULT_LIMITS)
    found = [finding for second in range(100) for finding in rule.advance_to(second, "flat")]
    found += rule.gap(100.0)
    assert [(finding.end_s, finding.lost) for finding in found] == [(None, False), (100.0, True)]
    assert not list(rule.gap(101.0))
