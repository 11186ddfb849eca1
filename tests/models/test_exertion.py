"""A rate that rises gradually, as in exertion, waits before it raises an alert; one that rises suddenly does not."""

from collections.abc import Iterable, Iterator
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.limits import DEFAULT_LIMITS
from models.findings import Finding
from models.interval_analysis import IntervalAnalysis
from models.rules.exertion import ExertionRule, predict_maximum
from models.rules.rates import RateRule


def steady(bpm: float, seconds: float) -> list[float]:
    return [60 / bpm] * round(seconds * bpm / 60)


def ramp(from_bpm: float, to_bpm: float, seconds: float) -> Iterator[float]:
    """Intervals of a rate that changes evenly in time."""
    t_s, bpm = 0.0, from_bpm
    while t_s < seconds:
        yield 60 / bpm
        t_s += 60 / bpm
        bpm = from_bpm + (to_bpm - from_bpm) * t_s / seconds


def play(rr_s: Iterable[float], age_years: int | None = None) -> list[tuple[float, Finding]]:
    """The findings of the rule, each with the time of the beat at which it was reported."""
    rule = RateRule("tachycardia", DEFAULT_LIMITS, ExertionRule(DEFAULT_LIMITS, age_years))
    beats = list(rr_s)
    return [(t_s, finding) for t_s, rr in zip(accumulate(beats), beats, strict=True) for finding in rule.on_beat(t_s, rr)]


REST = steady(75, 60)


@pytest.mark.parametrize("bpm", [135, 140, 150, 160, 180])
@pytest.mark.parametrize("resting_bpm", [60, 75, 100, 115])
def test_a_sudden_tachycardia_is_raised_10_s_after_its_onset(bpm: float, resting_bpm: float) -> None:
    before = steady(resting_bpm, 60)
    ((at_s, finding),) = play([*before, *steady(bpm, 60)])
    assert finding.onset_s == pytest.approx(sum(before))
    assert at_s - finding.onset_s <= 10 + 60 / bpm + 1e-6, "the first beat after 10 s"


@pytest.mark.parametrize("bpm", [135, 145, 149])
@pytest.mark.parametrize("rise_s", [20, 60, 240])
def test_a_walk_is_not_raised(bpm: float, rise_s: float) -> None:
    assert not play([*REST, *ramp(75, bpm, rise_s), *steady(bpm, 420), *ramp(bpm, 75, 90), *REST])


def test_a_gradual_rise_that_lasts_is_raised_after_10_min() -> None:
    onset_s = sum(REST) + sum(ramp(75, 140, 120))
    ((at_s, _),) = play([*REST, *ramp(75, 140, 120), *steady(140, 900)])
    assert 580 <= at_s - onset_s <= 605, "from the moment at which the median rate passed 131/min"


def test_a_gradual_rise_to_150_is_raised_after_1_min_there() -> None:
    ((at_s, _),) = play([*REST, *ramp(75, 160, 120), *steady(160, 300)])
    reached_150_s = sum(REST) + 120 * (150 - 75) / (160 - 75)
    assert 58 <= at_s - reached_150_s <= 64


def test_a_rate_above_the_maximum_of_the_age_is_raised_after_10_s() -> None:
    """At 80 years no sinus node is expected to reach 152/min; at 30 years most do."""
    assert predict_maximum(80) == 152
    walk = [*REST, *ramp(75, 160, 120), *steady(160, 40)]
    ((at_s, _),) = play(walk, 80)
    assert 8 <= at_s - (sum(REST) + 120 * (152 - 75) / (160 - 75)) <= 14
    assert not play(walk, 30)


def test_a_critical_rate_is_raised_after_10_s_however_it_was_reached() -> None:
    ((at_s, _),) = play([*REST, *ramp(75, 205, 40), *steady(205, 30)])
    assert at_s <= sum(REST) + 40 + 14


def test_a_tachycardia_that_begins_during_a_walk_is_raised_10_s_later() -> None:
    walk = [*REST, *ramp(75, 135, 120), *steady(135, 60)]
    ((at_s, _),) = play([*walk, *steady(170, 60)])
    assert 10 <= at_s - sum(walk) <= 10.5


def test_a_burst_of_wrong_beats_during_a_walk_raises_nothing() -> None:
    walk = [*REST, *ramp(75, 135, 120), *steady(135, 60)]
    burst = [60 / 270] * 24  # each beat counted twice for 5 s
    assert not play([*walk, *burst, *steady(135, 60), *ramp(135, 75, 60)])


def test_a_fast_rate_from_the_start_is_raised_after_10_s() -> None:
    ((at_s, finding),) = play(steady(140, 60))
    assert at_s - finding.onset_s <= 10.5


def rule_after(rr_s: Iterable[float], gap_s: float) -> ExertionRule:
    rule, t_s = ExertionRule(DEFAULT_LIMITS), 0.0
    for rr in rr_s:
        t_s += rr
        rule.on_beat(t_s, rr)
    rule.on_gap(gap_s)
    for rr in steady(140, 10):
        t_s += rr
        rule.on_beat(t_s + gap_s, rr)
    assert rule.explains(t_s + gap_s) is (gap_s <= 60)
    return rule


def test_a_short_gap_in_a_walk_does_not_make_it_sudden() -> None:
    """After a long gap nothing is known of how the rate rose."""
    walk = [*REST, *ramp(75, 138, 120)]
    rule_after(walk, 30)
    rule_after(walk, 90)


@given(st.floats(60, 110), st.floats(132, 145), st.floats(0.3, 2.5), st.lists(st.floats(-0.03, 0.03), min_size=5, max_size=5))
def test_no_rise_of_a_sinus_node_is_sudden(from_bpm: float, to_bpm: float, per_s: float, varied: list[float]) -> None:
    """Up to 2.5/min in a second, with a respiratory variation of 3 %; not to 150/min, from where it waits for a minute only."""
    rise = [*steady(from_bpm, 30), *ramp(from_bpm, to_bpm, (to_bpm - from_bpm) / per_s), *steady(to_bpm, 60)]
    assert not play([rr * (1 + varied[index % 5]) for index, rr in enumerate(rise)])


def heart_rate_findings(bpm: Iterable[float]) -> list[Finding]:
    """The findings of a plain strap that sends these heart rates, one a second."""
    analysis = IntervalAnalysis(DEFAULT_LIMITS)
    return [finding for second, rate in enumerate(bpm) for finding in analysis.add_heart_rate(float(second), rate)]


def test_the_rate_of_a_plain_strap_is_judged_in_the_same_way() -> None:
    """A sensor averages its rate over some ten seconds, so a sudden rise takes as long."""
    rest, walk = [75.0] * 60, [75 + second / 2 for second in range(120)] + [135.0] * 300
    assert not heart_rate_findings([*rest, *walk])
    sudden = [75 + 8.5 * second for second in range(10)] + [160.0] * 60
    assert [finding.kind for finding in heart_rate_findings([*rest, *sudden])] == ["tachycardia"]


@pytest.mark.parametrize("missed", range(3, 9))
@pytest.mark.parametrize("bpm", [133, 140, 148])
def test_a_few_missed_beats_in_a_walk_are_no_sudden_onset(missed: int, bpm: float) -> None:
    walk = steady(bpm, 120)
    assert not play([*REST, *ramp(75, bpm, 120), *walk, *[2 * 60 / bpm] * missed, *walk, *ramp(bpm, 75, 90), *REST])


@pytest.mark.parametrize("pause_s", [5, 20, 50])
@pytest.mark.parametrize("doubled", [0, 8])
def test_a_sudden_tachycardia_that_comes_and_goes_is_raised_each_time(pause_s: float, doubled: int) -> None:
    """Also soon after a burst of extra beats, whose rate is no rate to return to."""
    burst, pause = [60 / 100 / 2] * doubled, steady(100, pause_s)
    episode = steady(150, 15)
    found = play([*steady(100, 60), *(rr for _ in range(4) for rr in (*burst, *pause, *episode)), *pause])
    assert len([one for _, one in found if one.end_s is None]) == 4
