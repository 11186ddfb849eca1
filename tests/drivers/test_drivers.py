"""One test suite for all drivers. It fails for a driver without vectors.

`vectors/<driver>.json` holds known payloads from specifications, captures and other projects' test suites, with their sources.
`valid_prefixes` lists the lengths at which a truncated vector is still a valid payload ("all" for plain text).
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
from drivers.spec import Characteristic, Decoder, DriverSpec, SetupRefusedError, uuid16

VECTORS: Final = Path(__file__).parent / "vectors"
REGISTRY: Final = load_drivers()
STREAMS: Final = {f"{d.name}-{s.uuid[:8]}-{s.mode}": (d, s) for d in REGISTRY.drivers for s in d.streams + d.reads}
RESPONSE_CHECKS: Final = {
    f"{d.name}-{write.payload.hex()}": write.expect for d in REGISTRY.drivers for write in d.setup + d.teardown if write.expect
}

every_driver = pytest.mark.parametrize("driver", REGISTRY.drivers, ids=lambda driver: driver.name)
every_stream = pytest.mark.parametrize(("driver", "stream"), STREAMS.values(), ids=list(STREAMS))


def cases(driver: DriverSpec, group: str) -> list[dict[str, Any]]:
    return list(json.loads((VECTORS / f"{driver.name}.json").read_text())[group])


def cases_for(driver: DriverSpec, stream: Characteristic, group: str) -> list[dict[str, Any]]:
    return [case for case in cases(driver, group) if characteristic(case) == stream.uuid]


def characteristic(case: dict[str, Any]) -> str:
    name = case["characteristic"]
    return uuid16(int(name, 16)) if len(name) == 4 else str(name)


def payload(case: dict[str, Any]) -> bytes:
    return bytes.fromhex(case["hex"])


def expected(item: dict[str, Any]) -> Reading:
    types: dict[str, Callable[..., Reading]] = {"Vital": Vital, "Waveform": Waveform, "Intervals": Intervals, "Status": Status}
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in item.items() if key != "type"}
    return types[item["type"]](**fields)


def decoded(decode: Decoder, data: bytes) -> tuple[Reading, ...] | None:
    """The readings, or None where the payload is rejected. Any exception other than `DecodeError` fails the test."""
    try:
        return decode(data)
    except DecodeError:
        return None


def is_accepted(expect: Callable[[bytes], None], response: bytes) -> bool:
    try:
        expect(response)
    except (DecodeError, SetupRefusedError):
        return False
    return True


@every_stream
def test_known_vectors_decode_to_the_expected_readings(driver: DriverSpec, stream: Characteristic) -> None:
    known = cases_for(driver, stream, "vectors")
    assert known, f"vectors/{driver.name}.json has no vector for {stream.uuid}"
    for case in known:
        assert case["source"]
        assert stream.decode(payload(case)) == tuple(expected(item) for item in case["readings"]), case


@every_stream
def test_every_proper_prefix_is_rejected_or_listed(driver: DriverSpec, stream: Characteristic) -> None:
    for case in cases_for(driver, stream, "vectors"):
        data = payload(case)
        listed = case.get("valid_prefixes", [])
        valid = [size for size in range(len(data)) if decoded(stream.decode, data[:size]) is not None]
        assert valid == (list(range(len(data))) if listed == "all" else listed), case


@every_stream
def test_error_for_a_malformed_payload_names_the_field(driver: DriverSpec, stream: Characteristic) -> None:
    malformed = cases_for(driver, stream, "malformed")
    assert malformed, f"vectors/{driver.name}.json has no malformed vector for {stream.uuid}"
    for case in malformed:
        with pytest.raises(DecodeError) as refusal:
            stream.decode(payload(case))
        assert case["error"] in str(refusal.value), case["why"]


@every_driver
def test_every_vector_belongs_to_a_characteristic_of_the_driver(driver: DriverSpec) -> None:
    decoded_characteristics = {stream.uuid for stream in driver.streams + driver.reads}
    assert {
        characteristic(case) for group in ("vectors", "malformed") for case in cases(driver, group)
    } <= decoded_characteristics


@every_stream
@given(data=st.data())
def test_random_bytes_yield_known_kinds_or_a_decode_error(
    driver: DriverSpec, stream: Characteristic, data: st.DataObject
) -> None:
    known = [payload(case) for case in cases_for(driver, stream, "vectors")]
    any_bytes = st.binary(max_size=300)
    continued = st.builds(lambda start, size, end: start[:size] + end, st.sampled_from(known), st.integers(0, 20), any_bytes)
    drawn = data.draw(any_bytes | continued)
    readings = decoded(stream.decode, drawn)
    assert readings == decoded(stream.decode, drawn), "decoding twice gave different readings"
    for reading in readings or ():
        assert isinstance(reading, Vital | Waveform | Intervals | Status)
        assert reading.kind in KINDS


@pytest.mark.parametrize("expect", RESPONSE_CHECKS.values(), ids=list(RESPONSE_CHECKS))
@given(response=st.binary(max_size=24) | st.binary(max_size=8).map(lambda end: b"\xf0" + end))
def test_random_responses_raise_only_the_two_declared_errors(expect: Callable[[bytes], None], response: bytes) -> None:
    assert is_accepted(expect, response) == is_accepted(expect, response)


@every_driver
def test_declaration_is_well_formed(driver: DriverSpec) -> None:
    for uuid in (driver.service, *driver.characteristics):
        assert len(uuid) == 36
        assert uuid == uuid.lower()
    assert all(stream.mode in ("notify", "indicate") for stream in driver.streams)
    assert all(stream.mode == "read" for stream in driver.reads)
    assert all(0 < len(write.payload) <= 20 for write in driver.setup + driver.teardown), "must fit the default MTU"
