"""Plays a conversation with a scripted sensor on virtual time, as a session does. No waiting, no I/O."""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from drivers.conversation import (
    Action,
    Bond,
    Context,
    Conversation,
    Expect,
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
from drivers.decoding import ServiceDecoder
from drivers.readings import Reading
from drivers.spec import DriverSpec

START_US = 1_790_000_000_000_000
"""2026-09-21 14:13:20 UTC."""

Sent = tuple[float, str, bytes]
"""A value that the sensor sends: seconds after the write that caused it, its characteristic, its payload."""


class Sensor(Protocol):
    def read(self, characteristic: str) -> bytes | None: ...

    def write(self, characteristic: str, payload: bytes) -> Iterable[Sent]:
        """What the sensor sends after this write. Raises `RefusedError`."""
        ...


def connect(driver: DriverSpec, sensor: Sensor, memory: Mapping[str, Any] | None = None) -> "Player":
    """A connection whose procedure `start` has ended. `memory` is what the connection before it remembered."""
    return open_connection(driver, sensor, memory).start()


def open_connection(driver: DriverSpec, sensor: Sensor, memory: Mapping[str, Any] | None = None) -> "Player":
    """A connection before its procedure `start`."""
    return Player(ServiceDecoder(driver, Context(memory=memory or {})), sensor)


@dataclass
class Player:
    """One connection. `readings` are those that a session would store, `memory` what it would hand to the next connection."""

    decoder: ServiceDecoder
    sensor: Sensor
    now_s: float = 0.0
    readings: list[Reading] = field(default_factory=list)
    memory: Mapping[str, Any] | None = None
    written: list[tuple[float, str]] = field(default_factory=list)
    """Each write: when, and the payload in hexadecimal."""
    _pending: list[tuple[float, int, str, bytes]] = field(default_factory=list)
    _order: int = 0

    @property
    def conversation(self) -> Conversation:
        found = self.decoder.conversation
        assert found is not None, f"{self.decoder.driver.name} is a driver in the short form: it has no conversation to play"
        return found

    @property
    def now(self) -> Moment:
        return Moment(START_US + round(self.now_s * 1e6))

    def start(self) -> "Player":
        """Run the procedure `start` to its end."""
        self.run(self.conversation.start(self.now))
        return self

    def run(self, procedure: Procedure) -> None:
        """Run a procedure to its end. Raises the refusal or the missing answer that it does not catch."""
        result: Any = None
        error: Exception | None = None
        while True:
            try:
                step = procedure.throw(error) if error else procedure.send(result)
            except StopIteration:
                return
            result, error = None, None
            try:
                result = self._perform(step)
            except (RefusedError, NoAnswerError) as failure:
                error = failure

    def send(self, characteristic: str, payload: bytes, after_s: float = 0.0) -> None:
        """The sensor sends a value by itself."""
        self._schedule([(after_s, characteristic, payload)])

    def play(self, seconds: float) -> None:
        """Let time pass: everything that is sent within it arrives."""
        end_s = self.now_s + seconds
        while self._pending and self._pending[0][0] <= end_s:
            self._receive_next()
        self.now_s = end_s

    def _perform(self, step: Action | Reading) -> Any:
        match step:
            case Read(characteristic):
                return self.sensor.read(characteristic)
            case Write(characteristic, payload):
                self._write(characteristic, payload)
            case Request(characteristic, payload):
                self._write(characteristic, payload)
                return self._await_answer(step)
            case Wait(seconds, progress):
                self._await_silence(seconds, progress)
            case Remember(memory):
                self.memory = memory
            case Bond() | Expect():
                pass
            case _:
                self.readings += self.decoder.check((step,))
        return None

    def _write(self, characteristic: str, payload: bytes) -> None:
        self.written.append((self.now_s, payload.hex().upper()))
        self._schedule(self.sensor.write(characteristic, payload))

    def _schedule(self, sent: Iterable[Sent]) -> None:
        for after_s, characteristic, payload in sent:
            self._order += 1
            heapq.heappush(self._pending, (self.now_s + after_s, self._order, characteristic, payload))

    def _await_answer(self, request: Request) -> bytes:
        deadline_s = self.now_s + request.timeout_s
        while self._pending and self._pending[0][0] <= deadline_s:
            characteristic, payload = self._receive_next()
            if characteristic == request.characteristic and request.is_answer(payload):
                return payload
            if request.progress is None or characteristic in request.progress:
                deadline_s = self.now_s + request.timeout_s
        self.now_s = deadline_s
        raise NoAnswerError(f"no answer to {request.payload.hex()}")

    def _await_silence(self, seconds: float, progress: frozenset[str] | None) -> None:
        deadline_s = self.now_s + seconds
        while self._pending and self._pending[0][0] <= deadline_s:
            characteristic, _ = self._receive_next()
            if progress is None or characteristic in progress:
                deadline_s = self.now_s + seconds
        self.now_s = deadline_s

    def _receive_next(self) -> tuple[str, bytes]:
        self.now_s, _, characteristic, payload = heapq.heappop(self._pending)
        decoded = self.decoder.decode(characteristic, payload, self.now)
        self.readings += decoded.readings
        if decoded.memory is not None:
            self.memory = decoded.memory
        for procedure in decoded.procedures:
            self.run(procedure)
        return characteristic, payload
