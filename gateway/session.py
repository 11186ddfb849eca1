"""The connection to one sensor: find it, connect, subscribe, detect silence, and reconnect.

    searching ─found→ connecting ─subscribed→ streaming ─link lost or silent→ searching

No Bluetooth stack reports a link that is up but dead (a "zombie"). Every characteristic that a healthy sensor notifies
regularly therefore has a deadline. Notifications are timestamped in the callback and put into a bounded queue; they are
decoded elsewhere. What a sensor is useful without, such as its battery level, never costs the connection.
"""

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from bleak import BleakClient
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import BleakError

from config.settings import SensorSettings
from drivers.readings import DecodeError
from drivers.registry import Registry
from drivers.spec import Characteristic, DriverSpec, SetupRefusedError, Write
from gateway.clock import Clock
from gateway.errors import RadioError
from gateway.radio import Radio
from gateway.sensor_events import EventQueue, Interruption, LinkState, LinkStateChange, Notification
from gateway.timeline import Arrival

log = logging.getLogger(__name__)

SEARCH_TIMEOUT_S: Final = 30.0
"""Duration of one search. A strap advertises at least once a second; a longer search only delays the "not found" warning."""
CONNECT_TIMEOUT_S: Final = 20.0
"""BlueZ itself gives up connecting after 20 s (ConnectionAttemptTimeout); a shorter limit leaves its attempt pending."""
RESPONSE_TIMEOUT_S: Final = 10.0
"""A control point responds within a few hundred ms. An ATT transaction may take 30 s, which is too long for a patient."""
TEARDOWN_TIMEOUT_S: Final = 3.0
"""Time limit of the stop requests and of the disconnect at the end of a connection. A link that needs longer is dead."""
BACKOFF_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Pauses after consecutive failures, each with ±50 % jitter. The longest is short because a patient who puts the strap on wants
to see it work."""
OPTIONAL_ATTEMPTS: Final = 2
"""Failures in a row after which an optional read or subscription is left out. One may be the link's fault; a sensor that never
answers such a read blocks the link until it is lost, so a third attempt would only cost another connection."""

LINK_ERRORS: Final = (BleakError, SetupRefusedError, TimeoutError, OSError, EOFError)
"""Errors of a link that is bad or lost."""


class SensorSilentError(Exception):
    """A characteristic that should notify regularly sent nothing before its deadline."""


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
    statistics: SessionStatistics = field(default_factory=SessionStatistics)
    state: LinkState = "stopped"
    _last_value_ns: dict[str, int] = field(default_factory=dict)
    _last_failure: str = ""
    _optional_failures: Counter[str] = field(default_factory=Counter)

    async def run(self) -> None:
        """Keeps the sensor connected until cancelled; reconnects after any failure.

        Raises:
            RadioError: the Bluetooth stack cannot be used.
        """
        failures = 0
        try:
            while True:
                connects_before = self.statistics.connects
                try:
                    await self._run_connection()
                except RadioError:
                    raise
                except Exception as error:  # noqa: BLE001 - whatever a Bluetooth stack raises must not end the agent
                    self.statistics.failures += 1
                    self._log_failure(_describe(error))
                failures = 0 if self.statistics.connects > connects_before else failures + 1
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)] * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
        finally:
            self._set_state("stopped")

    async def _run_connection(self) -> None:
        """Finds the sensor, connects, and returns when the link is lost."""
        self._set_state("searching")
        device = await self.radio.find(partial(_is_sensor, self.sensor), SEARCH_TIMEOUT_S)
        if device is None:
            raise BleakError("sensor not found: check that it is worn, in range and not connected to a phone")
        self._set_state("connecting")
        lost = asyncio.Event()
        reason = "the link was lost"
        try:
            async with self._open_connection(device, lost):
                self.statistics.connects += 1
                self._set_state("streaming")
                await self._wait_link_lost(lost)
        except SensorSilentError:
            reason = "the sensor fell silent"
            self._set_state("silent")
            raise
        except asyncio.CancelledError:
            reason = "the agent was stopped"
            raise
        finally:
            self.events.put(Interruption(reason, self._now()))
            if self.state != "silent":
                self._set_state("lost")

    @asynccontextmanager
    async def _open_connection(self, device: BLEDevice, lost: asyncio.Event) -> AsyncIterator[BleakClient]:
        """Yields a connected client with all subscriptions made; afterwards stops the streams and disconnects."""
        client = self.radio.client(device, lambda _client: lost.set(), CONNECT_TIMEOUT_S)
        self._last_value_ns.clear()
        await client.connect()
        drivers: tuple[DriverSpec, ...] = ()
        try:
            drivers = self.registry.for_services(service.uuid for service in client.services)
            for driver in drivers:
                await self._subscribe(client, driver, lost)
            yield client
        finally:
            with _ignore_teardown_errors():
                async with asyncio.timeout(TEARDOWN_TIMEOUT_S):
                    for driver in drivers if not lost.is_set() else ():
                        await self._write_requests(client, driver, driver.teardown)
            with _ignore_teardown_errors():
                async with asyncio.timeout(TEARDOWN_TIMEOUT_S):
                    await client.disconnect()

    async def _subscribe(self, client: BleakClient, driver: DriverSpec, lost: asyncio.Event) -> None:
        for read in driver.reads:
            await self._try_optional(partial(self._read, client, read), read.uuid, lost)
        for stream in driver.streams:
            if stream.is_optional:
                await self._try_optional(partial(self._start_notify, client, stream), stream.uuid, lost)
            else:
                await self._start_notify(client, stream)
        await self._write_requests(client, driver, driver.setup)

    async def _try_optional(self, step: Callable[[], Awaitable[None]], uuid: str, lost: asyncio.Event) -> None:
        """Performs a step that the sensor is useful without. Its failure is raised only if it cost the link."""
        if self._optional_failures[uuid] >= OPTIONAL_ATTEMPTS:
            return
        self._optional_failures[uuid] += 1  # counted first: the link may be lost while the step waits
        try:
            async with asyncio.timeout(RESPONSE_TIMEOUT_S):
                await step()
        except Exception as error:
            log.warning("%s: continues without characteristic %s: %s", self.sensor.name, uuid, _describe(error))
            if lost.is_set():
                raise
        else:
            del self._optional_failures[uuid]

    async def _read(self, client: BleakClient, read: Characteristic) -> None:
        if found := _find_characteristic(client, read.uuid):
            self._on_value(read, bytes(await client.read_gatt_char(found)))

    async def _start_notify(self, client: BleakClient, stream: Characteristic) -> None:
        if found := _find_characteristic(client, stream.uuid):
            await client.start_notify(found, self._notification_handler(stream))

    def _notification_handler(self, stream: Characteristic) -> Callable[[object, bytearray], None]:
        if stream.silent_after_s is not None:
            self._last_value_ns[stream.uuid] = self.clock.mono_ns()

        def on_notification(_characteristic: object, payload: bytearray) -> None:
            if stream.silent_after_s is not None:
                self._last_value_ns[stream.uuid] = self.clock.mono_ns()
            self._on_value(stream, bytes(payload))

        return on_notification

    async def _write_requests(self, client: BleakClient, driver: DriverSpec, writes: tuple[Write, ...]) -> None:
        """Writes the driver's control point requests one by one and waits for the response to each."""
        responses: asyncio.Queue[bytes] = asyncio.Queue(16)
        points = driver.control_points if writes else ()
        for point in points:
            await client.start_notify(point, lambda _, payload: responses.put_nowait(bytes(payload)))
        try:
            for write in writes:
                await client.write_gatt_char(write.characteristic, write.payload, response=True)
                if write.expect:
                    async with asyncio.timeout(RESPONSE_TIMEOUT_S):
                        while not _is_expected(write.expect, await responses.get()):
                            pass
        finally:
            for point in points:
                with contextlib.suppress(BleakError, EOFError):
                    await client.stop_notify(point)

    async def _wait_link_lost(self, lost: asyncio.Event) -> None:
        """Returns when the link is lost. Raises SensorSilentError when a characteristic misses its deadline."""
        limits_s = self._silence_limits_s()
        while not lost.is_set():
            now_ns = self.clock.mono_ns()
            left_s = {name: limit_s - (now_ns - self._last_value_ns[name]) / 1e9 for name, limit_s in limits_s.items()}
            silent = [name for name, seconds in left_s.items() if seconds <= 0]
            if silent:
                raise SensorSilentError(f"connected, but characteristic {silent[0]} sent nothing for {limits_s[silent[0]]:g} s")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min([*left_s.values(), 1.0])):
                    await lost.wait()

    def _silence_limits_s(self) -> Mapping[str, float]:
        """The longest silence allowed for each subscribed characteristic that has a limit."""
        return {
            stream.uuid: stream.silent_after_s
            for driver in self.registry.drivers
            for stream in driver.streams
            if stream.silent_after_s is not None and stream.uuid in self._last_value_ns
        }

    def _on_value(self, characteristic: Characteristic, payload: bytes) -> None:
        self.statistics.notifications += 1
        is_indicated = characteristic.mode == "indicate"
        self.events.put(Notification(characteristic.uuid, payload, self._now(), is_indicated))

    def _now(self) -> Arrival:
        return Arrival(self.clock.wall_us(), self.clock.mono_ns())

    def _set_state(self, state: LinkState) -> None:
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
    return contextlib.suppress(*LINK_ERRORS)


def _find_characteristic(client: BleakClient, uuid: str) -> str | BleakGATTCharacteristic | None:
    """What bleak needs to address a characteristic, or None if the sensor lacks it.

    Where several have this UUID, as in a strap with two batteries, it is the one with the lowest handle.
    """
    try:
        return uuid if client.services.get_characteristic(uuid) else None
    except BleakError:
        return min((c for c in client.services.characteristics.values() if c.uuid == uuid), key=lambda c: c.handle)


def _describe(error: Exception) -> str:
    """One line about an error; an unexpected one with its type, because its message alone may say nothing."""
    if isinstance(error, (SensorSilentError, *LINK_ERRORS)) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _is_sensor(sensor: SensorSettings, device: BLEDevice, advertisement: AdvertisementData) -> bool:
    if sensor.address is not None:
        return device.address.upper() == sensor.address
    name = advertisement.local_name or device.name or ""
    return name.startswith(sensor.advertised_name or "\0")  # no name starts with "\0"


def _is_expected(expect: Callable[[bytes], None], response: bytes) -> bool:
    try:
        expect(response)
    except DecodeError:
        return False
    return True
