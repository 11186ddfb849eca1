"""What the suite says of a faulty driver or vector: one line that names the driver, the fault and what to do."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drivers.conversation import Context, Moment, Procedure, Value, do_nothing
from drivers.readings import Reading, Vital
from drivers.spec import Characteristic, DriverSpec, uuid16
from tests.drivers.vector_files import cases, decoder_of

SPEED = uuid16(0x2A53)
STREAM = Characteristic(SPEED, "notify", lambda _payload: (Vital("heart_rate", 60),))
DRIVER = DriverSpec("foot_pod", uuid16(0x1814), (STREAM,))
READING = {"type": "Vital", "kind": "heart_rate", "value": 60}
CASE = {"characteristic": "2A53", "hex": "00", "readings": [READING], "source": "the specification"}


def failure_of(step: Callable[[], object]) -> str:
    with pytest.raises(pytest.fail.Exception) as failure:
        step()
    message = str(failure.value)
    assert message.startswith("driver foot_pod: ")
    assert "\n" not in message
    return message


def test_a_sound_file_gives_its_vectors(tmp_path: Path) -> None:
    (tmp_path / "foot_pod.json").write_text(json.dumps({"vectors": [CASE], "malformed": []}))
    assert cases(DRIVER, "vectors", tmp_path) == [CASE]


def test_without_a_file_the_message_says_which_to_write(tmp_path: Path) -> None:
    assert "write tests/drivers/vectors/foot_pod.json" in failure_of(lambda: cases(DRIVER, "vectors", tmp_path))


@pytest.mark.parametrize("text", ["{", "{}", '{"vectors": null}'], ids=["no JSON", "no list", "null"])
def test_a_file_that_cannot_be_read_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "foot_pod.json").write_text(text)
    assert "foot_pod.json" in failure_of(lambda: cases(DRIVER, "vectors", tmp_path))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"source": ""}, "the payload 00 of 2A53 in 'vectors' lacks source: add it"),
        ({"readings": None}, "the payload 00 of 2A53 in 'vectors' lacks readings: add it"),
        ({"hex": None}, "lacks hex: add it"),
        ({"characteristic": None}, "lacks characteristic: add it"),
        ({"hex": "0G"}, "the payload 0G of 2A53 in 'vectors' is not hexadecimal"),
        ({"hex": "0"}, "the payload 0 of 2A53 in 'vectors' is not hexadecimal"),
        ({"characteristic": "SPED"}, "the payload 00 of SPED in 'vectors' cannot be read"),
        ({"readings": [{**READING, "type": "Vitals"}]}, "cannot be read: KeyError: 'Vitals'"),
        ({"readings": [{**READING, "unit": "/min"}]}, "unexpected keyword argument 'unit'"),
        ({"readings": [{**READING, "origin": {"measured": "noon"}}]}, "Invalid isoformat string: 'noon'"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_a_faulty_vector_is_named_with_its_fault(change: dict[str, Any], fault: str, tmp_path: Path) -> None:
    (tmp_path / "foot_pod.json").write_text(json.dumps({"vectors": [CASE | change], "malformed": []}))
    assert fault in failure_of(lambda: cases(DRIVER, "vectors", tmp_path))


@pytest.mark.parametrize(
    ("returned", "fault"),
    [
        (Vital("heart_rate", 60), f"the decoder of {SPEED} returned a Vital: return a tuple of readings, () for none"),
        (None, f"the decoder of {SPEED} returned a NoneType: return a tuple"),
        ((60,), f"the decoder of {SPEED} yields a int"),
        ((Vital("haert_rate", 60),), "it yields the kind 'haert_rate', which drivers/kinds.py lacks: add a row"),
    ],
    ids=["one reading", "None", "a number", "an unknown kind"],
)
def test_what_a_decoder_returns_is_checked(returned: Any, fault: str) -> None:
    faulty = replace(STREAM, decode=lambda _payload: returned)
    assert fault in failure_of(lambda: decoder_of(DRIVER, faulty)(b""))


class Conversation:
    def __init__(self, returned: Any) -> None:
        self._returned = returned

    def start(self, now: Moment) -> Procedure:
        del now
        return do_nothing()

    def receive(self, value: Value) -> tuple[Reading, ...]:
        del value
        return self._returned  # type: ignore[no-any-return]

    def stop(self) -> Procedure:
        return do_nothing()


def test_what_a_conversation_returns_is_checked() -> None:
    def driver_of(returned: Any) -> DriverSpec:
        def converse(_context: Context) -> Conversation:
            return Conversation(returned)

        return replace(DRIVER, converse=converse)

    stream = replace(STREAM, decode=None)
    assert decoder_of(driver_of((Vital("heart_rate", 60),)), stream)(b"") == (Vital("heart_rate", 60),)
    message = failure_of(lambda: decoder_of(driver_of(None), stream)(b""))
    assert message.endswith(f"`receive` returned a NoneType for {SPEED}: return a tuple, () for nothing")


def test_a_stream_that_nothing_decodes_is_named() -> None:
    assert f"nothing decodes {SPEED}" in failure_of(lambda: decoder_of(DRIVER, replace(STREAM, decode=None)))
