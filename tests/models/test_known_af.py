"""Where AF is known: its episodes raise no alert, pauses count from 5 s, and a rate counts by its mean over ten minutes."""

from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.contexts import NO_CONTEXTS, Contexts
from config.limits import DEFAULT_LIMITS
from gateway.models import load_models
from models.analysis import EcgAnalysis
from models.findings import Finding
from models.rules.known_af import MeanRateRule, limits_in
from tests.cloud.synthetic import ecg_mv

KNOWN_AF = Contexts(known_af=True)
RATE_HZ = 130.0


def feed(rule: MeanRateRule, intervals_s: list[float], start_s: float = 0.0) -> list[tuple[float, Finding]]:
    found, t_s = [], start_s
    for rr_s in intervals_s:
        t_s += rr_s
        found += [(t_s, finding) for finding in rule.on_beat(t_s, rr_s)]
    return found


def test_a_mean_rate_above_110_for_ten_minutes_is_a_tachycardia_until_it_falls() -> None:
    rule = MeanRateRule(DEFAULT_LIMITS)
    fast, slow = [0.4, 0.65] * 800, [0.7] * 900  # 114/min and 86/min
    (raised_s, raised), (ended_s, ended) = feed(rule, [*[0.8] * 300, *fast, *slow])
    assert 240 + 8 * 60 < raised_s < 240 + 10 * 60 + 1
    assert (raised.kind, raised.source, raised.end_s) == ("tachycardia", "rule:mean_rate", None)
    assert raised.measured["rate_bpm"] == pytest.approx(110, abs=1)
    assert (ended.onset_s, ended.end_s) == (raised.onset_s, ended_s)
    assert ended.measured == {"rate_bpm": pytest.approx(114.3, abs=0.5), "limit_bpm": 110, "mean_over_s": 600}
    assert 240 + 840 < ended_s < 240 + 840 + 600


def test_a_mean_rate_that_rises_by_a_fifth_is_reported_again() -> None:
    found = feed(MeanRateRule(DEFAULT_LIMITS), [*[0.52] * 1600, *[0.42] * 2400])  # 115/min and 143/min
    assert [finding.measured["rate_bpm"] for _, finding in found] == pytest.approx([115.4, 138.5], abs=0.2)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0.28, 1.5), min_size=20, max_size=200))
def test_an_episode_is_raised_exactly_where_the_mean_reaches_the_limit(pattern_s: list[float]) -> None:
    intervals_s = (pattern_s * 200)[:2400]
    mean_bpm = 60.0 / float(np.mean(pattern_s))
    found = feed(MeanRateRule(DEFAULT_LIMITS), intervals_s)
    if sum(intervals_s) > 700 and not 105 <= mean_bpm <= 115:
        assert bool(found) is (mean_bpm > 110)


def test_short_gaps_do_not_end_it_and_a_long_one_is_a_loss() -> None:
    rule = MeanRateRule(DEFAULT_LIMITS)
    assert len(feed(rule, [0.5] * 1200)) == 1
    assert list(rule.on_gap(600.0, 30.0)) == []
    (lost,) = rule.on_gap(630.0, inf)
    assert (lost.end_s, lost.lost) == (630.0, True)


def test_a_limit_of_the_patient_stays() -> None:
    assert limits_in(DEFAULT_LIMITS, NO_CONTEXTS) == DEFAULT_LIMITS
    known = limits_in(DEFAULT_LIMITS, KNOWN_AF)
    assert (known.pause.value, known.short_pause.value, known.tachycardia_rate.value) == (5.0, 3.0, 200)
    own = limits_in(DEFAULT_LIMITS.with_values({"pause": 4.0, "tachycardia_rate": 150}), KNOWN_AF)
    assert (own.pause.value, own.short_pause.value, own.tachycardia_rate.value) == (4.0, 2.0, 150)
    assert limits_in(DEFAULT_LIMITS.with_values({"asystole": 4.0}), KNOWN_AF).pause.value == 4.0


@pytest.mark.parametrize(("contexts", "kinds"), [(NO_CONTEXTS, {"af", "pause"}), (KNOWN_AF, {"known_af", "short_pause"})])
def test_permanent_af_with_pauses_of_3_3_s(contexts: Contexts, kinds: set[str]) -> None:
    random = np.random.default_rng(5)
    intervals_s = np.clip(random.normal(0.72, 0.17, 420), 0.35, 1.3)
    intervals_s[40::50] = 3.3
    beats_s = np.cumsum(intervals_s)
    mv = ecg_mv(beats_s.tolist(), float(beats_s[-1]) + 1, RATE_HZ, p_wave=False)
    analysis = EcgAnalysis(RATE_HZ, DEFAULT_LIMITS, load_models(), contexts)
    findings = [finding for step in (analysis.push(mv), analysis.finish()) for finding in step.findings]
    conclusive = {finding.kind for finding in findings if not finding.inconclusive}
    assert conclusive & {"af", "known_af", "pause", "short_pause", "tachycardia", "asystole"} == kinds
