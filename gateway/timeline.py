"""Assigns times to samples from the sensor's clock and the hub's clocks, and detects missing samples.

A waveform frame carries the sensor's time of its last sample and no sequence number (Polar Measurement Data specification).
A lost frame therefore appears as a step of that time that is longer than the frame's samples times the sample period. The
sensor's clock is mapped to the hub's clock by the smallest recent transport delay; its drift is the slope of those minima.
"""

from collections import deque
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from drivers.readings import Waveform
from sync.records import GapRecord, Times, WaveformRecord

NS_PER_S: Final = 1_000_000_000
GAP_TOLERANCE_PERIODS: Final = 1.5
"""A frame of 73 samples at 130.16 Hz that is taken for 130 Hz is 0.09 periods off; a lost frame is
at least 3 periods long, because a frame has 3 samples or more (3 at the smallest ATT MTU, 23)."""
CLOCK_JUMP_NS: Final = 5 * NS_PER_S
"""If the sensor's and the hub's elapsed times differ by more than this, the sensor's clock was set. A BLE link buffers less:
its supervision timeout is 0.1 to 32 s and typically under 5 s (Core 5.4, vol 4, part E, 7.8.12)."""
DELAY_WINDOW_NS: Final = 10 * NS_PER_S
"""Each minimum of the transport delay is taken over a window of this length: some 20 frames, at least one of which is likely
to arrive promptly."""
MINIMA_KEPT: Final = 60
"""Ten minutes of minima: a drift of 1 ppm moves the clock by 0.6 ms in this time, which is the size of their jitter."""
MINIMA_FOR_DRIFT: Final = 6
"""One minute: a jitter of 1 ms in this time is 17 ppm, less than the 50 ppm of a poor crystal."""
MIN_RATE_SPAN_S: Final = 10.0
"""The sample rate is measured over at least this much contiguous signal; a clock tick of 1 ms in it is 0.01 %."""
WALL_STEP_US: Final = 500_000
"""A wall clock that moved by more than this against the monotonic clock was set, not slewed (NTP slews below 0.128 s)."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """The arrival time of a payload: the hub's wall clock (UTC, microseconds since 1970) and monotonic clock (nanoseconds)."""

    wall_us: int
    mono_ns: int


@dataclass(frozen=True, slots=True)
class TimedFrame:
    """A waveform frame with its times.

    Attributes:
        record: the samples and their times; None for a duplicate frame.
        gap: the closed gap before the frame, if there was one.
        is_contiguous: whether the first sample of the frame directly follows the last sample before it. This can be true after
            a gap: a link may be lost without any sample being lost.
    """

    record: WaveformRecord | None
    gap: GapRecord | None = None
    is_contiguous: bool = True


@dataclass(frozen=True, slots=True)
class LastSample:
    """The last sample of a waveform, which must survive a crash. The field names are keys of the stored state."""

    at_us: int
    arrived_us: int
    sensor_ns: int | None
    rate_hz: float


class ClockOffsetEstimator:
    """Estimates the offset of a sensor's clock from the hub's monotonic clock, and its drift."""

    def __init__(self) -> None:
        self._minima: deque[tuple[int, int]] = deque(maxlen=MINIMA_KEPT)
        self._window_start_ns: int | None = None

    def observe(self, sensor_ns: int, mono_ns: int) -> None:
        """Adds one arrival. The offset that it shows is the true offset plus the transport delay."""
        offset_ns = mono_ns - sensor_ns
        if self._window_start_ns is None or mono_ns - self._window_start_ns >= DELAY_WINDOW_NS:
            self._window_start_ns = mono_ns
            self._minima.append((mono_ns, offset_ns))
        elif offset_ns < self._minima[-1][1]:
            self._minima[-1] = (mono_ns, offset_ns)

    @property
    def offset_ns(self) -> int:
        """Nanoseconds to add to the sensor's time.

        The smaller of the last two minima is used, so a window in which every frame was late does not shift the offset.
        """
        return min(offset for _, offset in list(self._minima)[-2:])

    @property
    def drift_ppm(self) -> float | None:
        """How much faster the sensor's clock runs than the hub's, in ppm; None in the first minute."""
        if len(self._minima) < MINIMA_FOR_DRIFT:
            return None
        times_ns = np.array([mono for mono, _ in self._minima], np.float64)
        offsets_ns = np.array([offset for _, offset in self._minima], np.float64)
        times_ns -= times_ns[0]
        covariance = np.dot(times_ns - times_ns.mean(), offsets_ns - offsets_ns.mean())
        slope = covariance / np.dot(times_ns - times_ns.mean(), times_ns - times_ns.mean())
        return round(float(-slope * 1e6), 2)


class WaveformTimeline:
    """Assigns times to the frames of one waveform of a sensor and reports gaps."""

    def __init__(self, sensor: str, kind: str, restored: LastSample | None = None) -> None:
        self.sensor, self.kind = sensor, kind
        self.last = restored
        self.duplicates = 0
        self.clock_jumps = 0
        self._clock = ClockOffsetEstimator()
        self._wall_minus_mono_us: int | None = None
        self._last_mono_ns: int | None = None
        self._gap_reason: str | None = None
        self._contiguous_run: tuple[int, int] | None = None  # sensor time of its start in ns, and samples since then
        self._rate_hz = restored.rate_hz if restored else None

    def assign_times(self, wave: Waveform, arrival: Arrival) -> TimedFrame:
        """Assigns times to the samples of one frame and detects samples missing before them."""
        if wave.last_ns is not None and self.last and wave.last_ns == self.last.sensor_ns:
            self.duplicates += 1
            return TimedFrame(None)
        rate_hz = self._rate_hz or wave.rate_hz
        period_ns = NS_PER_S / rate_hz
        jumped = self._has_clock_jumped(wave, arrival, period_ns)
        if jumped:
            self._reset_clock()
        last_us = self._last_sample_us(wave, arrival)
        first_us = last_us - round((len(wave.samples) - 1) * period_ns / 1000)
        gap = self._find_gap(wave, first_us, period_ns, jumped)
        if gap is None and self.last and wave.last_ns is None:
            first_us = self.last.at_us + round(period_ns / 1000)
            last_us = first_us + round((len(wave.samples) - 1) * period_ns / 1000)
        self._measure_rate(wave, contiguous=gap is None)
        sensor_first_ns = None if wave.last_ns is None else wave.last_ns - round((len(wave.samples) - 1) * period_ns)
        times = Times(first_us, arrival.wall_us, arrival.mono_ns, sensor_first_ns, *self._estimate_clock(wave))
        self.last = LastSample(last_us, arrival.wall_us, wave.last_ns, rate_hz)
        self._last_mono_ns, self._gap_reason = arrival.mono_ns, None
        samples = np.array(wave.samples, np.int32)
        is_contiguous = gap is None or (gap.missing == 0 and not jumped)
        return TimedFrame(WaveformRecord(self.sensor, self.kind, times, rate_hz, wave.scale, samples), gap, is_contiguous)

    def open_gap(self, reason: str) -> GapRecord | None:
        """Opens a gap because the link or the recording was interrupted; the next frame closes it.

        Returns None before the first sample and while a gap is already open.
        """
        if self.last is None or self._gap_reason is not None:
            return None
        self._gap_reason = reason
        return GapRecord(self.sensor, self.kind, self.last.at_us, None, None, reason, self.last.sensor_ns)

    def state(self) -> dict[str, int | float | None] | None:
        """The last sample, to be restored after a crash with `LastSample(**state)`; None before the first."""
        return asdict(self.last) if self.last else None

    def _has_clock_jumped(self, wave: Waveform, arrival: Arrival, period_ns: float) -> bool:
        """Whether the sensor's clock went back or differs too much from the hub's since the last frame."""
        last = self.last
        if last is None or wave.last_ns is None or last.sensor_ns is None:
            return False
        sensor_elapsed_ns = wave.last_ns - last.sensor_ns
        hub_elapsed_ns = (
            arrival.mono_ns - self._last_mono_ns
            if self._last_mono_ns is not None
            else (arrival.wall_us - last.arrived_us) * 1000
        )
        went_back = sensor_elapsed_ns < (len(wave.samples) - GAP_TOLERANCE_PERIODS) * period_ns
        return went_back or abs(sensor_elapsed_ns - hub_elapsed_ns) > CLOCK_JUMP_NS

    def _reset_clock(self) -> None:
        self.clock_jumps += 1
        self._clock = ClockOffsetEstimator()
        self._contiguous_run = None

    def _last_sample_us(self, wave: Waveform, arrival: Arrival) -> int:
        """The hub's time of the frame's last sample, in microseconds since 1970."""
        difference_us = arrival.wall_us - arrival.mono_ns // 1000
        if self._wall_minus_mono_us is None or abs(difference_us - self._wall_minus_mono_us) > WALL_STEP_US:
            self._wall_minus_mono_us = difference_us
        if wave.last_ns is None:
            return arrival.mono_ns // 1000 + self._wall_minus_mono_us
        self._clock.observe(wave.last_ns, arrival.mono_ns)
        return (wave.last_ns + self._clock.offset_ns) // 1000 + self._wall_minus_mono_us

    def _find_gap(self, wave: Waveform, first_us: int, period_ns: float, jumped: bool) -> GapRecord | None:
        """The closed gap between the last sample and this frame; None where no sample is missing and no gap is open."""
        last = self.last
        if last is None:
            return None
        first_sensor_ns = None if wave.last_ns is None else wave.last_ns - round((len(wave.samples) - 1) * period_ns)
        if jumped or first_sensor_ns is None or last.sensor_ns is None:
            if not jumped and self._gap_reason is None:
                return None
            reason = "the sensor's clock jumped" if jumped and not self._gap_reason else self._gap_reason
            missing = max(0, round((first_us - last.at_us) * 1000 / period_ns) - 1)
            return GapRecord(self.sensor, self.kind, last.at_us, max(first_us, last.at_us), missing, reason or "", None, None)
        missing_periods = (first_sensor_ns - last.sensor_ns) / period_ns - 1
        if missing_periods <= GAP_TOLERANCE_PERIODS:
            return self._close_gap_without_loss(first_us) if self._gap_reason else None
        reason = self._gap_reason or "notifications were lost"
        ends = (last.at_us, max(first_us, last.at_us))
        return GapRecord(self.sensor, self.kind, *ends, round(missing_periods), reason, last.sensor_ns, first_sensor_ns)

    def _close_gap_without_loss(self, first_us: int) -> GapRecord:
        assert self.last is not None
        end = max(first_us, self.last.at_us)
        return GapRecord(self.sensor, self.kind, self.last.at_us, end, 0, self._gap_reason or "", self.last.sensor_ns, None)

    def _measure_rate(self, wave: Waveform, contiguous: bool) -> None:
        if wave.last_ns is None:
            return
        if self._contiguous_run is None or not contiguous:
            self._contiguous_run = (wave.last_ns, 0)
            return
        start_ns, samples = self._contiguous_run[0], self._contiguous_run[1] + len(wave.samples)
        self._contiguous_run = (start_ns, samples)
        elapsed_s = (wave.last_ns - start_ns) / NS_PER_S
        if elapsed_s >= MIN_RATE_SPAN_S:
            self._rate_hz = samples / elapsed_s

    def _estimate_clock(self, wave: Waveform) -> tuple[int | None, float | None]:
        """The offset in ns and the drift in ppm of the sensor's clock; None where it has none."""
        if wave.last_ns is None:
            return None, None
        return self._clock.offset_ns, self._clock.drift_ppm


class SampleTimes:
    """Converts positions in a waveform (samples since its start, gaps included) to the hub's times."""

    def __init__(self, max_anchors: int = 512) -> None:
        self._anchors: deque[tuple[float, int, float]] = deque(maxlen=max_anchors)

    def add_anchor(self, position: float, at_us: int, rate_hz: float) -> None:
        """Records that sample `position` was measured at `at_us` and that later samples follow at `rate_hz`."""
        self._anchors.append((position, at_us, rate_hz))

    def at_us(self, position: float) -> int:
        """The time of a position, from the last anchor at or before it."""
        anchors = self._anchors
        anchored, at_us, rate_hz = next((anchor for anchor in reversed(anchors) if anchor[0] <= position), anchors[0])
        return at_us + round((position - anchored) / rate_hz * 1e6)
