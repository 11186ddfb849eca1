"""One sensor's life: find, connect, subscribe, notice silence, start over.

    searching ─found→ connecting ─subscribed→ streaming ─link lost or silent→ searching

No Bluetooth stack reports a link that is up and dead ("zombie"), so every stream that a healthy sensor keeps busy has a
deadline. Notifications are stamped in the callback and put into a bounded queue; nothing is decoded there.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal

from bleak import BleakClient
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import BleakError

from config.settings import SensorSettings
from drivers.readings import DecodeError
from drivers.registry import Registry
from drivers.spec import DriverSpec, SetupRefusedError, Stream, Write
from gateway.clock import Clock
from gateway.radio import Radio
from gateway.timeline import Arrival

log = logging.getLogger(__name__)

SEARCH_S: Final = 30.0
"""One search. A strap advertises every second or less; longer only delays the report that it is not there."""
CONNECT_S: Final = 20.0
"""BlueZ gives up a connect after 20 s by itself (ConnectionAttemptTimeout); ending earlier leaves it pending there."""
ANSWER_S: Final = 10.0
"""A control point answers within a few hundred ms; an ATT transaction may take 30 s, a patient waits less."""
GOODBYE_S: Final = 3.0
"""For the stop request and the disconnect of a clean end: beyond it the link is dead anyway."""
BACKOFF_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Pauses after failures in a row, each spread by half. The longest is short: who puts the strap on wants to see it work."""
QUEUE_LIMIT: Final = 1024
"""Notifications that wait for the pipeline: nine minutes of one strap."""

State = Literal["searching", "connecting", "streaming", "silent", "lost", "stopped"]


class SensorSilentError(Exception):
    """A stream that should be busy said nothing for its deadline."""


@dataclass(frozen=True, slots=True)
class Notification:
    """One value of a characteristic, as it came."""

    characteristic: str
    payload: bytes
    arrival: Arrival


@dataclass(frozen=True, slots=True)
class Interruption:
    """The link ended, or could not be kept."""

    reason: str
    arrival: Arrival


Event = Notification | Interruption


@dataclass(slots=True)
class SessionStatistics:
    """What happened so far."""

    connects: int = 0
    failures: int = 0
    notifications: int = 0
    dropped: int = 0


@dataclass(slots=True)
class Session:
    """Keeps one sensor connected. `events` is read by the application; `on_state` is told every change of state."""

    sensor: SensorSettings
    radio: Radio
    registry: Registry
    clock: Clock
    on_state: Callable[[str, State], None]
    events: asyncio.Queue[Event] = field(default_factory=lambda: asyncio.Queue(QUEUE_LIMIT))
    statistics: SessionStatistics = field(default_factory=SessionStatistics)
    state: State = "stopped"
    _last_heard_ns: dict[str, int] = field(default_factory=dict)

    async def run(self) -> None:
        """Serves the sensor until cancelled; a failure of any kind of link starts it over."""
        failures = 0
        try:
            while True:
                connects = self.statistics.connects
                try:
                    await self._serve_once()
                except (BleakError, SensorSilentError, SetupRefusedError, TimeoutError, OSError, EOFError) as error:
                    self.statistics.failures += 1
                    log.warning("%s: %s", self.sensor.name, error or type(error).__name__)
                failures = 0 if self.statistics.connects > connects else failures + 1
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)] * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
        finally:
            self._change("stopped")

    async def _serve_once(self) -> None:
        self._change("searching")
        device = await self.radio.find(partial(_matches, self.sensor), SEARCH_S)
        if device is None:
            raise BleakError("not found: is it worn and near, and not connected to a phone?")
        self._change("connecting")
        lost = asyncio.Event()
        reason = "the link was lost"
        try:
            async with self._connected(device, lost):
                self.statistics.connects += 1
                self._change("streaming")
                await self._watch(lost)
        except SensorSilentError:
            reason = "the sensor fell silent"
            self._change("silent")
            raise
        except asyncio.CancelledError:
            reason = "the agent was stopped"
            raise
        finally:
            self._put(Interruption(reason, self._now()))
            if self.state != "silent":
                self._change("lost")

    @asynccontextmanager
    async def _connected(self, device: BLEDevice, lost: asyncio.Event) -> AsyncIterator[BleakClient]:
        client = self.radio.client(device, lambda _client: lost.set(), CONNECT_S)
        self._last_heard_ns.clear()
        await client.connect()
        drivers: tuple[DriverSpec, ...] = ()
        try:
            drivers = self.registry.for_services(service.uuid for service in client.services)
            for driver in drivers:
                await self._subscribe(client, driver)
            yield client
        finally:
            with _farewell():
                async with asyncio.timeout(GOODBYE_S):
                    for driver in drivers if not lost.is_set() else ():
                        await self._request(client, driver, driver.teardown)
            with _farewell():
                async with asyncio.timeout(GOODBYE_S):
                    await client.disconnect()

    async def _subscribe(self, client: BleakClient, driver: DriverSpec) -> None:
        for read in driver.reads:
            if client.services.get_characteristic(read.characteristic):
                self._heard(read.characteristic, bytes(await client.read_gatt_char(read.characteristic)))
        for stream in driver.streams:
            if client.services.get_characteristic(stream.characteristic):
                await client.start_notify(stream.characteristic, self._listener(stream))
        await self._request(client, driver, driver.setup)

    def _listener(self, stream: Stream) -> Callable[[object, bytearray], None]:
        if stream.silent_after_s is not None:
            self._last_heard_ns[stream.characteristic] = self.clock.mono_ns()

        def heard(_characteristic: object, payload: bytearray) -> None:
            if stream.silent_after_s is not None:
                self._last_heard_ns[stream.characteristic] = self.clock.mono_ns()
            self._heard(stream.characteristic, bytes(payload))

        return heard

    async def _request(self, client: BleakClient, driver: DriverSpec, writes: tuple[Write, ...]) -> None:
        """Sends the driver's control point requests one by one, each with its answer awaited."""
        answers: asyncio.Queue[bytes] = asyncio.Queue(16)
        points = driver.control_points if writes else ()
        for point in points:
            await client.start_notify(point, lambda _, payload: answers.put_nowait(bytes(payload)))
        try:
            for write in writes:
                await client.write_gatt_char(write.characteristic, write.payload, response=True)
                if write.expect:
                    async with asyncio.timeout(ANSWER_S):
                        while not _accepted(write.expect, await answers.get()):
                            pass
        finally:
            for point in points:
                with contextlib.suppress(BleakError, EOFError):
                    await client.stop_notify(point)

    async def _watch(self, lost: asyncio.Event) -> None:
        """Returns when the link is lost; raises when a busy stream goes quiet."""
        deadlines = self._deadlines()
        while not lost.is_set():
            now = self.clock.mono_ns()
            left = {name: limit - (now - self._last_heard_ns[name]) / 1e9 for name, limit in deadlines.items()}
            quiet = [name for name, seconds in left.items() if seconds <= 0]
            if quiet:
                raise SensorSilentError(f"connected, but characteristic {quiet[0]} was silent for {deadlines[quiet[0]]:g} s")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min([*left.values(), 1.0])):
                    await lost.wait()

    def _deadlines(self) -> Mapping[str, float]:
        return {
            stream.characteristic: stream.silent_after_s
            for driver in self.registry.drivers
            for stream in driver.streams
            if stream.silent_after_s is not None and stream.characteristic in self._last_heard_ns
        }

    def _heard(self, characteristic: str, payload: bytes) -> None:
        self.statistics.notifications += 1
        self._put(Notification(characteristic, payload, self._now()))

    def _put(self, event: Event) -> None:
        try:
            self.events.put_nowait(event)
        except asyncio.QueueFull:
            self.statistics.dropped += 1

    def _now(self) -> Arrival:
        return Arrival(self.clock.wall_us(), self.clock.mono_ns())

    def _change(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self.on_state(self.sensor.name, state)


def _farewell() -> contextlib.AbstractContextManager[None]:
    """What may go wrong while a link ends anyway."""
    return contextlib.suppress(BleakError, TimeoutError, OSError, EOFError, SetupRefusedError)


def _matches(sensor: SensorSettings, device: BLEDevice, advertisement: AdvertisementData) -> bool:
    if sensor.address is not None:
        return device.address.upper() == sensor.address
    name = advertisement.local_name or device.name or ""
    return name.startswith(sensor.advertised_name or "\0")


def _accepted(expect: Callable[[bytes], None], answer: bytes) -> bool:
    try:
        expect(answer)
    except DecodeError:
        return False
    return True
