"""Since when a rhythm has been organised: on constructed beats and findings."""

import pytest

from models.findings import Finding
from models.rules.organised import MAX_BPM, MAX_INTERVAL_S, MIN_BPM, OrganisedRhythm


def beat_for(rhythm: OrganisedRhythm, bpm: float, count: int, start_s: float = 0.0) -> float:
    """Add beats, the first of them after a gap; return the time of the last."""
    for i in range(count):
        rhythm.on_beat(start_s + i * 60 / bpm, 60 / bpm if i else None)
    return start_s + (count - 1) * 60 / bpm


def finding(kind: str, end_s: float | None, inconclusive: str | None = None, onset_s: float = 20.0) -> Finding:
    return Finding(kind, onset_s, end_s, f"rule:{kind}", inconclusive=inconclusive)


@pytest.mark.parametrize(
    ("bpm", "is_organised"), [(MIN_BPM - 2, False), (MIN_BPM, True), (75, True), (MAX_BPM, True), (155, False)]
)
def test_a_rhythm_is_organised_at_40_to_150_per_minute_from_its_first_beat(bpm: float, is_organised: bool) -> None:
    rhythm = OrganisedRhythm()
    beat_for(rhythm, bpm, 20, start_s=3.0)
    assert rhythm.since_s == (pytest.approx(3.0) if is_organised else None)


def test_no_beat_is_not_organised_and_one_is_not_yet() -> None:
    rhythm = OrganisedRhythm()
    assert rhythm.since_s is None
    rhythm.on_beat(1.0, None)
    assert rhythm.since_s is None


def test_a_single_early_beat_and_its_pause_do_not_interrupt_it() -> None:
    rhythm = OrganisedRhythm()
    last_s = beat_for(rhythm, 75, 20)
    for t_s, rr_s in ((0.35, 0.35), (1.6, 1.25), (2.4, 0.8)):
        rhythm.on_beat(last_s + t_s, rr_s)
    assert rhythm.since_s == 0.0


def test_a_fast_rhythm_interrupts_it_and_it_starts_anew_after_that() -> None:
    rhythm = OrganisedRhythm()
    t_s = beat_for(rhythm, 75, 20)
    for _ in range(20):
        t_s += 0.3
        rhythm.on_beat(t_s, 0.3)
    assert rhythm.since_s is None
    for _ in range(6):
        t_s += 0.8
        rhythm.on_beat(t_s, 0.8)
    assert rhythm.since_s is not None
    assert rhythm.since_s > 20.0


def test_a_gap_and_a_pause_interrupt_it() -> None:
    rhythm = OrganisedRhythm()
    last_s = beat_for(rhythm, 75, 20)
    rhythm.advance_to(last_s + MAX_INTERVAL_S)
    assert rhythm.since_s == 0.0
    rhythm.advance_to(last_s + MAX_INTERVAL_S + 0.1)
    assert rhythm.since_s is None
    beat_for(rhythm, 75, 5, start_s=30.0)
    assert rhythm.since_s == 30.0
    rhythm.on_beat(60.0, None)
    assert rhythm.since_s is None


def test_a_standstill_is_no_part_of_the_rhythm_after_it() -> None:
    """As after a flat line: the interval that ends at its first beat is known, but nothing was seen in it."""
    rhythm = OrganisedRhythm()
    last_s = beat_for(rhythm, 75, 20)
    rhythm.advance_to(last_s + 60.0)
    for beat in range(10):
        rhythm.on_beat(last_s + 60.0 + beat * 0.8, 0.8 if beat else 60.0)
    assert rhythm.since_s == pytest.approx(last_s + 60.0)


@pytest.mark.parametrize("kind", ["vt", "vf", "pause", "asystole", "no_beats"])
def test_a_dangerous_rhythm_excludes_it_until_it_ends(kind: str) -> None:
    rhythm = OrganisedRhythm()
    beat_for(rhythm, 75, 20)
    rhythm.on_finding(finding(kind, None))
    assert rhythm.since_s is None
    beat_for(rhythm, 120, 20, start_s=20.0)
    assert rhythm.since_s is None
    rhythm.on_finding(finding(kind, 29.5))
    rhythm.on_beat(30.0, 0.5)
    assert rhythm.since_s is not None
    assert rhythm.since_s >= 20.0


def test_a_pause_that_becomes_an_asystole_ends_once() -> None:
    rhythm = OrganisedRhythm()
    rhythm.on_finding(finding("pause", None))
    rhythm.on_finding(finding("asystole", None))
    rhythm.on_finding(finding("asystole", 40.0))
    beat_for(rhythm, 75, 5, start_s=40.0)
    assert rhythm.since_s == 40.0


@pytest.mark.parametrize(("kind", "inconclusive"), [("vt", "noise"), ("af", None), ("tachycardia", None)])
def test_other_and_inconclusive_findings_do_not_matter(kind: str, inconclusive: str | None) -> None:
    rhythm = OrganisedRhythm()
    beat_for(rhythm, 75, 20)
    rhythm.on_finding(finding(kind, None, inconclusive))
    assert rhythm.since_s == 0.0
