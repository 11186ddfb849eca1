"""Pulse waves (PPG) and RR intervals in `pulsegate replay`: the pulses agree with the heart beats of the reference."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from captures import Recording, RrRecording
from captures.ppg import read_ppg
from captures.recording import split_chunks
from config.limits import DEFAULT_LIMITS
from evaluation.pulse_reference import align_beats
from gateway.models import load_models
from gateway.replay import sources
from models.ppg_analysis import PpgAnalysis
from tests.conftest import Synthesise

Open = Callable[[Recording | RrRecording], Path]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Open:
    """Makes the recording the content of a file; returns the name of the file."""

    def open_(recording: Recording | RrRecording) -> Path:
        monkeypatch.setattr(sources, "open_file", lambda _path, _options: recording)
        return Path("made.csv")

    return open_


def pulse_wave(ppg: NDArray[np.float64], rate_hz: float) -> Recording:
    return Recording("made", rate_hz, None, (), lambda: split_chunks(None, ppg, rate_hz), "ppg")


def pulse_times(result: Any) -> NDArray[np.float64]:
    return np.array([line["t"] for line in result.of("beat")])


@pytest.mark.parametrize("name", ["subject_02", "subject_05", "subject_16"])
def test_the_pulses_of_a_camera_follow_the_beats_of_a_chest_strap(run: Any, opened: Open, data: Path, name: str) -> None:
    recorded = read_ppg(data / "welltory-ppg" / name / "PPG.csv")
    result = run(opened(pulse_wave(recorded.ppg, recorded.rate_hz)))
    assert (result.status, result.errors) == (0, [])
    found = pulse_times(result)
    expected = align_beats(recorded.beats_s, found, recorded.same_clock)
    both = found[(found >= expected[0] - 0.15) & (found <= expected[-1] + 0.15)]
    assert both.size > 0.75 * expected.size
    assert np.mean(np.abs(expected[:, None] - both[None, :]).min(axis=0) <= 0.15) >= 0.98, "the window of ANSI/AAMI EC57"
    assert result.summary["mean_rate"] == pytest.approx(60 / np.diff(recorded.beats_s).mean(), rel=0.02)


def test_the_pulses_are_those_that_the_evaluation_scores(run: Any, opened: Open, data: Path) -> None:
    recorded = read_ppg(data / "welltory-ppg" / "subject_10" / "PPG.csv")
    models = load_models()
    analysis = PpgAnalysis(recorded.rate_hz, DEFAULT_LIMITS, models.rr_af, models.ppg_quality)
    steps = (analysis.push(recorded.ppg), analysis.finish())
    good = [pulse.t_s for step in steps for pulse in step.pulses if pulse.good]
    found = pulse_times(run(opened(pulse_wave(recorded.ppg, recorded.rate_hz))))
    assert found == pytest.approx(np.array(good), abs=1e-3)


def test_a_pulse_wave_is_called_one(run: Any, opened: Open, data: Path) -> None:
    recorded = read_ppg(data / "bidmc01" / "bidmc_01_Signals.csv.gz")
    result = run(opened(pulse_wave(recorded.ppg, recorded.rate_hz)))
    assert result.summary["read_as"] == "ppg"
    assert (result.summary["ecg_seconds"], result.summary["ppg_seconds"]) == (0.0, pytest.approx(480.0, abs=0.1))
    assert {line["label"] for line in result.of("beat")} == {"pulse"}
    assert result.summary["beats"] == len(result.of("beat"))
    assert any("read as a pulse wave (PPG), not as an ECG" in note for note in result.summary["notes"])
    found = pulse_times(result)
    expected = align_beats(recorded.beats_s, found, recorded.same_clock)
    assert np.mean(np.abs(expected[:, None] - found[None, :]).min(axis=0) <= 0.15) > 0.99
    assert found.size > 0.9 * expected.size, "pulses in bad signal are not written"
    assert result.summary["mean_rate"] == pytest.approx(60 / np.diff(recorded.beats_s).mean(), rel=0.02)


@pytest.mark.parametrize(
    ("offset", "size"),
    [(0.5, 0.01), (200.0, 0.5), (252.3, 0.2), (8_388_608.0, 20_000.0), (0.0, 1e-6), (-3e9, 4e4)],
    ids=["shares", "camera", "camera of high pressure", "counts of 24 bits", "volts", "counts of 32 bits"],
)
@pytest.mark.parametrize("rate_hz", [25.0, 64.0, 512.0, 1000.0])
def test_pulses_are_found_in_any_unit(
    run: Any, opened: Open, synthesise: Synthesise, offset: float, size: float, rate_hz: float
) -> None:
    ppg, rises_s = synthesise(np.full(60, 0.8), rate_hz)
    result = run(opened(pulse_wave(offset + size * ppg, rate_hz)))
    found = pulse_times(result)
    assert result.summary["mean_rate"] == pytest.approx(75.0, abs=0.3)
    inside = rises_s[3:-6]  # at the end, the quality model lacks the signal after a pulse
    assert np.abs(inside[:, None] - found[None, :]).min(axis=1).max() < 0.04
    assert not any("clipped" in note for note in result.summary["notes"])


def test_samples_keep_their_resolution(opened: Open) -> None:
    for values in (200 + 1e-6 * np.arange(100.0), 8_388_608.0 + np.arange(100.0), np.zeros(100), np.full(100, 1e12)):
        source = sources.open_source(opened(pulse_wave(values, 100.0)), None)  # type: ignore[arg-type]  # not a capture
        (wave,) = [reading for step in source.steps for reading in step.readings]
        assert np.abs(np.array(wave.samples, np.int32) * wave.scale - values).max() <= max(np.abs(values).max(), 1) * 2.0**-30


@pytest.mark.parametrize("rate_hz", [10.0, 24.0, 5000.0])
def test_a_rate_that_the_models_do_not_take_is_refused(run: Any, opened: Open, rate_hz: float) -> None:
    result = run(opened(pulse_wave(np.sin(np.arange(3000.0)), rate_hz)))
    assert (result.status, result.lines) == (1, [])
    (error,) = result.errors
    assert f"a PPG at {rate_hz:g} Hz is not supported, only 25 to 4000 Hz; resample it" in error


def test_a_gap_in_a_pulse_wave_has_no_rate(run: Any, opened: Open, synthesise: Synthesise) -> None:
    ppg, _ = synthesise(np.full(80, 0.8), 50.0)
    ppg[1500:1800] = np.nan
    result = run(opened(pulse_wave(ppg, 50.0)))
    (gap,) = result.of("gap")
    assert (gap["kind"], gap["missing"]) == ("ppg", 300)
    assert result.summary["mean_rate"] == pytest.approx(75.0, abs=0.3)
    assert result.summary["lowest_rate"] == pytest.approx(75.0, abs=1.0)


def test_intervals_alone_give_their_mean_rate(run: Any, opened: Open) -> None:
    rr_s = np.array([0.8, 0.9, 1.0, 0.9, 0.8, 1.0, 0.9])
    result = run(opened(RrRecording("made", None, (), np.cumsum(rr_s), rr_s)))
    assert (result.status, result.errors) == (0, [])
    assert [line["ms"] for line in result.of("interval")] == pytest.approx(rr_s * 1000, abs=0.5)
    assert [line["t"] for line in result.of("interval")] == pytest.approx(np.cumsum(rr_s), abs=1e-3)
    assert (result.summary["read_as"], result.summary["beats"]) == ("intervals", 0)
    assert result.summary["mean_rate"] == pytest.approx(60 / rr_s.mean(), abs=0.1)
    assert result.summary["lowest_rate"] == pytest.approx(60 / 0.9, abs=0.1), "the median of five"
    assert any("judged by them alone" in note for note in result.summary["notes"])


def test_an_impossible_interval_is_not_in_the_rate(run: Any, opened: Open) -> None:
    rr_s = np.array([0.8] * 10 + [0.05, 30.0, 80.0] + [0.8] * 10)
    result = run(opened(RrRecording("made", None, (), np.cumsum(rr_s), rr_s)))
    assert len(result.of("interval")) == 23
    assert "intervals above 64 s are written as 64 s: 1" in result.summary["notes"]
    assert result.summary["mean_rate"] == pytest.approx(75.0, abs=0.1)
