"""Pulse waves of a camera: frames at uneven times become even samples, and a pause of the camera becomes a gap."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captures import ReadOptions, open_recording
from captures.table.frames import are_frames, interpolate_frames

RATE_HZ = 50.0


def frame_times(seconds, seed=7):
    """About 30 frames a second, with jitter and dropped frames."""
    rng = np.random.default_rng(seed)
    steps = rng.choice((0.025, 0.033, 0.042, 0.1), size=round(40 * seconds), p=(0.3, 0.4, 0.25, 0.05))
    times = np.cumsum(steps)
    return times[times < seconds] - times[0]


def pulses(times):
    return 200 + np.sin(2 * np.pi * 1.2 * times)


@given(st.lists(st.integers(1, 299), max_size=5), st.integers(0, 50))
def test_frames_in_any_parts_give_the_interpolation_of_all(cuts, seed):
    times = frame_times(10, seed)
    edges = sorted({0, *(cut for cut in cuts if cut < times.size), times.size})
    parts = [(times[a:b], pulses(times)[a:b]) for a, b in pairwise(edges)]
    chunks = list(interpolate_frames(iter(parts)))
    samples = np.concatenate([chunk.values for chunk in chunks])
    grid = np.arange(int(times[-1] * RATE_HZ) + 1) / RATE_HZ
    assert samples == pytest.approx(np.interp(grid, times, pulses(times)))
    assert all(chunk.continues for chunk in chunks[1:])


def test_a_pause_of_the_camera_is_a_gap_and_a_repeated_frame_is_left_out():
    times = np.array([0.0, 0.04, 0.08, 0.08, 0.06, 0.12, 1.0, 1.04, 1.08])
    values = np.array([0.0, 4.0, 8.0, 99.0, 99.0, 12.0, 100.0, 104.0, 108.0])
    chunks = list(interpolate_frames(iter([(times, values)])))
    assert [(chunk.start_s, chunk.continues) for chunk in chunks] == [(0.0, False), (1.0, False)]
    assert chunks[0].values == pytest.approx([0, 2, 4, 6, 8, 10, 12])
    assert chunks[1].values == pytest.approx([100, 102, 104, 106, 108])


def test_a_recording_of_a_camera_is_read_at_50_hz(tmp_path):
    times = frame_times(20)
    rows = "".join(f"{1000 * t:.1f},{value:.4f}\n" for t, value in zip(times, pulses(times), strict=True))
    (tmp_path / "PPG.csv").write_text("time,R\n" + rows)
    recording = open_recording(tmp_path / "PPG.csv", ReadOptions(signal="R"))
    assert (recording.kind, recording.rate_hz) == ("ppg", RATE_HZ)
    assert len(recording.segments) == 1
    assert recording.mv == pytest.approx(pulses(np.arange(recording.mv.size) / RATE_HZ), abs=0.08)
    assert "interpolated from frames" in recording.notes[0]


def test_samples_of_a_sensor_are_not_frames():
    assert are_frames(frame_times(20))
    assert not are_frames(np.arange(1000) / 125)
