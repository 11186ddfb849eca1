"""Fast rhythms of a patient whose wide complexes are known from slower rhythm, with the released models."""

import json
from typing import Any

import numpy as np
import pytest

from config.limits import DEFAULT_LIMITS
from gateway.models import LoadedModels, load_models
from models.analysis import EcgAnalysis
from tests.signal.rhythms import Samples, draw, regular

RATE_HZ = 250.0
SECONDS = 25.0
SHAPES = ("notched", "ventricular_qs")
"""A left bundle branch block in two leads."""
DANGEROUS = {"vt", "vf", "asystole", "v_run"}


@pytest.fixture(scope="module")
def models() -> LoadedModels:
    return load_models()


def kinds(analysis: EcgAnalysis, mv: Samples) -> list[str]:
    return [finding.kind for finding in analysis.push(mv).findings if finding.inconclusive is None]


@pytest.fixture(scope="module", params=SHAPES)
def learnt(request: pytest.FixtureRequest, models: LoadedModels) -> tuple[str, dict[str, Any]]:
    """A shape, and what a minute of slow rhythm of it leaves over a restart."""
    slow = EcgAnalysis(RATE_HZ, DEFAULT_LIMITS, models)
    rhythm = regular(request.param, 68, seconds=50, rate_hz=RATE_HZ, p_mv=0.1, t_share=0.15)
    assert not set(kinds(slow, rhythm.mv)) & DANGEROUS
    return request.param, json.loads(json.dumps(slow.state()))


def beats_s(*, is_irregular: bool) -> Samples:
    """Beats at 150/min, or those of atrial fibrillation at 130/min."""
    intervals_s = np.random.default_rng(7).gamma(8, 0.46 / 8, 100).clip(0.34) if is_irregular else np.full(100, 0.4)
    times_s: Samples = np.cumsum(intervals_s)
    return times_s[times_s < SECONDS - 0.3]


@pytest.mark.parametrize("is_irregular", [False, True], ids=["regular", "irregular"])
def test_a_fast_rhythm_of_a_known_wide_shape_is_not_ventricular_after_a_restart(
    learnt: tuple[str, dict[str, Any]], models: LoadedModels, is_irregular: bool
) -> None:
    shape, saved = learnt
    at_s = beats_s(is_irregular=is_irregular)
    fast = draw(shape, at_s, rr_s=0.4, seconds=SECONDS, rate_hz=RATE_HZ, t_share=0.15)
    analysis = EcgAnalysis(RATE_HZ, DEFAULT_LIMITS, models, saved=saved)
    assert not set(kinds(analysis, fast.mv)) & DANGEROUS


@pytest.mark.parametrize("hz", [2.5, 4.0])
def test_an_oscillation_that_resembles_the_known_shape_is_fibrillation(
    learnt: tuple[str, dict[str, Any]], models: LoadedModels, hz: float
) -> None:
    t = np.arange(round(15 * RATE_HZ)) / RATE_HZ
    wave = 0.5 * np.sin(2 * np.pi * hz * t) + np.random.default_rng(2).normal(0, 0.01, t.size)
    analysis = EcgAnalysis(RATE_HZ, DEFAULT_LIMITS, models, saved=learnt[1])
    assert "vf" in kinds(analysis, wave)


def test_another_wide_shape_is_a_tachycardia(learnt: tuple[str, dict[str, Any]], models: LoadedModels) -> None:
    shape, saved = learnt
    other = next(one for one in ("ventricular", "ventricular_qs") if one != shape)
    analysis = EcgAnalysis(RATE_HZ, DEFAULT_LIMITS, models, saved=saved)
    assert "vt" in kinds(analysis, regular(other, 160, seconds=12, rate_hz=RATE_HZ, seed=4).mv)
