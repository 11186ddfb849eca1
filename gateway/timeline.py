"""When a sample was measured: the sensor's clock, the hub's clocks, and what is missing between them.

A waveform frame carries the sensor's time of its last sample and no sequence number (Polar Measurement Data specification),
so a lost frame shows as a step of that time beyond samples times period. The sensor's clock is mapped to the hub's by the
smallest transport delay seen of late; its drift is the slope of those minima.
"""

from collections import deque
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from drivers.readings import Waveform
from sync.records import GapRecord, Times, WaveformRecord

NS: Final = 1_000_000_000
GAP_TOLERANCE_PERIODS: Final = 1.5
"""A frame of 73 samples at 130.16 Hz, taken for 130 Hz, is 0.09 periods off; a lost frame is at least 3 (ATT MTU 23)."""
CLOCK_JUMP_NS: Final = 5 * NS
"""More disagreement than this between the sensor's and the hub's elapsed time is a set clock: a BLE link buffers less, since
its supervision timeout is 0.1 to 32 s and typically under 5 s (Core 5.4, vol 4, part E, 7.8.12)."""
MINIMUM_SPAN_NS: Final = 10 * NS
"""One minimum of the transport delay is taken over this time: some 20 frames, one of which comes promptly."""
MINIMA_KEPT: Final = 60
"""Ten minutes of minima: a drift of 1 ppm moves the clock by 0.6 ms in them, the size of their jitter."""
MINIMA_FOR_DRIFT: Final = 6
"""One minute: a jitter of 1 ms among them is 17 ppm, below a poor crystal's 50."""
RATE_FROM_S: Final = 10.0
"""The rate is measured once this much is contiguous; a clock tick of 1 ms in it is 0.01 %."""
WALL_STEP_US: Final = 500_000
"""A wall clock that moved this much against the monotonic one was set, not disciplined (NTP slews below 0.128 s)."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """When bytes came: the hub's wall clock (UTC, microseconds since 1970) and its monotonic clock (nanoseconds)."""

    wall_us: int
    mono_ns: int


@dataclass(frozen=True, slots=True)
class Placed:
    """A waveform with its times, None for a frame that came twice; before it the end of a gap, if there was one.

    `follows` says whether its first sample comes right after the one before: a link can be lost without a sample being lost.
    """

    record: WaveformRecord | None
    gap: GapRecord | None = None
    follows: bool = True


@dataclass(frozen=True, slots=True)
class LastSample:
    """What must survive a crash: where the stream stood."""

    at_us: int
    arrived_us: int
    sensor_ns: int | None
    rate_hz: float


class SensorClock:
    """The offset between a sensor's clock and the hub's monotonic clock, and its drift."""

    def __init__(self) -> None:
        self._minima: deque[tuple[int, int]] = deque(maxlen=MINIMA_KEPT)
        self._span_start_ns: int | None = None

    def observe(self, sensor_ns: int, mono_ns: int) -> None:
        """One arrival: the offset it shows is the true one plus the transport delay."""
        offset = mono_ns - sensor_ns
        if self._span_start_ns is None or mono_ns - self._span_start_ns >= MINIMUM_SPAN_NS:
            self._span_start_ns = mono_ns
            self._minima.append((mono_ns, offset))
        elif offset < self._minima[-1][1]:
            self._minima[-1] = (mono_ns, offset)

    @property
    def offset_ns(self) -> int:
        """To be added to the sensor's time; the smaller of the last two minima, so that a slow span cannot shift it."""
        return min(offset for _, offset in list(self._minima)[-2:])

    @property
    def drift_ppm(self) -> float | None:
        """How much faster than the hub's clock the sensor's runs; None in the first minute."""
        if len(self._minima) < MINIMA_FOR_DRIFT:
            return None
        when = np.array([mono for mono, _ in self._minima], np.float64)
        offsets = np.array([offset for _, offset in self._minima], np.float64)
        when -= when[0]
        slope = np.dot(when - when.mean(), offsets - offsets.mean()) / np.dot(when - when.mean(), when - when.mean())
        return round(float(-slope * 1e6), 2)


class WaveTimeline:
    """The times of one sensor's waveform."""

    def __init__(self, sensor: str, kind: str, restored: LastSample | None = None) -> None:
        self.sensor, self.kind = sensor, kind
        self.last = restored
        self.duplicates = 0
        self.clock_jumps = 0
        self._clock = SensorClock()
        self._wall_minus_mono_us: int | None = None
        self._last_mono_ns: int | None = None
        self._interrupted: str | None = None
        self._run: tuple[int, int] | None = None
        self._rate_hz = restored.rate_hz if restored else None

    def place(self, wave: Waveform, arrival: Arrival) -> Placed:
        """Gives the samples of one frame their times and finds what is missing before them."""
        if wave.last_ns is not None and self.last and wave.last_ns == self.last.sensor_ns:
            self.duplicates += 1
            return Placed(None)
        rate_hz = self._rate_hz or wave.rate_hz
        period_ns = NS / rate_hz
        jumped = self._jumped(wave, arrival, period_ns)
        if jumped:
            self._forget_clock()
        last_us = self._last_sample_us(wave, arrival)
        first_us = last_us - round((len(wave.samples) - 1) * period_ns / 1000)
        gap = self._gap_before(wave, first_us, period_ns, jumped)
        if gap is None and self.last and wave.last_ns is None:
            first_us = self.last.at_us + round(period_ns / 1000)
            last_us = first_us + round((len(wave.samples) - 1) * period_ns / 1000)
        self._measure_rate(wave, contiguous=gap is None)
        sensor_first_ns = None if wave.last_ns is None else wave.last_ns - round((len(wave.samples) - 1) * period_ns)
        times = Times(first_us, arrival.wall_us, arrival.mono_ns, sensor_first_ns, *self._clock_state(wave))
        self.last = LastSample(last_us, arrival.wall_us, wave.last_ns, rate_hz)
        self._last_mono_ns, self._interrupted = arrival.mono_ns, None
        samples = np.array(wave.samples, np.int32)
        follows = gap is None or (gap.missing == 0 and not jumped)
        return Placed(WaveformRecord(self.sensor, self.kind, times, rate_hz, wave.scale, samples), gap, follows)

    def interrupted(self, reason: str) -> GapRecord | None:
        """The link or the recording broke off: an open gap, which the next frame closes. Told once for each gap."""
        if self.last is None or self._interrupted is not None:
            return None
        self._interrupted = reason
        return GapRecord(self.sensor, self.kind, self.last.at_us, None, None, reason, self.last.sensor_ns)

    def state(self) -> dict[str, int | float | None] | None:
        """What `LastSample(**state)` restores after a crash."""
        return asdict(self.last) if self.last else None

    def _jumped(self, wave: Waveform, arrival: Arrival, period_ns: float) -> bool:
        last = self.last
        if last is None or wave.last_ns is None or last.sensor_ns is None:
            return False
        sensor_elapsed = wave.last_ns - last.sensor_ns
        hub_elapsed = (
            arrival.mono_ns - self._last_mono_ns
            if self._last_mono_ns is not None
            else (arrival.wall_us - last.arrived_us) * 1000
        )
        backwards = sensor_elapsed < (len(wave.samples) - GAP_TOLERANCE_PERIODS) * period_ns
        return backwards or abs(sensor_elapsed - hub_elapsed) > CLOCK_JUMP_NS

    def _forget_clock(self) -> None:
        self.clock_jumps += 1
        self._clock = SensorClock()
        self._run = None

    def _last_sample_us(self, wave: Waveform, arrival: Arrival) -> int:
        seen = arrival.wall_us - arrival.mono_ns // 1000
        if self._wall_minus_mono_us is None or abs(seen - self._wall_minus_mono_us) > WALL_STEP_US:
            self._wall_minus_mono_us = seen
        if wave.last_ns is None:
            return arrival.mono_ns // 1000 + self._wall_minus_mono_us
        self._clock.observe(wave.last_ns, arrival.mono_ns)
        return (wave.last_ns + self._clock.offset_ns) // 1000 + self._wall_minus_mono_us

    def _gap_before(self, wave: Waveform, first_us: int, period_ns: float, jumped: bool) -> GapRecord | None:
        last = self.last
        if last is None:
            return None
        first_sensor_ns = None if wave.last_ns is None else wave.last_ns - round((len(wave.samples) - 1) * period_ns)
        if jumped or first_sensor_ns is None or last.sensor_ns is None:
            if not jumped and self._interrupted is None:
                return None
            reason = "the sensor's clock jumped" if jumped and not self._interrupted else self._interrupted
            missing = max(0, round((first_us - last.at_us) * 1000 / period_ns) - 1)
            return GapRecord(self.sensor, self.kind, last.at_us, max(first_us, last.at_us), missing, reason or "", None, None)
        missing_periods = (first_sensor_ns - last.sensor_ns) / period_ns - 1
        if missing_periods <= GAP_TOLERANCE_PERIODS:
            return self._closed_without_loss(first_us) if self._interrupted else None
        reason = self._interrupted or "notifications were lost"
        ends = (last.at_us, max(first_us, last.at_us))
        return GapRecord(self.sensor, self.kind, *ends, round(missing_periods), reason, last.sensor_ns, first_sensor_ns)

    def _closed_without_loss(self, first_us: int) -> GapRecord:
        assert self.last is not None
        end = max(first_us, self.last.at_us)
        return GapRecord(self.sensor, self.kind, self.last.at_us, end, 0, self._interrupted or "", self.last.sensor_ns, None)

    def _measure_rate(self, wave: Waveform, contiguous: bool) -> None:
        if wave.last_ns is None:
            return
        if self._run is None or not contiguous:
            self._run = (wave.last_ns, 0)
            return
        start_ns, samples = self._run[0], self._run[1] + len(wave.samples)
        self._run = (start_ns, samples)
        elapsed_s = (wave.last_ns - start_ns) / NS
        if elapsed_s >= RATE_FROM_S:
            self._rate_hz = samples / elapsed_s

    def _clock_state(self, wave: Waveform) -> tuple[int | None, float | None]:
        if wave.last_ns is None:
            return None, None
        return self._clock.offset_ns, self._clock.drift_ppm


class SampleTimes:
    """Turns positions in a stream (samples since its start, gaps included) into the hub's times."""

    def __init__(self, kept: int = 512) -> None:
        self._anchors: deque[tuple[float, int, float]] = deque(maxlen=kept)

    def anchor(self, position: float, at_us: int, rate_hz: float) -> None:
        """Sample `position` was measured at `at_us`; the ones after it follow at `rate_hz`."""
        self._anchors.append((position, at_us, rate_hz))

    def at_us(self, position: float) -> int:
        """The time of a position, by the last anchor at or before it."""
        chosen = next((anchor for anchor in reversed(self._anchors) if anchor[0] <= position), self._anchors[0])
        return chosen[1] + round((position - chosen[0]) / chosen[2] * 1e6)
