"""Ventricular runs, bigeminy and trigeminy: on constructed labels, and against rhythms annotated by cardiologists."""

from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captures.annotations import read_annotations
from config.limits import DEFAULT_LIMITS
from models.findings import Finding
from models.rules.ventricular import GeminyRule, RunRule

LABELS = {**dict.fromkeys("NLRejB", "N"), **dict.fromkeys("AaJS", "S"), **dict.fromkeys("VEr", "V"), "F": "F"} | dict.fromkeys(
    "/fQ", "?"
)
"""AAMI classes (EC57:2012, table 3)."""

Rule = RunRule | GeminyRule
Episodes = list[tuple[str, float, float | None]]


def beats(labels: str, rr_s: float = 0.5) -> list[tuple[float, float | None, str]]:
    """Return one beat per letter, `rr_s` apart, from second 0 on; a space is a gap of one beat."""
    return [
        (i * rr_s, None if i == 0 or labels[i - 1] == " " else rr_s, label) for i, label in enumerate(labels) if label != " "
    ]


def run(rule: Rule, labels: str, rr_s: float = 0.5) -> list[Finding]:
    return [finding for beat in beats(labels, rr_s) for finding in rule.on_beat(*beat)]


def episodes(findings: list[Finding]) -> Episodes:
    """Return kind, onset and end of each finding."""
    return [(finding.kind, finding.onset_s, finding.end_s) for finding in findings]


def runs(labels: str, rr_s: float = 0.5) -> Episodes:
    rule = RunRule(DEFAULT_LIMITS)
    return episodes([*run(rule, labels, rr_s), *rule.end_episode()])


def test_a_run_is_reported_at_its_third_beat_with_its_rate_and_ends_with_its_last() -> None:
    rule = RunRule(DEFAULT_LIMITS)
    assert run(rule, "NNNVV") == []
    (raised,) = rule.on_beat(2.5, 0.5, "V")
    assert episodes([raised]) == [("vt", 1.5, None)]
    assert raised.measured == {"beats": 3, "rate_bpm": 120, "limit_beats": 3, "limit_bpm": 100}
    assert list(rule.on_beat(3.0, 0.5, "N")) == []
    (ended,) = rule.on_beat(3.5, 0.5, "N")
    assert episodes([ended]) == [("vt", 1.5, 2.5)]


@pytest.mark.parametrize(("next_rr_s", "is_reported"), [(0.5, True), (0.6, True), (0.7, False), (None, False)])
def test_the_last_beat_of_a_longer_limit_needs_no_label_if_it_comes_in_time(next_rr_s: float | None, is_reported: bool) -> None:
    rule = RunRule(DEFAULT_LIMITS.with_values({"v_run_beats": 5}))
    assert [*rule.on_beat(0.5, None, "N"), *(f for i in range(2, 5) for f in rule.on_beat(0.5 * i, 0.5, "V", None, 0.5))] == []
    assert len(list(rule.on_beat(2.5, 0.5, "V", None, next_rr_s))) == is_reported


@pytest.mark.parametrize(
    ("labels", "is_reported"), [("VVVNVV", True), ("VVNVVV", False), ("VVVNNVV", False), ("VVVNVNV", False)]
)
def test_one_other_label_does_not_end_a_run_that_is_not_reported_yet(labels: str, is_reported: bool) -> None:
    rule = RunRule(DEFAULT_LIMITS.with_values({"v_run_beats": 5}))
    found = [finding for i, label in enumerate(labels) for finding in rule.on_beat(0.5 * i, 0.5, label)]
    assert [finding.kind for finding in found] == ["vt"] * is_reported


def test_a_run_of_three_waits_for_three_labels() -> None:
    rule = RunRule(DEFAULT_LIMITS)
    assert [*rule.on_beat(0.5, None, "V", None, 0.5), *rule.on_beat(1.0, 0.5, "V", None, 0.5)] == []
    assert len(list(rule.on_beat(1.5, 0.5, "V", None, 0.5))) == 1


def test_two_ventricular_beats_are_a_couplet_not_a_run() -> None:
    assert runs("NVVNNVVN") == []


def test_a_slow_run_is_not_a_tachycardia() -> None:
    assert runs("NNVVVVNN", 0.8) == [("v_run", 1.6, None), ("v_run", 1.6, 4.0)]


def test_a_run_that_turns_fast_continues_as_a_tachycardia() -> None:
    rule = RunRule(DEFAULT_LIMITS)
    found = run(rule, "NVVVV", 0.8)
    for i in range(1, 5):
        found += rule.on_beat(3.2 + 0.4 * i, 0.4, "V")
    assert episodes(found[:1]) == [("v_run", 0.8, None)]
    assert [kind for kind, _, end in episodes(found) if end is None] == ["v_run", "vt", "vt"]
    ended = next(finding for finding in found if finding.end_s is not None)
    began = next(finding for finding in found if finding.kind == "vt")
    assert ended.end_s == began.onset_s == pytest.approx(3.2)


def test_a_tachycardia_that_turns_slow_continues_as_a_run() -> None:
    rule = RunRule(DEFAULT_LIMITS)
    found = run(rule, "NVVVVV", 0.4)
    for i in range(1, 13):
        found += rule.on_beat(2.0 + i, 1.0, "V")
    found += rule.end_episode()
    assert episodes(found) == [
        ("vt", 0.4, None),
        ("vt", 0.4, None),
        ("vt", 0.4, 2.0),
        ("v_run", 2.0, None),
        ("v_run", 2.0, 14.0),
    ]
    assert [(f.measured["beats"], f.measured["rate_bpm"]) for f in found] == [(3, 150), (5, 150), (5, 150), (9, 60), (13, 60)]


def test_a_tachycardia_that_slows_for_a_few_beats_continues() -> None:
    rule = RunRule(DEFAULT_LIMITS)
    found, t_s = run(rule, "NVVVVV", 0.4), 2.0
    for rr_s in ([0.7] * 7 + [0.5]) * 4:
        t_s += rr_s
        found += rule.on_beat(t_s, rr_s, "V")
    assert {(finding.kind, finding.end_s) for finding in found} == {("vt", None)}


def test_the_slow_part_of_a_run_that_turns_fast_has_its_own_rate() -> None:
    rule = RunRule(DEFAULT_LIMITS)
    found = run(rule, "NVVVV", 0.8)
    for i in range(1, 5):
        found += rule.on_beat(3.2 + 0.4 * i, 0.4, "V")
    ended = next(finding for finding in found if finding.end_s is not None)
    assert (ended.measured["beats"], ended.measured["rate_bpm"]) == (4, 75)


def test_a_tachycardia_is_reported_again_once_when_it_becomes_urgent() -> None:
    rule = RunRule(DEFAULT_LIMITS)
    found = run(rule, "NN" + "V" * 80, 0.4)
    assert [finding.measured["beats"] for finding in found] == [3, 5]
    assert {finding.onset_s for finding in found} == {0.8}


@pytest.mark.parametrize("other", ["N", "S", "F", "?"])
def test_a_single_other_beat_does_not_end_a_run(other: str) -> None:
    assert runs(f"NVVVV{other}VVVNN") == [("vt", 0.5, None), ("vt", 0.5, None), ("vt", 0.5, 4.0)]


def test_a_run_that_turns_into_bigeminy_ends_before_it() -> None:
    assert runs("NVVVNVNVNVN") == [("vt", 0.5, None), ("vt", 0.5, 1.5)]


def test_a_gap_neither_joins_beats_into_a_run_nor_ends_one() -> None:
    assert runs("NVV VN") == []
    assert runs("NVVV VVNN") == [("vt", 0.5, None), ("vt", 0.5, None), ("vt", 0.5, 3.0)]


def test_a_run_without_a_following_beat_ends_with_its_last_beat() -> None:
    rule = RunRule(DEFAULT_LIMITS)
    assert episodes(run(rule, "NVVV")) == [("vt", 0.5, None)]
    assert list(rule.advance_to(4.4)) == []
    assert episodes(list(rule.advance_to(4.5))) == [("vt", 0.5, 1.5)]
    assert list(rule.advance_to(60.0)) == []


def test_a_run_at_a_lost_signal_ends_as_lost() -> None:
    rule = RunRule(DEFAULT_LIMITS)
    run(rule, "NVVV")
    assert list(rule.on_gap(2.9)) == []
    (ended,) = rule.on_gap(3.0)
    assert (ended.end_s, ended.lost) == (1.5, True)


def test_a_run_after_which_no_beat_comes_is_lost_only_with_the_signal() -> None:
    for gaps_s, is_lost in (((), False), ((0.5,), True)):
        rule = RunRule(DEFAULT_LIMITS)
        run(rule, "NVVV")
        assert [finding for gap_s in gaps_s for finding in rule.on_gap(gap_s)] == []
        assert [finding.lost for finding in rule.advance_to(10.0)] == [is_lost]


def test_a_pattern_at_a_lost_signal_ends_as_lost() -> None:
    rule = GeminyRule("bigeminy", DEFAULT_LIMITS)
    run(rule, "NNVNVNV", 1.0)
    assert list(rule.on_gap(2.9)) == []
    assert [(finding.end_s, finding.lost) for finding in rule.on_gap(3.0)] == [(6.0, True)]


def test_a_wide_rhythm_is_a_run_from_its_first_beat() -> None:
    rule = RunRule(DEFAULT_LIMITS)
    assert run(rule, "NNNNNNNN", 0.4) == []
    (raised,) = rule.on_beat(3.2, 0.4, "V", 0.8)
    assert (raised.kind, raised.onset_s, raised.end_s) == ("vt", 0.8, None)
    assert raised.measured == {"beats": 7, "rate_bpm": 150, "limit_beats": 3, "limit_bpm": 100, "origin_unknown": 1}
    assert rule.is_open
    assert [finding for i in range(1, 20) for finding in rule.on_beat(3.2 + 0.4 * i, 0.4, "V")] == []
    (ended,) = rule.end_episode()
    assert ended.measured["origin_unknown"] == 1


def test_a_wide_rhythm_in_a_run_that_is_known_by_its_labels_changes_nothing() -> None:
    rule = RunRule(DEFAULT_LIMITS)
    assert len(run(rule, "NVVVVVV", 0.4)) == 2
    assert list(rule.on_beat(2.8, 0.4, "V", 0.4)) == []


def geminy(kind: str, labels: str) -> Episodes:
    rule = GeminyRule(kind, DEFAULT_LIMITS)
    return episodes([*run(rule, labels, 1.0), *rule.end_episode()])


def test_bigeminy_and_trigeminy_are_reported_at_their_third_cycle() -> None:
    assert episodes(run(GeminyRule("bigeminy", DEFAULT_LIMITS), "NNVNV", 1.0)) == []
    assert episodes(run(GeminyRule("bigeminy", DEFAULT_LIMITS), "NNVNVNV", 1.0)) == [("bigeminy", 2.0, None)]
    assert episodes(run(GeminyRule("trigeminy", DEFAULT_LIMITS), "NNVNNVNNV", 1.0)) == [("trigeminy", 2.0, None)]
    assert geminy("trigeminy", "NNVNVNVNVNVNN") == []
    assert geminy("bigeminy", "NNVNNVNNVNNVNN") == []


@pytest.mark.parametrize("labels", ["NVNVNVNNNVNVNVNV", "NVNVNVNVVNVNVNVN", "NVNVNVNFNVNVNVNV", "NVNVNVNV NVNVNVNV"])
def test_a_wrong_label_or_a_gap_does_not_end_bigeminy(labels: str) -> None:
    last = len(labels) - 1 - labels[::-1].index("V")
    assert geminy("bigeminy", labels) == [("bigeminy", 1.0, None), ("bigeminy", 1.0, last)]


def test_a_pattern_ends_with_its_last_ventricular_beat() -> None:
    assert geminy("bigeminy", "NVNVNVNNNNNNNNN") == [("bigeminy", 1.0, None), ("bigeminy", 1.0, 5.0)]
    assert geminy("bigeminy", "NVNVNVVVVVV") == [("bigeminy", 1.0, None), ("bigeminy", 1.0, 5.0)]


@settings(deadline=None)
@given(labels=st.text("NSVF?", max_size=60))
def test_every_reported_episode_ends_once_and_after_its_onset(labels: str) -> None:
    for rule in (RunRule(DEFAULT_LIMITS), GeminyRule("bigeminy", DEFAULT_LIMITS), GeminyRule("trigeminy", DEFAULT_LIMITS)):
        found = [*run(rule, labels), *rule.end_episode()]
        raised = {(f.kind, f.onset_s) for f in found if f.end_s is None}
        ended = [(f.kind, f.onset_s) for f in found if f.end_s is not None]
        assert raised == set(ended)
        assert len(ended) == len(set(ended))
        assert all(f.end_s > f.onset_s for f in found if f.end_s is not None)
    if "VVV" not in labels:
        assert runs(labels) == []


@settings(deadline=None)
@given(rr_s=st.lists(st.sampled_from([0.3, 0.59, 0.61, 1.0]), min_size=3, max_size=60))
def test_parts_of_a_run_of_varying_rate_are_contiguous_and_each_has_the_rate_of_its_beats(rr_s: list[float]) -> None:
    rule, times_s = RunRule(DEFAULT_LIMITS), [0.0, *accumulate(rr_s)]
    found = [finding for t, rr in zip(times_s, [None, *rr_s], strict=True) for finding in rule.on_beat(t, rr, "V")]
    found += rule.end_episode()
    parts = [finding for finding in found if finding.end_s is not None]
    assert all(one.end_s == other.onset_s and one.kind != other.kind for one, other in pairwise(parts))
    for part in parts:
        inside = [t for t in times_s if part.onset_s - 1e-6 <= t <= (part.end_s or 0.0) + 1e-6]
        assert part.measured["beats"] == len(inside)
        assert part.measured["rate_bpm"] == pytest.approx(60 * (len(inside) - 1) / (inside[-1] - inside[0]), abs=0.1)


RHYTHMS = {"(VT": {"vt", "v_run"}, "(IVR": {"vt", "v_run"}, "(B": {"bigeminy"}, "(T": {"trigeminy"}}
"""The rhythms annotated in the MIT-BIH database, and the kinds that the rules may report for them."""


def annotated_rhythms(path: Path) -> Iterator[tuple[str, float, float]]:
    """Yield name, start and end in seconds of each rhythm."""
    notes = read_annotations(path)
    changes = [i for i, aux in enumerate(notes.aux) if aux.startswith("(")]
    for i, after in zip(changes, [*changes[1:], len(notes.aux) - 1], strict=True):
        yield notes.aux[i], notes.sample[i] / 360, notes.sample[after] / 360


def ended_episodes(path: Path) -> list[Finding]:
    """Return the ended episodes that the rules find in a record's reference labels."""
    notes = read_annotations(path)
    rules = RunRule(DEFAULT_LIMITS), GeminyRule("bigeminy", DEFAULT_LIMITS), GeminyRule("trigeminy", DEFAULT_LIMITS)
    last, found = None, []
    for sample, symbol in zip(notes.sample, notes.symbol, strict=True):
        if symbol in LABELS:
            t = float(sample) / 360
            found += [f for rule in rules for f in rule.on_beat(t, None if last is None else t - last, LABELS[symbol])]
            last = t
    return [f for f in [*found, *(f for rule in rules for f in rule.end_episode())] if f.end_s is not None]


def test_annotated_rhythms_are_found_in_the_reference_labels(data: Path) -> None:
    missed, annotated, false_vt = [], 0, []
    for path in sorted((data / "mitdb").glob("*.atr")):
        found = ended_episodes(path)
        rhythms = list(annotated_rhythms(path))
        for rhythm, start, end in rhythms:
            if rhythm in RHYTHMS:
                annotated += 1
                ok = any(f.kind in RHYTHMS[rhythm] and f.onset_s <= end + 1 and (f.end_s or 0) >= start - 1 for f in found)
                missed += [] if ok else [(path.stem, rhythm, start)]
        fast = [(start, end) for rhythm, start, end in rhythms if rhythm in {"(VT", "(VFL"}]
        onsets = [f.onset_s for f in found if f.kind == "vt"]
        false_vt += [(path.stem, onset) for onset in onsets if not any(start - 1 <= onset <= end for start, end in fast)]
    assert annotated >= 100
    assert [rhythm for _, rhythm, _ in missed if rhythm in {"(VT", "(IVR"}] == []
    assert len(missed) <= 0.03 * annotated, missed
    assert false_vt == []
