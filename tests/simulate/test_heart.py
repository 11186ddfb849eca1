"""The repeating ECG: repetition, RR intervals, and recordings resampled to the strap's rate."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.simulate import strap
from gateway.simulate.heart import RepeatingEcg, from_recording, from_script, resample
from gateway.simulate.pmd import RATE_HZ
from gateway.simulate.script import load_script

RAMP = RepeatingEcg(np.arange(1000, dtype=np.int32), (1.0, 2.5, 6.0))


@given(st.integers(0, 100_000), st.integers(0, 3000), st.integers(0, 3000))
def test_consecutive_frames_form_one_signal(first: int, count: int, next_count: int) -> None:
    joined = np.concatenate((RAMP.samples(first, count), RAMP.samples(first + count, next_count)))
    assert np.array_equal(joined, RAMP.samples(first, count + next_count))
    assert np.array_equal(joined, np.arange(first, first + count + next_count) % 1000)


@given(st.lists(st.floats(0, 40), min_size=2, max_size=20))
def test_every_interval_is_returned_once_for_any_division_of_the_time(cuts: list[float]) -> None:
    instants = sorted({0.0, *cuts, 40.0})
    intervals = [rr for since_s, until_s in pairwise(instants) for rr in RAMP.rr_intervals(since_s, until_s)]
    assert intervals == list(RAMP.rr_intervals(0.0, 40.0))


def test_intervals_continue_across_the_repetition() -> None:
    assert RAMP.rr_intervals(0.0, 6.0) == pytest.approx((1.5, 3.5))
    assert RAMP.rr_intervals(6.0, 10.5) == pytest.approx((1000 / RATE_HZ + 1.0 - 6.0, 1.5))
    assert RAMP.rr_intervals(-5.0, 1.5) == ()
    assert from_recording(np.zeros(1000), 250.0).rr_intervals(0.0, 100.0) == ()


def test_the_script_is_played_in_microvolts() -> None:
    ecg = from_script(load_script("demo"))
    assert ecg.period_s == pytest.approx(300.0)
    peaks = [ecg.samples(round(beat * RATE_HZ) - 1, 3).max() for beat in ecg.beats_s]
    assert 700 < min(peaks) < max(peaks) < 2200


@pytest.mark.parametrize("from_hz", [125.0, 250.0, 300.0, 360.0, 1000.0])
@pytest.mark.parametrize("tone_hz", [0.5, 5.0, 20.0, 40.0, 50.0])
def test_resampling_preserves_the_ecg_band(from_hz: float, tone_hz: float) -> None:
    wave = np.sin(2 * np.pi * tone_hz * np.arange(round(20 * from_hz)) / from_hz)
    out = resample(wave, from_hz, RATE_HZ)
    exact = np.sin(2 * np.pi * tone_hz * np.arange(out.size) / RATE_HZ)
    assert np.abs(out - exact)[65:-65].max() < 0.02


def test_resampling_removes_frequencies_above_the_straps_band() -> None:
    wave = np.sin(2 * np.pi * 100.0 * np.arange(7200) / 360)
    assert np.abs(resample(wave, 360.0, RATE_HZ))[65:-65].max() < 0.01


def test_values_beyond_three_bytes_are_clipped() -> None:
    assert from_recording(np.full(1000, 1e6), 250.0).microvolts.max() == 2**23 - 1


def test_a_recording_is_played_with_its_beats(data: Path) -> None:
    ecg = strap.ecg_from_file(data / "polar-h10" / "polar_h10.csv")
    assert ecg.period_s == pytest.approx(600, abs=0.5)
    intervals = ecg.rr_intervals(0.0, 600.0)
    assert 60 * len(intervals) / sum(intervals) == pytest.approx(80, abs=5)
    swings = [np.ptp(ecg.samples(round(beat * 130.16) - 8, 17)) for beat in ecg.beats_s[1:-1]]  # its QRS is biphasic
    assert np.percentile(swings, 2) > 800
