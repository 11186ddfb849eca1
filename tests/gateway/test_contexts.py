"""What is known of a patient's heart reaches the analysis of the ECG, in the agent and in a replay."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config.contexts import NO_CONTEXTS, Contexts
from config.limits import DEFAULT_LIMITS
from drivers.readings import Waveform
from gateway import waveform_analysis
from gateway.arguments import build_parser
from gateway.models import LoadedModels
from gateway.pipeline import Pipeline
from gateway.replay.run import replay
from gateway.timeline import Arrival
from models.analysis import EcgAnalysis

START_US = 1_800_000_000_000_000
CONTEXTS = Contexts(paced=True, age_years=71)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[Contexts]:
    """The contexts of each analysis that begins."""
    found: list[Contexts] = []

    class Noting(EcgAnalysis):
        def __init__(self, rate_hz: float, limits: Any, models: Any, contexts: Contexts, saved: Any) -> None:
            found.append(contexts)
            super().__init__(rate_hz, limits, models, contexts, saved)

    monkeypatch.setattr(waveform_analysis, "EcgAnalysis", Noting)
    return found


def feed(pipeline: Pipeline, rate_hz: float, at_s: int = 0) -> None:
    wave = Waveform("ecg", tuple(np.resize([0, 0, 0, 1000, -200, 0], 130).tolist()), rate_hz, 0.001, 10**15 + at_s * 10**9)
    pipeline.feed((wave,), Arrival(START_US + at_s * 10**6, (at_s + 1) * 10**9))


def test_every_analysis_of_a_sensor_has_the_contexts(used: list[Contexts]) -> None:
    pipeline = Pipeline("strap", DEFAULT_LIMITS, LoadedModels(), contexts=CONTEXTS)
    feed(pipeline, 130.0)
    feed(pipeline, 250.0, 10)  # another rate begins another analysis
    feed(pipeline.restarted(pipeline.state()), 130.0, 20)  # and so does an analysis that failed
    assert used == [CONTEXTS] * 3
    feed(Pipeline("strap", DEFAULT_LIMITS, LoadedModels()), 130.0)
    assert used[-1] == NO_CONTEXTS


def test_a_replay_has_the_contexts_of_its_options(
    used: list[Contexts], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "ecg.csv"
    table.write_text("ecg [mV]\n" + "\n".join(f"{value:.3f}" for value in np.resize([0, 0, 0, 1.0, -0.2, 0], 600)))
    arguments = ["replay", str(table), "--rate", "130", "--json"]
    assert replay(build_parser().parse_args([*arguments, "--context", "paced", "--context", "age_years=71"])) == 0
    assert replay(build_parser().parse_args(arguments)) == 0
    assert used == [CONTEXTS, NO_CONTEXTS]
    assert all(json.loads(line) for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("word", ["pacer", "paced=1", "paced=no", "age_years", "age_years=131", "age_years=-1"])
def test_a_replay_refuses_an_unknown_context(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay(build_parser().parse_args(["replay", "none.csv", "--context", word])) == 2
    assert f"--context: {'unknown setting ' if word == 'pacer' else ''}contexts." in capsys.readouterr().err
