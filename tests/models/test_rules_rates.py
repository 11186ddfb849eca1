"""Tachycardia and bradycardia on constructed beats; the expected findings follow from the limits."""

from collections.abc import Iterable
from itertools import accumulate

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
    assert (ended.onset_s, ended.end_s) == (0.0, 30.0)


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
        assert [finding.end_s is None for finding in found] == [True, False] * (len(found) // 2)
        for raised, ended in zip(found[::2], found[1::2], strict=True):
            assert raised.onset_s == ended.onset_s
            assert ended.end_s is not None
            assert ended.end_s > ended.onset_s
