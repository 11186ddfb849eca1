"""ECG analysis with episodes, missing samples and gaps in any order: nothing is raised, and each episode is told and ended."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from config.limits import DEFAULT_LIMITS
from gateway.models import load_models
from models.analysis import EcgAnalysis
from models.findings import Finding
from models.inference.models import Models

RATE_HZ = 130.0
NORMAL = ((0.11, -0.165, 0.022), (-0.10, -0.028, 0.008), (1.15, 0.0, 0.0105), (-0.22, 0.030, 0.010), (0.28, 0.26, 0.045))
VENTRICULAR = ((1.45, 0.0, 0.030), (-0.38, 0.085, 0.028), (-0.42, 0.19, 0.032))
"""Waves of a beat: mV, seconds from the R peak, width in seconds."""
Samples = NDArray[np.float64]


@pytest.fixture(scope="module")
def models() -> Models:
    loaded = load_models()
    assert not loaded.refused
    return loaded


def ecg(beats_s: list[float], waves: tuple[tuple[float, float, float], ...], seconds: float, seed: int = 3) -> Samples:
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    mv = np.random.default_rng(seed).normal(0, 0.01, t.size)
    for beat_s in beats_s:
        for height, after_s, width_s in waves:
            mv += height * np.exp(-(((t - beat_s - after_s) / width_s) ** 2) / 2)
    return mv


SINUS = ecg([0.5 + 0.85 * beat for beat in range(15)], NORMAL, 12.75)
EPISODES = {
    "vt": ecg([0.2 + 0.35 * beat for beat in range(6)], VENTRICULAR, 2.3),
    "pause": ecg([], NORMAL, 8.0),
    "sinus": SINUS,
}


def assert_told_and_ended(findings: list[Finding]) -> None:
    ongoing: set[tuple[str, float]] = set()
    for finding in findings:
        (ongoing.add if finding.end_s is None else ongoing.discard)(finding.episode)
        assert finding.end_s is None or finding.end_s >= finding.onset_s
    assert not ongoing


@pytest.mark.parametrize("away_s", [5.0, 11.0, 20.0, 60.0])
@pytest.mark.parametrize("as_nan", [False, True])
@pytest.mark.parametrize("kind", ["vt", "pause"])
def test_an_episode_at_a_lost_link_is_told_and_ended(kind: str, as_nan: bool, away_s: float, models: Models) -> None:
    analysis = EcgAnalysis(RATE_HZ, DEFAULT_LIMITS, models)
    parts = [np.tile(SINUS, 2), EPISODES[kind]]
    findings = [finding for part in parts for finding in analysis.push(part).findings]
    missing = np.full(round(away_s * RATE_HZ), np.nan)
    findings += (analysis.push(missing) if as_nan else analysis.gap(away_s)).findings
    findings += analysis.push(SINUS).findings
    assert kind in {finding.episode[0] for finding in findings if finding.end_s is not None}
    assert_told_and_ended([*findings, *analysis.finish().findings])


pieces = st.one_of(
    st.sampled_from(sorted(EPISODES)),
    st.tuples(st.just("gap"), st.one_of(st.floats(0, 2), st.floats(0, 120))),
    st.tuples(st.just("nan"), st.one_of(st.floats(0, 2), st.floats(0, 60))),
)


def analyse(parts: list[str | tuple[str, float]], chunk: int, models: Models) -> tuple[list[object], list[Finding]]:
    analysis, steps = EcgAnalysis(RATE_HZ, DEFAULT_LIMITS, models), []
    for part in parts:
        if isinstance(part, tuple) and part[0] == "gap":
            steps.append(analysis.gap(part[1]))
            continue
        mv = EPISODES[part] if isinstance(part, str) else np.full(round(part[1] * RATE_HZ), np.nan)
        steps += [analysis.push(mv[start : start + chunk]) for start in range(0, mv.size, chunk)]
    steps.append(analysis.finish())
    return [beat for step in steps for beat in step.beats], [finding for step in steps for finding in step.findings]


@settings(max_examples=20, deadline=None)
@given(parts=st.lists(pieces, min_size=2, max_size=8), chunk=st.integers(10, 400))
def test_missing_samples_and_gaps_in_any_order_raise_nothing(
    parts: list[str | tuple[str, float]], chunk: int, models: Models
) -> None:
    beats, findings = analyse(parts, chunk, models)
    assert_told_and_ended(findings)
    assert repr(analyse(parts, 10**6, models)) == repr((beats, findings))
