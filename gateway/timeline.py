"""Assigns times to samples from the sensor's clock and the hub's clocks, and detects missing samples.

A waveform frame carries the sensor's time of its last sample and no sequence number (Polar Measurement Data specification).
A lost sample therefore appears as a step of that time that is longer than the frame's samples times the sample period. As long
as the sensor's time is contiguous, samples follow each other, however late they arrive: a radio may hold frames back and then
deliver all of them at once. Arrival times only bound the offset between the sensor's clock and the hub's, which is the smallest
transport delay of the last ten minutes; the drift is the slope of these minima.
"""

from array import array
from bisect import bisect_right
from collections import deque
from dataclasses import asdict, dataclass, replace
from typing import Final

import numpy as np

from drivers.readings import Waveform
from gateway.clock import Clock
from sync.records import GapRecord, Times, WaveformRecord

NS_PER_S: Final = 1_000_000_000
GAP_TOLERANCE_PERIODS: Final = 0.5
"""If the sensor's time advances by the duration of the frame and this or more, a sample is missing. A frame of 73 samples at
130.16 Hz that is taken for 130 Hz is 0.09 periods off; a clock that counts milliseconds adds at most 0.13 at 130 Hz."""
OVERLAP_TOLERANCE_PERIODS: Final = 1.5
"""If a frame overlaps the previous one by more than this, the sensor's clock went back. A smaller overlap is jitter of the time
stamps."""
HELD_BACK_NS: Final = 32 * NS_PER_S
"""Longest time for which a link holds frames back: it is lost after its supervision timeout without a packet, 32 s at most
(Core 5.4, vol 4, part E, 7.8.12)."""
CLOCK_JUMP_NS: Final = 5 * NS_PER_S
"""Across an interruption no frame is held back. If the sensor's and the hub's elapsed times then differ by more than this, the
sensor's clock was set: the supervision timeout of a link, and so the delay of a frame, is typically under 5 s."""
DELAY_WINDOW_NS: Final = 10 * NS_PER_S
"""Each minimum of the transport delay is taken over a window of this length: some 20 frames, at least one of which is likely
to arrive promptly."""
MINIMA_KEPT: Final = 60
"""Ten minutes of minima: a drift of 1 ppm moves the clock by 0.6 ms in this time, which is the size of their jitter."""
MINIMA_FOR_DRIFT: Final = 6
"""One minute: a jitter of 1 ms in this time is 17 ppm, less than the 50 ppm of a poor crystal. After one minute the smallest
delay is also known well enough to recognise a frame that would have arrived before it was measured."""
MAX_DRIFT_PPM: Final = 100
"""Largest drift assumed: a poor crystal of 50 ppm in the sensor and one in the hub. The offset may have grown by it since a
minimum was observed."""
MAX_CORRECTION_PERIODS: Final = 0.5
"""A new estimate of the offset moves the times of contiguous samples by at most this per frame. Times then never run backwards,
and a frame of 73 samples is stretched by less than 1 %."""
MIN_RATE_SPAN_S: Final = 10.0
"""The sample rate is measured over at least this much contiguous signal; a clock tick of 1 ms in it is 0.01 %."""
MAX_RATE_ERROR: Final = 0.02
"""A restored rate that differs by more than this from the nominal rate was measured at another setting of the sensor."""
DUPLICATES_KEPT: Final = 16
"""Frames that are remembered to recognise a repeated one: nine seconds of a strap."""
WALL_STEP_US: Final = 500_000
"""A wall clock that moved by more than this against the monotonic clock was set, not slewed (NTP slews below 0.128 s)."""
JUMP_REASON: Final = "the sensor's clock jumped"
LOSS_REASON: Final = "notifications were lost"


@dataclass(frozen=True, slots=True)
class Arrival:
    """The arrival time of a payload: the hub's wall clock (UTC, microseconds since 1970) and monotonic clock (nanoseconds)."""

    wall_us: int
    mono_ns: int

    @classmethod
    def now(cls, clock: Clock) -> "Arrival":
        return cls(clock.wall_us(), clock.mono_ns())


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
        """Time and offset of the best arrival of each window."""
        self._window_start_ns: int | None = None

    def observe(self, sensor_ns: int, mono_ns: int) -> None:
        """Adds one arrival. The offset that it shows is the true offset plus the transport delay."""
        offset_ns = mono_ns - sensor_ns
        if self._window_start_ns is None or mono_ns - self._window_start_ns >= DELAY_WINDOW_NS:
            self._window_start_ns = mono_ns
            self._minima.append((mono_ns, offset_ns))
        elif offset_ns <= _upper_bound_ns(self._minima[-1], mono_ns):
            self._minima[-1] = (mono_ns, offset_ns)

    def offset_ns(self, mono_ns: int) -> int:
        """Nanoseconds to add to the sensor's time: the smallest upper bound that the recent minima set for the true offset."""
        return min(_upper_bound_ns(minimum, mono_ns) for minimum in self._minima)

    @property
    def has_drift(self) -> bool:
        """Whether there are enough minima for the drift."""
        return len(self._minima) >= MINIMA_FOR_DRIFT

    @property
    def drift_ppm(self) -> float | None:
        """How much faster the sensor's clock runs than the hub's, in ppm; None in the first minute."""
        if not self.has_drift:
            return None
        times_ns = np.array([mono for mono, _ in self._minima], np.float64)
        offsets_ns = np.array([offset for _, offset in self._minima], np.float64)
        times_ns -= times_ns[0]
        covariance = np.dot(times_ns - times_ns.mean(), offsets_ns - offsets_ns.mean())
        slope = covariance / np.dot(times_ns - times_ns.mean(), times_ns - times_ns.mean())
        return round(float(-slope * 1e6), 2)


def _upper_bound_ns(minimum: tuple[int, int], mono_ns: int) -> int:
    """The largest offset at `mono_ns` that is consistent with an earlier minimum."""
    observed_ns, offset_ns = minimum
    return offset_ns + (mono_ns - observed_ns) * MAX_DRIFT_PPM // 1_000_000


class RateMeter:
    """Measures the sample rate of a waveform over the frames that directly follow another one."""

    def __init__(self, restored_hz: float | None = None) -> None:
        self._rate_hz = restored_hz
        self._nominal_hz: float | None = None
        self._elapsed_ns = self._samples = 0

    def rate_hz(self, nominal_hz: float) -> float:
        """The measured rate, or the nominal one until there is enough signal at this setting of the sensor."""
        if nominal_hz != self._nominal_hz:
            is_other = self._nominal_hz is not None or abs((self._rate_hz or nominal_hz) / nominal_hz - 1) > MAX_RATE_ERROR
            self._rate_hz = None if is_other else self._rate_hz
            self._nominal_hz, self._elapsed_ns, self._samples = nominal_hz, 0, 0
        return self._rate_hz or nominal_hz

    def add(self, samples: int, elapsed_ns: int) -> None:
        """Adds a frame of so many samples whose last sample follows that of the previous frame by `elapsed_ns`."""
        self._samples += samples
        self._elapsed_ns += elapsed_ns
        if self._elapsed_ns >= MIN_RATE_SPAN_S * NS_PER_S:
            self._rate_hz = self._samples / (self._elapsed_ns / NS_PER_S)


@dataclass(frozen=True, slots=True)
class _Step:
    """The step from the last sample of the previous frame to that of a new one.

    Attributes:
        sensor_ns: the sensor's clock at the last sample. If the frame has no time, it is counted from the previous frame.
        is_stamped: whether the sensor sent that time.
        period_ns: the sample period.
        missing: samples missing before the frame by the sensor's clock, not rounded; None if there is no earlier time.
        jumped: whether the sensor's clock was set or restarted, so that it does not measure the time since the previous frame.
    """

    sensor_ns: int
    is_stamped: bool
    period_ns: float
    missing: float | None
    jumped: bool


class WaveformTimeline:
    """Assigns times to the frames of one waveform of a sensor and reports gaps."""

    def __init__(self, sensor: str, kind: str, restored: LastSample | None = None) -> None:
        self.sensor, self.kind = sensor, kind
        self.last = restored
        self.duplicates = 0
        self.clock_jumps = 0
        self._clock: ClockOffsetEstimator | None = None
        """None before the first frame of this run."""
        self._sensor_ns = restored.sensor_ns if restored else None
        """The sensor's clock at the last sample, counted by samples over frames without a time."""
        self._recent: deque[tuple[int, int]] = deque(maxlen=DUPLICATES_KEPT)
        """Time and hash of the samples of each of the last frames that had a time."""
        self._last_mono_ns = 0
        """Arrival of the last frame."""
        self._wall_minus_mono_us: int | None = None
        self._gap_reason: str | None = None
        self._rate = RateMeter(restored.rate_hz if restored else None)

    def assign_times(self, wave: Waveform, arrival: Arrival) -> TimedFrame:
        """Assigns times to the samples of one frame and detects samples missing before them."""
        if self._is_duplicate(wave, arrival):
            self.duplicates += 1
            return TimedFrame(None)
        rate_hz = self._rate.rate_hz(wave.rate_hz)
        wall_step_us = self._follow_wall_clock(arrival)
        step = self._measure_step(wave, arrival, NS_PER_S / rate_hz)
        last, previous_us = self.last, self.last.at_us + wall_step_us if self.last else None
        is_first_of_run = self._clock is None
        clock = self._observe_clock(step, arrival)
        span_us = round((len(wave.samples) - 1) * step.period_ns / 1000)
        offset_ns = clock.offset_ns(arrival.mono_ns)
        first_us = (step.sensor_ns + offset_ns) // 1000 + (self._wall_minus_mono_us or 0) - span_us
        if previous_us is not None and not is_first_of_run:
            first_us = self._limit_correction(first_us, previous_us, step)
        first_ns = step.sensor_ns - round((len(wave.samples) - 1) * step.period_ns) if step.is_stamped else None
        gap = self._find_gap(step, first_us, previous_us, first_ns) if last and previous_us is not None else None
        if gap is None and step.is_stamped and self._sensor_ns is not None:
            self._rate.add(len(wave.samples), step.sensor_ns - self._sensor_ns)
        estimate = (offset_ns, clock.drift_ppm) if step.is_stamped else (None, None)
        times = Times(first_us, arrival.wall_us, arrival.mono_ns, first_ns, *estimate)
        self.last = LastSample(first_us + span_us, arrival.wall_us, step.sensor_ns if step.is_stamped else None, rate_hz)
        self._sensor_ns, self._last_mono_ns, self._gap_reason = step.sensor_ns, arrival.mono_ns, None
        if wave.last_ns is not None:
            self._recent.append((wave.last_ns, hash(wave.samples)))
        samples = np.array(wave.samples, np.int32)
        is_contiguous = gap is None or (gap.missing == 0 and not step.jumped)
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

    def _is_duplicate(self, wave: Waveform, arrival: Arrival) -> bool:
        """Whether one of the last frames had the same time and the same samples.

        If the clock stands still and the signal is flat, new frames are equal too, but they arrive a frame's duration apart.
        """
        if wave.last_ns is None or (wave.last_ns, hash(wave.samples)) not in self._recent:
            return False
        length_ns = len(wave.samples) / wave.rate_hz * NS_PER_S
        return len(set(wave.samples)) > 1 or arrival.mono_ns - self._last_mono_ns < length_ns / 2

    def _is_clock_stuck(self, wave: Waveform) -> bool:
        """Whether a frame that is not a duplicate has the time of the frame before it."""
        return bool(self._recent) and wave.last_ns == self._recent[-1][0]

    def _follow_wall_clock(self, arrival: Arrival) -> int:
        """Returns by how much the wall clock was set since the last frame, in microseconds."""
        difference_us, before_us = arrival.wall_us - arrival.mono_ns // 1000, self._wall_minus_mono_us
        if before_us is not None and abs(difference_us - before_us) <= WALL_STEP_US:
            return 0
        self._wall_minus_mono_us = difference_us
        return 0 if before_us is None else difference_us - before_us

    def _measure_step(self, wave: Waveform, arrival: Arrival, period_ns: float) -> _Step:
        """Compares the sensor's time of the frame with that of the last one."""
        length_ns = round(len(wave.samples) * period_ns)
        if wave.last_ns is None or self._is_clock_stuck(wave):
            counted_ns = arrival.mono_ns if self._sensor_ns is None else self._sensor_ns + length_ns
            step = _Step(counted_ns, False, period_ns, None if self._sensor_ns is None else 0.0, jumped=False)
        else:
            missing = None if self._sensor_ns is None else (wave.last_ns - self._sensor_ns) / period_ns - len(wave.samples)
            step = _Step(wave.last_ns, True, period_ns, missing, jumped=False)
        return replace(step, jumped=self.last is not None and self._has_jumped(step, arrival))

    def _has_jumped(self, step: _Step, arrival: Arrival) -> bool:
        """Whether the sensor's clock was set, or stood still, since the last frame."""
        if step.missing is None or step.missing < -OVERLAP_TOLERANCE_PERIODS:
            return True
        delay_ns = self._transport_delay_ns(step, arrival)
        if self._gap_reason is not None:
            return not step.is_stamped or abs(delay_ns) > CLOCK_JUMP_NS
        if not step.is_stamped:
            return delay_ns > HELD_BACK_NS
        if step.missing < GAP_TOLERANCE_PERIODS:
            return False
        earliest_ns = -CLOCK_JUMP_NS if self._clock and self._clock.has_drift else -HELD_BACK_NS
        return not earliest_ns <= delay_ns <= HELD_BACK_NS

    def _transport_delay_ns(self, step: _Step, arrival: Arrival) -> int:
        """How much later than expected the frame arrived if the sensor's clock ran on; negative if it arrived earlier."""
        if self._clock is not None:
            return arrival.mono_ns - step.sensor_ns - self._clock.offset_ns(arrival.mono_ns)
        assert self.last is not None
        assert self._sensor_ns is not None
        return (arrival.wall_us - self.last.at_us) * 1000 - (step.sensor_ns - self._sensor_ns)

    def _observe_clock(self, step: _Step, arrival: Arrival) -> ClockOffsetEstimator:
        if step.jumped:
            self.clock_jumps += 1
        if self._clock is None or step.jumped:
            self._clock = ClockOffsetEstimator()
        self._clock.observe(step.sensor_ns, arrival.mono_ns)
        return self._clock

    def _limit_correction(self, first_us: int, previous_us: int, step: _Step) -> int:
        """Limits how far a new estimate of the offset moves samples whose distance is known from the sensor's clock."""
        period_us, missing = step.period_ns / 1000, 0 if step.missing is None else max(round(step.missing), 0)
        is_known = not step.jumped and self._gap_reason is None
        earliest_us = previous_us + round(((missing if is_known else 0) + 1 - MAX_CORRECTION_PERIODS) * period_us)
        latest_us = previous_us + round((missing + 1 + MAX_CORRECTION_PERIODS) * period_us)
        return max(earliest_us, min(first_us, latest_us) if is_known else first_us)

    def _find_gap(self, step: _Step, first_us: int, previous_us: int, first_ns: int | None) -> GapRecord | None:
        """The closed gap between the last sample and this frame; None where no sample is missing and no gap is open."""
        assert self.last is not None
        if step.jumped:
            missing = max(0, round((first_us - previous_us) * 1000 / step.period_ns) - 1)
            return self._closed_gap(first_us, missing, self._gap_reason or JUMP_REASON, None, None)
        if step.missing is not None and step.missing >= GAP_TOLERANCE_PERIODS:
            reason = self._gap_reason or LOSS_REASON
            return self._closed_gap(first_us, max(1, round(step.missing)), reason, self.last.sensor_ns, first_ns)
        if self._gap_reason is not None:
            return self._closed_gap(first_us, 0, self._gap_reason, self.last.sensor_ns, None)
        return None

    def _closed_gap(self, first_us: int, missing: int, reason: str, from_ns: int | None, to_ns: int | None) -> GapRecord:
        assert self.last is not None
        from_us = self.last.at_us
        return GapRecord(self.sensor, self.kind, from_us, max(first_us, from_us), missing, reason, from_ns, to_ns)


class SampleTimes:
    """Converts positions in a waveform (samples since its start, gaps included) to the hub's times."""

    def __init__(self, max_anchors: int = 512) -> None:
        self._max_anchors = max_anchors
        self._positions, self._at_us, self._rates_hz = array("d"), array("q"), array("d")  # a sixth of a tuple for each

    def add_anchor(self, position: float, at_us: int, rate_hz: float) -> None:
        """Records that sample `position` was measured at `at_us` and that later samples follow at `rate_hz`."""
        self._positions.append(position)
        self._at_us.append(at_us)
        self._rates_hz.append(rate_hz)
        for column in (self._positions, self._at_us, self._rates_hz):
            del column[: -self._max_anchors]

    def at_us(self, position: float) -> int:
        """The time of a position, from the last anchor at or before it."""
        at = max(bisect_right(self._positions, position) - 1, 0)
        return self._at_us[at] + round((position - self._positions[at]) / self._rates_hz[at] * 1e6)
