"""Offsets, units and sampling rates of an ECG in `pulsegate replay`: the beats are found, and nothing is clipped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from captures import Recording
from captures.recording import Samples, split_chunks
from gateway.replay import sources

Open = Callable[[Samples, float], Path]
RR_S = 0.8


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Open:
    """Makes an ECG in mV the content of a file; returns the name of the file."""

    def open_(mv: Samples, rate_hz: float) -> Path:
        recording = Recording("made", rate_hz, None, (), lambda: split_chunks(None, mv, rate_hz))
        monkeypatch.setattr(sources, "open_file", lambda _path, _options: recording)
        return Path("made.csv")

    return open_


def ecg(seconds: float, rate_hz: float) -> Samples:
    """R waves of 1 mV and T waves at 75/min, with noise of 10 µV; the first R peak is at 0.8 s."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    from_peak = (t + RR_S / 2) % RR_S - RR_S / 2
    waves = np.exp(-0.5 * (from_peak / 0.012) ** 2) + 0.2 * np.exp(-0.5 * ((from_peak - 0.25) / 0.04) ** 2)
    return waves * (t > RR_S / 2) + np.random.default_rng(1).normal(0, 0.01, t.size)


def check_beats(result: Any, seconds: float) -> None:
    """Every beat is found at its time, and no other."""
    assert (result.status, result.errors, result.of("alert")) == (0, [], [])
    found = np.array([line["t"] for line in result.of("beat")])
    expected = np.arange(RR_S, seconds - 0.2, RR_S)
    assert found.size == pytest.approx(expected.size, abs=1)
    assert np.abs(expected[1:-1, None] - found[None, :]).min(axis=1).max() < 0.01


@pytest.mark.parametrize("rate_hz", [100.0, 117.0, 130.0, 1000.0, 2000.0, 2048.0, 2500.0, 4000.0])
def test_beats_are_found_at_every_rate(run: Any, opened: Open, rate_hz: float) -> None:
    check_beats(run(opened(ecg(20, rate_hz), rate_hz)), 20)


@pytest.mark.parametrize("rate_hz", [10.0, 50.0, 99.0, 4001.0, 1e6])
def test_other_rates_are_refused(run: Any, opened: Open, rate_hz: float) -> None:
    result = run(opened(ecg(20, 100.0), rate_hz))
    assert (result.status, result.lines) == (1, [])
    assert result.errors == [
        f"pulsegate replay: made.csv: an ECG at {rate_hz:g} Hz is not supported, only 100 to 4000 Hz;"
        " resample it or correct its rate"
    ]


@pytest.mark.parametrize("offset_mv", [300.0, 1650.0, -2500.0, 1e6, 1e7])
def test_an_offset_is_not_clipped(run: Any, opened: Open, offset_mv: float) -> None:
    result = run(opened(offset_mv + ecg(20, 250.0), 250.0))
    check_beats(result, 20)
    assert result.summary["notes"] == []


def test_a_sample_has_a_resolution_of_a_microvolt_with_any_offset(opened: Open) -> None:
    mv = np.round(1650 + ecg(3, 250.0), 3)
    source = sources.open_source(opened(mv, 250.0), None)  # type: ignore[arg-type]  # not a capture
    waves = [reading for step in source.steps for reading in step.readings]
    assert {wave.scale for wave in waves} == {0.001}
    assert np.concatenate([wave.samples for wave in waves]) * 0.001 == pytest.approx(mv, abs=1e-9)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("wrong", [1e13, -1e300, np.inf])
def test_a_note_says_where_samples_are_clipped(run: Any, opened: Open, wrong: float) -> None:
    mv = ecg(40, 250.0)
    mv[250 * 20 : 250 * 20 + 3] = wrong
    mv[250 * 30] = wrong
    result = run(opened(mv, 250.0))
    assert result.status == 0
    assert result.summary["notes"] == ["samples beyond ±1e+12 are clipped, the first of them 21 s after the start"]
    found = np.array([line["t"] for line in result.of("beat")])
    assert np.sum(found < 18) >= 20
