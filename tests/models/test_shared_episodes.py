"""Episodes that both the rules on beats and the ventricular monitor see are one."""

from collections.abc import Sequence

import pytest

from models.findings import Finding
from models.rules.shared_episodes import SharedEpisodes

MONITOR = "ecg_organised@1"


def began(kind: str, onset_s: float, source: str) -> Finding:
    return Finding(kind, onset_s, None, source)


def ended(kind: str, onset_s: float, end_s: float, source: str) -> Finding:
    return Finding(kind, onset_s, end_s, source)


def run(findings: Sequence[Finding]) -> list[tuple[str, float, float | None]]:
    shared = SharedEpisodes()
    return [(f.kind, f.onset_s, f.end_s) for finding in findings for f in shared.filter_finding(finding)]


@pytest.mark.parametrize(("first", "second"), [("rule:vt", MONITOR), (MONITOR, "rule:vt")])
def test_one_tachycardia_from_the_first_that_sees_it_to_the_last(first: str, second: str) -> None:
    found = run([began("vt", 5, first), began("vt", 8, second), ended("vt", 5, 20, first), ended("vt", 8, 40, second)])
    assert found == [("vt", 5, None), ("vt", 5, 40)]


def test_the_monitor_confirms_an_end_that_the_rules_saw_exactly() -> None:
    both = [began("vt", 5, "rule:vt"), began("vt", 8, MONITOR)]
    assert run([*both, ended("vt", 5, 20, "rule:vt"), ended("vt", 8, 30, MONITOR)])[-1] == ("vt", 5, 20)
    again = [ended("vt", 5, 20, "rule:vt"), began("vt", 22, "rule:vt"), ended("vt", 22, 28, "rule:vt")]
    assert run([*both, *again, ended("vt", 8, 38, MONITOR)])[-1] == ("vt", 5, 28)


def test_an_update_of_the_first_keeps_its_onset() -> None:
    found = run([began("vt", 5, MONITOR), began("vt", 6, "rule:vt"), ended("vt", 5, 9, MONITOR), began("vt", 6, "rule:vt")])
    assert found == [("vt", 5, None)]


def test_a_pause_becomes_an_asystole_by_either() -> None:
    by_monitor = [began("pause", 5, "rule:pause"), began("asystole", 6, MONITOR), ended("asystole", 6, 20, MONITOR)]
    assert run([*by_monitor, ended("pause", 5, 40, "rule:pause")]) == [
        ("pause", 5, None),
        ("asystole", 5, None),
        ("asystole", 5, 40),
    ]
    by_rule = [
        began("pause", 5, "rule:pause"),
        began("asystole", 5, "rule:asystole"),
        ended("asystole", 5, 40, "rule:asystole"),
    ]
    assert run(by_rule) == [("pause", 5, None), ("asystole", 5, None), ("asystole", 5, 40)]


def test_beats_that_the_rules_see_end_a_standstill() -> None:
    both = [began("asystole", 5, "rule:asystole"), began("asystole", 6, MONITOR)]
    ends = [ended("asystole", 5, 20, "rule:asystole"), ended("asystole", 6, 50, MONITOR)]
    assert run([*both, *ends]) == [("asystole", 5, None), ("asystole", 5, 20)]
    lost = Finding("asystole", 5, 20, "rule:asystole", lost=True)
    assert run([*both, lost])[-1] == ("asystole", 5, None)


def test_without_known_beats_the_monitor_reports_no_asystole() -> None:
    shared = SharedEpisodes()
    findings = [began("asystole", 5, MONITOR), ended("asystole", 5, 30, MONITOR)]
    assert not [part for each in findings for part in shared.filter_finding(each, knows_beats=False)]
    (found,) = shared.filter_finding(began("no_beats", 5, "rule:no_beats"), knows_beats=False)
    assert found.kind == "no_beats"


def test_a_tachycardia_ends_where_it_turns_into_fibrillation() -> None:
    both = [began("vt", 5, "rule:vt"), began("vt", 8, MONITOR)]
    turned = [*both, ended("vt", 8, 40, MONITOR), began("vf", 34, MONITOR)]
    found = [("vt", 5, None), ("vf", 34, None), ("vt", 5, 34)]
    assert run(turned) == found
    later = [began("vt", 5, "rule:vt"), ended("vf", 34, 60, MONITOR), ended("vt", 5, 58, "rule:vt"), began("vt", 70, "rule:vt")]
    assert run([*turned, *later]) == [*found, ("vf", 34, 60), ("vt", 70, None)]


@pytest.mark.parametrize("onset_s", [3, 5, 19])
def test_a_fibrillation_that_was_first_called_a_tachycardia_is_one_episode(onset_s: float) -> None:
    called = [began("vt", 5, "rule:vt"), began("vf", onset_s, MONITOR), began("vt", 5, "rule:vt")]
    ends = [ended("vf", onset_s, 60, MONITOR), ended("vt", 5, 58, "rule:vt"), began("vt", 70, "rule:vt")]
    assert run([*called, *ends]) == [("vt", 5, None), ("vf", 5, None), ("vf", 5, 60), ("vt", 70, None)]
    again = [began("vf", 80, MONITOR), ended("vf", 80, 90, MONITOR)]
    assert run([*called, *ends, ended("vt", 70, 72, "rule:vt"), *again])[-3:] == [
        ("vt", 70, 72),
        ("vf", 80, None),
        ("vf", 80, 90),
    ]


def test_nothing_else_begins_in_fibrillation() -> None:
    beats = [began("vt", 6, "rule:vt"), ended("vt", 6, 8, "rule:vt"), began("asystole", 9, "rule:asystole")]
    assert run([began("vf", 5, MONITOR), *beats]) == [("vf", 5, None)]
    after = [ended("vf", 5, 30, MONITOR), ended("asystole", 9, 31, "rule:asystole"), began("vt", 40, "rule:vt")]
    assert run([began("vf", 5, MONITOR), *beats, *after]) == [("vf", 5, None), ("vf", 5, 30), ("vt", 40, None)]


@pytest.mark.parametrize("kind", ["bradycardia", "v_run", "bigeminy"])
def test_a_slow_rhythm_or_pattern_of_chance_beats_ends_where_fibrillation_began(kind: str) -> None:
    source = f"rule:{kind}"
    found = run([began(kind, 2, source), began("vf", 5, MONITOR), began(kind, 2, source), ended(kind, 2, 6, source)])
    assert found == [(kind, 2, None), ("vf", 5, None), (kind, 2, 5)]


def test_chance_beats_in_fibrillation_are_no_slow_rhythm_run_or_pause() -> None:
    chance = [began("bradycardia", 7, "rule:bradycardia"), began("v_run", 8, "rule:v_run"), ended("v_run", 8, 10, "rule:v_run")]
    pause = [ended("short_pause", 11, 13, "rule:short_pause")]
    after = [ended("vf", 5, 30, MONITOR), ended("bradycardia", 7, 30, "rule:bradycardia")]
    slow = [began("bradycardia", 31, "rule:bradycardia"), ended("bradycardia", 31, 60, "rule:bradycardia")]
    found = run([began("vf", 5, MONITOR), *chance, *pause, *after, *slow])
    assert found == [("vf", 5, None), ("vf", 5, 30), ("bradycardia", 31, None), ("bradycardia", 31, 60)]


def test_what_hides_in_fibrillation_is_reported_when_it_goes_on_afterwards() -> None:
    findings = [began("vf", 5, MONITOR), began("vt", 6, "rule:vt"), ended("vf", 5, 30, MONITOR), began("vt", 6, "rule:vt")]
    assert run(findings) == [("vf", 5, None), ("vf", 5, 30), ("vt", 6, None)]


def test_other_kinds_and_inconclusive_findings_pass() -> None:
    noisy = Finding("vt", 5, None, "rule:vt", inconclusive="noise")
    assert run([noisy, began("af", 5, "rr_af@6"), began("vt", 7, MONITOR)]) == [
        ("vt", 5, None),
        ("af", 5, None),
        ("vt", 7, None),
    ]
