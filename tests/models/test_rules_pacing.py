"""Pacing spikes that the sampling rate cannot show are stated once a stream."""

import pytest

from config.contexts import NO_CONTEXTS, Contexts
from config.limits import DEFAULT_LIMITS
from models.analysis import EcgAnalysis
from models.findings import Finding
from models.inference.models import Models
from tests.models.known_beats import NORMAL, ecg, rhythm

PACED = Contexts(paced=True)


def pacing_findings(rate_hz: float, contexts: Contexts) -> list[Finding]:
    analysis = EcgAnalysis(rate_hz, DEFAULT_LIMITS, Models(), contexts)
    mv = ecg(rhythm(NORMAL, 70, 20), 20, rate_hz)
    steps = [*(analysis.push(mv[i : i + 100]) for i in range(0, mv.size, 100)), analysis.gap(2.0), analysis.push(mv)]
    findings = [finding for step in [*steps, analysis.finish()] for finding in step.findings]
    return [finding for finding in findings if finding.kind == "pacing_not_visible"]


@pytest.mark.parametrize("rate_hz", [125.0, 130.0, 200.0])
def test_a_paced_patients_stream_says_that_spikes_are_not_visible(rate_hz: float) -> None:
    began, ended = pacing_findings(rate_hz, PACED)
    assert (began.onset_s, began.end_s) == (0.0, None)
    assert (ended.onset_s, ended.end_s) == (0.0, pytest.approx(42.0, abs=0.1))
    assert began.measured == {"rate_hz": rate_hz, "limit_hz": 250.0}


@pytest.mark.parametrize(("rate_hz", "contexts"), [(250.0, PACED), (500.0, PACED), (130.0, NO_CONTEXTS)])
def test_a_faster_stream_or_another_patients_says_nothing(rate_hz: float, contexts: Contexts) -> None:
    assert pacing_findings(rate_hz, contexts) == []
