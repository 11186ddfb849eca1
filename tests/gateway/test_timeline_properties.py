"""The timeline under any schedule of delays, bursts, losses and repeats, and with sensor clocks that jump or stand still."""

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.readings import Waveform
from gateway.timeline import JUMP_REASON, Arrival, TimedFrame, WaveformTimeline
from sync.records import GapRecord, WaveformRecord

WALL_US = 1_800_000_000_000_000
SENSOR_NS = 800_000_000_000_000_000
NOMINAL_HZ = 130.0
WARM_UP_FRAMES = 20
"""Prompt frames of 73 samples after which the sample rate has been measured."""


@dataclass(frozen=True)
class SentFrame:
    """A frame as the sensor sent it and as it arrived; `true_us` is the true time of its first sample."""

    wave: Waveform
    arrival: Arrival
    true_us: float


def send(samples: int, rate_hz: float, delays_s: list[float], lost: frozenset[int] = frozenset()) -> list[SentFrame]:
    """Frames of a steady sensor. None overtakes another, so one that is late holds back those behind it."""
    frames: list[SentFrame] = []
    arrived_s = 0.0
    for number, delay_s in enumerate(delays_s):
        last_s = ((number + 1) * samples - 1) / rate_hz
        if number in lost:
            continue
        arrived_s = max(arrived_s, last_s + delay_s)
        content = tuple((number * samples + i) * 7919 % 1000 for i in range(samples))
        wave = Waveform("ecg", content, NOMINAL_HZ, 0.001, SENSOR_NS + round(last_s * 1e9))
        arrival = Arrival(WALL_US + round(arrived_s * 1e6), round(arrived_s * 1e9))
        frames.append(SentFrame(wave, arrival, WALL_US + number * samples / rate_hz * 1e6))
    return frames


def place(timeline: WaveformTimeline, frames: list[SentFrame]) -> list[TimedFrame]:
    return [timeline.assign_times(frame.wave, frame.arrival) for frame in frames]


def stored(placed: list[TimedFrame]) -> list[WaveformRecord]:
    return [frame.record for frame in placed if frame.record]


def told(placed: list[TimedFrame]) -> list[GapRecord]:
    return [frame.gap for frame in placed if frame.gap]


def assert_monotone(records: list[WaveformRecord]) -> None:
    ends = [record.times.at_us + (len(record.samples) - 1) / record.rate_hz * 1e6 for record in records]
    assert all(following.times.at_us > end for end, following in zip(ends, records[1:], strict=False))


delays = st.one_of(st.floats(0.02, 0.3), st.floats(0.02, 30.0))
"""Of a link that is healthy, and of one that holds frames back for as long as its supervision timeout allows."""


@given(
    first_s=st.floats(0.02, 1.0),
    delays_s=st.lists(delays, min_size=2, max_size=100),
    lost=st.frozensets(st.integers(WARM_UP_FRAMES, 119)),
    repeats=st.lists(st.integers(0, 119), max_size=5),
    rate_hz=st.sampled_from([130.0, 130.16, 129.8]),
)
def test_every_sample_is_stored_or_told_as_missing_in_the_order_of_time(
    first_s: float, delays_s: list[float], lost: frozenset[int], repeats: list[int], rate_hz: float
) -> None:
    frames = send(73, rate_hz, [first_s] * WARM_UP_FRAMES + delays_s, lost)
    delivered = [copy for number, frame in enumerate(frames) for copy in [frame] * (1 + repeats.count(number))]
    timeline = WaveformTimeline("strap", "ecg")
    placed = place(timeline, delivered)
    records, gaps = stored(placed), told(placed)
    assert len(records) == len(frames)
    sent = round((frames[-1].true_us - frames[0].true_us) / 1e6 * rate_hz) + 73
    assert abs(73 * len(records) + sum(gap.missing or 0 for gap in gaps) - sent) <= len(gaps)
    assert len(gaps) == sum(round((b.true_us - a.true_us) / 1e6 * rate_hz) > 73 for a, b in pairwise(frames))
    assert timeline.clock_jumps == 0
    assert_monotone(records)


@given(
    first_s=st.floats(0.02, 5.0),
    delays_s=st.lists(delays, min_size=2, max_size=150),
    lost=st.frozensets(st.integers(1, 150), max_size=20),
    samples=st.sampled_from([10, 73]),
)
def test_the_error_of_time_is_the_smallest_delay_seen_lately(
    first_s: float, delays_s: list[float], lost: frozenset[int], samples: int
) -> None:
    """A better estimate moves the times by up to half a period a frame; the allowance for drift is 100 ppm."""
    frames = send(samples, NOMINAL_HZ, [first_s, *delays_s], lost)
    smallest_us = error_us = 1e9
    for frame, record in zip(frames, stored(place(WaveformTimeline("strap", "ecg"), frames)), strict=True):
        length_us = (samples - 1) / NOMINAL_HZ * 1e6
        smallest_us = min(smallest_us, frame.arrival.wall_us - frame.true_us - length_us)
        before_us, error_us = error_us, record.times.at_us - frame.true_us
        assert -1000 <= error_us <= max(smallest_us + 15_000, before_us - 0.4 / NOMINAL_HZ * 1e6)


@given(
    samples=st.sampled_from([3, 16, 73]),
    missing=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    jitter_ns=st.integers(0, 500_000),
)
def test_each_missing_sample_is_a_gap(samples: int, missing: list[int], jitter_ns: int) -> None:
    """By the time of the last sample alone, even if it is off by up to half a millisecond."""
    timeline, last = WaveformTimeline("strap", "ecg"), samples
    place_at = [0, *missing]
    found = []
    for number, lost in enumerate(place_at):
        last += (samples + lost) if number else 0
        last_ns = round(last / NOMINAL_HZ * 1e9) + (jitter_ns if number % 2 else 0)
        wave = Waveform("ecg", tuple(range(last, last + samples)), NOMINAL_HZ, 0.001, SENSOR_NS + last_ns)
        placed = timeline.assign_times(wave, Arrival(WALL_US + last_ns // 1000, last_ns))
        found.append(placed.gap.missing if placed.gap else 0)
        assert placed.is_contiguous == (found[-1] == 0)
    assert found == place_at


@given(
    set_by_s=st.one_of(st.floats(60, 1e8), st.floats(-8e8, -1)),
    at=st.integers(1, 200),
    lost=st.integers(0, 10),
    delay_s=st.floats(0.02, 0.3),
)
def test_a_clock_that_was_set_is_one_gap_of_the_length_that_the_hub_measured(
    set_by_s: float, at: int, lost: int, delay_s: float
) -> None:
    frames = send(73, 130.16, [0.05] * at + [delay_s] * 20, frozenset(range(at, at + lost)))
    later = [
        replace(frame, wave=replace(frame.wave, last_ns=frame.wave.last_ns + round(set_by_s * 1e9)))
        for frame in frames[at:]
        if frame.wave.last_ns
    ]
    timeline = WaveformTimeline("strap", "ecg")
    placed = place(timeline, [*frames[:at], *later])
    if set_by_s > 0 or set_by_s < -lost * 73 / 130 - 0.1:  # set back by less than what was lost, it shows a shorter loss
        assert [(gap.reason, gap.missing) for gap in told(placed)] == [(JUMP_REASON, pytest.approx(73 * lost, abs=45))]
        assert timeline.clock_jumps == 1
    assert_monotone(stored(placed))


def test_a_clock_that_is_set_by_seconds_is_recognised_once_the_delay_is_known() -> None:
    frames = send(73, 130.16, [0.05] * 240)
    later = [replace(f, wave=replace(f.wave, last_ns=(f.wave.last_ns or 0) + 8 * 10**9)) for f in frames[200:]]
    gaps = told(place(WaveformTimeline("strap", "ecg"), [*frames[:200], *later]))
    assert [(gap.reason, gap.missing) for gap in gaps] == [(JUMP_REASON, pytest.approx(0, abs=1))]


def test_across_a_lost_link_a_clock_that_started_again_does_not_follow_even_if_its_time_does() -> None:
    frames = send(73, 130.16, [0.05] * 60)
    timeline = WaveformTimeline("strap", "ecg")
    place(timeline, frames[:10])
    timeline.open_gap("the link was lost")
    again = replace(frames[10].wave, samples=frames[50].wave.samples)
    placed = timeline.assign_times(again, frames[50].arrival)
    assert placed.gap is not None
    assert (placed.gap.missing, placed.is_contiguous) == (pytest.approx(40 * 73, abs=5), False)


@pytest.mark.parametrize("flat", [False, True])
def test_a_clock_that_stands_still_loses_no_frame(flat: bool) -> None:
    frames = send(73, 130.0, [0.05] * 60)
    stuck = [replace(f, wave=replace(f.wave, last_ns=SENSOR_NS, samples=(5,) * 73 if flat else f.wave.samples)) for f in frames]
    placed = place(WaveformTimeline("strap", "ecg"), stuck)
    assert (len(stored(placed)), told(placed)) == (60, [])
    assert_monotone(stored(placed))
    errors_us = [record.times.at_us - frame.true_us for frame, record in zip(frames, stored(placed), strict=True)]
    assert all(abs(error) < 60_000 for error in errors_us)


@given(lost_s=st.floats(35, 1000))
def test_without_a_time_stamp_a_long_loss_is_told_by_the_hubs_clock(lost_s: float) -> None:
    frames = [replace(frame, wave=replace(frame.wave, last_ns=None)) for frame in send(73, 130.0, [0.05] * 40)]
    shift_us = round(lost_s * 1e6)
    later = [
        replace(f, arrival=Arrival(f.arrival.wall_us + shift_us, f.arrival.mono_ns + 1000 * shift_us)) for f in frames[20:]
    ]
    placed = place(WaveformTimeline("strap", "ecg"), [*frames[:20], *later])
    assert [gap.missing for gap in told(placed)] == [pytest.approx(lost_s * 130, abs=5)]
    assert_monotone(stored(placed))


def test_a_new_nominal_rate_ends_the_measured_one() -> None:
    timeline = WaveformTimeline("strap", "ecg")
    frames = send(73, 130.16, [0.05] * 40)
    place(timeline, frames)
    last_ns = (frames[-1].wave.last_ns or 0) + 73 * 4_000_000
    wave = Waveform("ecg", tuple(range(73)), 250.0, 0.001, last_ns)
    placed = timeline.assign_times(
        wave, Arrival(frames[-1].arrival.wall_us + 292_000, frames[-1].arrival.mono_ns + 292_000_000)
    )
    assert placed.record is not None
    assert (placed.record.rate_hz, placed.gap) == (250.0, None)


def test_a_wall_clock_that_is_set_back_moves_later_times_and_makes_no_gap() -> None:
    frames = send(73, 130.16, [0.05] * 40)
    set_back = [replace(f, arrival=replace(f.arrival, wall_us=f.arrival.wall_us - 3_600_000_000)) for f in frames[20:]]
    placed = place(WaveformTimeline("strap", "ecg"), [*frames[:20], *set_back])
    assert told(placed) == []
    assert stored(placed)[-1].times.at_us == pytest.approx(frames[-1].true_us - 3.6e9, abs=60_000)
