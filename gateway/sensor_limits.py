"""What one sensor may cost the hub. A sensor over its limits is disconnected, so that the others keep their data.

The allowance is a token bucket in octets. It outlives a connection, because a sensor could reconnect for a new one.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from drivers.readings import Intervals, Reading, Status, Vital, Waveform

RATE_OCTETS_PER_S: Final = 10_000
"""Twice what the fastest known sensor costs, an ECG at 512 Hz. What the hub stores of it then passes a link of 64 kbit/s, so
that it does not fill the buffer which the other sensors need too."""
BURST_OCTETS: Final = 200_000
"""What may come at once: an oximeter's whole memory of 500 results."""
VALUE_OCTETS: Final = 100
"""The least that a value costs, because each one costs the hub the same work however short it is: at most 100 a second."""
SAMPLE_OCTETS: Final = 10
"""What a sample costs: compressed frames hold several samples in an octet, and each one is analysed."""
RESULT_OCTETS: Final = 400
"""What a result costs: each is made durable by itself. An SD card does some 100 a second; one sensor may use 25 of them."""
STATUS_OCTETS: Final = 100
"""What a status costs: some values hold several, and each is stored as text."""
RAW_FACTOR: Final = 4
"""What an octet costs that could not be decoded: it is stored and sent as it is."""
SET_UP_LIMIT_S: Final = 600.0
"""The longest time until all set-ups of a connection have ended: a memory of 200 results needs a minute."""


RESULTS_KEPT: Final = 256
"""Indicated results that are kept although the sensor has exceeded its allowance: more than the memory of a cuff. The sensor
takes them for received, and may delete them."""


class SensorLimitError(Exception):
    """The sensor sent more than its allowance, or its set-up does not end."""


@dataclass(slots=True)
class Allowance:
    """What a sensor may still send. `left` is the number of octets left at `at_s`, on the loop's clock."""

    left: float = BURST_OCTETS
    at_s: float = 0.0

    def take(self, octets: int, now_s: float) -> bool:
        """Take so many octets; return False, and take none, if fewer are left."""
        left = self.left + (now_s - self.at_s) * RATE_OCTETS_PER_S
        self.left, self.at_s = min(BURST_OCTETS, left), now_s
        if octets > self.left:
            return False
        self.left -= octets
        return True


def cost_of(payload: bytes, readings: tuple[Reading, ...] = ()) -> tuple[int, int]:
    """Return what a value and its readings cost, in octets, and how many results are among the readings.

    It runs for every value, so it compares types instead of matching patterns. The readings of a result follow each other.
    """
    cost = max(VALUE_OCTETS, len(payload))
    results = 0
    group: int | None = None
    for reading in readings:
        kind = type(reading)
        if kind is Vital:
            origin = reading.origin  # type: ignore[union-attr]
            if origin is not None and origin.group != group:
                group = origin.group
                results += 1
        elif kind is Status:
            cost += STATUS_OCTETS
        elif kind is Waveform:
            cost += len(reading.samples) * SAMPLE_OCTETS  # type: ignore[union-attr]
        elif kind is Intervals:
            cost += len(reading.ticks) * SAMPLE_OCTETS  # type: ignore[union-attr]
        else:
            cost += len(payload) * RAW_FACTOR
    return cost + results * RESULT_OCTETS, results


@dataclass(slots=True)
class ConnectionLimit:
    """Ends the work on one connection when its sensor exceeds its allowance. `is_exceeded` from then on."""

    allowance: Allowance = field(default_factory=Allowance)
    is_exceeded: bool = False
    results_left: int = RESULTS_KEPT
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

    def admits(self, octets: int, now_s: float, *, is_indicated: bool) -> bool:
        """Whether a value may be processed. Some indicated ones may be even beyond the allowance, until the link is closed."""
        if self.take(octets, now_s):
            return True
        if not is_indicated or self.results_left == 0:
            return False
        self.results_left -= 1
        return True

    def take(self, octets: int, now_s: float) -> bool:
        """Return whether a value that costs so much may be handled. If not, the connection ends."""
        if self.is_exceeded:
            return False
        if self.allowance.take(octets, now_s):
            return True
        self.is_exceeded = True
        if self._scope is not None:
            self._scope.reschedule(now_s)
        return False
