"""Streaming equals batch for the whole analysis, and a simulated patient's episodes are found."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from config.limits import DEFAULT_LIMITS
from gateway.simulate.physiology import render
from gateway.simulate.script import load_script
from models.analysis import EcgAnalysis, Step
from models.inference.rr_af import RrAf

RATE_HZ = 130.0


@pytest.fixture(scope="module")
def rhythm() -> RrAf:
    return RrAf.load_release()


@pytest.fixture(scope="module")
def mv() -> NDArray[np.float64]:
    script = load_script("demo")
    return render(script, script.seed, RATE_HZ).mv[: int(100 * RATE_HZ)]


def analysed(mv: NDArray[np.float64], chunks: list[int], rhythm: RrAf) -> list[Step]:
    analysis, at, steps = EcgAnalysis(RATE_HZ, DEFAULT_LIMITS, rhythm), 0, []
    while at < len(mv):
        size = chunks[len(steps) % len(chunks)]
        steps.append(analysis.push(mv[at : at + size]))
        at += size
    return [*steps, analysis.finish()]


@settings(max_examples=8, deadline=None)
@given(chunks=st.lists(st.sampled_from([1, 17, 73, 130, 999]), min_size=1, max_size=4).filter(lambda sizes: max(sizes) > 1))
def test_any_chunking_gives_the_same_beats_and_episodes(chunks: list[int], mv: NDArray[np.float64], rhythm: RrAf) -> None:
    whole = analysed(mv[: int(60 * RATE_HZ)], [10**6], rhythm)
    parts = analysed(mv[: int(60 * RATE_HZ)], chunks, rhythm)
    assert [beat for step in parts for beat in step.beats] == [beat for step in whole for beat in step.beats]
    onsets = [[(f.kind, f.onset_s, f.end_s) for step in steps for f in step.findings] for steps in (parts, whole)]
    assert onsets[0] == onsets[1]


def test_a_gap_joins_no_interval(mv: NDArray[np.float64], rhythm: RrAf) -> None:
    analysis = EcgAnalysis(RATE_HZ, DEFAULT_LIMITS, rhythm)
    sinus = mv[int(84 * RATE_HZ) : int(96 * RATE_HZ)]
    before = analysis.push(sinus)
    at_gap = analysis.gap(10.0)
    after = analysis.push(sinus)
    assert [finding.kind for step in (before, at_gap, after) for finding in step.findings] == []
    assert after.beats[0].after_gap
    assert after.beats[0].t_s > 22.0


def test_a_flat_line_is_no_pause(mv: NDArray[np.float64], rhythm: RrAf) -> None:
    analysis = EcgAnalysis(RATE_HZ, DEFAULT_LIMITS, rhythm)
    analysis.push(mv[int(84 * RATE_HZ) : int(96 * RATE_HZ)])
    assert analysis.push(np.zeros(int(10 * RATE_HZ))).findings == ()
