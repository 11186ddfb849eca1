"""What the parts of one connection to a sensor share: the client, the clock, the events and the sensor's memory."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from time import localtime
from typing import Any, Final

from bleak import BleakClient
from bleak.exc import BleakError

from drivers.conversation import Consent, Context, Moment, NoAnswerError, RefusedError
from drivers.readings import DecodeError, Reading
from drivers.weighing import WeighingJoiner
from gateway.clock import Clock
from gateway.radio import Subscriptions
from gateway.said import SaidProblems
from gateway.sensor_events import EventQueue, Notification
from gateway.sensor_limits import ConnectionLimit
from gateway.sensor_memory import SensorMemory
from gateway.timeline import Arrival

log = logging.getLogger(__name__)

RESPONSE_TIMEOUT_S: Final = 10.0
"""A sensor answers a request within a few hundred ms. An ATT transaction may take 30 s, which is too long for a patient."""
OPTIONAL_ATTEMPTS: Final = 2
"""Failures in a row after which an optional read or subscription is left out. One may be the link's fault; a sensor that never
answers such a read blocks the link until it is lost, so a third attempt would only cost another connection."""
SETUP_ERRORS: Final = (RefusedError, NoAnswerError, DecodeError, BleakError, TimeoutError, OSError, EOFError)
"""What a step of a set-up may end with while the link is up."""

FIRST_PLAUSIBLE_US: Final = 1_735_689_600_000_000
"""2025-01-01: this agent is younger. A computer whose clock has no battery may start in 1970."""
LAST_PLAUSIBLE_US: Final = 4_102_444_800_000_000
"""2100-01-01."""


@dataclass(frozen=True, slots=True)
class SensorLink:
    """One link to a sensor; `lost` is set at its end. `optional_failures` outlives it: what fails repeatedly is left out."""

    name: str
    client: BleakClient
    subscriptions: Subscriptions
    clock: Clock
    events: EventQueue
    memory: SensorMemory
    optional_failures: Counter[str]
    lost: asyncio.Event
    count_value: Callable[[tuple[Reading, ...]], None]
    consent: Consent | None = None
    may_bond: bool = True
    said: SaidProblems = field(default_factory=SaidProblems)
    limit: ConnectionLimit = field(default_factory=ConnectionLimit)
    weighings: WeighingJoiner = field(default_factory=WeighingJoiner)

    async def try_optional(self, step: Callable[[], Awaitable[None]], name: str) -> None:
        """Perform a step that the sensor is useful without. Its failure is raised only if it cost the link."""
        failures = self.optional_failures
        if failures[name] >= OPTIONAL_ATTEMPTS:
            return
        failures[name] += 1  # counted first: the link may be lost while the step waits
        try:
            async with asyncio.timeout(RESPONSE_TIMEOUT_S):
                await step()
        except Exception as error:
            failure = describe_error(error)
            log.log(self.said.level(name, failure), "%s: continues without %s: %s", self.name, name, failure)
            if self.lost.is_set():
                raise
        else:
            del failures[name]

    def context(self, driver: str) -> Context:
        """What a conversation of this driver begins with."""
        return Context(self.memory.device, self.consent, self.memory.drivers.get(driver, {}))

    def remember(self, driver: str, memory: Mapping[str, Any]) -> Mapping[str, Any]:
        """Keep what a driver remembers; return the state to store with the readings."""
        self.memory.drivers[driver] = memory
        return self.memory.state()

    def identify(self, readings: tuple[Reading, ...]) -> Mapping[str, Any] | None:
        """Take over what the sensor says of itself; return the state to store if that is new."""
        device = self.memory.device.updated(readings)
        if device == self.memory.device:
            return None
        self.memory.device = device
        return self.memory.state()

    def emit(
        self,
        characteristic: str,
        payload: bytes,
        readings: tuple[Reading, ...],
        arrival: Arrival,
        memory: Mapping[str, Any] | None = None,
        *,
        is_indicated: bool = False,
    ) -> None:
        """Queue an event with readings; those of one weighing come from two services of a scale."""
        joined = self.weighings.join(readings, arrival.mono_ns / 1e9)
        self.events.put(Notification(characteristic, payload, joined, arrival, is_indicated, memory))

    def now(self, age_s: float = 0.0) -> Arrival:
        """The hub's time, or that of an arrival so long ago."""
        return Arrival(self.clock.wall_us() - round(age_s * 1e6), self.clock.mono_ns() - round(age_s * 1e9))


def moment_of(arrival: Arrival) -> Moment:
    """The hub's time of an arrival, as conversations see it."""
    utc_offset_s = localtime(arrival.wall_us // 1_000_000).tm_gmtoff
    return Moment(arrival.wall_us, utc_offset_s, FIRST_PLAUSIBLE_US <= arrival.wall_us < LAST_PLAUSIBLE_US)


def describe_error(error: Exception) -> str:
    """One line about an error, without a payload.

    A message about a payload may repeat its value, and that of an unexpected error may too.
    """
    if isinstance(error, DecodeError):
        return "the sensor sent something that violates its specification"
    if isinstance(error, TimeoutError) and not str(error):
        return "the sensor does not answer"
    return str(error) if isinstance(error, SETUP_ERRORS) and str(error) else type(error).__name__
