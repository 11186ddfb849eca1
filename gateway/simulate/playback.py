"""Plays an ECG in real time: computes the times of its samples on the strap's clock, and counts the samples that were sent."""

import asyncio
from dataclasses import dataclass, field
from math import ceil
from typing import Final

from gateway.simulate import pmd
from gateway.simulate.heart import RepeatingEcg
from gateway.simulate.journal import Journal

_NS: Final = 10**9
FACTORY_NS: Final = 599_616_000 * _NS
"""2019-01-01, at which the clock of an H10 starts, in nanoseconds since 2000."""


@dataclass(frozen=True, slots=True)
class SensorClock:
    """The strap's clock, in nanoseconds since 2000, derived from the event loop's clock."""

    offset_ns: int
    """The strap's time when the loop's clock shows 0."""

    @classmethod
    def set_to(cls, unix_ns: int, loop_s: float) -> "SensorClock":
        """Return a clock that shows the Unix time `unix_ns` when the loop's clock shows `loop_s`."""
        return cls(unix_ns - pmd.EPOCH_UNIX_NS - round(loop_s * _NS))

    def sensor_ns(self, loop_s: float) -> int:
        """Convert the loop's time to the strap's."""
        return self.offset_ns + round(loop_s * _NS)

    def loop_s(self, sensor_ns: int) -> float:
        """Convert the strap's time to the loop's."""
        return (sensor_ns - self.offset_ns) / _NS


@dataclass(slots=True)
class ClockError:
    """A fault: how far a Polar sensor's clock is off. Its frames carry the wrong time."""

    clock: SensorClock
    ns: int = 0

    def jump(self, seconds: float) -> None:
        """Let the clock jump, as when another app sets it."""
        self.ns += round(seconds * _NS)

    def reset(self) -> None:
        """Restart at 2019-01-01, as an H10 does when its battery is changed."""
        self.ns = FACTORY_NS - self.clock.sensor_ns(asyncio.get_running_loop().time())


@dataclass(slots=True)
class Playback:
    """Plays an ECG from the first subscription until the process ends.

    Sample 0 is measured at `start_ns`, and sample n exactly n / 130.16 s later. Times are computed from the sample's number, so
    rounding errors do not accumulate.
    """

    ecg: RepeatingEcg
    clock: SensorClock
    journal: Journal
    start_ns: int | None = None
    sent_samples: int = 0
    clock_error: ClockError = field(init=False)

    def __post_init__(self) -> None:
        self.clock_error = ClockError(self.clock)

    def start(self, loop_s: float) -> int:
        """Start playing unless it already plays. Return the start time of the strap's clock, in nanoseconds."""
        if self.start_ns is None:
            self.start_ns = self.clock.sensor_ns(loop_s)
            self.journal.write_start(self.start_ns)
        return self.start_ns

    def elapsed_s(self, loop_s: float) -> float:
        """Return how long it has been playing; negative if it has not started."""
        return -1.0 if self.start_ns is None else (self.clock.sensor_ns(loop_s) - self.start_ns) / _NS

    def next_sample(self, loop_s: float) -> int:
        """Return the number of the first sample that is measured at or after `loop_s`."""
        return ceil(self.elapsed_s(loop_s) * pmd.RATE_HZ)

    def sample_time_s(self, number: int) -> float:
        """Return the loop's time at which a sample is measured."""
        return self.clock.loop_s(self._sample_ns(number))

    def take_frame(self, first: int, count: int) -> bytes:
        """Return the PMD frame of `count` samples, after writing it to the journal as sent, with the time that it carries."""
        last_ns = self._sample_ns(first + count - 1) + self.clock_error.ns
        samples = self.ecg.samples(first, count)
        self.journal.write_frame(last_ns, samples)
        self.sent_samples += count
        return pmd.encode_frame(last_ns, samples)

    def _sample_ns(self, number: int) -> int:
        if self.start_ns is None:
            raise RuntimeError("playback has not started")
        return self.start_ns + round(number * _NS / pmd.RATE_HZ)
