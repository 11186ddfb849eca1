"""A heart in time: which sample is measured when by the strap's clock, and what of it has been sent."""

from dataclasses import dataclass
from math import ceil
from typing import Final

from gateway.simulate import pmd
from gateway.simulate.heart import Heart
from gateway.simulate.journal import Journal

_NS: Final = 10**9


@dataclass(frozen=True, slots=True)
class SensorClock:
    """The strap's clock, in nanoseconds since 2000, tied to the event loop's."""

    zero_ns: int
    """What it shows when the loop's clock shows 0."""

    @classmethod
    def set_to(cls, unix_ns: int, loop_s: float) -> "SensorClock":
        """A clock that shows this time of day now."""
        return cls(unix_ns - pmd.EPOCH_UNIX_NS - round(loop_s * _NS))

    def at(self, loop_s: float) -> int:
        return self.zero_ns + round(loop_s * _NS)

    def loop_s(self, sensor_ns: int) -> float:
        """The loop's time at a time of this clock."""
        return (sensor_ns - self.zero_ns) / _NS


@dataclass(slots=True)
class Playback:
    """Plays a heart from the moment it is first listened to, once for the life of the process.

    Sample 0 is measured at `start_ns`, sample n exactly n / 130.16 s later: times are computed from the number, never added up.
    """

    heart: Heart
    clock: SensorClock
    journal: Journal
    start_ns: int | None = None
    sent_samples: int = 0

    def begin(self, loop_s: float) -> int:
        """Start playing, unless it plays; returns when it started, by the strap's clock."""
        if self.start_ns is None:
            self.start_ns = self.clock.at(loop_s)
            self.journal.start(self.start_ns)
        return self.start_ns

    def seconds(self, loop_s: float) -> float:
        """How long it has been playing; negative if it has not begun."""
        return -1.0 if self.start_ns is None else (self.clock.at(loop_s) - self.start_ns) / _NS

    def next_sample(self, loop_s: float) -> int:
        """The number of the first sample measured from now on."""
        return ceil(self.seconds(loop_s) * pmd.RATE_HZ)

    def measured_s(self, number: int) -> float:
        """The loop's time at which a sample is measured."""
        return self.clock.loop_s(self._sample_ns(number))

    def frame(self, first: int, count: int) -> bytes:
        """The PMD frame of `count` samples, written into the journal as sent."""
        last_ns = self._sample_ns(first + count - 1)
        samples = self.heart.samples(first, count)
        self.journal.frame(last_ns, samples)
        self.sent_samples += count
        return pmd.frame(last_ns, samples)

    def _sample_ns(self, number: int) -> int:
        if self.start_ns is None:
            raise RuntimeError("the heart does not beat yet")
        return self.start_ns + round(number * _NS / pmd.RATE_HZ)
