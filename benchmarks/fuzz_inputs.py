"""What `benchmarks.fuzz_decoders` does with one input: bytes become advertisements, values, answers and refusals of a sensor.

An input selects a driver and a model, then lists what the sensor does. `check_input` fails if anything but a declared error
comes out of a driver, if a reading has an unknown kind or a value that later stages refuse, if a procedure does not end, or if
what a conversation keeps grows beyond `STATE_LIMIT_BYTES`.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from drivers.conversation import (
    Action,
    Bond,
    Consent,
    Context,
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
from drivers.decoding import Decoded, ServiceDecoder
from drivers.device import DeviceInformation
from drivers.kinds import KINDS
from drivers.readings import DecodeError, Quarantined, Reading, check_reading
from drivers.registry import Registry
from drivers.spec import Broadcast, DriverSpec, uuid16

STATE_LIMIT_BYTES: Final = 1 << 15
"""Far more than the longest packet in parts and the last records of a sensor."""
PROCEDURE_LIMIT: Final = 10_000
"""More steps than any set-up has; each reading of a procedure is a step."""
REPEATS: Final = 150
"""How often an input that says so repeats its last value at the end: state that grows with each value reaches its limit."""
STEPS: Final = 24
"""What a sensor does in one input, at most: enough for a set-up, and a packet in parts between others."""
ANSWER_TRIES: Final = 4

_START: Final = 0xC0
_STOP: Final = 0xE0
_REPEAT_LAST: Final = 0xBD
_ALL_THE_REST: Final = 0xFF
_DECLARED: Final = (DecodeError, RefusedError, NoAnswerError)
_NOW: Final = Moment(1_790_000_000_000_000, 3600)


class Source:
    """Reads an input. After its end, every byte is 0."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_at_end(self) -> bool:
        return self._at >= len(self._data)

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def take(self) -> bytes:
        """A length and as many bytes, or all the rest."""
        size = self.byte()
        end = len(self._data) if size == _ALL_THE_REST else self._at + size
        taken = self._data[self._at : end]
        self._at = end
        return taken


class Harness:
    """Checks inputs against the drivers of a registry."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    @cached_property
    def targets(self) -> tuple[DriverSpec | Broadcast, ...]:
        """What the first byte of an input selects."""
        services = [driver for driver in self.registry.drivers if driver.service]
        return (*services, *(broadcast for driver in self.registry.drivers for broadcast in driver.broadcasts))

    def check_input(self, data: bytes) -> None:
        """Run one input. Raises AssertionError, or whatever a driver raised against its contract."""
        source = Source(data)
        target = self.targets[source.byte() % len(self.targets)]
        if isinstance(target, Broadcast):
            check_readings(self.registry.decode_broadcast(target.field, target.key, source.take()))
        else:
            Sensor(target, source).run()

    def make_seeds(self, vectors: Path) -> Iterator[bytes]:
        """Inputs that hold the known payloads, valid and malformed, with and without the set-up of the driver."""
        for at, target in enumerate(self.targets):
            owner = target if isinstance(target, DriverSpec) else self._owner(target)
            file = json.loads((vectors / f"{owner.name}.json").read_text())
            for case in file["vectors"] + file["malformed"]:
                payload = bytes((_ALL_THE_REST,)) + bytes.fromhex(case["hex"])
                if isinstance(target, Broadcast):
                    if case["characteristic"] == f"{target.field} {target.key}":
                        yield bytes((at,)) + payload
                elif (index := _stream_index(target, case["characteristic"])) is not None:
                    model = _model_index(target, case.get("model", ""))
                    yield bytes((at, model, index)) + payload
                    if target.converse is not None:
                        yield bytes((at, model, _START, index)) + payload

    def _owner(self, broadcast: Broadcast) -> DriverSpec:
        return next(driver for driver in self.registry.drivers if broadcast in driver.broadcasts)


class Sensor:
    """A sensor that does what an input says, and the driver's decoder of one connection."""

    def __init__(self, driver: DriverSpec, source: Source) -> None:
        models = _models(driver)
        device = DeviceInformation(model=models[source.byte() % len(models)])
        self._source = source
        self._decoder = ServiceDecoder(driver, Context(device, Consent(1, 1234)))
        self._characteristics = [item.uuid for item in driver.streams + driver.reads]
        self._last = (self._characteristics[0], b"")

    def run(self) -> None:
        for _ in range(STEPS):
            if self._source.is_at_end:
                break
            step = self._source.byte()
            if step == _REPEAT_LAST:
                self._repeat_last()
                break
            if step < _START:
                self._notify(self._characteristics[step % len(self._characteristics)], self._source.take())
            else:
                self._converse(is_start=step < _STOP)
        kept = kept_bytes(self._decoder.conversation)
        assert kept <= STATE_LIMIT_BYTES, f"the conversation keeps {kept} bytes"

    def _repeat_last(self) -> None:
        if self._decoder.conversation is not None:
            for _ in range(REPEATS):
                self._notify(*self._last)

    def _converse(self, *, is_start: bool) -> None:
        conversation = self._decoder.conversation
        if conversation is not None:
            self._run_procedure(conversation.start(_NOW) if is_start else conversation.stop())

    def _notify(self, characteristic: str, payload: bytes) -> None:
        self._last = (characteristic, payload)
        decoded: Decoded = self._decoder.decode(characteristic, payload, _NOW)
        check_readings(decoded.readings)
        if decoded.memory is not None:
            json.dumps(decoded.memory)
        for procedure in decoded.procedures:
            self._run_procedure(procedure)

    def _run_procedure(self, procedure: Procedure) -> None:
        with suppress(*_DECLARED, StopIteration):
            step = next(procedure)
            for _ in range(PROCEDURE_LIMIT):
                step = self._answer(procedure, step)
            raise AssertionError(f"a procedure of more than {PROCEDURE_LIMIT} steps")

    def _answer(self, procedure: Procedure, step: Action | Reading) -> Action | Reading:
        """Perform a step of a procedure; return its next one."""
        match step:
            case Read():
                return procedure.send(self._source.take() if self._source.byte() % 2 else None)
            case Write() | Bond():
                if self._source.byte() % 8 == 7:
                    return procedure.throw(RefusedError("the input says so"))
            case Request():
                return self._answer_request(procedure, step)
            case Remember(memory):
                json.dumps(memory)
            case Wait() | Expect():
                pass
            case _:
                check_readings((step,))
        return procedure.send(None)

    def _answer_request(self, procedure: Procedure, request: Request) -> Action | Reading:
        """The sensor sends values until one is the answer, refuses the write, or remains silent."""
        for _ in range(ANSWER_TRIES):
            choice = self._source.byte() % 8
            if choice == 0:
                break
            if choice == 1:
                return procedure.throw(RefusedError("the input says so"))
            payload = self._source.take()
            check_readings(self._decoder.decode(request.characteristic, payload, _NOW).readings)
            if request.is_answer(payload):
                return procedure.send(payload)
        return procedure.throw(NoAnswerError("the input says so"))


def check_readings(readings: tuple[Reading, ...]) -> None:
    """Check that later stages can represent every reading."""
    for reading in readings:
        if isinstance(reading, Quarantined):
            assert reading.reason, "a quarantined payload without a reason"
        else:
            assert reading.kind in KINDS, f"unknown kind {reading.kind}"
            check_reading(reading)


def kept_bytes(value: object) -> int:
    """Roughly the memory that an object and what it holds take."""
    seen: set[int] = set()
    waiting: list[Any] = [value]
    total = 0
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, type) or callable(item):
            continue
        seen.add(id(item))
        total += sys.getsizeof(item)
        if isinstance(item, Mapping):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset) or type(item).__name__ == "deque":
            waiting += item
        else:
            waiting += getattr(item, "__dict__", {}).values()
            waiting += [getattr(item, name) for name in getattr(type(item), "__slots__", ()) if hasattr(item, name)]
    return total


def _models(driver: DriverSpec) -> tuple[str, ...]:
    return ("", *(model for quirk in driver.quirks for model in quirk.models or ()))


def _model_index(driver: DriverSpec, name: str) -> int:
    """The index of the quirk's model that a vector's model has as a word, else 0."""
    device = DeviceInformation(model=name)
    return next((i for i, model in enumerate(_models(driver)) if i and device.is_model(model)), 0)


def _stream_index(driver: DriverSpec, characteristic: str) -> int | None:
    uuid = uuid16(int(characteristic, 16)) if len(characteristic) == 4 else characteristic
    uuids = [item.uuid for item in driver.streams + driver.reads]
    return uuids.index(uuid) if uuid in uuids else None
