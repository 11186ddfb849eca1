"""One suite for every driver there is: a driver without vectors fails it.

`vectors/<driver>.json` holds facts from specifications, captures and other people's test suites, each with its source.
`valid_prefixes` lists the lengths at which a vector, cut there, is still a whole payload ("all" for plain text).
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.kinds import KINDS
from drivers.readings import DecodeError, Intervals, Reading, Status, Vital, Waveform
from drivers.registry import load_drivers
from drivers.spec import Decode, DriverSpec, SetupRefusedError, Stream, uuid16

VECTORS: Final = Path(__file__).parent / "vectors"
REGISTRY: Final = load_drivers()
STREAMS: Final = {f"{d.name}-{s.characteristic[:8]}-{s.mode}": (d, s) for d in REGISTRY.drivers for s in d.streams + d.reads}
ANSWERS: Final = {
    f"{d.name}-{write.payload.hex()}": write.expect for d in REGISTRY.drivers for write in d.setup + d.teardown if write.expect
}

every_driver = pytest.mark.parametrize("driver", REGISTRY.drivers, ids=lambda driver: driver.name)
every_stream = pytest.mark.parametrize(("driver", "stream"), STREAMS.values(), ids=list(STREAMS))


def cases(driver: DriverSpec, group: str) -> list[dict[str, Any]]:
    return list(json.loads((VECTORS / f"{driver.name}.json").read_text())[group])


def cases_of(driver: DriverSpec, stream: Stream, group: str) -> list[dict[str, Any]]:
    return [case for case in cases(driver, group) if characteristic(case) == stream.characteristic]


def characteristic(case: dict[str, Any]) -> str:
    name = case["characteristic"]
    return uuid16(int(name, 16)) if len(name) == 4 else str(name)


def payload(case: dict[str, Any]) -> bytes:
    return bytes.fromhex(case["hex"])


def expected(item: dict[str, Any]) -> Reading:
    types: dict[str, Callable[..., Reading]] = {"Vital": Vital, "Waveform": Waveform, "Intervals": Intervals, "Status": Status}
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in item.items() if key != "type"}
    return types[item["type"]](**fields)


def decoded(decode: Decode, data: bytes) -> tuple[Reading, ...] | None:
    """None where the payload is refused; any other exception than `DecodeError` fails the test."""
    try:
        return decode(data)
    except DecodeError:
        return None


def accepted(expect: Callable[[bytes], None], answer: bytes) -> bool:
    try:
        expect(answer)
    except (DecodeError, SetupRefusedError):
        return False
    return True


@every_stream
def test_known_vectors_decode_to_the_expected_readings(driver: DriverSpec, stream: Stream) -> None:
    known = cases_of(driver, stream, "vectors")
    assert known, f"vectors/{driver.name}.json has no vector for {stream.characteristic}"
    for case in known:
        assert case["source"]
        assert stream.decode(payload(case)) == tuple(expected(item) for item in case["readings"]), case


@every_stream
def test_every_proper_prefix_is_rejected_or_listed(driver: DriverSpec, stream: Stream) -> None:
    for case in cases_of(driver, stream, "vectors"):
        data = payload(case)
        listed = case.get("valid_prefixes", [])
        valid = [size for size in range(len(data)) if decoded(stream.decode, data[:size]) is not None]
        assert valid == (list(range(len(data))) if listed == "all" else listed), case


@every_stream
def test_malformed_payloads_are_refused_with_the_field_named(driver: DriverSpec, stream: Stream) -> None:
    malformed = cases_of(driver, stream, "malformed")
    assert malformed, f"vectors/{driver.name}.json has no malformed vector for {stream.characteristic}"
    for case in malformed:
        with pytest.raises(DecodeError) as refusal:
            stream.decode(payload(case))
        assert case["error"] in str(refusal.value), case["why"]


@every_driver
def test_every_case_is_for_a_stream_of_the_driver(driver: DriverSpec) -> None:
    spoken = {stream.characteristic for stream in driver.streams + driver.reads}
    assert {characteristic(case) for group in ("vectors", "malformed") for case in cases(driver, group)} <= spoken


@every_stream
@given(data=st.data())
def test_random_bytes_yield_known_readings_or_a_decode_error(driver: DriverSpec, stream: Stream, data: st.DataObject) -> None:
    known = [payload(case) for case in cases_of(driver, stream, "vectors")]
    any_bytes = st.binary(max_size=300)
    continued = st.builds(lambda start, size, end: start[:size] + end, st.sampled_from(known), st.integers(0, 20), any_bytes)
    drawn = data.draw(any_bytes | continued)
    readings = decoded(stream.decode, drawn)
    assert readings == decoded(stream.decode, drawn), "a decoder has no memory"
    for reading in readings or ():
        assert isinstance(reading, Vital | Waveform | Intervals | Status)
        assert reading.kind in KINDS


@pytest.mark.parametrize("expect", ANSWERS.values(), ids=list(ANSWERS))
@given(answer=st.binary(max_size=24) | st.binary(max_size=8).map(lambda end: b"\xf0" + end))
def test_random_answers_raise_nothing_but_the_two_declared_errors(expect: Callable[[bytes], None], answer: bytes) -> None:
    assert accepted(expect, answer) == accepted(expect, answer)


@every_driver
def test_the_declaration_is_well_formed(driver: DriverSpec) -> None:
    for uuid in (driver.service, *driver.characteristics):
        assert len(uuid) == 36
        assert uuid == uuid.lower()
    assert all(stream.mode in ("notify", "indicate") for stream in driver.streams)
    assert all(stream.mode == "read" for stream in driver.reads)
    assert all(0 < len(write.payload) <= 20 for write in driver.setup + driver.teardown), "fits the default MTU"
