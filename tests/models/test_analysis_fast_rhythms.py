"""Fast regular rhythms through the whole analysis: a narrow one is a tachycardia up to 300/min, and nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.limits import DEFAULT_LIMITS
from gateway.models import load_models
from models.analysis import EcgAnalysis
from tests.signal.rhythms import Rhythm, draw, join, regular

MODELS = load_models()
ALERT_KINDS = {
    "vt",
    "vf",
    "v_run",
    "bigeminy",
    "trigeminy",
    "pause",
    "asystole",
    "bradycardia",
    "tachycardia",
    "no_signal",
    "af",
}
NARROW = ("narrow", "inverted", "biphasic")
CHUNK_S = 0.5


def kinds(rhythm: Rhythm) -> dict[str, float]:
    """Return the kinds of alerting findings, with the stream time at which each was first reported."""
    analysis, size = EcgAnalysis(rhythm.rate_hz, DEFAULT_LIMITS, MODELS), round(CHUNK_S * rhythm.rate_hz)
    found: dict[str, float] = {}
    for start in range(0, rhythm.mv.size, size):
        for finding in analysis.push(rhythm.mv[start : start + size]).findings:
            if finding.kind in ALERT_KINDS and finding.inconclusive is None:
                found.setdefault(finding.kind, analysis.end_s)
    return found


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    shape=st.sampled_from(NARROW),
    per_minute=st.integers(200, 300),
    amplitude_mv=st.sampled_from([0.4, 1.0, 3.0]),
    rate_hz=st.sampled_from([125.0, 130.0, 200.0, 250.0, 500.0]),
    t_share=st.sampled_from([0.1, 0.25, 0.4]),
)
def test_a_narrow_rhythm_of_200_to_300_per_minute_is_a_tachycardia_and_nothing_else(
    shape: str, per_minute: int, amplitude_mv: float, rate_hz: float, t_share: float
) -> None:
    rhythm = regular(shape, per_minute, seconds=16.0, rate_hz=rate_hz, amplitude_mv=amplitude_mv, t_share=t_share)
    assert set(kinds(rhythm)) == {"tachycardia"}


@pytest.mark.parametrize(("shape", "per_minute"), [("qs", 240), ("qs", 270), ("biphasic", 286), ("biphasic", 299)])
def test_shapes_that_the_network_calls_dangerous_are_a_tachycardia_if_they_are_narrow(shape: str, per_minute: int) -> None:
    assert set(kinds(regular(shape, per_minute, seconds=16.0, rate_hz=250.0, t_share=0.4))) == {"tachycardia"}


@pytest.mark.parametrize(
    ("shape", "per_minute"), [("ventricular", 130), ("notched", 160), ("triangle", 200), ("ventricular_qs", 215)]
)
def test_a_wide_rhythm_remains_a_ventricular_tachycardia(shape: str, per_minute: int) -> None:
    found = kinds(regular(shape, per_minute, seconds=16.0, rate_hz=250.0))
    assert set(found) == {"vt"}
    assert found["vt"] <= 10.0


def test_a_regular_notched_rhythm_is_no_bigeminy() -> None:
    assert kinds(regular("notched", 102, seconds=24.0, rate_hz=250.0, amplitude_mv=0.8, t_share=0.4, seed=5)) == {}


def test_a_ventricular_tachycardia_after_a_narrow_one_is_reported_within_10_s() -> None:
    narrow = regular("narrow", 200, seconds=30.0, rate_hz=250.0)
    wide = draw("ventricular", np.arange(0.3, 19.9, 60 / 180), rr_s=60 / 180, seconds=20.0, rate_hz=250.0)
    found = kinds(join(narrow, wide))
    assert set(found) == {"tachycardia", "vt"}
    assert 30.0 < found["vt"] <= 40.0
