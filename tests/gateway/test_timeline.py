"""The timeline on frames with known true times: every sample is either stored or counted in a gap record."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.readings import Waveform
from gateway.timeline import Arrival, LastSample, SampleTimes, WaveformTimeline
from sync.records import GapRecord, WaveformRecord

TRUE_HZ = 130.16
PERIOD_NS = 1e9 / TRUE_HZ
FRAME = 73
WALL_US = 1_800_000_000_000_000
SENSOR_NS = 800_000_000_000_000_000


def frame(number: int, samples: int = FRAME, delay_ms: float = 20.0) -> tuple[Waveform, Arrival]:
    """Frame `number` of an undisturbed stream, arriving `delay_ms` after its last sample."""
    last = round(((number + 1) * samples - 1) * PERIOD_NS)
    wave = Waveform("ecg", tuple(range(samples)), 130.0, 0.001, SENSOR_NS + last)
    return wave, Arrival(WALL_US + round(last / 1000 + delay_ms * 1000), last + round(delay_ms * 1e6))


def assign_frame_times(
    timeline: WaveformTimeline, frames: list[tuple[Waveform, Arrival]]
) -> tuple[list[WaveformRecord], list[GapRecord]]:
    timed = [timeline.assign_times(*frame) for frame in frames]
    return [frame.record for frame in timed if frame.record], [frame.gap for frame in timed if frame.gap]


def test_an_undisturbed_stream_has_no_gap_and_the_true_rate() -> None:
    records, gaps = assign_frame_times(WaveformTimeline("strap", "ecg"), [frame(n) for n in range(100)])
    assert gaps == []
    assert records[0].rate_hz == 130.0
    assert records[-1].rate_hz == pytest.approx(TRUE_HZ, rel=1e-6)


def test_times_are_off_by_the_smallest_transport_delay_only() -> None:
    rng = np.random.default_rng(1)
    frames = [frame(n, delay_ms=20 + float(rng.exponential(30))) for n in range(200)]
    records, _ = assign_frame_times(WaveformTimeline("strap", "ecg"), frames)
    errors_ms = [(r.times.at_us - WALL_US - n * FRAME * PERIOD_NS / 1000) / 1000 for n, r in enumerate(records)]
    assert all(18 < error < 45 for error in errors_ms[60:])


def test_measures_the_drift() -> None:
    fast = [
        (wave, replace(arrival, mono_ns=round(arrival.mono_ns / (1 + 50e-6))))
        for wave, arrival in (frame(n) for n in range(1000))
    ]
    records, gaps = assign_frame_times(WaveformTimeline("strap", "ecg"), fast)
    assert gaps == []
    assert records[-1].times.drift_ppm == pytest.approx(50, abs=2)


@given(lost=st.sets(st.integers(1, 58)), samples=st.sampled_from([3, 16, 73]))
def test_every_sample_is_stored_or_counted_as_missing(lost: set[int], samples: int) -> None:
    frames = [frame(n, samples) for n in range(60) if n not in lost]
    records, gaps = assign_frame_times(WaveformTimeline("strap", "ecg"), frames)
    received = sum(len(record.samples) for record in records)
    assert received + sum(gap.missing or 0 for gap in gaps) == pytest.approx(60 * samples, abs=len(gaps))
    for gap in gaps:
        assert gap.reason == "notifications were lost"
        assert gap.to_us is not None
        assert gap.to_us > gap.from_us


def test_stores_a_duplicate_frame_once() -> None:
    timeline = WaveformTimeline("strap", "ecg")
    records, gaps = assign_frame_times(timeline, [frame(0), frame(1), frame(1), frame(2)])
    assert (len(records), len(gaps), timeline.duplicates) == (3, 0, 1)


def test_setting_the_sensors_clock_leaves_one_gap_of_the_length_measured_by_the_hub() -> None:
    timeline = WaveformTimeline("strap", "ecg")
    later = [
        (replace(wave, last_ns=wave.last_ns + 10**17), arrival)
        for wave, arrival in (frame(n) for n in range(12, 20))
        if wave.last_ns
    ]
    _, gaps = assign_frame_times(timeline, [*(frame(n) for n in range(10)), *later])
    assert [(gap.reason, gap.missing) for gap in gaps] == [("the sensor's clock jumped", pytest.approx(2 * FRAME, abs=2))]
    assert timeline.clock_jumps == 1


def test_opens_one_gap_for_an_interruption_and_closes_it_at_the_next_frame() -> None:
    timeline = WaveformTimeline("strap", "ecg")
    assign_frame_times(timeline, [frame(0), frame(1)])
    opened = timeline.open_gap("the link was lost")
    assert opened is not None
    assert (opened.to_us, opened.missing) == (None, None)
    assert timeline.open_gap("the sensor fell silent") is None
    _, gaps = assign_frame_times(timeline, [frame(6)])
    assert [(gap.from_us, gap.missing, gap.reason) for gap in gaps] == [(opened.from_us, 4 * FRAME, "the link was lost")]


def test_after_a_restart_the_gap_begins_at_the_last_stored_sample() -> None:
    first = WaveformTimeline("strap", "ecg")
    assign_frame_times(first, [frame(n) for n in range(40)])
    state = first.state()
    assert state is not None
    second = WaveformTimeline("strap", "ecg", LastSample(**state))  # type: ignore[arg-type]
    opened = second.open_gap("the agent was restarted")
    _, gaps = assign_frame_times(second, [frame(50)])
    assert opened is not None
    assert [(gap.from_us, gap.missing) for gap in gaps] == [(opened.from_us, 10 * FRAME)]


def test_setting_the_wall_clock_moves_only_later_times() -> None:
    timeline = WaveformTimeline("strap", "ecg")
    assign_frame_times(timeline, [frame(0)])
    wave, arrival = frame(1)
    records, gaps = assign_frame_times(timeline, [(wave, replace(arrival, wall_us=arrival.wall_us + 3_600_000_000))])
    assert gaps == []
    assert records[0].times.at_us == pytest.approx(WALL_US + 3_600_000_000 + FRAME * PERIOD_NS / 1000, abs=25_000)


def test_the_time_of_a_position_comes_from_the_last_anchor_at_or_before_it() -> None:
    times = SampleTimes()
    times.add_anchor(0, 1_000_000, 100.0)
    times.add_anchor(50, 2_000_000, 100.0)
    assert [times.at_us(p) for p in (0, 49, 50, 60.5)] == [1_000_000, 1_490_000, 2_000_000, 2_105_000]
