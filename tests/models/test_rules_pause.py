"""Pauses and short pauses: on beats placed by hand in a signal of which is known what it could show, and on a recording."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captures import open_recording
from captures.annotations import read_annotations
from config.limits import DEFAULT_LIMITS
from models.findings import Finding
from models.rules.pauses import PauseRule
from models.signal.chain import EcgChain

Told = list[tuple[str, float, float | None]]


@dataclass
class Trace:
    """A signal with `bumps` that look like low beats, flat from `flat_s` on."""

    bumps: tuple[float, ...] = ()
    flat_s: float = 1e9
    asked: list[float] = field(default_factory=list)

    def usable(self, start_s: float, end_s: float) -> bool:
        self.asked.append(end_s)
        return min(end_s, 1e9) - max(start_s, self.flat_s) < 1.0

    def quiet(self, start_s: float, end_s: float, bumps: int = 1) -> bool:
        return self.usable(start_s, end_s) and sum(start_s < t < end_s for t in self.bumps) <= bumps


def told(findings: Iterable[Finding]) -> Told:
    return [(finding.kind, finding.onset_s, finding.end_s) for finding in findings]


def watch(beats: list[float], trace: Trace, until_s: float, looks: Iterable[float] = ()) -> list[Finding]:
    """The rule, looked at when a beat comes, at `looks` and at the end."""
    rule, found = PauseRule(DEFAULT_LIMITS), []
    for t, is_beat in sorted([(t, True) for t in beats] + [(t, False) for t in [*looks, until_s]]):
        found += rule.beat(t, trace) if is_beat else rule.until(t, trace)
    return found


def test_a_pause_is_told_when_its_limit_is_reached_and_again_when_a_beat_ends_it() -> None:
    rule, trace = PauseRule(DEFAULT_LIMITS), Trace()
    assert list(rule.beat(1.0, trace)) == []
    assert list(rule.until(3.99, trace)) == []
    (raised,) = rule.until(4.0, trace)
    assert list(rule.until(4.5, trace)) == []
    (ended,) = rule.beat(5.0, trace)
    assert (raised.kind, raised.onset_s, raised.end_s, raised.measured["pause_s"]) == ("pause", 1.0, None, 3.0)
    assert (ended.onset_s, ended.end_s, ended.measured["pause_s"]) == (1.0, 5.0, 4.0)


@pytest.mark.parametrize(
    ("length_s", "expected"), [(1.9, []), (2.0, ["short_pause"]), (2.99, ["short_pause"]), (3.0, ["pause"] * 2)]
)
def test_an_interval_is_one_kind_of_pause_or_none(length_s: float, expected: list[str]) -> None:
    beats = [0.0, 1.0, 2.0, 2.0 + length_s, 3.0 + length_s]
    assert [kind for kind, *_ in told(watch(beats, Trace(), beats[-1]))] == expected


def test_a_short_pause_is_told_once_with_its_length_when_the_beat_ends_it() -> None:
    (found,) = watch([0.0, 1.0, 3.5], Trace(), 5.0)
    assert told([found]) == [("short_pause", 1.0, 3.5)]
    assert found.measured == {"pause_s": 2.5, "limit_s": 2.0}


def test_regular_beats_far_apart_are_no_short_pauses() -> None:
    assert watch([2.2 * i for i in range(20)], Trace(), 44.0) == []


def test_one_low_beat_missed_makes_no_short_pause_but_does_not_hide_a_standstill() -> None:
    assert watch([0.0, 1.0, 3.0, 4.0], Trace(bumps=(2.0,)), 5.0) == []
    assert told(watch([0.0, 1.0, 7.0], Trace(bumps=(2.0,)), 8.0)) == [("pause", 1.0, None), ("pause", 1.0, 7.0)]
    assert watch([0.0, 1.0, 7.0], Trace(bumps=(2.0, 3.0, 3.5)), 8.0) == []


def test_silence_across_a_gap_is_no_pause() -> None:
    rule, trace = PauseRule(DEFAULT_LIMITS), Trace()
    assert list(rule.beat(0.0, trace)) == []
    assert list(rule.gap(1.0)) == []
    assert list(rule.until(60.0, trace)) == []
    assert list(rule.beat(61.0, trace)) == []


def test_a_gap_ends_a_pause_that_was_told() -> None:
    rule, trace = PauseRule(DEFAULT_LIMITS), Trace()
    found = [*rule.beat(0.0, trace), *rule.until(3.5, trace), *rule.gap(4.2)]
    assert told(found) == [("pause", 0.0, None), ("pause", 0.0, 4.2)]


def test_a_pause_in_which_the_electrode_comes_off_ends_where_it_was_last_seen() -> None:
    found = watch([0.0, 1.0], Trace(flat_s=6.3), 60.0)
    assert told(found) == [("pause", 1.0, None), ("pause", 1.0, 7.0)]
    assert 0 <= 7.0 - 6.3 < 1.0


@settings(deadline=None)
@given(looks=st.lists(st.floats(0, 30), max_size=40), flat_s=st.floats(1, 40), ends=st.floats(1.1, 25))
def test_it_does_not_matter_when_the_signal_is_looked_at(looks: list[float], flat_s: float, ends: float) -> None:
    beats = [0.0, 0.8, 0.8 + ends, 1.6 + ends]
    once = watch(beats, Trace(flat_s=flat_s), 30.0)
    assert watch(beats, Trace(flat_s=flat_s), 30.0, looks) == once
    kinds = {onset: kind for kind, onset, _ in told(once)}
    assert all(kinds[onset] == kind for kind, onset, _ in told(once)), "no pause is told as both"


def test_the_pauses_of_a_recording_are_those_between_the_annotated_beats(data: Path) -> None:
    """Record 201 in its last six minutes: sinus pauses of 2 to 3.8 s."""
    start_s = 1440
    recording = open_recording(data / "mitdb" / "201.hea")
    notes = read_annotations(data / "mitdb" / "201.atr")
    beats = notes.beats() / recording.rate_hz - start_s
    chain, rule, found = EcgChain(recording.rate_hz), PauseRule(DEFAULT_LIMITS), []
    mv = recording.mv[round(start_s * recording.rate_hz) :]
    for start in range(0, mv.size, 72):
        for beat in chain.push(mv[start : start + 72]):
            found += rule.beat(beat.t_s, chain)
        found += rule.until(chain.horizon_s, chain)
    lengths = [(f.onset_s, f.end_s - f.onset_s) for f in found if f.end_s is not None]
    true = [(t, length) for t, length in zip(beats, np.diff(beats), strict=False) if t > 2 and length >= 2.0]
    seen = [t for t, length in true if any(abs(t - s) < 0.1 and abs(length - told) < 0.1 for s, told in lengths)]
    assert len(true) >= 5
    assert len(seen) >= 0.75 * len(true)
    assert len(lengths) <= len(seen) + 1
