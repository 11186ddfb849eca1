"""A wide, regular and fast rhythm is a tachycardia of unknown origin, unless its shape is known to be conducted."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.limits import DEFAULT_LIMITS
from models.inference.ecg_beat import SAMPLES_BEFORE_R, WAVE_SAMPLES, EcgBeat
from models.inference.release import RELEASE_DIR
from models.rules.wide_rhythm import WideRhythmDetector
from tests.models.known_beats import (
    BUNDLE_BRANCH_BLOCK,
    NORMAL,
    TRIANGLE,
    VENTRICULAR,
    Heard,
    Waves,
    label,
    rhythm,
)

MODELS = (None, EcgBeat((RELEASE_DIR / "ecg_beat.onnx").read_bytes()))
by_model = pytest.mark.parametrize("model", MODELS, ids=["without a model", "with the model"])


def kinds(heard: Heard) -> set[str]:
    return {finding.kind for _, finding in heard.findings}


@by_model
@pytest.mark.parametrize("bpm", [120, 130, 160, 200, 220])
@pytest.mark.parametrize("waves", [VENTRICULAR, TRIANGLE, BUNDLE_BRANCH_BLOCK], ids=["120 ms", "160 ms", "block"])
def test_a_wide_fast_rhythm_from_the_start_is_a_tachycardia_within_10_s(waves: Waves, bpm: int, model: EcgBeat | None) -> None:
    heard = label(rhythm(waves, bpm, 25), model)
    seen_s, raised = heard.findings[0]
    assert seen_s <= 9.0
    assert (raised.kind, raised.end_s, raised.measured["origin_unknown"]) == ("vt", None, 1.0)
    assert raised.onset_s < 1.0
    assert raised.measured["beats"] >= DEFAULT_LIMITS.vt_high_beats.value
    assert raised.measured["rate_bpm"] == pytest.approx(bpm, rel=0.02)
    assert {beat.label for beat in heard.beats if beat.t_s > 9.0} == {"V"}
    assert [finding.end_s is None for _, finding in heard.findings] == [True, False], "one episode"


@by_model
@pytest.mark.parametrize(("waves", "bpm"), [(NORMAL, 130), (NORMAL, 200), (NORMAL, 300), (BUNDLE_BRANCH_BLOCK, 100)])
def test_a_narrow_or_slow_rhythm_is_not(waves: Waves, bpm: int, model: EcgBeat | None) -> None:
    assert label(rhythm(waves, bpm, 25), model).findings == []


@by_model
def test_the_shape_of_the_slower_sinus_rhythm_is_conducted_also_after_a_restart(model: EcgBeat | None) -> None:
    slow = rhythm(BUNDLE_BRANCH_BLOCK, 75, 60)
    fast = rhythm(BUNDLE_BRANCH_BLOCK, 140, 25, start_s=slow[-1][0] + 0.6)
    heard = label([*slow, *fast], model)
    assert heard.findings == []
    restarted = json.loads(json.dumps(heard.conducted_mv))
    assert label(rhythm(BUNDLE_BRANCH_BLOCK, 140, 25), model, restarted).findings == []
    assert kinds(label(rhythm(VENTRICULAR, 160, 25), model, restarted)) == {"vt"}


@by_model
def test_twenty_seconds_of_a_slower_rhythm_are_too_short_to_know_its_shape(model: EcgBeat | None) -> None:
    assert label(rhythm(BUNDLE_BRANCH_BLOCK, 75, 20), model).conducted_mv == []
    assert len(label(rhythm(BUNDLE_BRANCH_BLOCK, 75, 40), model).conducted_mv) == 1


def test_a_slow_ventricular_rhythm_that_follows_sinus_rhythm_is_not_learnt_as_conducted() -> None:
    model = MODELS[1]
    slow = rhythm(NORMAL, 70, 60)
    heard = label([*slow, *rhythm(VENTRICULAR, 85, 60, start_s=slow[-1][0] + 0.7)], model)
    assert len(heard.conducted_mv) == 1


def test_an_irregular_wide_rhythm_is_not_recognised() -> None:
    irregular = [(0.3 + 0.4 * i + 0.07 * (i * 7 % 5 - 2), VENTRICULAR) for i in range(60)]
    assert label(irregular, None).findings == []


@pytest.mark.parametrize("in_af", [False, True])
def test_a_wide_rhythm_in_atrial_fibrillation_is_left_to_the_labels(in_af: bool) -> None:
    detector, t = WideRhythmDetector(DEFAULT_LIMITS), np.arange(WAVE_SAMPLES) / 125.0
    wave_mv = 1.5 * np.exp(-(((t - SAMPLES_BEFORE_R / 125.0) / 0.04) ** 2) / 2)
    found = [detector.on_beat(0.375 * i, 0.375 if i else None, wave_mv, "N", in_af=in_af) for i in range(20)]
    assert any(found) is not in_af


@settings(deadline=None, max_examples=10)
@given(bpm=st.integers(122, 220), rate_hz=st.sampled_from([125.0, 130.0, 250.0, 500.0]))
def test_any_wide_rhythm_is_recognised_at_any_rate(bpm: int, rate_hz: float) -> None:
    assert kinds(label(rhythm(TRIANGLE, bpm, 12), None, rate_hz=rate_hz)) == {"vt"}
    assert label(rhythm(NORMAL, bpm, 12), None, rate_hz=rate_hz).findings == []
