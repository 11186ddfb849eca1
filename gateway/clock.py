"""The clocks that the agent reads. They are injected, so the whole agent can also run on virtual time."""

import asyncio
import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Two clocks: a monotonic one for intervals and alarms, and a wall clock for people, which may jump."""

    def mono_ns(self) -> int:
        """Nanoseconds of a clock that only moves forward; its zero point is arbitrary."""
        ...

    def wall_us(self) -> int:
        """Microseconds since 1970-01-01T00:00:00Z according to the operating system."""
        ...


class SystemClock:
    """The clocks of this machine."""

    def mono_ns(self) -> int:
        return time.monotonic_ns()

    def wall_us(self) -> int:
        return time.time_ns() // 1000


@dataclass(frozen=True, slots=True)
class VirtualClock:
    """Both clocks follow the event loop's time; the wall clock reads `start_wall_us` when the loop's time is zero."""

    loop: asyncio.AbstractEventLoop
    start_wall_us: int

    def mono_ns(self) -> int:
        return round(self.loop.time() * 1e9)

    def wall_us(self) -> int:
        return self.start_wall_us + round(self.loop.time() * 1e6)
