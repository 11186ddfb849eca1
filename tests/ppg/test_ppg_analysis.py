"""PPG analysis: streaming equals batch, bad signal is reported and interrupts intervals, irregular pulses are found."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from config.limits import DEFAULT_LIMITS
from models.findings import INCONCLUSIVE, Finding
from models.inference.rr_af import MIN_VALID, WINDOW_INTERVALS
from models.ppg_analysis import AnalysedPulse, PpgAnalysis

Samples = NDArray[np.float64]
Synthesise = Callable[..., tuple[Samples, Samples]]


class SpreadQualityModel:
    """A quality model that classifies a window as bad if its spread exceeds ten."""

    name, version, threshold = "steady", "7", 0.5

    def probability(self, ppg: Samples) -> float:
        return 0.0 if np.nanmax(ppg) - np.nanmin(ppg) > 10 else 1.0


class VariationRhythmModel:
    """A rhythm model that reports AF if intervals vary by more than a tenth."""

    name, version, window, min_valid, on_threshold, off_threshold = "uneven", "3", WINDOW_INTERVALS, MIN_VALID, 0.9, 0.5

    def is_conclusive(self, rr_s: Samples, valid: NDArray[np.bool_]) -> bool:
        return int(valid.sum()) >= MIN_VALID

    def probability(self, rr_s: Samples, valid: NDArray[np.bool_]) -> float:
        known = rr_s[valid]
        return 1.0 if known.std() > 0.1 * known.mean() else 0.0


def run(
    ppg: Samples, sizes: Sequence[int] = (10**6,), rate_hz: float = 50.0
) -> tuple[list[AnalysedPulse], list[Finding], list[bool]]:
    analysis, at, turn = PpgAnalysis(rate_hz, DEFAULT_LIMITS, VariationRhythmModel(), SpreadQualityModel()), 0, 0
    steps = []
    while at < ppg.size:
        size = sizes[turn % len(sizes)]
        steps.append(analysis.push(ppg[at : at + size]))
        at, turn = at + size, turn + 1
    steps.append(analysis.finish())
    return (
        [pulse for step in steps for pulse in step.pulses],
        [finding for step in steps for finding in step.findings],
        [good for step in steps for good in step.good],
    )


@pytest.fixture(scope="module")
def disturbed_ppg(synthesise: Synthesise) -> Samples:
    """A PPG with a regular and an irregular pulse, an artefact, a gap and a stretch of noise."""
    rng = np.random.default_rng(6)
    ppg, _ = synthesise(np.concatenate((np.full(30, 0.8), rng.uniform(0.45, 1.3, 90), np.full(80, 0.8))), noise=0.02)
    ppg[1000:1100] += 50 * rng.normal(size=100)
    ppg[2500:2530] = np.nan
    ppg[6000:10000] += 30 * rng.normal(size=4000)[: ppg[6000:10000].size]
    return ppg


@settings(max_examples=12, deadline=None)
@given(sizes=st.lists(st.sampled_from([1, 17, 50, 73, 999]), min_size=1, max_size=4).filter(lambda sizes: max(sizes) > 1))
def test_output_is_byte_identical_for_any_chunk_sizes(sizes: list[int], disturbed_ppg: Samples) -> None:
    assert repr(run(disturbed_ppg, sizes)) == repr(run(disturbed_ppg))


@pytest.mark.parametrize("rate_hz", [25.0, 128.0, 256.0, 500.0, 1000.0])
def test_output_is_byte_identical_at_other_rates_and_chunk_sizes(rate_hz: float, synthesise: Synthesise) -> None:
    ppg, _ = synthesise(np.random.default_rng(7).uniform(0.5, 1.2, 16), rate_hz, noise=0.02)
    whole = repr(run(ppg, rate_hz=rate_hz))
    for size in (1, 17, 73, int(rate_hz)):
        assert repr(run(ppg, [size], rate_hz)) == whole


def test_pp_intervals_lie_between_pulses_in_good_signal(disturbed_ppg: Samples) -> None:
    pulses, _, good = run(disturbed_ppg)
    for before, pulse in zip([None, *pulses], pulses, strict=False):
        assert pulse.good == good[int(pulse.t_s)]
        if pulse.pp_s is not None:
            assert before is not None
            assert before.good
            assert pulse.good
            assert not pulse.after_gap
            assert pulse.pp_s == pulse.t_s - before.t_s
    assert not any(good[18:24])
    assert sum(pulse.pp_s is None for pulse in pulses) > 3


def test_reports_an_irregular_pulse_but_not_af(synthesise: Synthesise) -> None:
    regular = np.full(70, 0.8)
    ppg, _ = synthesise(np.concatenate((regular, np.random.default_rng(8).uniform(0.45, 1.3, 200), regular, regular)))
    _, findings, _ = run(ppg)
    found = [finding for finding in findings if finding.kind == "irregular_pulse"]
    assert [finding.measured.get("maybe_ended") for finding in found] == [None, 1.0, None]
    assert found[0].source == "uneven@3"
    assert found[0].onset_s == pytest.approx(56, abs=30)
    assert found[2].end_s == pytest.approx(231, abs=30)
    assert "af" not in {finding.kind for finding in findings}


def test_reports_nothing_for_a_regular_pulse(synthesise: Synthesise) -> None:
    ppg, _ = synthesise(np.full(150, 0.8), noise=0.02)
    pulses, findings, good = run(ppg)
    assert findings == []
    assert all(good)
    assert len(pulses) == 151


@pytest.mark.parametrize(("interval_s", "kind"), [(0.42, "tachycardia"), (1.6, "bradycardia")])
def test_reports_a_sustained_fast_or_slow_pulse(interval_s: float, kind: str, synthesise: Synthesise) -> None:
    ppg, _ = synthesise(np.full(round(60 / interval_s), interval_s))
    _, findings, _ = run(ppg)
    assert {finding.kind for finding in findings} == {kind}
    assert findings[0].measured["rate_bpm"] == pytest.approx(60 / interval_s, abs=2)


@pytest.mark.parametrize("defect", ["noise", "gaps", "lead_off"])
def test_reports_a_minute_of_bad_signal_as_inconclusive_with_its_reason(defect: str, synthesise: Synthesise) -> None:
    ppg, _ = synthesise(np.full(200, 0.8))
    bad = slice(1500, 6000)
    match defect:
        case "noise":
            ppg[bad] += 100 * np.random.default_rng(9).normal(size=4500)
        case "gaps":
            ppg[bad] = np.nan
        case _:
            ppg[bad] = 0.25
    _, findings, _ = run(ppg)
    started, ended = (finding for finding in findings if finding.kind == "ppg_inconclusive")
    assert started.inconclusive == ended.inconclusive == defect
    assert defect in INCONCLUSIVE
    assert started.onset_s == ended.onset_s == pytest.approx(30, abs=6)
    assert started.end_s is None
    assert ended.end_s == pytest.approx(120, abs=6)
    assert started.source == "steady@7"


def test_does_not_report_half_a_minute_of_bad_signal(synthesise: Synthesise) -> None:
    ppg, _ = synthesise(np.full(150, 0.8))
    ppg[2000:3500] += 100 * np.random.default_rng(10).normal(size=1500)
    assert run(ppg)[1] == []


def test_no_pp_interval_spans_an_explicit_gap(synthesise: Synthesise) -> None:
    ppg, rises_s = synthesise(np.full(30, 0.8))
    analysis = PpgAnalysis(50.0, DEFAULT_LIMITS, VariationRhythmModel(), SpreadQualityModel())
    steps = [analysis.push(ppg), analysis.gap(120.0), analysis.push(ppg), analysis.finish()]
    pulses = [pulse for step in steps for pulse in step.pulses]
    assert len(pulses) == 2 * rises_s.size
    assert [round(pulse.t_s) for pulse in pulses if pulse.pp_s is None] == [1, round(ppg.size / 50 + 120 + 0.6)]
    kinds = [finding.inconclusive for step in steps for finding in step.findings]
    assert kinds == ["gaps", "gaps"]


def test_detects_pulses_and_rates_without_models(synthesise: Synthesise) -> None:
    ppg, rises_s = synthesise(np.full(100, 0.42))
    analysis = PpgAnalysis(50.0, DEFAULT_LIMITS)
    steps = [analysis.push(ppg), analysis.finish()]
    assert sum(len(step.pulses) for step in steps) == rises_s.size
    assert {finding.kind for step in steps for finding in step.findings} == {"tachycardia"}


def test_accepts_a_stream_without_samples() -> None:
    analysis = PpgAnalysis(50.0, DEFAULT_LIMITS, VariationRhythmModel(), SpreadQualityModel())
    assert analysis.push(np.empty(0)).pulses == ()
    assert analysis.gap(0.0).findings == ()
    assert analysis.finish().good == ()
