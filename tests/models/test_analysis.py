"""ECG analysis with all models: streaming equals batch, and the episodes of a simulated patient are found."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from config.limits import DEFAULT_LIMITS
from gateway.models import load_models
from gateway.simulate.physiology import render_ecg
from gateway.simulate.script import load_script
from models.analysis import EcgAnalysis, EcgStep
from models.inference.models import Models
from models.signal.chain import EcgChain

RATE_HZ = 130.0
RATES_HZ = (128, 130, 250, 256, 300, 360, 500)
Samples = NDArray[np.float64]


@pytest.fixture(scope="module")
def models() -> Models:
    loaded = load_models()
    assert not loaded.refused
    return loaded


@pytest.fixture(scope="module")
def mv() -> Samples:
    return simulate(RATE_HZ)


def simulate(rate_hz: float, seconds: float = 100.0) -> Samples:
    script = load_script("demo")
    return render_ecg(script, script.seed, rate_hz).mv[: int(seconds * rate_hz)]


def disturb(mv: Samples, rate_hz: float) -> Samples:
    """Add lost packets, a flat stretch, a stretch of noise and a run of ventricular beats."""
    out = mv + np.random.default_rng(3).normal(0, 0.01, mv.size)
    second = int(rate_hz)
    out[20 * second : 21 * second + 7] = np.nan
    out[26 * second : 29 * second] = 0.0
    out[70 * second : 78 * second] += np.random.default_rng(4).normal(0, 0.4, 8 * second)
    width = int(0.16 * rate_hz)
    for beat in range(5):
        start = 86 * second + int(0.4 * beat * rate_hz)
        out[start : start + width] += 2.0 * np.hanning(width)
    return out


def split(mv: Samples, sizes: list[int]) -> Iterator[Samples]:
    at = turn = 0
    while at < len(mv):
        size = sizes[turn % len(sizes)]
        yield mv[at : at + size]
        at, turn = at + size, turn + 1


def analyse(mv: Samples, sizes: list[int], models: Models, rate_hz: float = RATE_HZ) -> list[EcgStep]:
    analysis = EcgAnalysis(rate_hz, DEFAULT_LIMITS, models)
    steps = [analysis.push(chunk) for chunk in split(mv, sizes)]
    return [*steps, analysis.gap(3.0), *(analysis.push(chunk) for chunk in split(mv[:1000], sizes)), analysis.finish()]


def beats_and_findings(steps: list[EcgStep]) -> tuple[list[object], list[object]]:
    return [beat for step in steps for beat in step.beats], [finding for step in steps for finding in step.findings]


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_output_is_byte_identical_for_any_chunk_size(rate_hz: int, models: Models) -> None:
    mv = disturb(simulate(rate_hz), rate_hz)
    beats, findings = beats_and_findings(analyse(mv, [10**6], models, rate_hz))
    assert len(beats) > 100
    assert {"af", "tachycardia"} <= {finding.kind for finding in findings}
    for size in (1, 17, 73, rate_hz):
        assert repr(beats_and_findings(analyse(mv, [size], models, rate_hz))) == repr((beats, findings))


@settings(max_examples=5, deadline=None)
@given(sizes=st.lists(st.integers(1, 999), min_size=2, max_size=4))
def test_output_is_byte_identical_for_irregular_chunks(sizes: list[int], mv: Samples, models: Models) -> None:
    whole = beats_and_findings(analyse(disturb(mv, RATE_HZ), [10**6], models))
    assert repr(beats_and_findings(analyse(disturb(mv, RATE_HZ), sizes, models))) == repr(whole)


def test_rules_work_without_models(mv: Samples) -> None:
    beats, findings = beats_and_findings(analyse(mv, [73], Models()))
    assert {beat.label for beat in beats} == {"N"}
    assert "af" not in {finding.kind for finding in findings}
    assert "tachycardia" in {finding.kind for finding in findings}


def test_no_rr_interval_spans_a_gap(mv: Samples, models: Models) -> None:
    analysis = EcgAnalysis(RATE_HZ, DEFAULT_LIMITS, models)
    sinus = mv[int(84 * RATE_HZ) : int(96 * RATE_HZ)]
    steps = [analysis.push(sinus), analysis.gap(10.0), analysis.push(sinus), analysis.finish()]
    assert {finding.kind for finding in beats_and_findings(steps)[1]} == {"rhythm_normal"}  # of each short stretch
    after = [beat for step in steps[2:] for beat in step.beats]
    assert after[0].after_gap
    assert after[0].t_s > 22.0


def test_a_flat_line_is_not_a_pause(mv: Samples, models: Models) -> None:
    analysis = EcgAnalysis(RATE_HZ, DEFAULT_LIMITS, models)
    analysis.push(mv[int(84 * RATE_HZ) : int(96 * RATE_HZ)])
    assert [f.kind for f in analysis.push(np.zeros(int(10 * RATE_HZ))).findings if f.inconclusive is None] == []


def test_reports_a_loose_electrode_as_inconclusive_with_its_reason(mv: Samples, models: Models) -> None:
    analysis = EcgAnalysis(RATE_HZ, DEFAULT_LIMITS, models)
    off = np.zeros(int(90 * RATE_HZ))
    findings = [*analysis.push(mv[: int(20 * RATE_HZ)]).findings, *analysis.push(off).findings, *analysis.finish().findings]
    (started, ended) = [finding for finding in findings if finding.kind == "ecg_quality"]
    assert started.inconclusive == ended.inconclusive == "lead_off"
    assert (started.onset_s, started.end_s) == (ended.onset_s, None)
    assert started.onset_s < 30
    assert (ended.end_s or 0) > 80
    assert not [finding for finding in findings if finding.kind in ("pause", "short_pause")]


def test_labels_exactly_the_beats_of_the_chain(mv: Samples, models: Models) -> None:
    chain = EcgChain(RATE_HZ, models.ecg_qrs)
    expected = [beat.t_s for beat in (*chain.push(mv), *chain.finish())]
    analysis = EcgAnalysis(RATE_HZ, DEFAULT_LIMITS, models)
    beats = [*analysis.push(mv).beats, *analysis.finish().beats]
    assert [beat.t_s for beat in beats] == expected
