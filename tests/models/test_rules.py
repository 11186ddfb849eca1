"""The rules on beats placed by hand: what they must say follows from the limits alone."""

from collections.abc import Iterable
from itertools import accumulate

import numpy as np
import pytest
from numpy.typing import NDArray

from config.limits import DEFAULT_LIMITS
from models.findings import Finding
from models.rules.af import AfRule
from models.rules.pause import PauseRule
from models.rules.rates import RateRule


def beats(*stretches: tuple[int, float]) -> list[tuple[float, float]]:
    """(time, RR) of each beat; each stretch is (how many intervals, interval in s)."""
    intervals = [rr for count, rr in stretches for _ in range(count)]
    return list(zip(accumulate(intervals), intervals, strict=True))


def run(rule: RateRule, sequence: Iterable[tuple[float, float]]) -> list[tuple[float, Finding]]:
    return [(t, finding) for t, rr in sequence for finding in rule.beat(t, rr)]


def test_a_tachycardia_is_raised_after_ten_seconds_from_its_first_fast_interval_and_ends_with_its_last() -> None:
    told = run(RateRule("tachycardia", DEFAULT_LIMITS), beats((10, 0.8), (40, 0.4), (10, 0.8)))
    (raised_at, raised), (_, ended) = told
    assert raised.onset_s == pytest.approx(8.0)
    assert raised.end_s is None
    assert raised_at == pytest.approx(18.0, abs=0.41)  # at the beat that completes 10 s
    assert (ended.onset_s, ended.end_s) == (raised.onset_s, pytest.approx(24.0))
    assert raised.measured == {"rate_bpm": 150.0, "limit_bpm": 131}


def test_a_short_run_is_no_sustained_tachycardia() -> None:
    assert run(RateRule("tachycardia", DEFAULT_LIMITS), beats((10, 0.8), (22, 0.4), (10, 0.8))) == []


def test_a_rate_within_the_hysteresis_neither_starts_nor_ends_an_episode() -> None:
    wavering = 60 / 128  # above 131 - 5, below 131
    rule = RateRule("tachycardia", DEFAULT_LIMITS)
    assert run(rule, beats((60, wavering))) == []
    told = run(rule, beats((30, 0.4), (30, wavering)))
    assert [finding.end_s for _, finding in told] == [None]


def test_a_bradycardia_is_raised_and_two_wrong_intervals_in_five_change_nothing() -> None:
    assert len(run(RateRule("bradycardia", DEFAULT_LIMITS), beats((10, 1.7)))) == 1
    disturbed = beats(*[(3, 1.7), (1, 0.8), (1, 0.9)] * 5)
    assert len(run(RateRule("bradycardia", DEFAULT_LIMITS), disturbed)) == 1
    assert run(RateRule("bradycardia", DEFAULT_LIMITS), beats((20, 0.9), (1, 3.6), (20, 0.9))) == []


def test_a_gap_ends_an_episode_and_no_interval_is_joined_across_it() -> None:
    rule = RateRule("tachycardia", DEFAULT_LIMITS)
    run(rule, beats((40, 0.4)))
    assert [finding.end_s for finding in rule.gap(16.0)] == [16.0]
    assert run(rule, [(t + 20, rr) for t, rr in beats((20, 0.4))]) == []


def test_a_pause_is_told_when_its_limit_is_reached_and_again_when_a_beat_ends_it() -> None:
    rule = PauseRule(DEFAULT_LIMITS)
    assert list(rule.beat(1.0)) == []
    assert list(rule.quiet_until(3.9)) == []
    (raised,) = rule.quiet_until(4.1)
    assert list(rule.quiet_until(4.5)) == []
    (ended,) = rule.beat(5.0)
    assert (raised.onset_s, raised.end_s) == (1.0, None)
    assert (ended.onset_s, ended.end_s, ended.measured["pause_s"]) == (1.0, 5.0, 4.0)


def test_a_long_interval_is_a_pause_even_when_nobody_waited_for_it() -> None:
    rule = PauseRule(DEFAULT_LIMITS)
    assert list(rule.beat(0.0)) == []
    assert [finding.end_s for finding in rule.beat(3.0)] == [None, 3.0]
    assert list(rule.beat(5.99)) == []


def test_silence_across_a_gap_is_no_pause() -> None:
    rule = PauseRule(DEFAULT_LIMITS)
    assert list(rule.beat(0.0)) == []
    assert list(rule.gap(1.0)) == []
    assert list(rule.quiet_until(60.0)) == []
    assert list(rule.beat(61.0)) == []


class Irregularity:
    """A stand-in model with a known answer: AF where successive intervals differ by more than 15 % on average."""

    name, version, window, min_valid, on_threshold, off_threshold = "irregularity", "1", 64, 24, 0.5, 0.5

    def probability(self, rr_s: NDArray[np.float64], valid: NDArray[np.bool_]) -> float:
        return float(np.abs(np.diff(rr_s[valid])).mean() > 0.15 * rr_s[valid].mean())


def irregular(seconds: float) -> list[float]:
    rng = np.random.default_rng(3)
    intervals: list[float] = []
    while sum(intervals) < seconds:
        intervals.append(float(np.clip(rng.normal(0.6, 0.15), 0.3, 1.1)))
    return intervals


def feed_af(rule: AfRule, intervals: list[float], start_s: float = 0.0) -> list[tuple[float, Finding]]:
    times = [start_s + t for t in accumulate(intervals)]
    return [(t, finding) for t, rr in zip(times, intervals, strict=True) for finding in rule.beat(t, rr)]


def test_af_is_raised_once_after_thirty_seconds_of_it_and_ended() -> None:
    rule = AfRule(DEFAULT_LIMITS, Irregularity())
    sequence = [0.8] * 40 + irregular(60) + [0.8] * 80
    told = feed_af(rule, sequence)
    (raised_at, raised), (_, ended) = told
    assert 32 - 15 <= raised.onset_s <= 32 + 30
    assert raised_at - raised.onset_s >= 30
    assert ended.onset_s == raised.onset_s
    assert ended.end_s is not None
    assert abs(ended.end_s - 92) <= 30


def test_twenty_seconds_of_irregular_rhythm_are_no_af_episode() -> None:
    assert feed_af(AfRule(DEFAULT_LIMITS, Irregularity()), [0.8] * 64 + irregular(15) + [0.8] * 80) == []


def test_a_long_gap_ends_af_and_a_short_one_does_not() -> None:
    rule = AfRule(DEFAULT_LIMITS, Irregularity())
    assert len(feed_af(rule, irregular(60))) == 1
    assert list(rule.gap(60.0, 5.0)) == []
    assert [finding.end_s for finding in rule.gap(60.0, 31.0)] == [60.0]
    assert list(rule.beat(95.0, None)) == []
