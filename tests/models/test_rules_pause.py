"""Pauses, short pauses and asystole: on constructed beats in a stand-in signal, and on a recording."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor
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
from models.signal.filters import Samples
from models.signal.resample import RATE_HZ

Episodes = list[tuple[str, float, float | None]]


BEAT_MV = 1.0


@dataclass
class Trace:
    """A stand-in signal: at `peaks_s` something looks like a low beat, at `tall_s` like a tall one; flat from `flat_s` on."""

    peaks_s: tuple[float, ...] = ()
    flat_s: float = 1e9
    tall_s: tuple[float, ...] = ()
    peak_mv: float = 0.2

    def is_usable(self, start_s: float, end_s: float) -> bool:
        return min(end_s, 1e9) - max(start_s, self.flat_s) < 1.0

    def is_beat_free(self, start_s: float, end_s: float, max_peaks: int = 1) -> bool:
        return self.is_usable(start_s, end_s) and sum(start_s < t < end_s for t in self.peaks_s) <= max_peaks

    def strip(self, start_s: float, end_s: float) -> tuple[float, Samples]:
        """Return round complexes of `peak_mv` at `peaks_s`, and of 0.9 mV at `tall_s`."""
        first = ceil(start_s * RATE_HZ)
        t = np.arange(first, floor(end_s * RATE_HZ) + 1) / RATE_HZ
        heights = [*((peak, self.peak_mv) for peak in self.peaks_s), *((peak, 0.9) for peak in self.tall_s)]
        mv = sum((height * np.exp(-(((t - at) / 0.022) ** 2) / 2) for at, height in heights), np.zeros(t.size))
        return first / RATE_HZ, mv


def episodes(findings: Iterable[Finding]) -> Episodes:
    """Return kind, onset and end of each finding."""
    return [(finding.kind, finding.onset_s, finding.end_s) for finding in findings]


def run(
    beats: list[float], trace: Trace, until_s: float, calls_s: Iterable[float] = (), rule: PauseRule | None = None
) -> list[Finding]:
    """Call the rule at every beat, at `calls_s` and at the end."""
    rule, found = rule or PauseRule(DEFAULT_LIMITS), []
    for t, is_beat in sorted([(t, True) for t in beats] + [(t, False) for t in [*calls_s, until_s]]):
        found += rule.on_beat(t, BEAT_MV, trace) if is_beat else rule.advance_to(t, trace)
    return found


def sinus(until_s: float, start_s: float = 0.0) -> list[float]:
    return [float(t) for t in np.arange(start_s, until_s, 0.8)]


def test_a_pause_is_reported_at_its_limit_and_again_when_three_beats_end_it() -> None:
    rule, trace = PauseRule(DEFAULT_LIMITS), Trace()
    assert list(rule.on_beat(1.0, BEAT_MV, trace)) == []
    assert list(rule.advance_to(3.99, trace)) == []
    (raised,) = rule.advance_to(4.0, trace)
    assert list(rule.advance_to(4.5, trace)) == []
    assert [*rule.on_beat(5.0, BEAT_MV, trace), *rule.on_beat(5.8, BEAT_MV, trace)] == []
    (ended,) = rule.on_beat(6.6, BEAT_MV, trace)
    assert (raised.kind, raised.onset_s, raised.end_s, raised.measured["pause_s"]) == ("pause", 1.0, None, 3.0)
    assert (ended.onset_s, ended.end_s, ended.measured["pause_s"], ended.lost) == (1.0, 5.0, 4.0, False)


@pytest.mark.parametrize(
    ("length_s", "expected"), [(1.9, []), (2.0, ["short_pause"]), (2.99, ["short_pause"]), (3.0, ["pause"] * 2)]
)
def test_an_interval_is_at_most_one_kind_of_pause(length_s: float, expected: list[str]) -> None:
    beats = [0.0, 1.0, 2.0, *(2.0 + length_s + i for i in range(3))]
    assert [kind for kind, *_ in episodes(run(beats, Trace(), beats[-1]))] == expected


def test_a_short_pause_is_reported_once_with_its_length_at_the_beat_that_ends_it() -> None:
    (found,) = run([0.0, 1.0, 3.5], Trace(), 5.0)
    assert episodes([found]) == [("short_pause", 1.0, 3.5)]
    assert found.measured == {"pause_s": 2.5, "limit_s": 2.0}


def test_an_interval_of_a_severe_bradycardia_is_not_a_short_pause() -> None:
    rule, trace = PauseRule(DEFAULT_LIMITS), Trace()
    beats = [*sinus(4.0), 8.0, 12.0]
    assert [finding for t in beats for finding in rule.on_beat(t, BEAT_MV, trace, is_slow=True)] == []


def test_a_slow_regular_rhythm_has_no_short_pauses() -> None:
    assert run([2.2 * i for i in range(20)], Trace(), 44.0) == []


def test_one_missed_low_beat_is_not_a_short_pause_and_does_not_hide_a_standstill() -> None:
    assert run([0.0, 1.0, 3.0, 4.0], Trace(peaks_s=(2.0,)), 5.0) == []
    beats = [0.0, 1.0, 7.0, 8.0, 9.0]
    assert episodes(run(beats, Trace(peaks_s=(2.0,)), 9.0)) == [("pause", 1.0, None), ("pause", 1.0, 7.0)]
    assert run(beats, Trace(peaks_s=(2.0, 3.0, 3.5)), 9.0) == []


def test_an_interval_across_a_gap_is_not_a_pause() -> None:
    rule, trace = PauseRule(DEFAULT_LIMITS), Trace()
    assert list(rule.on_beat(0.0, BEAT_MV, trace)) == []
    assert list(rule.on_gap(1.0, 60.0)) == []
    assert list(rule.advance_to(63.9, trace)) == []
    assert list(rule.on_beat(63.9, BEAT_MV, trace)) == []


def test_a_gap_ends_a_reported_pause_as_lost() -> None:
    rule, trace = PauseRule(DEFAULT_LIMITS), Trace()
    found = [*rule.on_beat(0.0, BEAT_MV, trace), *rule.advance_to(3.5, trace), *rule.on_gap(4.2)]
    assert episodes(found) == [("pause", 0.0, None), ("pause", 0.0, 4.2)]
    assert [finding.lost for finding in found] == [False, True]


def test_a_gap_in_which_three_beats_cannot_hide_does_not_end_a_pause() -> None:
    rule, trace = PauseRule(DEFAULT_LIMITS), Trace()
    found = [*rule.on_beat(0.0, BEAT_MV, trace), *rule.advance_to(3.5, trace), *rule.on_gap(4.2, 0.6)]
    found += rule.advance_to(60.0, trace)
    assert episodes(found) == [("pause", 0.0, None), ("asystole", 0.0, None)]


def test_a_pause_ends_where_the_signal_was_last_usable_when_the_electrode_comes_off() -> None:
    found = run([0.0, 1.0], Trace(flat_s=6.3), 60.0)
    assert episodes(found) == [("pause", 1.0, None), ("pause", 1.0, 7.0)]
    assert 0 <= 7.0 - 6.3 < 1.0
    assert found[-1].lost


def test_a_pause_becomes_an_asystole_with_the_same_onset() -> None:
    pause, asystole, ended = run([0.0, 1.0, 20.0, 20.8, 21.6], Trace(), 22.0)
    assert episodes([pause, asystole, ended]) == [("pause", 1.0, None), ("asystole", 1.0, None), ("asystole", 1.0, 20.0)]
    assert pause.episode == asystole.episode == ended.episode
    assert (asystole.measured["pause_s"], ended.measured["pause_s"]) == (8.0, 19.0)


def test_the_limit_of_asystole_is_the_patients_own() -> None:
    limits = DEFAULT_LIMITS.with_values({"asystole": 4})
    found = run([0.0, 1.0], Trace(), 5.0, rule=PauseRule(limits))
    assert episodes(found) == [("pause", 1.0, None), ("asystole", 1.0, None)]


def test_single_escape_beats_neither_end_a_standstill_nor_begin_another() -> None:
    beats = [0.0, 1.0, 12.0, 24.0, 37.0, 50.0, 50.8, 51.6]
    found = run(beats, Trace(), 54.0)
    assert episodes(found) == [("pause", 1.0, None), ("asystole", 1.0, None), ("asystole", 1.0, 50.0)]
    assert found[-1].measured["pause_s"] == 13.0


def test_escape_beats_closer_than_an_asystole_end_it_at_the_first() -> None:
    found = run([0.0, 1.0, 12.0, 16.0, 20.0], Trace(), 20.0)
    assert episodes(found)[-1] == ("asystole", 1.0, 12.0)


def test_in_a_severe_bradycardia_only_an_asystole_is_reported() -> None:
    rule, trace = PauseRule(DEFAULT_LIMITS), Trace()
    found = [finding for t in (0.0, 3.5, 7.0) for finding in rule.on_beat(t, BEAT_MV, trace, is_slow=True)]
    assert found == []
    assert list(rule.advance_to(14.9, trace)) == []
    assert episodes(list(rule.advance_to(15.0, trace))) == [("asystole", 7.0, None)]


@pytest.mark.parametrize("p_mv", [0.11, 0.2, 0.25])
def test_p_waves_are_not_accepted_as_beats_while_none_comes(p_mv: float) -> None:
    p_waves = tuple(float(t) for t in np.arange(13.0, 40.0, 0.8))
    rule, trace = PauseRule(DEFAULT_LIMITS), Trace(peaks_s=p_waves, peak_mv=p_mv)
    for t in sinus(12.0):
        assert list(rule.on_beat(t, BEAT_MV, trace)) == []
    assert rule.accepts(13.0, p_mv, trace), "a low beat on time is a beat"
    assert not any(rule.accepts(t, p_mv, trace) for t in p_waves[2:])
    assert rule.accepts(20.0, -0.4, Trace()), "escape beats may have any shape"


def test_a_standstill_with_p_waves_that_look_like_low_beats_is_an_asystole_at_8_s() -> None:
    trace = Trace(peaks_s=tuple(float(t) for t in np.arange(12.5, 60.0, 0.8)))
    found = run(sinus(12.0), trace, 60.0)
    assert episodes(found) == [("asystole", pytest.approx(11.2), None)]


def test_tall_complexes_that_the_detector_misses_are_not_an_asystole() -> None:
    tall_s = tuple(float(t) for t in np.arange(12.5, 60.0, 0.8))
    assert run(sinus(12.0), Trace(peaks_s=tall_s, tall_s=tall_s), 60.0) == []


@pytest.mark.parametrize("gap_s", [0.6, 2.0, 30.0, 3500.0])
def test_asystole_after_a_gap_is_reported_within_10_s_of_signal(gap_s: float) -> None:
    rule, trace = PauseRule(DEFAULT_LIMITS), Trace()
    run(sinus(10.0), trace, 9.7, rule=rule)
    found = [*rule.on_gap(9.7, gap_s), *rule.advance_to(9.7 + gap_s + 10, trace)]
    assert [finding.kind for finding in found] == ["pause", "asystole"]
    assert found[0].onset_s == pytest.approx(9.7 + gap_s, abs=0.05)


def test_asystole_after_lead_off_is_reported_within_10_s_of_signal() -> None:
    class Reattached(Trace):
        def is_usable(self, start_s: float, end_s: float) -> bool:
            return not (start_s < 40.0 and end_s > 12.0)

    rule, trace = PauseRule(DEFAULT_LIMITS), Reattached()
    run(sinus(10.0), Trace(), 9.7, rule=rule)
    assert list(rule.advance_to(40.0, trace)) == []
    found = list(rule.advance_to(50.0, trace))
    assert [finding.kind for finding in found] == ["pause", "asystole"]
    assert 39.9 <= found[0].onset_s <= 41.0


def test_no_beats_from_the_start_are_reported_as_such_and_are_severe_after_a_minute() -> None:
    found = run([], Trace(), 200.0)
    assert episodes(found) == [("no_beats", 0.0, None)] * 2
    assert [finding.measured["seconds"] for finding in found] == [12.0, 60.0]


def test_complexes_as_low_as_noise_do_not_show_that_there_is_a_heart() -> None:
    rule, trace = PauseRule(DEFAULT_LIMITS), Trace()
    found = [finding for t_s in sinus(10.0) for finding in rule.on_beat(t_s, 0.05, trace)]
    found += rule.advance_to(40.0, trace)
    assert [finding.kind for finding in found] == ["no_beats"]


def test_a_few_complexes_at_a_time_are_no_known_beats() -> None:
    rule, trace = PauseRule(DEFAULT_LIMITS), Trace()
    for burst_s in range(0, 600, 20):
        for t_s in sinus(4.0):
            list(rule.on_beat(burst_s + t_s, BEAT_MV, trace))
    assert not rule.knows_beats(600.0)
    run(sinus(10.0), trace, 9.0, rule=(known := PauseRule(DEFAULT_LIMITS)))
    assert known.knows_beats(9.0)


def test_beats_after_more_than_an_hour_are_no_longer_known() -> None:
    rule, trace = PauseRule(DEFAULT_LIMITS), Trace()
    run(sinus(10.0), trace, 9.7, rule=rule)
    found = [*rule.on_gap(9.7, 3601.0), *rule.advance_to(3631.0, trace)]
    assert [finding.kind for finding in found] == ["no_beats"]


@pytest.mark.parametrize(
    ("away_s", "kinds"), [(0.0, ["pause", "asystole"]), (3400.0, ["pause", "asystole"]), (3700.0, ["no_beats"])]
)
def test_a_restarted_stream_knows_the_beats_of_the_last_hour(away_s: float, kinds: list[str]) -> None:
    first = PauseRule(DEFAULT_LIMITS)
    run(sinus(10.0), Trace(), 10.0, rule=first)
    rule = PauseRule(DEFAULT_LIMITS, first.since_beat_s(10.0), first.known_qrs.height_mv)
    rule.add_time_away(away_s)
    assert rule.known_qrs.height_mv == BEAT_MV
    assert [finding.kind for finding in rule.advance_to(16.0, Trace())] == kinds


def test_a_fibrillation_is_not_also_an_asystole() -> None:
    rule, trace = PauseRule(DEFAULT_LIMITS), Trace()
    assert episodes([*rule.on_beat(0.0, BEAT_MV, trace), *rule.advance_to(3.0, trace)]) == [("pause", 0.0, None)]
    assert episodes(list(rule.suspend(2.0))) == [("pause", 0.0, 2.0)]
    assert list(rule.advance_to(60.0, trace)) == []
    rule.resume(60.0)
    assert list(rule.advance_to(60.0, trace)) == []


@settings(deadline=None)
@given(calls_s=st.lists(st.floats(0, 30), max_size=40), flat_s=st.floats(1, 40), ends=st.floats(1.1, 25))
def test_the_result_does_not_depend_on_when_the_rule_is_called(calls_s: list[float], flat_s: float, ends: float) -> None:
    beats = [0.0, 0.8, 0.8 + ends, 1.6 + ends, 2.4 + ends]
    once = run(beats, Trace(flat_s=flat_s), 30.0)
    assert run(beats, Trace(flat_s=flat_s), 30.0, calls_s) == once
    opened = [finding.episode for finding in once if finding.end_s is None]
    ended = [finding.episode for finding in once if finding.end_s is not None and finding.kind != "short_pause"]
    assert len(ended) == len(set(ended))
    assert set(ended) <= set(opened)


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
            found += rule.on_beat(beat.t_s, beat.amplitude_mv, chain)
        found += rule.advance_to(chain.horizon_s, chain)
    lengths = [(f.onset_s, f.end_s - f.onset_s) for f in found if f.end_s is not None]
    true = [(t, length) for t, length in zip(beats, np.diff(beats), strict=False) if t > 2 and length >= 2.0]
    matched = [t for t, length in true if any(abs(t - s) < 0.1 and abs(length - found_s) < 0.1 for s, found_s in lengths)]
    assert len(true) >= 5
    assert len(matched) >= 0.75 * len(true)
    assert len(lengths) <= len(matched) + 1


def test_an_interval_with_one_peak_may_hide_a_beat_of_bigeminy() -> None:
    rule = PauseRule(DEFAULT_LIMITS)
    run(sinus(10.0), Trace(), 10.0, rule=rule)
    assert rule.is_seen(10.0, 12.2, Trace())
    assert rule.is_seen(10.0, 12.2, Trace(peaks_s=(11.2,))), "a fifth of the height of a beat"
    assert not rule.is_seen(10.0, 12.2, Trace(peaks_s=(11.2,), tall_s=(11.2,)))


def test_in_noise_an_interval_shows_no_beat_only_where_its_signal_is_lower_than_one() -> None:
    rule = PauseRule(DEFAULT_LIMITS)
    run(sinus(10.0), Trace(), 10.0, rule=rule)
    assert rule.is_seen(10.0, 12.2, Trace(), in_noise=True)
    round_wave = Trace(tall_s=(11.2,))
    assert rule.is_seen(10.0, 12.2, round_wave)
    assert not rule.is_seen(10.0, 12.2, round_wave, in_noise=True)
    assert not rule.is_seen(10.0, 10.8, Trace(), in_noise=True)


def test_beats_in_noise_do_not_show_that_there_is_a_patient() -> None:
    trace = Trace()
    for is_clear, kinds in ((True, {"pause", "asystole"}), (False, {"no_beats"})):
        rule = PauseRule(DEFAULT_LIMITS)
        for t_s in sinus(10.0):
            assert list(rule.on_beat(t_s, BEAT_MV, trace, is_clear=is_clear)) == []
        assert {finding.kind for finding in rule.advance_to(40.0, trace)} == kinds
        assert rule.knows_beats(40.0) == is_clear


@pytest.mark.parametrize(("is_clear", "kinds"), [(True, ["pause", "asystole"]), (False, ["asystole"])])
def test_after_a_beat_in_noise_only_an_asystole_is_told_from_the_noise(is_clear: bool, kinds: list[str]) -> None:
    rule, trace = PauseRule(DEFAULT_LIMITS), Trace()
    run(sinus(20.0), trace, 20.0, rule=rule)
    assert list(rule.on_beat(20.0, BEAT_MV, trace, is_clear=is_clear)) == []
    found = list(rule.advance_to(27.9, trace))
    assert [finding.kind for finding in [*found, *rule.advance_to(29.0, trace)]] == kinds
    assert len(found) == len(kinds) - 1
