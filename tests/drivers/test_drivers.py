"""One test suite for all drivers. It fails for a driver without vectors.

`vectors/<driver>.json` holds known payloads from specifications, captures and other projects' test suites, with their sources.
`valid_prefixes` lists the lengths at which a truncated vector is still a valid payload ("all" for plain text).
"""

import importlib
import pkgutil
import re
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import drivers
from drivers.device import Decoder
from drivers.readings import DecodeError
from drivers.registry import load_drivers
from drivers.spec import Broadcast, Characteristic, DriverSpec
from tests.drivers.vector_files import (
    VECTORS,
    Case,
    cases,
    characteristic,
    checked,
    decoded,
    decoder_of,
    expected,
    fail,
    payload,
)

REGISTRY: Final = load_drivers()
UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
STREAMS: Final = {f"{d.name}-{s.uuid[:8]}-{s.mode}": (d, s) for d in REGISTRY.drivers for s in d.streams + d.reads + d.others}
BROADCASTS: Final = {f"{d.name}-{b.field}-{b.key}": (d, b) for d in REGISTRY.drivers for b in d.broadcasts}

every_driver = pytest.mark.parametrize("driver", REGISTRY.drivers, ids=lambda driver: driver.name)
every_broadcast = pytest.mark.parametrize(("driver", "broadcast"), BROADCASTS.values(), ids=list(BROADCASTS))
every_stream = pytest.mark.parametrize(("driver", "stream"), STREAMS.values(), ids=list(STREAMS))


def cases_for(driver: DriverSpec, name: str, group: str) -> list[Case]:
    """The vectors of a characteristic or an advertisement, at least one."""
    found = [case for case in cases(driver, group) if characteristic(case) == name]
    if not found:
        fail(driver, f"vectors/{driver.name}.json has none of {name} in {group!r}: add one (step 4)")
    return found


def checked_broadcast(driver: DriverSpec, broadcast: Broadcast) -> Decoder:
    return checked(driver, f"{broadcast.field} {broadcast.key}", broadcast.decode)


def check_vectors(driver: DriverSpec, name: str, decoder_for: Callable[[Case], Decoder]) -> None:
    for case in cases_for(driver, name, "vectors"):
        data = payload(case)
        assert decoder_for(case)(data) == tuple(expected(item, data) for item in case["readings"]), case


def check_prefixes(driver: DriverSpec, name: str, decoder_for: Callable[[Case], Decoder]) -> None:
    for case in cases_for(driver, name, "vectors"):
        data, decode = payload(case), decoder_for(case)
        listed = case.get("valid_prefixes", [])
        valid = [size for size in range(len(data)) if decoded(decode, data[:size]) is not None]
        if valid != (list(range(len(data))) if listed == "all" else listed):
            advice = "mend the decoder, or list these lengths in `valid_prefixes`"
            fail(driver, f"it accepts {case['hex']} of {name} truncated to {valid} bytes: {advice}")


def check_malformed(driver: DriverSpec, name: str, decoder_for: Callable[[Case], Decoder]) -> None:
    for case in cases_for(driver, name, "malformed"):
        try:
            decoder_for(case)(payload(case))
        except DecodeError as error:
            if case["error"] not in str(error):
                fail(driver, f"the error for {case['hex']} of {name} is '{error}', without '{case['error']}'")
        else:
            fail(driver, f"it accepts {case['hex']} of {name}, which is malformed: {case['why']}")


@every_stream
def test_known_vectors_decode_to_the_expected_readings(driver: DriverSpec, stream: Characteristic) -> None:
    check_vectors(driver, stream.uuid, lambda case: decoder_of(driver, stream, case.get("model", "")))


@every_stream
def test_every_proper_prefix_is_rejected_or_listed(driver: DriverSpec, stream: Characteristic) -> None:
    check_prefixes(driver, stream.uuid, lambda case: decoder_of(driver, stream, case.get("model", "")))


@every_stream
def test_error_for_a_malformed_payload_names_the_field(driver: DriverSpec, stream: Characteristic) -> None:
    check_malformed(driver, stream.uuid, lambda case: decoder_of(driver, stream, case.get("model", "")))


@every_driver
def test_every_vector_belongs_to_a_characteristic_of_the_driver(driver: DriverSpec) -> None:
    known = driver.characteristics | {f"{b.field} {b.key}" for b in driver.broadcasts}
    for name in {characteristic(case) for group in ("vectors", "malformed") for case in cases(driver, group)} - known:
        advice = "declare it, or write it as the driver does (a vendor's UUID in full, in lower case)"
        fail(driver, f"vectors/{driver.name}.json has vectors of {name}, which the driver does not declare: {advice}")


def test_every_file_of_vectors_belongs_to_a_driver() -> None:
    for stem in {path.stem for path in VECTORS.iterdir()} - {driver.name for driver in REGISTRY.drivers}:
        pytest.fail(f"no driver is called {stem!r}: rename or remove tests/drivers/vectors/{stem}.json", pytrace=False)


@every_stream
@settings(deadline=None)
@given(data=st.data())
def test_random_bytes_yield_known_kinds_or_a_decode_error(
    driver: DriverSpec, stream: Characteristic, data: st.DataObject
) -> None:
    known = [payload(case) for case in cases_for(driver, stream.uuid, "vectors")]
    any_bytes = st.binary(max_size=300)
    continued = st.builds(lambda start, size, end: start[:size] + end, st.sampled_from(known), st.integers(0, 20), any_bytes)
    drawn = data.draw(any_bytes | continued)
    decode = decoder_of(driver, stream)
    assert decoded(decode, drawn) == decoded(decode, drawn), "decoding twice gave different readings"


@every_driver
def test_declaration_is_well_formed(driver: DriverSpec) -> None:
    if not driver.service and not driver.broadcasts:
        fail(driver, "it has neither a service nor broadcasts")
    for uuid in (*filter(None, [driver.service]), *driver.characteristics):
        if not UUID.fullmatch(uuid):
            fail(driver, f"{uuid!r} is no UUID of 128 bits in lower case: write it in full, or `uuid16(0x....)`")
    assert all(stream.mode in ("notify", "indicate") for stream in driver.streams)
    assert all(stream.mode == "read" for stream in driver.reads + driver.others)
    assert all(stream.decode or driver.converse for stream in driver.streams)
    assert all(read.decode for read in driver.reads + driver.others)


def test_every_driver_has_the_name_of_its_module() -> None:
    for found in pkgutil.iter_modules(drivers.__path__):
        driver = getattr(importlib.import_module(f"drivers.{found.name}"), "DRIVER", None)
        if driver is not None and driver.name != found.name:
            fail(driver, f'it is defined in drivers/{found.name}.py: write name="{found.name}"')


@every_broadcast
def test_known_advertisements_decode_to_the_expected_readings(driver: DriverSpec, broadcast: Broadcast) -> None:
    check_vectors(driver, f"{broadcast.field} {broadcast.key}", lambda _case: checked_broadcast(driver, broadcast))


@every_broadcast
def test_every_proper_prefix_of_an_advertisement_is_rejected_or_listed(driver: DriverSpec, broadcast: Broadcast) -> None:
    check_prefixes(driver, f"{broadcast.field} {broadcast.key}", lambda _case: checked_broadcast(driver, broadcast))


@every_broadcast
def test_error_for_a_malformed_advertisement_names_the_field(driver: DriverSpec, broadcast: Broadcast) -> None:
    check_malformed(driver, f"{broadcast.field} {broadcast.key}", lambda _case: checked_broadcast(driver, broadcast))


@every_broadcast
@settings(deadline=None)
@given(data=st.binary(max_size=40))
def test_random_advertisements_yield_known_kinds_or_a_decode_error(
    driver: DriverSpec, broadcast: Broadcast, data: bytes
) -> None:
    decode = checked_broadcast(driver, broadcast)
    assert decoded(decode, data) == decoded(decode, data), "decoding twice gave different readings"
