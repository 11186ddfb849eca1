"""Intervals and heart rates without an ECG: what is found, what is never claimed, and what gaps and delays do."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.contexts import Contexts
from config.limits import DEFAULT_LIMITS
from models.findings import Finding
from models.inference.rr_af import RrAf
from models.interval_analysis import EXTREME_REASON, INTERVALS_REASON, RATE_REASON, IntervalAnalysis

START_S: Final = 1_800_000_000.0
KINDS: Final = {"tachycardia", "bradycardia", "irregular_pulse"}
Frame = tuple[float, Sequence[float]]
"""The second at which a frame arrives, and its intervals."""


@pytest.fixture(scope="module")
def rr_af() -> RrAf:
    return RrAf.load_release()


def frames(seconds: Sequence[float], begin_s: float = 0.0) -> list[Frame]:
    """One frame a second with the beats since the one before, as straps send them."""
    by_second: dict[int, list[float]] = {}
    for end_s, interval_s in zip(accumulate(seconds, initial=begin_s), (0.0, *seconds), strict=True):
        if interval_s:
            by_second.setdefault(int(end_s) + 1, []).append(interval_s)
    return [(float(second), intervals) for second, intervals in by_second.items()]


def run(
    analysis: IntervalAnalysis, arrivals: Sequence[Frame], heart_rate: Callable[[float], float] | None = None
) -> list[tuple[float, Finding]]:
    """Return each finding with the second at which it was reported."""
    found = []
    for at_s, seconds in arrivals:
        now_s = START_S + at_s
        found += [(at_s, finding) for finding in analysis.advance_to(now_s)]
        if heart_rate is not None:
            found += [(at_s, finding) for finding in analysis.add_heart_rate(now_s, heart_rate(at_s))]
        found += [(at_s, finding) for finding in analysis.add_intervals(now_s, seconds)]
    return found


def irregular(seconds: float, seed: int = 1) -> list[float]:
    rng = np.random.default_rng(seed)
    intervals: list[float] = []
    while sum(intervals) < seconds:
        intervals.append(float(np.clip(rng.normal(0.7, 0.16), 0.35, 1.4)))
    return intervals


def test_fast_intervals_are_a_tachycardia_from_intervals_alone() -> None:
    found = run(IntervalAnalysis(DEFAULT_LIMITS), frames([0.8] * 40 + [0.4] * 75 + [0.8] * 40))
    (raised_at, raised), (_, ended) = found
    assert (raised.kind, raised.reasons) == ("tachycardia", (INTERVALS_REASON,))
    assert raised.onset_s - START_S == pytest.approx(32, abs=1.5)
    assert 42 <= raised_at <= 46
    assert ended.end_s is not None
    assert ended.end_s - START_S == pytest.approx(62, abs=1.5)


@pytest.mark.parametrize(
    ("bpm", "kind"), [(30, "bradycardia"), (28, "bradycardia"), (200, "tachycardia"), (230, "tachycardia")]
)
def test_an_extreme_rate_says_that_no_ecg_confirms_it(bpm: float, kind: str) -> None:
    for reason, arrivals, rate in (
        (INTERVALS_REASON, frames([60 / bpm] * bpm), None),
        (RATE_REASON, [(float(second), ()) for second in range(60)], lambda _: bpm),
    ):
        (at_s, found), *_ = run(IntervalAnalysis(DEFAULT_LIMITS), arrivals, rate)
        assert (found.kind, found.reasons) == (kind, (reason, EXTREME_REASON))
        assert at_s >= 8, "three slow intervals in a row may be missed beats"
        assert ("longest_s" in found.measured) == (kind == "bradycardia" and reason == INTERVALS_REASON)


@pytest.mark.parametrize("no_rate", [0, 255, 251, 14])
def test_what_is_no_rate_is_ignored(no_rate: float) -> None:
    arrivals = frames([0.8] * 75)
    assert run(IntervalAnalysis(DEFAULT_LIMITS), arrivals, lambda _: no_rate) == []
    fast = run(IntervalAnalysis(DEFAULT_LIMITS), frames([0.4] * 75), lambda _: no_rate)
    assert [finding.reasons for _, finding in fast] == [(INTERVALS_REASON,)], "the intervals count instead"


def test_the_rate_of_the_sensor_counts_where_it_sends_one() -> None:
    every_beat_twice = [0.45, 0.4] * 60
    assert run(IntervalAnalysis(DEFAULT_LIMITS), frames(every_beat_twice), lambda _: 71) == []
    (_, found), *_ = run(IntervalAnalysis(DEFAULT_LIMITS), frames([0.8] * 75), lambda _: 140)
    assert (found.kind, found.reasons) == ("tachycardia", (RATE_REASON,))


def test_an_irregular_pulse_is_found_and_named_as_one(rr_af: RrAf) -> None:
    analysis = IntervalAnalysis(DEFAULT_LIMITS, rr_af)
    found = run(analysis, frames([0.8] * 100 + irregular(240) + [0.8] * 250))
    assert {(finding.kind, finding.reasons) for _, finding in found} == {("irregular_pulse", (INTERVALS_REASON,))}
    raised, ended = found[0][1], found[-1][1]
    assert {finding.onset_s for _, finding in found} == {raised.onset_s}, "one episode"
    assert raised.onset_s - START_S == pytest.approx(80, abs=30)
    assert ended.end_s is not None
    assert ended.end_s - START_S == pytest.approx(320, abs=30)
    list(analysis.end())
    assert analysis.take_burden().af_s == pytest.approx(240, abs=40)


@pytest.mark.parametrize("defect", ["missed", "extra", "premature"])
def test_single_missed_and_extra_beats_are_no_irregular_pulse(rr_af: RrAf, defect: str) -> None:
    rng = np.random.default_rng(5)
    intervals: list[float] = []
    for _ in range(400):
        usual = float(rng.normal(0.8, 0.02))
        doubtful = {"missed": [2 * usual], "extra": [0.45 * usual, 0.55 * usual], "premature": [0.6 * usual, 1.4 * usual]}[
            defect
        ]
        intervals += [usual] if rng.random() > 0.08 else doubtful
    assert run(IntervalAnalysis(DEFAULT_LIMITS, rr_af), frames(intervals)) == []


def test_fast_beats_before_and_after_a_gap_do_not_add_up() -> None:
    fast = [0.4] * 18  # 7.2 s
    arrivals = [*frames(fast), *frames(fast, begin_s=30), *frames(fast, begin_s=60)]
    assert run(IntervalAnalysis(DEFAULT_LIMITS), arrivals) == []


def test_an_irregular_pulse_ends_where_no_value_has_come_for_30_s(rr_af: RrAf) -> None:
    analysis = IntervalAnalysis(DEFAULT_LIMITS, rr_af)
    arrivals = frames(irregular(120))
    ((_, raised),) = run(analysis, arrivals)
    last_s = START_S + arrivals[-1][0]
    assert list(analysis.advance_to(last_s + 29)) == []
    (ended,) = analysis.advance_to(last_s + 32)
    assert ended.end_s is not None
    assert (ended.onset_s, ended.lost) == (raised.onset_s, True)
    assert last_s - 15 <= ended.end_s <= last_s
    assert list(analysis.advance_to(last_s + 99)) == []


@pytest.mark.parametrize("delay_s", [3, 7, 20])
def test_a_link_that_delivers_late_ends_no_episode(rr_af: RrAf, delay_s: float) -> None:
    arrivals = frames(irregular(400))
    for begin_s in (150, 250):
        late_s = begin_s + delay_s
        arrivals = [(late_s if begin_s <= at_s < late_s else at_s, seconds) for at_s, seconds in arrivals]
    (raised,) = run(IntervalAnalysis(DEFAULT_LIMITS, rr_af), arrivals)
    assert raised[1].kind == "irregular_pulse"


def test_a_clock_that_is_set_back_starts_over() -> None:
    analysis = IntervalAnalysis(DEFAULT_LIMITS)
    run(analysis, frames([0.4] * 100))
    back = [(at_s - 3600, seconds) for at_s, seconds in frames([0.8] * 100)]
    ((_, ended),) = run(analysis, back)
    assert (ended.kind, ended.lost) == ("tachycardia", True)


reading = st.one_of(
    st.tuples(st.just("rate"), st.lists(st.floats(-10, 300), min_size=1, max_size=1)),
    st.tuples(st.just("intervals"), st.lists(st.floats(0, 64), min_size=1, max_size=9)),
)


@given(st.lists(st.tuples(st.floats(0, 40), reading), max_size=60))
def test_no_value_leads_to_a_pause_an_asystole_or_a_ventricular_rhythm(
    values: list[tuple[float, tuple[str, list[float]]]],
) -> None:
    analysis, at_s = IntervalAnalysis(DEFAULT_LIMITS), START_S
    found: list[Finding] = []
    for wait_s, (name, numbers) in values:
        at_s += wait_s
        found += analysis.advance_to(at_s)
        found += analysis.add_heart_rate(at_s, numbers[0]) if name == "rate" else analysis.add_intervals(at_s, numbers)
    found += analysis.end()
    assert {finding.kind for finding in found} <= KINDS
    ongoing = {(finding.kind, finding.onset_s) for finding in found if finding.end_s is None}
    ended = {(finding.kind, finding.onset_s) for finding in found if finding.end_s is not None}
    assert ongoing == ended


def test_in_known_af_its_mean_rate_matters_and_not_each_episode(rr_af: RrAf) -> None:
    fast, slow = [0.7 * seconds for seconds in irregular(1100)], irregular(900)
    heart_rates = [(float(second), ()) for second in range(900)]
    for arrivals, rate in ((frames(fast), None), (heart_rates, lambda _: 120)):
        found = run(IntervalAnalysis(DEFAULT_LIMITS, rr_af, Contexts(known_af=True)), arrivals, rate)
        raised = [finding for _, finding in found if finding.kind != "known_af"]
        assert {(finding.kind, finding.source) for finding in raised} == {("tachycardia", "rule:mean_rate")}
        assert raised[0].reasons in ((INTERVALS_REASON,), (RATE_REASON,))
        assert raised[0].measured["rate_bpm"] == pytest.approx(120, abs=6)
    found = run(IntervalAnalysis(DEFAULT_LIMITS, rr_af, Contexts(known_af=True)), frames(slow))
    assert {finding.kind for _, finding in found} == {"known_af"}
