"""One connection to a sensor: its subscriptions, the conversations of its drivers, and its silence.

The steps are in this order: subscribe to every driver's streams; read the device information; open a conversation for each
instance of a service; decode the values that came meanwhile; read the other values; run the set-ups. A sensor may send from the
first moment and sleep seconds later, so nothing slow comes before the subscriptions, and no value before the model is known.

A driver whose set-up fails costs the sensor its own streams only, and is set up again after a pause.
"""

import asyncio
import contextlib
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from time import localtime
from typing import Any, Final

from bleak import BleakClient
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.service import BleakGATTService
from bleak.exc import BleakError, BleakGATTProtocolError

from drivers.conversation import (
    Bond,
    Consent,
    Context,
    Moment,
    NoAnswerError,
    Procedure,
    Read,
    RefusedError,
    Remember,
    Request,
    Wait,
    Write,
)
from drivers.decoding import Decoded, ServiceDecoder
from drivers.readings import DecodeError, Quarantined, Reading, Status
from drivers.registry import Registry
from drivers.spec import Characteristic, DriverSpec
from gateway.clock import Clock
from gateway.link_states import LinkEvent
from gateway.sensor_events import EventQueue, Notification
from gateway.sensor_memory import SensorMemory
from gateway.timeline import Arrival

log = logging.getLogger(__name__)

RESPONSE_TIMEOUT_S: Final = 10.0
"""A sensor answers a request within a few hundred ms. An ATT transaction may take 30 s, which is too long for a patient."""
SETUP_RETRY_S: Final = (5.0, 30.0, 120.0)
"""Pauses before a failed set-up is run again: a strap that still starts up is ready within seconds; one that refuses for good
costs a request every two minutes."""
OPTIONAL_ATTEMPTS: Final = 2
"""Failures in a row after which an optional read or subscription is left out. One may be the link's fault; a sensor that never
answers such a read blocks the link until it is lost, so a third attempt would only cost another connection."""
WAITING_LIMIT: Final = 512
"""Values that wait until the model is known: a cuff's whole memory of 200 results, or four seconds of an ECG with a pulse."""
PROCEDURES_LIMIT: Final = 16
"""Procedures that wait behind a running one. A sensor that asks for more keeps asking in vain."""
SETUP_ERRORS: Final = (RefusedError, NoAnswerError, DecodeError, BleakError, TimeoutError, OSError, EOFError)
"""What a set-up may end with while the link is up."""


class SensorSilentError(Exception):
    """A characteristic that should notify regularly sent nothing before its deadline."""


@dataclass(slots=True)
class _Waiter:
    """A procedure that waits for an answer."""

    characteristic: str
    is_answer: Callable[[bytes], bool]
    answer: asyncio.Future[bytes]

    def accepts(self, characteristic: str, payload: bytes) -> bool:
        return characteristic == self.characteristic and self.is_answer(payload)


@dataclass(slots=True)
class _Service:
    """One instance of a service, and its driver. `decoder` is None until the model is known; values wait in `early`."""

    driver: DriverSpec
    found: BleakGATTService
    decoder: ServiceDecoder | None = None
    early: list[tuple[Characteristic, bytes, Arrival]] = field(default_factory=list)
    waiter: _Waiter | None = None
    last_value_s: float = 0.0
    procedures: asyncio.Queue[Procedure] = field(default_factory=partial(asyncio.Queue, PROCEDURES_LIMIT))
    deadlines: dict[str, float] = field(default_factory=dict)
    """When each stream with a limit becomes silent, on the loop's clock."""
    subscribed: set[str] = field(default_factory=set)
    has_failed: bool = False
    """Whether its set-up failed, so that it must be run again."""
    failure: str = ""
    """Why it last failed: each reason is logged and recorded once."""

    def characteristic(self, uuid: str) -> BleakGATTCharacteristic | None:
        """The characteristic with the lowest handle; some sensors have two of a kind."""
        same = (item for item in self.found.characteristics if item.uuid == uuid)
        return min(same, key=lambda item: item.handle, default=None)


@dataclass(slots=True)
class Connection:
    """One connection. `optional_failures` outlives it: what fails again and again is left out."""

    name: str
    client: BleakClient
    registry: Registry
    clock: Clock
    events: EventQueue
    memory: SensorMemory
    optional_failures: Counter[str]
    lost: asyncio.Event
    on_progress: Callable[[LinkEvent], None]
    on_value: Callable[[], None]
    consent: Consent | None = None
    advertised_name: str = ""
    _services: list[_Service] = field(default_factory=list)

    async def run(self) -> None:
        """Prepare the connection, and return when the link is lost.

        Raises:
            SensorSilentError: a stream missed its deadline.
            BleakError: the link failed while it was prepared.
        """
        self._services = [_Service(driver, found) for driver, found in self._match_drivers()]
        await self._secure()
        self.on_progress("secured")
        try:
            for service in self._services:
                await self._subscribe(service)
            await self._identify()
        finally:  # a cuff that is already asleep has sent its result
            for service in self._services:
                self._open(service)
        for service in self._services:
            await self._set_up(service)
        self.on_progress("subscribed")
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._serve(service)) for service in self._services]
            silent = await self._wait_link_lost()
            for task in tasks:
                task.cancel()
        if silent is not None:
            raise SensorSilentError(f"connected, but characteristic {silent} fell silent")

    async def stop(self) -> None:
        """Run the drivers' stop procedures, each as far as the sensor answers."""
        for service in self._services if not self.lost.is_set() else ():
            if service.decoder is not None and service.decoder.conversation is not None:
                try:
                    await self._run(service, service.decoder.conversation.stop())
                except SETUP_ERRORS as error:
                    log.debug("%s: %s did not stop: %s", self.name, service.driver.name, error)

    def _match_drivers(self) -> Iterator[tuple[DriverSpec, BleakGATTService]]:
        """Yield each driver whose service the sensor offers, in order of rank, with the first instance of that service.

        A second instance, as in a watch with two batteries, would measure the same kinds again under the same name.
        """
        for driver in sorted(self.registry.drivers, key=lambda driver: driver.setup_rank):
            offered = [service for service in self.client.services if service.uuid == driver.service]
            if offered:
                yield driver, min(offered, key=lambda service: service.handle)

    async def _secure(self) -> None:
        if any(service.driver.bonding for service in self._services):
            await self.client.pair()

    async def _subscribe(self, service: _Service) -> None:
        for stream in service.driver.streams:
            found = service.characteristic(stream.uuid)
            if found is None or stream.uuid in service.subscribed:
                continue
            step = partial(self._start_notify, service, stream, found)
            if stream.is_optional:
                await self._try_optional(step, f"stream {stream.uuid}")
                continue
            try:
                async with asyncio.timeout(RESPONSE_TIMEOUT_S):
                    await step()
            except SETUP_ERRORS as error:
                self._on_failure(service, error)

    async def _start_notify(self, service: _Service, stream: Characteristic, found: BleakGATTCharacteristic) -> None:
        await self.client.start_notify(found, self._make_handler(service, stream))
        service.subscribed.add(stream.uuid)

    def _on_failure(self, service: _Service, error: Exception) -> None:
        """Note that a driver's set-up failed. Raises `BleakError` if the failure cost the link."""
        if self.lost.is_set():
            raise BleakError("the link was lost") from error
        failure = describe(error)
        if failure != service.failure:
            log.warning("%s: continues without %s: %s", self.name, service.driver.name, failure)
            self._emit(service.driver.service, b"", (Status("setup_failed", service.driver.name),), self._now())
        service.has_failed, service.failure = True, failure
        service.deadlines.clear()

    async def _try_optional(self, step: Callable[[], Awaitable[None]], name: str) -> None:
        """Perform a step that the sensor is useful without. Its failure is raised only if it cost the link."""
        failures = self.optional_failures
        if failures[name] >= OPTIONAL_ATTEMPTS:
            return
        failures[name] += 1  # counted first: the link may be lost while the step waits
        try:
            async with asyncio.timeout(RESPONSE_TIMEOUT_S):
                await step()
        except Exception as error:
            log.warning("%s: continues without %s: %s", self.name, name, describe(error))
            if self.lost.is_set():
                raise
        else:
            del failures[name]

    async def _identify(self) -> None:
        """Read the device information, which decides on the quirks of every driver."""
        for service in self._services:
            if service.driver.identifies:
                self._open(service)
                await self._read_values(service)
        device = self.memory.device
        self.memory.device = replace(device, name=self.advertised_name or device.name)

    async def _read_values(self, service: _Service) -> None:
        for read in service.driver.reads:
            if (found := service.characteristic(read.uuid)) is not None:
                await self._try_optional(partial(self._read, service, read, found), f"read {read.uuid}")

    async def _read(self, service: _Service, read: Characteristic, found: BleakGATTCharacteristic) -> None:
        self._on_value(service, read, bytes(await self.client.read_gatt_char(found)), self._now())

    def _open(self, service: _Service) -> None:
        """Open the service's conversation, and decode the values that came before."""
        if service.decoder is None:
            memory = self.memory.drivers.get(service.driver.name, {})
            service.decoder = ServiceDecoder(service.driver, Context(self.memory.device, self.consent, memory))
        early, service.early = service.early, []
        for stream, payload, arrival in early:
            self._on_value(service, stream, payload, arrival)

    async def _set_up(self, service: _Service) -> None:
        """Read the service's other values and run its driver's start procedure, unless its subscriptions failed."""
        if not service.driver.identifies:
            await self._read_values(service)
        if not service.has_failed:
            await self._start(service)

    async def _start(self, service: _Service) -> None:
        """Run the driver's start procedure; from its end on, the streams have deadlines."""
        assert service.decoder is not None
        conversation = service.decoder.conversation
        started = await self._try_procedure(service, conversation.start(self._moment(self._now()))) if conversation else True
        if started:
            service.has_failed = False
            now_s = asyncio.get_running_loop().time()
            limits = {stream.uuid: stream.silent_after_s for stream in service.driver.streams if stream.silent_after_s}
            service.deadlines = {uuid: now_s + limit_s for uuid, limit_s in limits.items() if uuid in service.subscribed}

    async def _try_procedure(self, service: _Service, procedure: Procedure) -> bool:
        """Run a procedure; return whether it ended well. A defect of a driver counts as a failure of its set-up."""
        try:
            await self._run(service, procedure)
        except Exception as error:  # noqa: BLE001  whatever a driver raises must not end the agent
            self._on_failure(service, error)
            return False
        return True

    async def _serve(self, service: _Service) -> None:
        """Run the procedures that values ask for, and a failed set-up again, until the link is lost."""
        attempts = 0
        with contextlib.suppress(BleakError):  # the link is lost
            while True:
                pause_s = SETUP_RETRY_S[min(attempts, len(SETUP_RETRY_S) - 1)]
                try:
                    async with asyncio.timeout(pause_s if service.has_failed else None):
                        procedure = await service.procedures.get()
                except TimeoutError:
                    attempts += 1
                    service.has_failed = False
                    await self._subscribe(service)
                    if not service.has_failed:
                        await self._start(service)
                else:
                    await self._try_procedure(service, procedure)

    async def _run(self, service: _Service, procedure: Procedure) -> None:
        """Run a procedure to its end. Raises what it does not catch."""
        result: Any = None
        error: Exception | None = None
        while True:
            try:
                action = procedure.send(result) if error is None else procedure.throw(error)
            except StopIteration:
                return
            result, error = None, None
            try:
                result = await self._perform(service, action)
            except (RefusedError, NoAnswerError) as refusal:
                error = refusal

    async def _perform(self, service: _Service, action: Any) -> Any:
        match action:
            case Read(uuid):
                return await self._read_for(service, uuid)
            case Write(uuid, payload):
                await self._write(service, uuid, payload)
            case Request():
                return await self._request(service, action)
            case Wait(seconds):
                await self._wait_quiet(service, seconds)
            case Bond():
                await self._bond()
            case Remember(memory):
                self._emit(service.driver.service, b"", (), self._now(), self._remember(service, memory))
            case _:
                assert service.decoder is not None
                self._emit(service.driver.service, b"", service.decoder.check((action,)), self._now())
        return None

    async def _read_for(self, service: _Service, uuid: str) -> bytes | None:
        found = service.characteristic(uuid)
        if found is None:
            return None
        try:
            async with asyncio.timeout(RESPONSE_TIMEOUT_S):
                return bytes(await self.client.read_gatt_char(found))
        except BleakGATTProtocolError:
            return None

    async def _write(self, service: _Service, uuid: str, payload: bytes) -> None:
        found = service.characteristic(uuid)
        if found is None:
            raise RefusedError(f"the sensor has no characteristic {uuid}")
        try:
            async with asyncio.timeout(RESPONSE_TIMEOUT_S):
                await self.client.write_gatt_char(found, payload, response=True)
        except BleakGATTProtocolError as error:
            raise RefusedError(f"the sensor refuses a write to {uuid}: {error}") from error

    async def _request(self, service: _Service, request: Request) -> bytes:
        loop = asyncio.get_running_loop()
        waiter = _Waiter(request.characteristic, request.is_answer, loop.create_future())
        service.waiter, service.last_value_s = waiter, loop.time()
        try:
            await self._write(service, request.characteristic, request.payload)
            while not waiter.answer.done():
                left_s = service.last_value_s + request.timeout_s - loop.time()
                if left_s <= 0:
                    raise NoAnswerError(f"the sensor did not answer a request to {request.characteristic}")
                await asyncio.wait({waiter.answer}, timeout=left_s)
            return waiter.answer.result()
        finally:
            service.waiter = None

    async def _wait_quiet(self, service: _Service, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        service.last_value_s = loop.time()
        while (left_s := service.last_value_s + seconds - loop.time()) > 0:
            await asyncio.sleep(left_s)

    async def _bond(self) -> None:
        try:
            await self.client.pair()
        except BleakError as error:
            raise RefusedError(f"the sensor refuses to pair: {error}") from error

    def _make_handler(self, service: _Service, stream: Characteristic) -> Callable[[object, bytearray], None]:
        def on_notification(_characteristic: object, payload: bytearray) -> None:
            self._on_value(service, stream, bytes(payload), self._now())

        return on_notification

    def _on_value(self, service: _Service, stream: Characteristic, payload: bytes, arrival: Arrival) -> None:
        """Decode a value, or keep it until the model is known."""
        if service.decoder is None:
            if len(service.early) < WAITING_LIMIT:
                service.early.append((stream, payload, arrival))
            return
        now_s = asyncio.get_running_loop().time()
        service.last_value_s = now_s
        if stream.silent_after_s is not None and stream.uuid in service.deadlines:
            service.deadlines[stream.uuid] = now_s + stream.silent_after_s
        decoded = self._decode(service, stream, payload, arrival)
        memory = None if decoded.memory is None else self._remember(service, decoded.memory)
        if service.driver.identifies:
            self.memory.device = self.memory.device.updated(decoded.readings)
            memory = self.memory.state()
        self.on_value()
        self._emit(stream.uuid, payload, decoded.readings, arrival, memory, is_indicated=stream.mode == "indicate")
        for procedure in decoded.procedures:
            if not service.procedures.full():
                service.procedures.put_nowait(procedure)
        waiter = service.waiter
        if waiter is not None and not waiter.answer.done() and waiter.accepts(stream.uuid, payload):
            waiter.answer.set_result(payload)

    def _decode(self, service: _Service, stream: Characteristic, payload: bytes, arrival: Arrival) -> Decoded:
        """Decode a value. A defect of a driver costs the value, which is kept, and nothing else."""
        assert service.decoder is not None
        try:
            return service.decoder.decode(stream.uuid, payload, self._moment(arrival))
        except Exception as error:  # noqa: BLE001  whatever a driver raises on a hostile payload must not end the agent
            reason = f"its driver failed: {type(error).__name__}"
            log.error("%s: %s failed with %s; the payload is kept", self.name, service.driver.name, type(error).__name__)
            return Decoded((Quarantined(stream.uuid, payload, reason),))

    def _remember(self, service: _Service, memory: Mapping[str, Any]) -> Mapping[str, Any]:
        self.memory.drivers[service.driver.name] = memory
        return self.memory.state()

    def _emit(
        self,
        characteristic: str,
        payload: bytes,
        readings: tuple[Reading, ...],
        arrival: Arrival,
        memory: Mapping[str, Any] | None = None,
        *,
        is_indicated: bool = False,
    ) -> None:
        self.events.put(Notification(characteristic, payload, readings, arrival, is_indicated, memory))

    async def _wait_link_lost(self) -> str | None:
        """Return None when the link is lost, or the characteristic of a stream that missed its deadline."""
        loop = asyncio.get_running_loop()
        while not self.lost.is_set():
            now_s = loop.time()
            deadlines = [(at_s, uuid) for service in self._services for uuid, at_s in service.deadlines.items()]
            at_s, uuid = min(deadlines, default=(math.inf, ""))
            if at_s <= now_s:
                return uuid
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(at_s - now_s, 1.0)):
                    await self.lost.wait()
        return None

    def _now(self) -> Arrival:
        return Arrival(self.clock.wall_us(), self.clock.mono_ns())

    def _moment(self, arrival: Arrival) -> Moment:
        return Moment(arrival.wall_us, localtime(arrival.wall_us // 1_000_000).tm_gmtoff)


def describe(error: Exception) -> str:
    """One line about an error; an unexpected one with its type, because its message alone may say nothing."""
    if isinstance(error, (SensorSilentError, *SETUP_ERRORS)) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
