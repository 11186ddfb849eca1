"""Keeps one sensor connected: waits until it advertises, connects, and reconnects after any failure.

`gateway.link_states` holds the states, `gateway.connection` what happens while the sensor is connected.
"""

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from bleak.backends.device import BLEDevice
from bleak.exc import BleakError

from config.settings import SensorSettings
from drivers.conversation import Consent
from drivers.registry import Registry
from gateway.clock import Clock
from gateway.connection import Connection, SensorSilentError, early_characteristics
from gateway.errors import RadioError
from gateway.link_states import TRANSITIONS, LinkEvent, LinkState
from gateway.pairings import Pairings
from gateway.radio import Radio, StaleBondError
from gateway.sensor_events import EventQueue, Interruption, LinkStateChange
from gateway.sensor_link import SETUP_ERRORS, SensorLink, describe_error
from gateway.sensor_match import SensorMatch
from gateway.sensor_memory import SensorMemory
from gateway.timeline import Arrival

log = logging.getLogger(__name__)

SEARCH_TIMEOUT_S: Final = 30.0
"""Duration of one search. A strap advertises at least once a second; a longer search only delays the "not found" warning."""
CONNECT_TIMEOUT_S: Final = 20.0
"""BlueZ itself gives up connecting after 20 s (ConnectionAttemptTimeout); a shorter limit leaves its attempt pending."""
TEARDOWN_TIMEOUT_S: Final = 3.0
"""Time limit of the stop requests and of the disconnect at the end of a connection. A link that needs longer is dead."""
BACKOFF_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Pauses after consecutive failures, each with ±50 % jitter. The longest is short because a patient who puts the strap on wants
to see it work."""

NOT_FOUND: Final = "sensor not found: check that it is worn, in range and not connected to a phone"


async def _ignore() -> None:
    """For callers that store no alerts."""


@dataclass(slots=True)
class SessionStatistics:
    """Counters since the session was created."""

    connects: int = 0
    failures: int = 0
    notifications: int = 0


@dataclass(slots=True)
class SensorSession:
    """Keeps one sensor connected.

    The application reads `events`. `on_state` is called with the sensor's name and the new state at every change of state.
    """

    sensor: SensorSettings
    radio: Radio
    registry: Registry
    clock: Clock
    on_state: Callable[[str, LinkState], None]
    events: EventQueue = field(default_factory=EventQueue)
    memory: SensorMemory = field(default_factory=SensorMemory)
    consent: Consent | None = None
    pairings: Pairings = field(default_factory=Pairings)
    on_forgotten: Callable[[], Awaitable[None]] = _ignore
    statistics: SessionStatistics = field(default_factory=SessionStatistics)
    state: LinkState = "stopped"
    _last_failure: str = ""
    _optional_failures: Counter[str] = field(default_factory=Counter)

    async def run(self) -> None:
        """Keeps the sensor connected until cancelled; reconnects after any failure.

        Raises:
            RadioError: the Bluetooth stack cannot be used.
        """
        failures = 0
        try:
            while not self.pairings.is_forgotten(self.sensor):
                connects_before = self.statistics.connects
                self._on_event("search")
                try:
                    await self._run_connection()
                except RadioError:
                    raise
                except StaleBondError as error:
                    self._log_failure(str(error))
                    await self._forget(error.address)
                except Exception as error:  # noqa: BLE001 - whatever a Bluetooth stack raises must not end the agent
                    self.statistics.failures += 1
                    self._log_failure(_describe(error))
                self._on_event("failed" if (self.state, "failed") in TRANSITIONS else "lost")
                failures = 0 if self.statistics.connects > connects_before else failures + 1
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)] * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
            # Whoever answers under the sensor's address now may be somebody else's: a person must pair it again.
            await asyncio.Event().wait()
        finally:
            self._on_event("stop")

    async def _forget(self, address: str) -> None:
        """Remove a bond that the sensor has forgotten, and say so."""
        with contextlib.suppress(BleakError):
            await self.radio.unpair(address)
        self.pairings.forget(self.sensor, address)
        await self.on_forgotten()

    async def _run_connection(self) -> None:
        """Finds the sensor, connects, and returns when the link is lost."""
        match = SensorMatch(self.sensor, self.pairings)
        while (device := await self.radio.find(match, SEARCH_TIMEOUT_S)) is None:
            self._log_failure(NOT_FOUND)
        self._on_event("advertised")
        lost = asyncio.Event()
        reason = "the link was lost"
        try:
            async with self._connect(device, match.name, lost, match.rssi_dbm) as connection:
                await connection.run()
        except SensorSilentError:
            reason = "the sensor fell silent"
            self._on_event("silence")
            raise
        except asyncio.CancelledError:
            reason = "the agent was stopped"
            raise
        finally:
            self.events.put(Interruption(reason, self._now()))

    @asynccontextmanager
    async def _connect(
        self, device: BLEDevice, name: str, lost: asyncio.Event, rssi_dbm: int | None
    ) -> AsyncIterator[Connection]:
        """Yields a connection; afterwards stops its streams and disconnects."""
        async with self.radio.connecting:
            self._on_event("connect")
            pair = self.pairings.may_bond(self.sensor) and self.registry.bonds_first(replace(self.memory.device, name=name))
            early = early_characteristics(self.registry, replace(self.memory.device, name=name))
            await self.radio.subscriptions.prepare(device, early)
            client = await self.radio.connect(device, lambda _client: lost.set(), CONNECT_TIMEOUT_S, rssi_dbm, pair=pair)
        self._on_event("connected")
        link = SensorLink(
            name=self.sensor.name,
            client=client,
            subscriptions=self.radio.subscriptions,
            clock=self.clock,
            events=self.events,
            memory=self.memory,
            optional_failures=self._optional_failures,
            lost=lost,
            count_value=self._count_value,
            consent=self.consent,
            may_bond=self.pairings.may_bond(self.sensor),
        )
        connection = Connection(link, self.registry, self._on_progress, name)
        try:
            yield connection
        finally:
            try:
                with _ignore_teardown_errors():
                    async with asyncio.timeout(TEARDOWN_TIMEOUT_S):
                        await connection.stop()
                with _ignore_teardown_errors():
                    async with asyncio.timeout(TEARDOWN_TIMEOUT_S):
                        await client.disconnect()
            finally:
                await self.radio.subscriptions.end(device)

    def _on_progress(self, event: LinkEvent) -> None:
        if event == "subscribed":
            self.statistics.connects += 1
        self._on_event(event)

    def _count_value(self) -> None:
        self.statistics.notifications += 1

    def _now(self) -> Arrival:
        return Arrival(self.clock.wall_us(), self.clock.mono_ns())

    def _on_event(self, event: LinkEvent) -> None:
        state = TRANSITIONS[self.state, event]
        if state != self.state:
            if state == "streaming":
                self._last_failure = ""
                log.info("%s: connected", self.sensor.name)
            elif self.state == "streaming":
                log.info("%s: disconnected", self.sensor.name)
            self.state = state
            self.events.put(LinkStateChange(state, self._now()))
            self.on_state(self.sensor.name, state)

    def _log_failure(self, message: str) -> None:
        """Logs a failure once. Until the next connection, its repetitions every few seconds are only debug messages."""
        level = logging.DEBUG if message == self._last_failure else logging.WARNING
        self._last_failure = message
        log.log(level, "%s: %s", self.sensor.name, message)


def _ignore_teardown_errors() -> contextlib.AbstractContextManager[None]:
    """Suppresses the errors that can occur while a link is closed; the link ends in any case."""
    return contextlib.suppress(*SETUP_ERRORS)


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, SensorSilentError) else describe_error(error)
