"""A scripted sensor with Polar Measurement Data, and the conversation with it."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from drivers.conversation import (
    Context,
    Conversation,
    Effect,
    Expect,
    Moment,
    NoAnswerError,
    Procedure,
    Read,
    Remember,
    Request,
    Run,
    Value,
)
from drivers.polar_pmd import CONTROL_POINT, DATA, DRIVER
from drivers.readings import Reading, Waveform

NOW: Final = Moment(1_750_000_000_000_000)
VECTORS: Final = json.loads((Path(__file__).parent / "vectors/polar_pmd.json").read_text())

ECG_FRAME: Final = bytes.fromhex("000094357700000000000280FF028000")
ACC_FRAME: Final = bytes.fromhex("02009435770000000001F7FFFFFFE703")
PPI_FRAME: Final = bytes.fromhex("030000000000000000004854030A0006")
H10_FEATURES: Final = "0F05" + 15 * "00"
VERITY_FEATURES: Final = "0F6E02" + 14 * "00"
START_ECG: Final = "02 00 00 01 82 00 01 01 0E 00"
"""The request that every public client of the H10 writes, with 2-byte settings: 0x0082 Hz, 0x000E bits."""


@dataclass
class ScriptedSensor:
    """Answers requests, each in hexadecimal, from a script; by default it does what it is asked to do.

    `answers` holds, for the beginning of a request, the values that the control point indicates in turn. None is silence.
    """

    features: str | None = H10_FEATURES
    answers: dict[str, list[str] | None] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    expected: dict[str, float | None] = field(default_factory=dict)
    """The deadlines that the procedures set."""

    def answer(self, request: bytes) -> list[bytes] | None:
        text = request.hex(" ").upper()
        self.requests.append(text)
        scripted = [values for begin, values in self.answers.items() if text.startswith(begin)]
        if scripted:
            return None if scripted[0] is None else [bytes.fromhex(value) for value in scripted[0]]
        settings = "000182000101 0E00" if text == "01 00" else ""
        return [bytes.fromhex(f"F0 {text[:5]} 00 00 {settings}")]


def perform(conversation: Conversation, procedure: Procedure, sensor: ScriptedSensor) -> list[Reading | Remember]:
    """Perform a procedure as a session does; return the readings and memories that it yields."""
    yielded: list[Reading | Remember] = []
    result: Any = None
    error: Exception | None = None
    while True:
        try:
            step = procedure.throw(error) if error else procedure.send(result)
        except StopIteration:
            return yielded
        result, error = None, None
        match step:
            case Read(characteristic):
                assert characteristic == CONTROL_POINT
                result = None if sensor.features is None else bytes.fromhex(sensor.features)
            case Request(characteristic, payload, is_answer):
                assert characteristic == CONTROL_POINT
                result = await_answer(conversation, sensor.answer(payload), is_answer)
                error = NoAnswerError("the sensor did not answer") if result is None else None
            case Expect(name, within_s):
                sensor.expected[name] = within_s
            case _:
                assert isinstance(step, Reading | Remember)
                yielded.append(step)


def await_answer(conversation: Conversation, values: list[bytes] | None, is_answer: Callable[[bytes], bool]) -> bytes | None:
    for value in values or ():
        assert not list(indicate(conversation, value)), "what a request waits for is not a reading"
        if is_answer(value):
            return value
    return None


def indicate(conversation: Conversation, payload: bytes) -> Iterable[Effect]:
    return conversation.receive(Value(CONTROL_POINT, payload, NOW))


def notify(conversation: Conversation, payload: bytes) -> Iterable[Effect]:
    return conversation.receive(Value(DATA, payload, NOW))


def open_conversation(memory: dict[str, Any] | None = None) -> Conversation:
    assert DRIVER.converse is not None
    return DRIVER.converse(Context(memory=memory or {}))


def started(sensor: ScriptedSensor, memory: dict[str, Any] | None = None) -> tuple[Conversation, list[Reading | Remember]]:
    conversation = open_conversation(memory)
    return conversation, perform(conversation, conversation.start(NOW), sensor)


def procedures(effects: Iterable[Effect]) -> list[Procedure]:
    return [effect.procedure for effect in effects if isinstance(effect, Run)]


def waves(readings: Iterable[object]) -> list[Waveform]:
    return [reading for reading in readings if isinstance(reading, Waveform)]
