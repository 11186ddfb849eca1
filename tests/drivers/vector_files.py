"""The vectors of the drivers, read and checked. A fault in them or in a driver fails a test in one line."""

import json
from collections.abc import Callable, Container, Iterable
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest

from drivers.conversation import Context, Moment, Value
from drivers.device import Decoder, DeviceInformation
from drivers.kinds import KINDS
from drivers.readings import DecodeError, Intervals, Origin, Reading, Status, Vital, Waveform, group_of
from drivers.spec import Characteristic, DriverSpec, uuid16

VECTORS: Final = Path(__file__).parent / "vectors"
_REQUIRED: Final = {"vectors": ("source", "readings"), "malformed": ("why", "error")}
"""What each vector of a group needs, besides its characteristic and its payload."""

Case = dict[str, Any]


def fail(driver: DriverSpec, fault: str) -> NoReturn:
    """Fail the test with one line: what is wrong, and what to do."""
    pytest.fail(f"driver {driver.name}: {fault}", pytrace=False)


def cases(driver: DriverSpec, group: str, folder: Path = VECTORS) -> list[Case]:
    """The `vectors` or the `malformed` payloads of a driver, each checked."""
    try:
        return read_cases(folder / f"{driver.name}.json", group)
    except FaultyVectorError as error:
        fault = str(error)
    fail(driver, fault)


class FaultyVectorError(Exception):
    """A file of vectors is missing, or a vector lacks something or cannot be read."""


@cache
def read_cases(path: Path, group: str) -> list[Case]:
    """The `vectors` or the `malformed` payloads in a file. Raises `FaultyVectorError`."""
    if not path.exists():
        raise FaultyVectorError(
            f"it has no vectors: write tests/drivers/vectors/{path.name} (docs/how-to-add-a-driver.md, step 4)"
        )
    try:
        found = list(json.loads(path.read_text())[group])
    except (KeyError, TypeError, ValueError) as error:
        raise FaultyVectorError(f"vectors/{path.name} is not JSON with a list {group!r}: {error}") from error
    for case in found:
        try:
            check_case(group, case)
        except FaultyVectorError as error:
            place = f"the payload {case.get('hex')} of {case.get('characteristic')} in {group!r}"
            raise FaultyVectorError(f"vectors/{path.name}: {place} {error}") from error
    return found


def check_case(group: str, case: Case) -> None:
    """Check that a vector has all that it needs. Raises `FaultyVectorError`."""
    missing = [name for name in ("characteristic", *_REQUIRED[group]) if case.get(name) in (None, "")]
    missing += ["hex"] if case.get("hex") is None else []
    if missing:
        raise FaultyVectorError(f"lacks {', '.join(missing)}: add it")
    try:
        data = payload(case)
    except ValueError as error:
        raise FaultyVectorError(f"is not hexadecimal: {error}") from error
    try:
        characteristic(case)
        for item in case.get("readings", ()):
            expected(item, data)
    except (KeyError, TypeError, ValueError) as error:
        raise FaultyVectorError(f"cannot be read: {type(error).__name__}: {error}") from error


def characteristic(case: Case) -> str:
    name = case["characteristic"]
    return uuid16(int(name, 16)) if len(name) == 4 else str(name)


def payload(case: Case) -> bytes:
    return bytes.fromhex(case["hex"])


def expected(item: dict[str, Any], data: bytes) -> Reading:
    """The reading that a vector describes."""
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


def decoder_of(driver: DriverSpec, stream: Characteristic, model: str = "", known: Container[str] = KINDS) -> Decoder:
    """The checked decoder of a characteristic of this model; in the long form, what a new conversation says of one value."""
    device = DeviceInformation(model=model)
    replaced = [quirk.decode for quirk in driver.quirks if model and quirk.applies_to(device) and stream.uuid in quirk.decode]
    own = replaced[0][stream.uuid] if replaced else stream.decode
    if own is not None:
        return checked(driver, stream.uuid, own, known)
    converse = driver.converse
    if converse is None:
        fail(driver, f"nothing decodes {stream.uuid}: give its `Characteristic` a decoder, or the driver `converse`")

    def receive(payload: bytes) -> tuple[Reading, ...]:
        effects: object = converse(Context(device)).receive(Value(stream.uuid, payload, Moment(1_750_000_000_000_000)))
        if not isinstance(effects, Iterable):
            fail(driver, f"`receive` returned a {type(effects).__name__} for {stream.uuid}: return a tuple, () for nothing")
        return tuple(effect for effect in effects if isinstance(effect, Reading))

    return checked(driver, stream.uuid, receive, known)


def checked(driver: DriverSpec, name: str, decode: Decoder, known: Container[str] = KINDS) -> Decoder:
    """The decoder of the characteristic or field `name`. It fails the test unless it returns readings of known kinds."""

    def decode_checked(payload: bytes) -> tuple[Reading, ...]:
        readings: object = decode(payload)
        if not isinstance(readings, tuple):
            returned = type(readings).__name__
            fail(driver, f"the decoder of {name} returned a {returned}: return a tuple of readings, () for none")
        for reading in readings:
            if not isinstance(reading, Vital | Waveform | Intervals | Status):
                fail(driver, f"the decoder of {name} yields a {type(reading).__name__}: it must yield readings")
            if reading.kind not in known:
                fail(driver, f"it yields the kind {reading.kind!r}, which drivers/kinds.py lacks: add a row (step 2)")
        return readings

    return decode_checked
