"""Pauses and short pauses: on constructed beats in a stand-in signal, and on a recording."""

from collections.abc import Iterable
from dataclasses import dataclass
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

Episodes = list[tuple[str, float, float | None]]


@dataclass
class Trace:
    """A stand-in signal: at `peaks_s` something looks like a low beat, and from `flat_s` on it is flat."""

    peaks_s: tuple[float, ...] = ()
    flat_s: float = 1e9

    def is_usable(self, start_s: float, end_s: float) -> bool:
        return min(end_s, 1e9) - max(start_s, self.flat_s) < 1.0

    def is_beat_free(self, start_s: float, end_s: float, max_peaks: int = 1) -> bool:
        return self.is_usable(start_s, end_s) and sum(start_s < t < end_s for t in self.peaks_s) <= max_peaks


def episodes(findings: Iterable[Finding]) -> Episodes:
    """Return kind, onset and end of each finding."""
    return [(finding.kind, finding.onset_s, finding.end_s) for finding in findings]


def run(beats: list[float], trace: Trace, until_s: float, calls_s: Iterable[float] = ()) -> list[Finding]:
    """Call the rule at every beat, at `calls_s` and at the end."""
    rule, found = PauseRule(DEFAULT_LIMITS), []
    for t, is_beat in sorted([(t, True) for t in beats] + [(t, False) for t in [*calls_s, until_s]]):
        found += rule.on_beat(t, trace) if is_beat else rule.advance_to(t, trace)
    return found


def test_a_pause_is_reported_at_its_limit_and_again_when_a_beat_ends_it() -> None:
    rule, trace = PauseRule(DEFAULT_LIMITS), Trace()
    assert list(rule.on_beat(1.0, trace)) == []
    assert list(rule.advance_to(3.99, trace)) == []
    (raised,) = rule.advance_to(4.0, trace)
    assert list(rule.advance_to(4.5, trace)) == []
    (ended,) = rule.on_beat(5.0, trace)
    assert (raised.kind, raised.onset_s, raised.end_s, raised.measured["pause_s"]) == ("pause", 1.0, None, 3.0)
    assert (ended.onset_s, ended.end_s, ended.measured["pause_s"]) == (1.0, 5.0, 4.0)


@pytest.mark.parametrize(
    ("length_s", "expected"), [(1.9, []), (2.0, ["short_pause"]), (2.99, ["short_pause"]), (3.0, ["pause"] * 2)]
)
def test_an_interval_is_at_most_one_kind_of_pause(length_s: float, expected: list[str]) -> None:
    beats = [0.0, 1.0, 2.0, 2.0 + length_s, 3.0 + length_s]
    assert [kind for kind, *_ in episodes(run(beats, Trace(), beats[-1]))] == expected


def test_a_short_pause_is_reported_once_with_its_length_at_the_beat_that_ends_it() -> None:
    (found,) = run([0.0, 1.0, 3.5], Trace(), 5.0)
    assert episodes([found]) == [("short_pause", 1.0, 3.5)]
    assert found.measured == {"pause_s": 2.5, "limit_s": 2.0}


def test_a_slow_regular_rhythm_has_no_short_pauses() -> None:
    assert run([2.2 * i for i in range(20)], Trace(), 44.0) == []


def test_one_missed_low_beat_is_not_a_short_pause_and_does_not_hide_a_standstill() -> None:
    assert run([0.0, 1.0, 3.0, 4.0], Trace(peaks_s=(2.0,)), 5.0) == []
    assert episodes(run([0.0, 1.0, 7.0], Trace(peaks_s=(2.0,)), 8.0)) == [("pause", 1.0, None), ("pause", 1.0, 7.0)]
    assert run([0.0, 1.0, 7.0], Trace(peaks_s=(2.0, 3.0, 3.5)), 8.0) == []


def test_an_interval_across_a_gap_is_not_a_pause() -> None:
    rule, trace = PauseRule(DEFAULT_LIMITS), Trace()
    assert list(rule.on_beat(0.0, trace)) == []
    assert list(rule.on_gap(1.0)) == []
    assert list(rule.advance_to(60.0, trace)) == []
    assert list(rule.on_beat(61.0, trace)) == []


def test_a_gap_ends_a_reported_pause() -> None:
    rule, trace = PauseRule(DEFAULT_LIMITS), Trace()
    found = [*rule.on_beat(0.0, trace), *rule.advance_to(3.5, trace), *rule.on_gap(4.2)]
    assert episodes(found) == [("pause", 0.0, None), ("pause", 0.0, 4.2)]


def test_a_pause_ends_where_the_signal_was_last_usable_when_the_electrode_comes_off() -> None:
    found = run([0.0, 1.0], Trace(flat_s=6.3), 60.0)
    assert episodes(found) == [("pause", 1.0, None), ("pause", 1.0, 7.0)]
    assert 0 <= 7.0 - 6.3 < 1.0


@settings(deadline=None)
@given(calls_s=st.lists(st.floats(0, 30), max_size=40), flat_s=st.floats(1, 40), ends=st.floats(1.1, 25))
def test_the_result_does_not_depend_on_when_the_rule_is_called(calls_s: list[float], flat_s: float, ends: float) -> None:
    beats = [0.0, 0.8, 0.8 + ends, 1.6 + ends]
    once = run(beats, Trace(flat_s=flat_s), 30.0)
    assert run(beats, Trace(flat_s=flat_s), 30.0, calls_s) == once
    kinds = {onset: kind for kind, onset, _ in episodes(once)}
    assert all(kinds[onset] == kind for kind, onset, _ in episodes(once)), "a pause is reported as one kind only"


def test_pauses_in_a_recording_match_its_annotated_beats(data: Path) -> None:
    """The last six minutes of record 201 have sinus pauses of 2 to 3.8 s."""
    start_s = 1440
    recording = open_recording(data / "mitdb" / "201.hea")
    notes = read_annotations(data / "mitdb" / "201.atr")
    beats = notes.beats() / recording.rate_hz - start_s
    chain, rule, found = EcgChain(recording.rate_hz), PauseRule(DEFAULT_LIMITS), []
    mv = recording.mv[round(start_s * recording.rate_hz) :]
    for start in range(0, mv.size, 72):
        for beat in chain.push(mv[start : start + 72]):
            found += rule.on_beat(beat.t_s, chain)
        found += rule.advance_to(chain.horizon_s, chain)
    lengths = [(f.onset_s, f.end_s - f.onset_s) for f in found if f.end_s is not None]
    true = [(t, length) for t, length in zip(beats, np.diff(beats), strict=False) if t > 2 and length >= 2.0]
    matched = [t for t, length in true if any(abs(t - s) < 0.1 and abs(length - found_s) < 0.1 for s, found_s in lengths)]
    assert len(true) >= 5
    assert len(matched) >= 0.75 * len(true)
    assert len(lengths) <= len(matched) + 1
