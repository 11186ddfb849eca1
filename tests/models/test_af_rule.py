"""The AF rule on constructed beats, and that it agrees with what the evaluation counts."""

from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from captures.rhythms import NOT_AF, Rhythm
from config.limits import DEFAULT_LIMITS
from evaluation.rr_af import seconds
from evaluation.rr_tracking import score_windows, track_episodes, watch_end
from models.findings import Finding
from models.inference.rr_af import is_conclusive
from models.rules.af import AfRule
from models.rules.af_tracker import Burden

Flags = NDArray[np.bool_]


class IrregularityModel:
    """A stand-in model with known answers: AF where successive intervals differ by more than 15 % on average."""

    name, version, window, on_threshold = "irregularity", "1", 64, 0.5

    def __init__(self, certainty: float = 1.0) -> None:
        self._certainty = certainty

    def is_conclusive(self, rr_s: NDArray[np.float64], valid: Flags) -> bool:
        return bool(is_conclusive(rr_s, valid))

    def probability(self, rr_s: NDArray[np.float64], valid: Flags) -> float:
        return self._certainty * float(np.abs(np.diff(rr_s[valid])).mean() > 0.15 * rr_s[valid].mean())

    def find_conclusive_windows(self, rr_s: NDArray[np.floating[Any]], valid: Flags) -> Flags:
        return is_conclusive(rr_s, valid)

    def probabilities(self, rr_s: NDArray[np.floating[Any]], valid: Flags) -> NDArray[np.float64]:
        pairs = zip(rr_s.astype(np.float64), valid, strict=True)
        return np.array([self.probability(rr, ok) for rr, ok in pairs])


class ShortIsAf(IrregularityModel):
    """A stand-in model whose probability of AF is the share of intervals below 1 s."""

    def probability(self, rr_s: NDArray[np.float64], valid: Flags) -> float:
        return float((valid & (rr_s < 1.0)).sum() / valid.sum())


def irregular_intervals(seconds: float, seed: int = 3) -> list[float]:
    rng = np.random.default_rng(seed)
    intervals: list[float] = []
    while sum(intervals) < seconds:
        intervals.append(float(np.clip(rng.normal(0.6, 0.15), 0.3, 1.1)))
    return intervals


def feed(rule: AfRule, intervals: list[float], labels: str = "") -> list[tuple[float, Finding]]:
    beats = zip(accumulate(intervals), intervals, labels or "N" * len(intervals), strict=True)
    return [(t, finding) for t, rr, label in beats for finding in rule.on_beat(t, rr, label)]


def test_af_is_raised_once_after_30_s_and_ended() -> None:
    rule = AfRule(DEFAULT_LIMITS, IrregularityModel())
    findings = feed(rule, [0.8] * 40 + irregular_intervals(90) + [0.8] * 200)
    (raised_at, raised), (doubted_at, doubted), (ended_at, ended) = findings
    assert raised.kind == "af"
    assert 32 - 15 <= raised.onset_s <= 32 + 30
    assert raised_at - raised.onset_s >= 30
    assert (doubted.onset_s, doubted.end_s, doubted.measured["maybe_ended"]) == (raised.onset_s, None, 1.0)
    assert 122 < doubted_at <= 122 + 30
    assert "maybe_ended" not in ended.measured
    assert ended.onset_s == raised.onset_s
    assert ended.end_s is not None
    assert abs(ended.end_s - 122) <= 20
    assert ended_at > ended.end_s


def test_af_that_goes_on_after_a_regular_stretch_is_one_episode() -> None:
    rule = AfRule(DEFAULT_LIMITS, IrregularityModel())
    first = irregular_intervals(120)
    findings = feed(rule, [*first, *[0.6] * 26, *irregular_intervals(120, 5)])
    assert [finding.measured.get("maybe_ended") for _, finding in findings] == [None, 1.0, None]
    assert len({finding.onset_s for _, finding in findings}) == 1
    assert all(finding.end_s is None for _, finding in findings)


def test_a_short_irregular_rhythm_is_not_an_af_episode() -> None:
    rule = AfRule(DEFAULT_LIMITS, IrregularityModel())
    assert feed(rule, [0.8] * 64 + irregular_intervals(15) + [0.8] * 200) == []


def test_a_long_gap_ends_af_and_a_short_one_does_not() -> None:
    rule = AfRule(DEFAULT_LIMITS, IrregularityModel())
    intervals = irregular_intervals(60)
    assert len(feed(rule, intervals)) == 1
    last_s = sum(intervals)
    assert list(rule.on_gap(last_s, 5.0)) == []
    (ended,) = rule.on_gap(last_s, 31.0)
    assert (ended.end_s, ended.lost) == (pytest.approx(last_s), True)
    assert list(rule.on_beat(last_s + 35.0, None)) == []


def test_the_kind_for_a_pulse_wave_is_irregular_pulse() -> None:
    rule = AfRule(DEFAULT_LIMITS, IrregularityModel(), "irregular_pulse")
    ((_, finding),) = feed(rule, irregular_intervals(60))
    assert finding.kind == "irregular_pulse"


def test_intervals_at_ventricular_beats_are_ignored() -> None:
    random = np.random.default_rng(2)
    intervals = [float(random.uniform(*span)) for _ in range(40) for span in ((0.7, 0.9),) * 4 + ((0.35, 0.5), (1.1, 1.3))]
    assert len(feed(AfRule(DEFAULT_LIMITS, IrregularityModel()), intervals)) == 1
    assert feed(AfRule(DEFAULT_LIMITS, IrregularityModel()), intervals, "NNNNVN" * 40) == []


def test_ectopic_beats_in_a_few_patterns_are_no_episode_however_often_the_model_is_misled() -> None:
    random = np.random.default_rng(2)
    patterns = ([0.9], [0.9], [0.57, 0.52, 0.61, 1.2])
    beats = [rr for _ in range(300) for rr in patterns[random.integers(3)]]
    rule = AfRule(DEFAULT_LIMITS, IrregularityModel(0.97))
    assert feed(rule, (np.array(beats) * random.normal(1.0, 0.01, len(beats))).tolist()) == []
    list(rule.on_gap(sum(beats), np.inf))
    burden = rule.take_burden()
    assert burden.af_s > 0.9 * burden.observed_s  # the labels are the model's


def test_nothing_is_reported_or_observed_if_every_second_beat_is_ventricular() -> None:
    rule = AfRule(DEFAULT_LIMITS, IrregularityModel())
    assert feed(rule, [0.5, 1.1] * 100, "VN" * 100) == []
    assert list(rule.on_gap(160.0, np.inf)) == []
    assert rule.take_burden() == Burden()


def test_burden_covers_the_observed_time_and_is_returned_once() -> None:
    rule = AfRule(DEFAULT_LIMITS, IrregularityModel())
    sequence = [0.8] * 300 + irregular_intervals(240)
    feed(rule, sequence)
    early = rule.take_burden()
    list(rule.on_gap(sum(sequence), np.inf))
    late = rule.take_burden()
    assert early.observed_s + late.observed_s == pytest.approx(sum(sequence), abs=1.0)  # no interval ends at the first beat
    assert early.af_s + late.af_s == pytest.approx(240, abs=15)
    assert rule.take_burden() == Burden()


@pytest.mark.parametrize("seed", range(3))
def test_the_rule_reports_the_episodes_and_burden_that_the_evaluation_counts(seed: int) -> None:
    parts = [
        [0.8] * 150,
        irregular_intervals(150, seed),
        [0.75] * 180,
        [45.0],
        irregular_intervals(100, seed + 9),
        [0.9] * 30,
        [2.5] * 60,
        [0.8] * 99,
    ]
    intervals = [rr for part in parts for rr in part]
    times = np.concatenate([[0.0], np.cumsum(intervals)])
    rhythm = Rhythm("made", "1", 0.001, times, np.full(len(times), NOT_AF, np.int8))
    expected = track_episodes(score_windows(rhythm, IrregularityModel()), IrregularityModel())
    rule = AfRule(DEFAULT_LIMITS, IrregularityModel())
    findings = [*rule.on_beat(0.0, None)]
    for t, rr in zip(times[1:], intervals, strict=True):
        findings += rule.on_beat(float(t), rr)
    findings += rule.on_gap(float(times[-1]), np.inf)
    said = [finding for finding in findings if finding.end_s is None]
    assert [finding.measured.get("maybe_ended") for finding in said] == [None, 1.0, None, 1.0]
    changes = [change for episode in expected.episodes for change in watch_end(expected.scored, episode, IrregularityModel())]
    assert [ended for _, ended in changes] == [True, True]
    episodes = [(finding.onset_s, finding.end_s) for finding in findings if finding.end_s is not None]
    assert episodes == [(episode.onset_s, episode.end_s) for episode in expected.episodes]
    assert len(episodes) == 2
    counted = seconds(expected)
    burden = rule.take_burden()
    assert burden.af_s == pytest.approx(counted["not_af_called"])
    assert burden.observed_s == pytest.approx(counted["not_af"])


@pytest.mark.parametrize("beats", range(200, 204))
def test_that_af_may_have_ended_is_looked_for_at_each_beat(beats: int) -> None:
    """At 43/min, three beats more take 4 s. With 24 of the newest 26 intervals another rhythm the probability is below 0.1."""
    af_s = np.random.default_rng(1).uniform(0.4, 0.9, beats).tolist()
    findings = feed(AfRule(DEFAULT_LIMITS, ShortIsAf()), [*af_s, *[1.4] * 40])
    (said_at,) = [at_s for at_s, finding in findings if finding.measured.get("maybe_ended")]
    assert said_at - sum(af_s) == pytest.approx(24 * 1.4)
