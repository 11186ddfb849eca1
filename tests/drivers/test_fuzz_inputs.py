"""The harness of `make fuzz`: it accepts every driver's known payloads and finds faults that are planted."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from benchmarks.fuzz_inputs import PROCEDURE_LIMIT, Harness, kept_bytes
from drivers.conversation import Action, Context, Effect, Moment, Procedure, Read, Remember, Request, Run, Value, Wait, Write
from drivers.readings import DecodeError, Reading, Status, Vital, Waveform
from drivers.registry import build_registry, load_drivers
from drivers.spec import Broadcast, Characteristic, DriverSpec, uuid16
from tests.drivers.vector_files import VECTORS, cases, fail

STREAM = Characteristic(uuid16(0xFF01), "notify")
START, STOP, ALL, REPEAT = 0xC0, 0xE0, 0xFF, 0xBD


class Conversation:
    """A conversation made of the given parts."""

    def __init__(
        self,
        start: Callable[[], Iterator[Action | Reading]] = lambda: iter(()),
        receive: Callable[[Value], Iterator[Effect]] = lambda _value: iter(()),
    ) -> None:
        self._start, self._receive = start, receive
        self.kept: list[Any] = []

    def start(self, now: Moment) -> Procedure:
        del now
        yield from self._start()

    def receive(self, value: Value) -> Iterator[Effect]:
        return self._receive(value)

    def stop(self) -> Procedure:
        yield from ()


class Growing(Conversation):
    def receive(self, value: Value) -> Iterator[Effect]:
        self.kept.append(value.payload + bytes(len(self.kept)))
        return iter(())


def harness(make: Callable[[], Conversation]) -> Harness:
    return Harness(build_registry([DriverSpec("planted", uuid16(0xFF00), (STREAM,), converse=lambda _context: make())]))


def decoding(decode: Callable[[bytes], tuple[Reading, ...]]) -> Harness:
    return Harness(build_registry([DriverSpec("planted", uuid16(0xFF00), (Characteristic(uuid16(0xFF01), "notify", decode),))]))


def value(payload: bytes) -> bytes:
    """An input in which the first driver's sensor sends a value."""
    return bytes((0, 0, 0, ALL)) + payload


def refuse(_payload: bytes) -> tuple[Reading, ...]:
    raise DecodeError("length: 1 byte is needed")


@pytest.mark.parametrize("driver", load_drivers().drivers, ids=lambda driver: driver.name)
def test_the_known_payloads_of_every_driver_pass(driver: DriverSpec) -> None:
    assert cases(driver, "vectors")
    found = Harness(build_registry([driver]))
    seeds = list(found.make_seeds(VECTORS))
    assert seeds
    for seed in seeds:
        try:
            found.check_input(seed)
        except AssertionError as error:
            fail(driver, f"{error} (for the input {seed.hex()} of `make fuzz`)")


def test_declared_refusals_pass() -> None:
    decoding(refuse).check_input(value(b"\1"))


@pytest.mark.parametrize(
    ("decode", "fault"),
    [
        (lambda payload: (Status("battery", payload[5]),), IndexError),
        (lambda _payload: (Vital("no_such_kind", 1),), AssertionError),
    ],
)
def test_finds_an_undeclared_error_and_an_unknown_kind(
    decode: Callable[[bytes], tuple[Reading, ...]], fault: type[Exception]
) -> None:
    with pytest.raises(fault):
        decoding(decode).check_input(value(b"\1"))


def test_finds_faults_in_advertisements() -> None:
    broadcast = Broadcast("manufacturer_data", 0x006B, lambda payload: (Status("battery", payload[0]),))
    found = Harness(build_registry([DriverSpec("planted", broadcasts=(broadcast,))]))
    found.check_input(bytes((0, ALL, 7)))
    with pytest.raises(IndexError):
        found.check_input(bytes((0, ALL)))


def test_finds_a_conversation_that_grows() -> None:
    harness(Growing).check_input(value(bytes(200)))
    with pytest.raises(AssertionError, match="keeps"):
        harness(Growing).check_input(bytes((0, 0, 0, 200)) + bytes(200) + bytes((REPEAT,)))


def endless() -> Iterator[Action]:
    while True:
        yield Wait(1)


def index_error() -> Iterator[Action]:
    answer = yield Request(STREAM.uuid, b"\1", lambda payload: payload[:1] == b"\6")  # type: ignore[misc]  # the answer is sent
    assert answer[3]


def unserialisable() -> Iterator[Action]:
    yield Remember({"last": b"\1"})


def impossible_reading() -> Iterator[Reading]:
    yield Waveform("ecg", (), 130.0, 0.001)


@pytest.mark.parametrize(
    ("start", "answers", "fault"),
    [
        (endless, b"", AssertionError),
        (index_error, bytes((2, 2, 6, 0)), IndexError),
        (unserialisable, b"", TypeError),
    ],
)
def test_finds_a_fault_in_a_procedure(start: Callable[[], Iterator[Action]], answers: bytes, fault: type[Exception]) -> None:
    with pytest.raises(fault):
        harness(lambda: Conversation(start)).check_input(bytes((0, 0, START)) + answers)


def test_finds_a_fault_in_a_procedure_that_a_value_starts() -> None:
    with pytest.raises(IndexError):
        harness(lambda: Conversation(receive=lambda _value: iter((Run(index_error()),)))).check_input(
            bytes((0, 0, 0, 0)) + bytes((2, 2, 6, 0))
        )


def test_an_impossible_reading_of_a_procedure_is_a_declared_error() -> None:
    harness(lambda: Conversation(impossible_reading)).check_input(bytes((0, 0, START)))


@pytest.mark.parametrize(
    ("answers", "asked"),
    [
        (bytes((0, 0, 0)), 3),  # no value, an accepted write, no answer
        (bytes((1, 1, 5, 0, 2, 1, 6)), 4),  # a value, an accepted write, an answer
        (bytes((0, 7)), 2),  # a refused write
        (bytes((0, 0, 1)), 3),  # a refused request
    ],
)
def test_the_input_decides_what_the_sensor_answers(answers: bytes, asked: int) -> None:
    steps: list[int] = []

    def start() -> Iterator[Action]:
        for step in (Read(STREAM.uuid), Write(STREAM.uuid, b"\1"), Request(STREAM.uuid, b"\1", lambda answer: answer == b"\6")):
            steps.append(1)
            yield step
        steps.append(1)

    harness(lambda: Conversation(start)).check_input(bytes((0, 0, START)) + answers)
    assert len(steps) == asked


def test_counts_the_bytes_of_nested_objects() -> None:
    assert kept_bytes({"key": [bytes(1000), (bytearray(2000),)]}) > 3000
    assert kept_bytes(Context()) < 10_000
    assert PROCEDURE_LIMIT > 1000
