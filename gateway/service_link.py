"""One service of a connected sensor: its subscriptions, the decoding of its values, and its driver's procedures.

A driver whose set-up fails costs the sensor its own streams only, and is set up again after a pause.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.service import BleakGATTService
from bleak.exc import BleakError, BleakGATTProtocolError

from drivers.conversation import Bond, Expect, NoAnswerError, Procedure, Read, RefusedError, Remember, Request, Wait, Write
from drivers.decoding import Decoded, ServiceDecoder
from drivers.readings import Quarantined, Status
from drivers.spec import Characteristic, DriverSpec
from gateway.radio import OnValue, StaleBondError
from gateway.sensor_limits import cost_of
from gateway.sensor_link import RESPONSE_TIMEOUT_S, SETUP_ERRORS, SensorLink, describe_error, moment_of
from gateway.timeline import Arrival

log = logging.getLogger(__name__)

SETUP_RETRY_S: Final = (5.0, 30.0, 120.0)
"""Pauses before a failed set-up is run again: a strap that still starts up is ready within seconds; one that refuses for good
costs a request every two minutes."""
WAITING_LIMIT: Final = 512
"""Values that wait until model and clock are known: a cuff's whole memory of 200 results, or four seconds of an ECG with a
pulse."""
WAITING_RESERVE: Final = 256
"""Further places for indicated values, which a sensor sends only once: a flood of notifications must not cost them."""
PROCEDURES_LIMIT: Final = 16
"""Procedures that wait behind a running one. A sensor that asks for more keeps asking in vain."""


@dataclass(slots=True)
class _Waiter:
    """A procedure that waits for an answer."""

    characteristic: str
    is_answer: Callable[[bytes], bool]
    answer: asyncio.Future[bytes]

    def offer(self, characteristic: str, payload: bytes) -> None:
        """Take a value if it is the answer. A defect of the driver's `is_answer` fails the procedure."""
        if self.answer.done() or characteristic != self.characteristic:
            return
        try:
            if self.is_answer(payload):
                self.answer.set_result(payload)
        except Exception as error:  # noqa: BLE001  whatever a driver raises on a hostile payload must not end the agent
            self.answer.set_exception(error)


@dataclass(slots=True)
class ServiceLink:
    """One service and its driver. `decoder` is None until the model is known. Values wait until the service is open."""

    link: SensorLink
    driver: DriverSpec
    found: BleakGATTService
    decoder: ServiceDecoder | None = None
    deadlines: dict[str, float] = field(default_factory=dict)
    """When each stream with a limit, or signal that is expected, becomes silent, on the loop's clock."""
    has_failed: bool = False
    """Whether its set-up failed, so that it must be run again."""
    _is_open: bool = False
    _is_started: bool = False
    """Whether its start procedure has been run."""
    _early: list[tuple[Characteristic, bytes, Arrival]] = field(default_factory=list)
    _subscribed: set[str] = field(default_factory=set)
    _waiter: _Waiter | None = None
    _last_value_s: float = 0.0
    _progress: frozenset[str] | None = None
    """The streams whose values count as the last one for a procedure that waits; None: all."""
    _procedures: asyncio.Queue[Procedure] = field(default_factory=partial(asyncio.Queue, PROCEDURES_LIMIT))

    def listen(self) -> None:
        """Take what the sensor sends, or has sent, before the hub subscribes: a bonded one knows what the hub wants."""
        for stream in self.driver.streams:
            if (found := self._find(stream.uuid)) is not None:
                self.link.subscriptions.listen(self.link.client, found, self._make_handler(stream))

    async def subscribe(self) -> None:
        for stream in self.driver.streams:
            found = self._find(stream.uuid)
            if found is None or stream.uuid in self._subscribed:
                continue
            step = partial(self._start_notify, stream, found)
            if stream.is_optional:
                await self.link.try_optional(step, f"stream {stream.uuid}")
                continue
            try:
                async with asyncio.timeout(RESPONSE_TIMEOUT_S):
                    await step()
            except SETUP_ERRORS as error:
                self._on_failure(error)

    async def _start_notify(self, stream: Characteristic, found: BleakGATTCharacteristic) -> None:
        await self.link.subscriptions.subscribe(self.link.client, found, self._make_handler(stream))
        self._subscribed.add(stream.uuid)

    def _on_failure(self, error: Exception) -> None:
        """Note that a driver's set-up failed. Raises `BleakError` if the failure cost the link or the bond."""
        if isinstance(error, StaleBondError):
            raise error
        if self.link.lost.is_set():
            raise BleakError("the link was lost") from error
        failure = describe_error(error)
        if self.link.said.is_new(self.driver.name, failure):
            log.warning("%s: continues without %s: %s", self.link.name, self.driver.name, failure)
            self.link.emit(self.driver.service, b"", (Status("setup_failed", self.driver.name),), self.link.now())
        self.has_failed = True
        self.deadlines.clear()

    async def read_values(self) -> None:
        for read in self.driver.reads:
            if (found := self._find(read.uuid)) is not None:
                await self.link.try_optional(partial(self._read, read, found), f"read {read.uuid}")

    async def _read(self, read: Characteristic, found: BleakGATTCharacteristic) -> None:
        self._on_value(read, bytes(await self.link.client.read_gatt_char(found)), self.link.now())

    async def set_clock(self) -> None:
        """If the driver sets the sensor's clock, do so. Values wait, because their times depend on what the clock showed."""
        if self.driver.sets_clock and not self.has_failed:
            self._open_conversation()
            await self._start()

    def open(self) -> None:
        """Open the service's conversation, and decode the values that came before."""
        self._open_conversation()
        self._is_open = True
        early, self._early = self._early, []
        for stream, payload, arrival in early:
            self._handle(stream, payload, arrival)

    def _open_conversation(self) -> None:
        if self.decoder is None:
            self.decoder = ServiceDecoder(self.driver, self.link.context(self.driver.name))

    async def set_up(self) -> None:
        """Read the service's other values and run its driver's start procedure, unless its subscriptions failed."""
        if not self.driver.identifies:
            await self.read_values()
        if not (self.has_failed or self._is_started):
            await self._start()

    async def _start(self) -> None:
        """Run the driver's start procedure; from its end on, the streams have deadlines."""
        assert self.decoder is not None
        self._is_started = True
        conversation = self.decoder.conversation
        started = await self._try_procedure(conversation.start(moment_of(self.link.now()))) if conversation else True
        if started:
            self.has_failed = False
            now_s = asyncio.get_running_loop().time()
            limits = {stream.uuid: stream.silent_after_s for stream in self.driver.streams if stream.silent_after_s}
            self.deadlines |= {uuid: now_s + limit_s for uuid, limit_s in limits.items() if uuid in self._subscribed}

    async def _try_procedure(self, procedure: Procedure) -> bool:
        """Run a procedure; return whether it ended well. A defect of a driver counts as a failure of its set-up."""
        try:
            await self.run(procedure)
        except Exception as error:  # noqa: BLE001  whatever a driver raises must not end the agent
            self._on_failure(error)
            return False
        return True

    async def serve(self) -> None:
        """Run the procedures that values ask for, and a failed set-up again, until the link is lost."""
        attempts = 0
        with contextlib.suppress(BleakError):  # the link is lost
            while True:
                pause_s = SETUP_RETRY_S[min(attempts, len(SETUP_RETRY_S) - 1)]
                try:
                    async with asyncio.timeout(pause_s if self.has_failed else None):
                        procedure = await self._procedures.get()
                except TimeoutError:
                    attempts += 1
                    self.has_failed = False
                    await self.subscribe()
                    if not self.has_failed:
                        await self._start()
                else:
                    await self._try_procedure(procedure)

    async def run(self, procedure: Procedure) -> None:
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
                result = await self._perform(action)
            except (RefusedError, NoAnswerError) as refusal:
                error = refusal

    async def _perform(self, action: Any) -> Any:
        match action:
            case Read(uuid):
                return await self._read_for(uuid)
            case Write(uuid, payload):
                await self._write(uuid, payload)
            case Request():
                return await self._request(action)
            case Wait():
                await self._wait_quiet(action)
            case Bond():
                await self._bond()
            case Expect():
                self._expect(action)
            case Remember(memory):
                self.link.emit(self.driver.service, b"", (), self.link.now(), self.link.remember(self.driver.name, memory))
            case _:
                assert self.decoder is not None
                self.link.emit(self.driver.service, b"", self.decoder.check((action,)), self.link.now())
        return None

    async def _read_for(self, uuid: str) -> bytes | None:
        """Read a value for a conversation, which says itself what it means. A recording has the value too."""
        found = self._find(uuid)
        if found is None:
            return None
        try:
            async with asyncio.timeout(RESPONSE_TIMEOUT_S):
                payload = bytes(await self.link.client.read_gatt_char(found))
        except BleakGATTProtocolError:
            return None
        self.link.emit(uuid, payload, (), self.link.now())
        return payload

    async def _write(self, uuid: str, payload: bytes) -> None:
        found = self._find(uuid)
        if found is None:
            raise RefusedError(f"the sensor has no characteristic {uuid}")
        try:
            async with asyncio.timeout(RESPONSE_TIMEOUT_S):
                await self.link.client.write_gatt_char(found, payload, response=True)
        except BleakGATTProtocolError as error:
            raise RefusedError(f"the sensor refuses a write to {uuid}: {error}") from error

    async def _request(self, request: Request) -> bytes:
        loop = asyncio.get_running_loop()
        waiter = _Waiter(request.characteristic, request.is_answer, loop.create_future())
        self._waiter, self._last_value_s, self._progress = waiter, loop.time(), request.progress
        try:
            await self._write(request.characteristic, request.payload)
            while not waiter.answer.done():
                left_s = self._last_value_s + request.timeout_s - loop.time()
                if left_s <= 0:
                    raise NoAnswerError(f"the sensor did not answer a request to {request.characteristic}")
                await asyncio.wait({waiter.answer}, timeout=left_s)
            return waiter.answer.result()
        finally:
            self._waiter = None

    async def _wait_quiet(self, wait: Wait) -> None:
        loop = asyncio.get_running_loop()
        self._last_value_s, self._progress = loop.time(), wait.progress
        while (left_s := self._last_value_s + wait.seconds - loop.time()) > 0:
            await asyncio.sleep(left_s)

    async def _bond(self) -> None:
        if not self.link.may_bond:
            raise RefusedError(f"the sensor needs a pairing: run `pulsegate pair {self.link.name}`")
        try:
            await self.link.client.pair()
        except BleakError as error:
            raise RefusedError(f"the sensor refuses to pair: {error}") from error

    def _expect(self, expected: Expect) -> None:
        if expected.within_s is None:
            self.deadlines.pop(expected.name, None)
        else:
            self.deadlines[expected.name] = asyncio.get_running_loop().time() + expected.within_s

    def _make_handler(self, stream: Characteristic) -> OnValue:
        return lambda payload, age_s: self._on_value(stream, payload, self.link.now(age_s))

    def _on_value(self, stream: Characteristic, payload: bytes, arrival: Arrival) -> None:
        """Decode a value, or keep it until the model and the clock are known.

        What exceeds the sensor's allowance is dropped, except indicated results: the sensor takes them for received.
        """
        is_indicated = stream.mode == "indicate"
        if self.link.limit.is_exceeded and not is_indicated:
            return
        if self._is_open:
            self._handle(stream, payload, arrival)
            return
        limit = WAITING_LIMIT + (WAITING_RESERVE if is_indicated else 0)
        cost, now_s = cost_of(payload)[0], asyncio.get_running_loop().time()
        if len(self._early) < limit and self.link.limit.admits(cost, now_s, is_indicated=is_indicated):
            self._early.append((stream, payload, arrival))

    def _handle(self, stream: Characteristic, payload: bytes, arrival: Arrival) -> None:
        """Decode a value, pass its readings on, and do what it asks for."""
        now_s = asyncio.get_running_loop().time()
        if self._progress is None or stream.uuid in self._progress:
            self._last_value_s = now_s
        if stream.silent_after_s is not None and stream.uuid in self.deadlines:
            self.deadlines[stream.uuid] = now_s + stream.silent_after_s
        decoded = self._decode(stream, payload, arrival)
        cost, results = cost_of(payload, decoded.readings)
        is_indicated = stream.mode == "indicate"
        if not self.link.limit.admits(cost, now_s, is_indicated=is_indicated):
            return
        memory = None if decoded.memory is None else self.link.remember(self.driver.name, decoded.memory)
        if self.driver.identifies:
            memory = self.link.identify(decoded.readings)
        self.link.count_value(results)
        self.link.emit(stream.uuid, payload, decoded.readings, arrival, memory, is_indicated=is_indicated)
        for expected in decoded.expected:
            self._expect(expected)
        for procedure in decoded.procedures:
            if not self._procedures.full():
                self._procedures.put_nowait(procedure)
        if self._waiter is not None:
            self._waiter.offer(stream.uuid, payload)

    def _decode(self, stream: Characteristic, payload: bytes, arrival: Arrival) -> Decoded:
        """Decode a value. A defect of a driver costs the value, which is kept, and nothing else."""
        assert self.decoder is not None
        try:
            if self.decoder.conversation is None:
                return self.decoder.decode(stream.uuid, payload)
            return self.decoder.decode(stream.uuid, payload, moment_of(arrival))
        except Exception as error:  # noqa: BLE001  whatever a driver raises on a hostile payload must not end the agent
            reason = f"its driver failed: {type(error).__name__}"
            level = logging.ERROR if self.link.said.is_new(self.driver.name, reason) else logging.DEBUG
            log.log(level, "%s: %s failed with %s; the payload is kept", self.link.name, self.driver.name, type(error).__name__)
            return Decoded((Quarantined(stream.uuid, payload, reason),))

    def _find(self, uuid: str) -> BleakGATTCharacteristic | None:
        """The characteristic with the lowest handle; some sensors have two of a kind."""
        same = (item for item in self.found.characteristics if item.uuid == uuid)
        return min(same, key=lambda item: item.handle, default=None)
