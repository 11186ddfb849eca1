"""Tachycardia and bradycardia on constructed beats; the expected findings follow from the limits."""

from collections.abc import Iterable
from itertools import accumulate, groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.limits import DEFAULT_LIMITS
from models.findings import Finding
from models.rules.rates import RateRule


def beats(*stretches: tuple[int, float]) -> list[tuple[float, float]]:
    """Return the time and RR interval of each beat; a stretch is a number of intervals and their length in seconds."""
    intervals = [rr for count, rr in stretches for _ in range(count)]
    return list(zip(accumulate(intervals), intervals, strict=True))


def run(rule: RateRule, sequence: Iterable[tuple[float, float]]) -> list[tuple[float, Finding]]:
    return [(t, finding) for t, rr in sequence for finding in rule.on_beat(t, rr)]


def test_a_tachycardia_is_raised_after_10_s_and_lasts_from_its_first_to_its_last_fast_interval() -> None:
    findings = run(RateRule("tachycardia", DEFAULT_LIMITS), beats((10, 0.8), (40, 0.4), (10, 0.8)))
    (raised_at, raised), (_, ended) = findings
    assert raised.onset_s == pytest.approx(8.0)
    assert raised.end_s is None
    assert raised_at == pytest.approx(18.0, abs=0.41)  # at the beat that completes 10 s
    assert (ended.onset_s, ended.end_s) == (raised.onset_s, pytest.approx(24.0))
    assert raised.measured == {"rate_bpm": 150.0, "limit_bpm": 131}


def test_a_short_run_is_not_a_sustained_tachycardia() -> None:
    assert run(RateRule("tachycardia", DEFAULT_LIMITS), beats((10, 0.8), (22, 0.4), (10, 0.8))) == []


def test_a_rate_within_the_hysteresis_neither_starts_nor_ends_an_episode() -> None:
    within_hysteresis_s = 60 / 128  # above 131 - 5, below 131
    rule = RateRule("tachycardia", DEFAULT_LIMITS)
    assert run(rule, beats((60, within_hysteresis_s))) == []
    findings = run(rule, beats((30, 0.4), (30, within_hysteresis_s)))
    assert [finding.end_s for _, finding in findings] == [None]


def test_two_wrong_intervals_in_five_neither_end_nor_start_a_bradycardia() -> None:
    assert len(run(RateRule("bradycardia", DEFAULT_LIMITS), beats((10, 1.7)))) == 1
    disturbed = beats(*[(3, 1.7), (1, 0.8), (1, 0.9)] * 5)
    assert len(run(RateRule("bradycardia", DEFAULT_LIMITS), disturbed)) == 1
    assert run(RateRule("bradycardia", DEFAULT_LIMITS), beats((20, 0.9), (1, 3.6), (20, 0.9))) == []


def test_slow_intervals_that_alternate_with_others_are_a_bradycardia_if_the_mean_rate_is_slow() -> None:
    findings = run(RateRule("bradycardia", DEFAULT_LIMITS), beats((10, 0.9), *[(1, 2.4), (1, 0.8)] * 6, (10, 0.9)))
    (raised_at, raised), (_, ended) = findings
    assert raised.onset_s == pytest.approx(9.0)
    assert raised_at == pytest.approx(21.0, abs=1.7)  # a slow beat after 10 s
    assert ended.end_s == pytest.approx(28.2, abs=0.9)
    assert raised.measured["rate_bpm"] == pytest.approx(37.5, abs=0.7)
    assert run(RateRule("bradycardia", DEFAULT_LIMITS), beats((10, 0.9), *[(1, 1.8), (1, 0.8)] * 9)) == [], "46/min"
    assert run(RateRule("bradycardia", DEFAULT_LIMITS), beats((10, 0.9), *[(1, 7.0), (9, 0.9)] * 3)) == [], "single pauses"
    without_signal = RateRule("bradycardia", DEFAULT_LIMITS, has_signal=False)
    assert run(without_signal, beats((10, 0.9), *[(1, 2.4), (1, 0.8)] * 6)) == [], "beats may have been missed"


def test_a_gap_ends_an_episode_and_a_new_one_must_persist_again() -> None:
    rule = RateRule("tachycardia", DEFAULT_LIMITS)
    run(rule, beats((40, 0.4)))
    assert [finding.end_s for finding in rule.on_gap(16.0)] == [16.0]
    assert run(rule, [(t + 20, rr) for t, rr in beats((20, 0.4))]) == []


def feed(rule: RateRule, intervals: list[float], start_s: float = 0.0) -> list[Finding]:
    return [
        finding for _, finding in run(rule, [(start_s + t, rr) for t, rr in zip(accumulate(intervals), intervals, strict=True)])
    ]


def test_a_short_gap_changes_nothing_and_a_long_one_ends_the_episode() -> None:
    rule = RateRule("tachycardia", DEFAULT_LIMITS)
    assert len(feed(rule, [0.4] * 40)) == 1
    assert list(rule.on_gap(16.0, 9.9)) == []
    assert feed(rule, [0.4] * 10, 26.0) == []
    (ended,) = rule.on_gap(30.0, 10.0)
    assert (ended.onset_s, ended.end_s, ended.lost) == (0.0, 30.0, True)


@pytest.mark.parametrize("lost_every", [5, 7, 13])
def test_frequent_packet_loss_neither_hides_nor_splits_a_tachycardia(lost_every: int) -> None:
    rule = RateRule("tachycardia", DEFAULT_LIMITS)
    found, t = [], 0.0
    for beat in range(300):
        t += 0.4
        if beat % lost_every == 0:
            found += rule.on_gap(t, 0.56)
        else:
            found += rule.on_beat(t, 0.4)
    assert [(finding.kind, finding.end_s) for finding in found] == [("tachycardia", None)]


@settings(deadline=None)
@given(rates=st.lists(st.floats(30, 220), max_size=200))
def test_for_any_rates_every_episode_is_raised_once_and_ended_once(rates: list[float]) -> None:
    for kind in ("tachycardia", "bradycardia"):
        rule = RateRule(kind, DEFAULT_LIMITS)
        found = [*feed(rule, [60 / rate for rate in rates]), *rule.on_gap(1e4)]
        episodes = [list(group) for _, group in groupby(found, key=lambda finding: finding.onset_s)]
        for *raised, ended in episodes:
            assert raised
            assert all(finding.end_s is None for finding in raised)
            assert ended.end_s is not None
            assert ended.end_s > ended.onset_s


def test_a_critical_tachycardia_is_reported_again_when_its_rate_has_lasted_10_s() -> None:
    findings = run(RateRule("tachycardia", DEFAULT_LIMITS), beats((10, 0.8), (40, 0.4), (60, 0.29)))
    (_, raised), (again_at, again) = findings
    assert "critical_bpm" not in raised.measured
    assert raised.measured["rate_bpm"] == 150.0
    assert again.onset_s == raised.onset_s
    assert again_at == pytest.approx(24.0 + 10.0, abs=0.3)
    assert (again.measured["rate_bpm"], again.measured["critical_bpm"]) == (pytest.approx(206.9), 200)


def test_a_few_fast_intervals_in_a_tachycardia_are_not_critical() -> None:
    findings = run(RateRule("tachycardia", DEFAULT_LIMITS), beats((10, 0.8), (40, 0.4), (20, 0.25), (40, 0.4)))
    assert [(finding.measured["rate_bpm"], "critical_bpm" in finding.measured) for _, finding in findings] == [(150.0, False)]


def test_a_rhythm_at_200_per_minute_is_critical_when_it_is_raised() -> None:
    ((_, raised),) = run(RateRule("tachycardia", DEFAULT_LIMITS), beats((10, 0.8), (40, 0.3)))
    assert (raised.measured["rate_bpm"], raised.measured["critical_bpm"]) == (200.0, 200)


def test_three_critically_slow_intervals_are_reported_at_once_with_the_longest() -> None:
    rule = RateRule("bradycardia", DEFAULT_LIMITS)
    findings = run(rule, beats((10, 0.8), (1, 2.5), (1, 3.5), (1, 2.0)))
    ((at, raised),) = findings
    assert at == pytest.approx(16.0)
    assert raised.onset_s == pytest.approx(8.0)
    assert raised.measured == {"rate_bpm": 30.0, "limit_bpm": 40, "critical_bpm": 30, "longest_s": 3.5}
    assert rule.is_critical


def test_a_longer_interval_in_a_critical_bradycardia_is_reported_again() -> None:
    rule = RateRule("bradycardia", DEFAULT_LIMITS)
    findings = run(rule, beats((10, 0.8), (5, 3.0), (3, 3.9), (1, 4.0), (4, 2.5), (1, 5.5)))
    assert [finding.measured["longest_s"] for _, finding in findings] == [3.0, 4.0, 5.5]
    assert {finding.end_s for _, finding in findings} == {None}


def test_a_critical_bradycardia_that_recovers_is_no_longer_critical_but_remains_one_episode() -> None:
    rule = RateRule("bradycardia", DEFAULT_LIMITS)
    findings = run(rule, beats((10, 0.8), (5, 3.0), (10, 1.55)))
    assert [finding.end_s for _, finding in findings] == [None]
    assert not rule.is_critical


def test_a_slow_rate_is_reported_only_where_no_beats_are_hidden() -> None:
    rule = RateRule("bradycardia", DEFAULT_LIMITS)
    sequence = beats((10, 0.8), (20, 1.9))
    assert [finding for t, rr in sequence[:20] for finding in rule.on_beat(t, rr, is_seen=rr < 1.5)] == []
    (raised,) = (finding for t, rr in sequence[20:25] for finding in rule.on_beat(t, rr))
    assert raised.onset_s == pytest.approx(8.0)


def test_single_beats_in_an_asystole_are_not_a_bradycardia_but_the_three_that_end_it_are() -> None:
    rule = RateRule("bradycardia", DEFAULT_LIMITS)
    assert run(rule, beats((10, 0.8), (6, 9.0))) == []
    ((_, raised),) = run(rule, [(62.0 + t, rr) for t, rr in beats((1, 9.0), (2, 4.0))])
    assert raised.measured["longest_s"] == 9.0


def test_a_rule_that_yields_to_another_ends_at_its_onset_and_starts_anew() -> None:
    rule = RateRule("tachycardia", DEFAULT_LIMITS)
    run(rule, beats((40, 0.4)))
    (ended,) = rule.restart(14.0)
    assert (ended.end_s, ended.lost) == (14.0, False)
    assert run(rule, [(t + 16.0, rr) for t, rr in beats((20, 0.4))]) == []


def test_a_critical_limit_inside_the_limit_does_not_hide_it() -> None:
    limits = DEFAULT_LIMITS.with_values({"bradycardia_rate": 28, "tachycardia_rate": 220})
    assert len(run(RateRule("bradycardia", limits), beats((12, 2.2)))) == 1
    assert run(RateRule("bradycardia", limits), beats((12, 2.05))) == []
    assert run(RateRule("tachycardia", limits), beats((80, 0.29))) == []


@pytest.mark.parametrize(
    ("kind", "intervals_s", "reported_bpm"),
    [
        ("tachycardia", [60 / 135, 60 / 160, 60 / 165, 60 / 190], [135.0, 165.0]),  # 165 is 1.2 times 135; 198 would be next
        ("bradycardia", [60 / 39, 60 / 35, 60 / 32, 60 / 31], [39.0, 32.0]),
    ],
)
def test_an_episode_is_reported_again_when_its_rate_is_worse_by_a_fifth_for_10_s(
    kind: str, intervals_s: list[float], reported_bpm: list[float]
) -> None:
    stretches = [(round(30 / rr), rr) for rr in intervals_s]
    findings = run(RateRule(kind, DEFAULT_LIMITS), beats((10, 0.8), *stretches))
    assert [finding.measured["rate_bpm"] for _, finding in findings] == pytest.approx(reported_bpm, abs=0.1)
    assert 8 + 70 <= findings[1][0] <= 8 + 80
    brief = beats((10, 0.8), stretches[0], (round(6 / intervals_s[2]), intervals_s[2]), stretches[0])
    assert len(run(RateRule(kind, DEFAULT_LIMITS), brief)) == 1, "six seconds are too short"
