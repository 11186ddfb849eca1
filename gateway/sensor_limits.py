"""What one sensor may cost the hub. A sensor over its limits is disconnected, so that the others keep their data.

The allowance is a token bucket in octets. It outlives a connection, because a sensor could reconnect for a new one.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from drivers.readings import Intervals, Reading, Vital, Waveform

RATE_OCTETS_PER_S: Final = 20_000
"""Three times what the fastest known sensor costs: four channels of PPG at 176 Hz."""
BURST_OCTETS: Final = 200_000
"""What may come at once: an oximeter's or a cuff's whole memory of some hundred results."""
VALUE_OCTETS: Final = 100
"""The least that a value costs, because each one costs the hub the same work however short it is: at most 200 a second."""
SAMPLE_OCTETS: Final = 10
"""What a sample costs: compressed frames hold several samples in an octet, and each one is analysed."""
RESULT_OCTETS: Final = 1_000
"""What a result costs: each is made durable by itself. An SD card does some 100 a second; one sensor may use 20 of them."""
SET_UP_LIMIT_S: Final = 600.0
"""The longest time until all set-ups of a connection have ended: a memory of 200 results needs a minute."""


class SensorLimitError(Exception):
    """The sensor sent more than its allowance, or its set-up does not end."""


@dataclass(slots=True)
class Allowance:
    """What a sensor may still send. `left` is the number of octets left at `at_s`, on the loop's clock."""

    left: float = BURST_OCTETS
    at_s: float = 0.0

    def take(self, octets: int, now_s: float) -> bool:
        """Take so many octets; return False, and take none, if fewer are left."""
        self.left = min(BURST_OCTETS, self.left + (now_s - self.at_s) * RATE_OCTETS_PER_S)
        self.at_s = now_s
        if octets > self.left:
            return False
        self.left -= octets
        return True


def cost_of_value(payload: bytes) -> int:
    """What a value costs before it is decoded, in octets."""
    return max(VALUE_OCTETS, len(payload))


def cost_of_readings(readings: Iterable[Reading]) -> int:
    """What the readings of one value cost beyond its length, in octets. The readings of one result cost once."""
    samples = 0
    results: set[int] = set()
    for reading in readings:
        match reading:
            case Waveform(samples=values) | Intervals(ticks=values):
                samples += len(values)
            case Vital(origin=origin) if origin is not None:
                results.add(origin.group)
            case _:
                pass
    return samples * SAMPLE_OCTETS + len(results) * RESULT_OCTETS


@dataclass(slots=True)
class ConnectionLimit:
    """Ends the work on one connection when its sensor exceeds its allowance. `is_exceeded` from then on."""

    allowance: Allowance = field(default_factory=Allowance)
    is_exceeded: bool = False
    _scope: asyncio.Timeout | None = None

    @asynccontextmanager
    async def enforced(self) -> AsyncIterator[None]:
        """Cancels what runs in this context as soon as the allowance is exceeded.

        Raises:
            SensorLimitError: it was exceeded.
        """
        try:
            async with asyncio.timeout(None) as self._scope:
                yield
        except TimeoutError:
            if not self.is_exceeded:
                raise
            raise SensorLimitError(
                f"disconnected, because it sends more than {RATE_OCTETS_PER_S // 1000} kB a second, as no healthy sensor does:"
                " switch it off, and have it checked"
            ) from None
        finally:
            self._scope = None

    def take(self, octets: int) -> bool:
        """Return whether a value that costs so much may be handled. If not, the connection ends."""
        if self.is_exceeded:
            return False
        loop = asyncio.get_running_loop()
        if self.allowance.take(octets, loop.time()):
            return True
        self.is_exceeded = True
        if self._scope is not None:
            self._scope.reschedule(loop.time())
        return False
