"""Where the agent reads the time. Injected, so that the whole application also runs on virtual time."""

import asyncio
import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Two clocks: one that never jumps, for intervals and alarms, and one that people read, which may jump."""

    def mono_ns(self) -> int:
        """Nanoseconds of a clock that only moves forward; its zero means nothing."""
        ...

    def wall_us(self) -> int:
        """Microseconds since 1970-01-01T00:00:00Z, as the operating system believes."""
        ...


class SystemClock:
    """The clocks of this machine."""

    def mono_ns(self) -> int:
        return time.monotonic_ns()

    def wall_us(self) -> int:
        return time.time_ns() // 1000


@dataclass(frozen=True, slots=True)
class VirtualClock:
    """Both clocks follow the event loop's time; the wall clock showed `start_wall_us` at the loop's time zero."""

    loop: asyncio.AbstractEventLoop
    start_wall_us: int

    def mono_ns(self) -> int:
        return round(self.loop.time() * 1e9)

    def wall_us(self) -> int:
        return self.start_wall_us + round(self.loop.time() * 1e6)
