"""The examples in docs/how-to-add-a-driver.md are working drivers: one in the short form, two in the long form."""

import importlib.util
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivers.conversation import Context, Moment, NoAnswerError, Procedure, Value, do_nothing
from drivers.device import Decoder
from drivers.kinds import KINDS
from drivers.readings import DecodeError, Reading, Status, Vital
from drivers.registry import build_registry, load_drivers
from drivers.spec import Characteristic, DriverSpec, uuid16
from tests.drivers.player import Sent, connect, open_connection
from tests.drivers.vector_files import characteristic, check_case, decoded, decoder_of, expected, payload

PAGE = Path(__file__).parents[2] / "docs" / "how-to-add-a-driver.md"
EXAMPLES = {"foot_pod": uuid16(0x1814), "glucose_meter": uuid16(0x1808)}

every_example = pytest.mark.parametrize("name", EXAMPLES)


def code_block(title: str) -> str:
    found = re.search(rf"^```{title}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"{PAGE.name} has no code block {title!r}"
    return found[1]


def vectors(name: str, group: str) -> list[dict[str, Any]]:
    return list(json.loads(code_block(f"json {name}"))[group])


def load(name: str, folder: Path, code: str | None = None) -> ModuleType:
    """A module made of this code, or of the code block of this name."""
    file = folder / f"{name}.py"
    file.write_text(code or code_block(f"python {name}"))
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def driver(name: str, tmp_path: Path) -> DriverSpec:
    found = load(name, tmp_path).DRIVER
    assert isinstance(found, DriverSpec)
    return found


@pytest.fixture
def known_kinds(tmp_path: Path) -> set[str]:
    """The names of the existing kinds and of those that the page adds."""
    rows = ",".join(code_block("python kinds").splitlines())
    module = load("rows", tmp_path, f"from drivers.kinds import Kind\nROWS = [{rows}]")
    return {*KINDS, *(kind.name for kind in module.ROWS)}


@pytest.fixture
def decoders(driver: DriverSpec, known_kinds: set[str]) -> dict[str, Decoder]:
    return {stream.uuid: decoder_of(driver, stream, known=known_kinds) for stream in driver.streams}


@every_example
def test_the_example_decodes_its_vectors_and_rejects_their_prefixes(
    driver: DriverSpec, decoders: dict[str, Decoder], name: str
) -> None:
    cases = vectors(name, "vectors")
    assert {characteristic(case) for case in cases} == driver.characteristics
    for case in cases:
        check_case("vectors", case)
        data = payload(case)
        decode = decoders[characteristic(case)]
        assert decode(data) == tuple(expected(item, data) for item in case["readings"])
        assert all(decoded(decode, data[:size]) is None for size in range(len(data)))


@every_example
def test_the_example_rejects_malformed_payloads(driver: DriverSpec, decoders: dict[str, Decoder], name: str) -> None:
    cases = vectors(name, "malformed")
    assert {characteristic(case) for case in cases} == driver.characteristics
    for case in cases:
        check_case("malformed", case)
        with pytest.raises(DecodeError, match=case["error"]):
            decoders[characteristic(case)](payload(case))


any_payload = st.binary(max_size=24) | st.builds(
    lambda flags, rest: bytes((flags, *rest)), st.integers(0, 15), st.binary(max_size=20)
)


@every_example
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=any_payload)
def test_the_example_yields_known_kinds_or_a_decode_error(decoders: dict[str, Decoder], data: bytes) -> None:
    for decode in decoders.values():
        assert decoded(decode, data) == decoded(decode, data)


@every_example
def test_the_example_can_be_registered_with_the_existing_drivers(driver: DriverSpec, name: str) -> None:
    registry = build_registry([*load_drivers().drivers, driver])
    assert registry.for_services([EXAMPLES[name]]) == (driver,)


def run_test(name: str, folder: Path) -> None:
    """Run the one test in the code block of this name."""
    (test,) = [found for key, found in vars(load(name, folder)).items() if key.startswith("test_")]
    test()


def test_the_test_of_the_conversation_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "drivers.glucose_meter", load("glucose_meter", tmp_path))
    run_test("test_glucose_meter", tmp_path)


DATA = "7a3d0003-5c1e-4b0a-9d1e-0c9a5f1e2b3c"


@pytest.fixture
def streamer(tmp_path: Path) -> ModuleType:
    """The example of a request, as a driver: its data has a decoder of its own, its control point has none."""
    module = load("heart_streamer", tmp_path)

    class Conversation:
        def __init__(self, context: Context) -> None:
            del context

        def start(self, now: Moment) -> Procedure:
            del now
            return module.start_stream()  # type: ignore[no-any-return]

        def receive(self, value: Value) -> tuple[Reading, ...]:
            assert value.characteristic == module.CONTROL_POINT
            return (Status("control_status", value.payload.hex()),)

        def stop(self) -> Procedure:
            return do_nothing()

    streams = (
        Characteristic(DATA, "notify", lambda payload: (Vital("heart_rate", payload[0]),)),
        Characteristic(module.CONTROL_POINT, "indicate"),
    )
    vars(module)["DRIVER"] = DriverSpec("heart_streamer", DATA, streams, converse=Conversation)
    return module


def test_the_test_of_a_refusal_passes(streamer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "drivers.heart_streamer", streamer)
    run_test("test_heart_streamer", tmp_path)


@dataclass
class Streamer:
    """A sensor that answers a request with these values of its control point."""

    control_point: str
    answers: tuple[bytes, ...]

    def read(self, characteristic: str) -> bytes | None:
        del characteristic
        return None

    def write(self, characteristic: str, payload: bytes) -> list[Sent]:
        assert (characteristic, payload) == (self.control_point, b"\x01")
        return [(0.1, self.control_point, answer) for answer in self.answers]


def test_the_example_starts_a_stream_that_its_own_decoder_decodes(streamer: ModuleType) -> None:
    player = connect(streamer.DRIVER, Streamer(streamer.CONTROL_POINT, (b"\x80", b"\x80\x02\x00", b"\x80\x01\x00")))
    player.send(DATA, b"\x48")
    player.play(1.0)
    answers = [Status("control_status", answer) for answer in ("80", "800200", "800100")]
    assert player.readings == [*answers, Vital("heart_rate", 72)]


@pytest.mark.parametrize("answers", [(), (b"",), (b"\x80\x01",)], ids=["none", "empty", "short"])
def test_the_example_fails_to_start_without_its_answer(streamer: ModuleType, answers: tuple[bytes, ...]) -> None:
    player = open_connection(streamer.DRIVER, Streamer(streamer.CONTROL_POINT, answers))
    with pytest.raises(NoAnswerError):
        player.start()
