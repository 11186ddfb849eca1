"""One test suite for all drivers. It fails for a driver without vectors.

`vectors/<driver>.json` holds known payloads from specifications, captures and other projects' test suites, with their sources.
`valid_prefixes` lists the lengths at which a truncated vector is still a valid payload ("all" for plain text).
"""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.conversation import Context, Moment, Value
from drivers.device import Decoder, DeviceInformation
from drivers.kinds import KINDS
from drivers.readings import DecodeError, Intervals, Origin, Reading, Status, Vital, Waveform, group_of
from drivers.registry import load_drivers
from drivers.spec import Broadcast, Characteristic, DriverSpec, uuid16

VECTORS: Final = Path(__file__).parent / "vectors"
REGISTRY: Final = load_drivers()
STREAMS: Final = {f"{d.name}-{s.uuid[:8]}-{s.mode}": (d, s) for d in REGISTRY.drivers for s in d.streams + d.reads + d.others}
BROADCASTS: Final = {f"{d.name}-{b.field}-{b.key}": (d, b) for d in REGISTRY.drivers for b in d.broadcasts}

every_driver = pytest.mark.parametrize("driver", REGISTRY.drivers, ids=lambda driver: driver.name)
every_broadcast = pytest.mark.parametrize(("driver", "broadcast"), BROADCASTS.values(), ids=list(BROADCASTS))
every_stream = pytest.mark.parametrize(("driver", "stream"), STREAMS.values(), ids=list(STREAMS))


def cases(driver: DriverSpec, group: str) -> list[dict[str, Any]]:
    return list(json.loads((VECTORS / f"{driver.name}.json").read_text())[group])


def cases_for(driver: DriverSpec, stream: Characteristic, group: str) -> list[dict[str, Any]]:
    return [case for case in cases(driver, group) if characteristic(case) == stream.uuid]


def advertisements(driver: DriverSpec, broadcast: Broadcast, group: str) -> list[dict[str, Any]]:
    return [case for case in cases(driver, group) if case["characteristic"] == f"{broadcast.field} {broadcast.key}"]


def characteristic(case: dict[str, Any]) -> str:
    name = case["characteristic"]
    return uuid16(int(name, 16)) if len(name) == 4 else str(name)


def payload(case: dict[str, Any]) -> bytes:
    return bytes.fromhex(case["hex"])


def expected(item: dict[str, Any], data: bytes) -> Reading:
    types: dict[str, Callable[..., Reading]] = {"Vital": Vital, "Waveform": Waveform, "Intervals": Intervals, "Status": Status}
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in item.items() if key != "type"}
    if "origin" in fields:
        fields["origin"] = expected_origin(**fields["origin"], data=data)
    return types[item["type"]](**fields)


def expected_origin(data: bytes, measured: str | None = None, **fields: Any) -> Origin:
    """The origin in a vector; its group is that of the payload unless the vector gives another."""
    at = datetime.fromisoformat(measured) if measured else None
    return Origin(**{"group": group_of(data), "measured": at, **fields})


def decoded(decode: Decoder, data: bytes) -> tuple[Reading, ...] | None:
    """The readings, or None where the payload is rejected. Any exception other than `DecodeError` fails the test."""
    try:
        return decode(data)
    except DecodeError:
        return None


def decoder_of(driver: DriverSpec, stream: Characteristic, model: str = "") -> Decoder:
    """The decoder of a characteristic of this model; for the long form, the readings of a new conversation about one value."""
    device = DeviceInformation(model=model)
    for quirk in driver.quirks:
        if model and quirk.applies_to(device) and stream.uuid in quirk.decode:
            return quirk.decode[stream.uuid]
    if stream.decode is not None:
        return stream.decode
    assert driver.converse is not None, f"nothing decodes {stream.uuid} of {driver.name}"
    converse = driver.converse

    def decode(payload: bytes) -> tuple[Reading, ...]:
        effects = converse(Context(device)).receive(Value(stream.uuid, payload, Moment(1_750_000_000_000_000)))
        return tuple(effect for effect in effects if isinstance(effect, Reading))

    return decode


@every_stream
def test_known_vectors_decode_to_the_expected_readings(driver: DriverSpec, stream: Characteristic) -> None:
    known = cases_for(driver, stream, "vectors")
    assert known, f"vectors/{driver.name}.json has no vector for {stream.uuid}"
    for case in known:
        assert case["source"]
        assert decoder_of(driver, stream, case.get("model", ""))(payload(case)) == tuple(
            expected(item, payload(case)) for item in case["readings"]
        ), case


@every_stream
def test_every_proper_prefix_is_rejected_or_listed(driver: DriverSpec, stream: Characteristic) -> None:
    for case in cases_for(driver, stream, "vectors"):
        data = payload(case)
        listed = case.get("valid_prefixes", [])
        decode = decoder_of(driver, stream, case.get("model", ""))
        valid = [size for size in range(len(data)) if decoded(decode, data[:size]) is not None]
        assert valid == (list(range(len(data))) if listed == "all" else listed), case


@every_stream
def test_error_for_a_malformed_payload_names_the_field(driver: DriverSpec, stream: Characteristic) -> None:
    malformed = cases_for(driver, stream, "malformed")
    assert malformed, f"vectors/{driver.name}.json has no malformed vector for {stream.uuid}"
    for case in malformed:
        with pytest.raises(DecodeError) as refusal:
            decoder_of(driver, stream, case.get("model", ""))(payload(case))
        assert case["error"] in str(refusal.value), case["why"]


@every_driver
def test_every_vector_belongs_to_a_characteristic_of_the_driver(driver: DriverSpec) -> None:
    known = driver.characteristics | {f"{b.field} {b.key}" for b in driver.broadcasts}
    assert {characteristic(case) for group in ("vectors", "malformed") for case in cases(driver, group)} <= known


@every_stream
@given(data=st.data())
def test_random_bytes_yield_known_kinds_or_a_decode_error(
    driver: DriverSpec, stream: Characteristic, data: st.DataObject
) -> None:
    known = [payload(case) for case in cases_for(driver, stream, "vectors")]
    any_bytes = st.binary(max_size=300)
    continued = st.builds(lambda start, size, end: start[:size] + end, st.sampled_from(known), st.integers(0, 20), any_bytes)
    drawn = data.draw(any_bytes | continued)
    decode = decoder_of(driver, stream)
    readings = decoded(decode, drawn)
    assert readings == decoded(decode, drawn), "decoding twice gave different readings"
    for reading in readings or ():
        assert isinstance(reading, Vital | Waveform | Intervals | Status)
        assert reading.kind in KINDS


@every_driver
def test_declaration_is_well_formed(driver: DriverSpec) -> None:
    assert driver.service or driver.broadcasts
    for uuid in (*filter(None, [driver.service]), *driver.characteristics):
        assert len(uuid) == 36
        assert uuid == uuid.lower()
    assert all(stream.mode in ("notify", "indicate") for stream in driver.streams)
    assert all(stream.mode == "read" for stream in driver.reads + driver.others)
    assert all(stream.decode or driver.converse for stream in driver.streams)
    assert all(read.decode for read in driver.reads + driver.others)


@every_broadcast
def test_known_advertisements_decode_to_the_expected_readings(driver: DriverSpec, broadcast: Broadcast) -> None:
    known = advertisements(driver, broadcast, "vectors")
    assert known, f"vectors/{driver.name}.json has no vector for {broadcast.field} {broadcast.key}"
    for case in known:
        assert case["source"]
        assert broadcast.decode(payload(case)) == tuple(expected(item, payload(case)) for item in case["readings"]), case


@every_broadcast
def test_error_for_a_malformed_advertisement_names_the_field(driver: DriverSpec, broadcast: Broadcast) -> None:
    malformed = advertisements(driver, broadcast, "malformed")
    assert malformed, f"vectors/{driver.name}.json has no malformed vector for {broadcast.field} {broadcast.key}"
    for case in malformed:
        with pytest.raises(DecodeError) as refusal:
            broadcast.decode(payload(case))
        assert case["error"] in str(refusal.value), case["why"]


@every_broadcast
@given(data=st.binary(max_size=40))
def test_random_advertisements_yield_known_kinds_or_a_decode_error(
    driver: DriverSpec, broadcast: Broadcast, data: bytes
) -> None:
    readings = decoded(broadcast.decode, data)
    assert readings == decoded(broadcast.decode, data), f"{driver.name}: decoding twice gave different readings"
    assert all(reading.kind in KINDS for reading in readings or () if isinstance(reading, Vital | Status | Intervals))


@every_broadcast
def test_every_proper_prefix_of_an_advertisement_is_rejected_or_listed(driver: DriverSpec, broadcast: Broadcast) -> None:
    for case in advertisements(driver, broadcast, "vectors"):
        data = payload(case)
        valid = [size for size in range(len(data)) if decoded(broadcast.decode, data[:size]) is not None]
        assert valid == case.get("valid_prefixes", []), case
