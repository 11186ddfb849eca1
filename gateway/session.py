"""Keeps one sensor connected: waits until it advertises, connects, and reconnects after any failure.

`gateway.link_states` holds the states, `gateway.connection` what happens while the sensor is connected.
"""

import asyncio
import contextlib
import logging
import math
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
from gateway.backoff import BACKOFFS, FRESH_AFTER_S, USEFUL_AFTER_S, Failure, FreshMatch, choose_pause_s, classify_failure
from gateway.clock import Clock
from gateway.connection import Connection, SensorSilentError, early_characteristics
from gateway.errors import RadioError
from gateway.link_states import TRANSITIONS, LinkEvent, LinkState
from gateway.pairings import Pairings
from gateway.radio import CONNECT_TIMEOUT_S, Radio, StaleBondError
from gateway.said import SaidProblems
from gateway.sensor_events import EventQueue, Interruption, LinkStateChange
from gateway.sensor_limits import Allowance, ConnectionLimit, SensorLimitError
from gateway.sensor_link import SETUP_ERRORS, SensorLink, describe_error
from gateway.sensor_match import SensorMatch
from gateway.sensor_memory import SensorMemory
from gateway.timeline import Arrival

log = logging.getLogger(__name__)

SEARCH_TIMEOUT_S: Final = 30.0
"""Duration of one search. A strap advertises at least once a second; a longer search only delays the "not found" warning."""
TEARDOWN_TIMEOUT_S: Final = 3.0
"""Time limit of the stop requests and of the disconnect at the end of a connection. A link that needs longer is dead."""
SAY_AGAIN_AFTER_S: Final = 600.0
"""A problem that was said is said again after so long if the sensor worked meanwhile, or after a connection of a minute."""
STABLE_AFTER_S: Final = 60.0
"""A sensor with connections shorter than this is not in order: what it does over and over again is said once."""
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
    _failures: int = 0
    """Ends of connections and failed attempts in a row."""
    _exceeded: int = 0
    """Connections without a useful one between them that exceeded their limits. A cuff that hangs up has not failed before."""
    _failing_since_s: float = 0.0
    _is_connected: bool = False
    """Whether the present or last attempt connected."""
    _streaming_from_s: float = math.inf
    """When the present or last connection began to stream."""
    _said_anew_s: float = -math.inf
    _results: int = 0
    _said: SaidProblems = field(default_factory=SaidProblems)
    _allowance: Allowance = field(default_factory=Allowance)
    _optional_failures: Counter[str] = field(default_factory=Counter)

    async def run(self) -> None:
        """Keeps the sensor connected until cancelled; reconnects after any failure.

        Raises:
            RadioError: the Bluetooth stack cannot be used.
        """
        try:
            while not self.pairings.is_forgotten(self.sensor):
                self._on_event("search")
                failure = await self._run_attempt()
                self._on_event("failed" if (self.state, "failed") in TRANSITIONS else "lost")
                if failure is not None:
                    self._count_failure(failure)
                    await self.radio.recover()
                    await self._pause(failure)
            # Whoever answers under the sensor's address now may be somebody else's: a person must pair it again.
            await asyncio.Event().wait()
        finally:
            self._on_event("stop")

    async def _run_attempt(self) -> Failure | None:
        """Find the sensor and run one connection. Return how it ended; None if the sensor has forgotten its bond."""
        self._is_connected, self._streaming_from_s, self._results = False, math.inf, 0
        try:
            await self._run_connection()
        except RadioError:
            raise
        except StaleBondError as error:
            self._log_failure("stale_bond", str(error))
            await self._forget(error.address)
            return None
        except SensorSilentError as error:
            return self._fail("silent", str(error))
        except Exception as error:  # noqa: BLE001  whatever a Bluetooth stack raises must not end the agent
            failure = classify_failure(error, was_connected=self._is_connected)
            return self._fail(failure, _describe(error))
        return "lost"

    def _fail(self, failure: Failure, message: str) -> Failure:
        self.statistics.failures += 1
        self._log_failure(failure, message)
        return failure

    def _count_failure(self, failure: Failure) -> None:
        """Count a failure; after a useful connection, it is the first one again."""
        now_s = asyncio.get_running_loop().time()
        streamed_s = now_s - self._streaming_from_s
        is_useful = failure != "over_limits" and (streamed_s >= USEFUL_AFTER_S or self._results > 0)
        if is_useful:
            self._failures = self._exceeded = 0
        if is_useful and (streamed_s >= STABLE_AFTER_S or now_s - self._said_anew_s >= SAY_AGAIN_AFTER_S):
            self._said.clear()
            self._said_anew_s = now_s
        if self._failures == 0:
            self._failing_since_s = now_s
        self._failures += 1
        self._exceeded += failure == "over_limits"

    async def _pause(self, failure: Failure) -> None:
        """Wait before the next attempt; a sensor that was away and advertises again ends most pauses."""
        loop = asyncio.get_running_loop()
        pause_s = choose_pause_s(failure, self._exceeded if failure == "over_limits" else self._failures)
        end_s = loop.time() + pause_s
        if BACKOFFS[failure].ends_when_fresh and pause_s > FRESH_AFTER_S:
            fresh = FreshMatch(SensorMatch(self.sensor, self.pairings), loop.time, loop.time())
            with contextlib.suppress(BleakError, TimeoutError):
                if await self.radio.find(fresh, pause_s) is not None:
                    return
        await asyncio.sleep(end_s - loop.time())

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
            self._log_failure("not_found", NOT_FOUND)
        self._on_event("advertised")
        lost = asyncio.Event()
        reason = "the link was lost"
        limit = ConnectionLimit(self._allowance)
        try:
            async with self._connect(device, match, lost, limit) as connection, limit.enforced():
                await connection.run()
        except SensorLimitError:
            reason = "the sensor exceeded its limits"
            raise
        except SensorSilentError:
            reason = "the sensor fell silent"
            self._on_event("silence")
            raise
        except asyncio.CancelledError:
            reason = "the agent was stopped"
            raise
        finally:
            self.events.put(Interruption(reason, Arrival.now(self.clock)))

    @asynccontextmanager
    async def _connect(
        self, device: BLEDevice, match: SensorMatch, lost: asyncio.Event, limit: ConnectionLimit
    ) -> AsyncIterator[Connection]:
        """Yields a connection; afterwards stops its streams and disconnects."""
        async with self.radio.connecting:
            self._on_event("connect")
            identity = replace(self.memory.device, name=match.name)
            pair = self.pairings.may_bond(self.sensor) and self.registry.bonds_first(identity)
            await self.radio.subscriptions.prepare(device, early_characteristics(self.registry, identity))
            client = await self.radio.connect(device, lambda _client: lost.set(), CONNECT_TIMEOUT_S, match.rssi_dbm, pair=pair)
        self._is_connected = True
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
            said=self._said,
            limit=limit,
        )
        connection = Connection(link, self.registry, self._on_progress, match.name)
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
            self._streaming_from_s = asyncio.get_running_loop().time()
        self._on_event(event)

    def _count_value(self, results: int) -> None:
        self.statistics.notifications += 1
        self._results += results

    def _on_event(self, event: LinkEvent) -> None:
        state = TRANSITIONS[self.state, event]
        if state != self.state:
            if state == "streaming":
                self._log_progress(self._describe_connection())
            elif self.state == "streaming":
                self._log_progress("disconnected")
            self.state = state
            self.events.put(LinkStateChange(state, Arrival.now(self.clock)))
            self.on_state(self.sensor.name, state)

    def _describe_connection(self) -> str:
        if self._failures <= 1:
            return "connected"
        seconds = asyncio.get_running_loop().time() - self._failing_since_s
        return f"connected again, {seconds:.0f} s after the first of {self._failures} failures"

    def _log_progress(self, message: str) -> None:
        level = logging.INFO if self._said.is_new("progress", message) else logging.DEBUG
        log.log(level, "%s: %s", self.sensor.name, message)

    def _log_failure(self, topic: str, message: str) -> None:
        """Log a failure once. Its repetitions are only debug messages until the sensor has worked again."""
        log.log(self._said.level(topic, message), "%s: %s", self.sensor.name, message)


def _ignore_teardown_errors() -> contextlib.AbstractContextManager[None]:
    """Suppresses the errors that can occur while a link is closed; the link ends in any case."""
    return contextlib.suppress(*SETUP_ERRORS)


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, SensorLimitError) else describe_error(error)
