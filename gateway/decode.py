"""`pulsegate decode`: decodes one payload by itself, as if a connection began with it, and prints its readings.

Service and characteristic may be followed by a note, as in the vectors of devices that the tests read ("2A9C (Xiaomi layout)",
"1810 or 1809"): their first word counts. In place of a characteristic, SFLOAT or FLOAT decodes one number of IEEE 11073-20601.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from config.terminal import escape_controls
from drivers.codec import Reader, SpecialValue
from drivers.device import DeviceInformation
from drivers.kinds import unit_of
from drivers.readings import (
    TICKS_PER_SECOND,
    DecodeError,
    Intervals,
    Origin,
    Quarantined,
    Reading,
    Status,
    Vital,
    Waveform,
)
from drivers.registry import Registry
from drivers.spec import BroadcastField, uuid16

Json = dict[str, Any]

_ADVERTISEMENT: Final = re.compile(r"\s*advertisement:\s*(service|manufacturer) data\s+(\S+)", re.IGNORECASE)
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_COMPANY_BYTES: Final = 2
"""Manufacturer data starts with the company's number: Core Specification Supplement, part A, section 1.4."""
_NUMBERS: Final[Mapping[str, Callable[[Reader, str], float | SpecialValue]]] = {
    "SFLOAT": Reader.sfloat,
    "FLOAT": Reader.float32,
}
_TRUTH: Final = {"true": True, "false": False}
_SPECIAL_NAMES: Final[Mapping[SpecialValue, str]] = {
    SpecialValue.NAN: "NaN",
    SpecialValue.NOT_AT_THIS_RESOLUTION: "NRes",
    SpecialValue.PLUS_INFINITY: "+INF",
    SpecialValue.MINUS_INFINITY: "-INF",
    SpecialValue.RESERVED: "reserved",
}


class UsageError(ValueError):
    """A service, characteristic or payload is not written as the command expects. The message says what is allowed."""


def decode_payload(
    registry: Registry, service: str, characteristic: str, payload: bytes, model: str = ""
) -> tuple[Reading, ...]:
    """Decode a payload of a characteristic, or of an advertisement.

    `service` and `characteristic` are UUIDs of 16 or 128 bits, or the first group of a 128-bit one; the service may be "none".
    An advertisement is a `characteristic` "advertisement: service data UUID" or "advertisement: manufacturer data NUMBER".
    `model` is the sensor's model number or advertised name.

    Raises:
        UsageError: the service or the characteristic is not written so.
    """
    if characteristic in _NUMBERS:
        return _decode_number(characteristic, payload)
    advertisement = _ADVERTISEMENT.match(characteristic)
    if advertisement:
        return _decode_advertisement(registry, advertisement[1].lower(), advertisement[2], payload)
    known = [driver.service for driver in registry.drivers]
    known += [uuid for driver in registry.drivers for uuid in driver.characteristics]
    device = DeviceInformation(model=model, name=model)
    uuid = parse_uuid(characteristic, known)
    return registry.decode(uuid, payload, device, None if _is_none(service) else parse_uuid(service, known))


def parse_uuid(text: str, known: Iterable[str]) -> str:
    """The 128-bit form of the UUID that `text` begins with; its first group alone stands for the one in `known`.

    Raises:
        UsageError: it begins with no UUID.
    """
    word = (text.split() or [""])[0].lower()
    if re.fullmatch("[0-9a-f]{4}", word):
        return uuid16(int(word, 16))
    if re.fullmatch("[0-9a-f]{8}", word):
        return next((uuid for uuid in known if uuid.startswith(f"{word}-")), uuid16(int(word, 16)))
    if _UUID.fullmatch(word):
        return word
    raise UsageError(f"{text!r} is not a UUID: use its 4 digits (2A37), its first 8 digits or all 32 with hyphens")


def parse_hex(text: str) -> bytes:
    """The bytes that hexadecimal digits stand for; blanks between bytes are allowed.

    Raises:
        UsageError: something else is found.
    """
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is not a payload: use two hexadecimal digits for each byte") from error


def reading_as_json(reading: Reading) -> Json:
    """A reading as one object; `type` says which. A text of names and values ("op=response number=3") has them in `fields` too.

    The `values` of a waveform are its samples in its unit.
    """
    match reading:
        case Vital(kind, value, flags, origin):
            found = {"type": "vital", "kind": kind, "value": value, "unit": unit_of(kind), "flags": list(flags)}
            return found | _origin_as_json(origin)
        case Status(kind, value, origin):
            found = {"type": "status", "kind": kind, "value": value}
            found |= {"unit": unit_of(kind)} if unit_of(kind) else {}
            found |= {"fields": fields} if (fields := _fields(value)) else {}
            return found | _origin_as_json(origin)
        case Intervals(kind, ticks):
            ms = [round(tick * 1000 / TICKS_PER_SECOND, 3) for tick in ticks]
            return {"type": "intervals", "kind": kind, "ticks": list(ticks), "ms": ms}
        case Waveform(kind, samples, rate_hz, scale, last_ns):
            shape = {"rate_hz": rate_hz, "scale": scale, "unit": unit_of(kind), "last_ns": last_ns}
            values = [_in_unit(sample, scale) for sample in samples]
            return {"type": "waveform", "kind": kind, "samples": list(samples), "values": values, **shape}
        case Quarantined(_, payload, reason):
            return {"type": "quarantined", "reason": reason, "payload": payload.hex().upper()}


def make_table(readings: Iterable[Reading]) -> str:
    """The readings as a table for people: kind, values with their unit, and what else is known."""
    rows = [tuple(escape_controls(text) for text in _row(reading)) for reading in readings]
    widths = [max(len(row[column]) for row in rows) for column in range(2)] if rows else []
    return "\n".join("  ".join((*map(str.ljust, row, widths), row[2])).rstrip() for row in rows)


def _decode_advertisement(registry: Registry, field: str, key: str, payload: bytes) -> tuple[Reading, ...]:
    if field == "service":
        return _decode_broadcast(registry, "service_data", parse_uuid(key, ()), payload)
    company = _parse_company(key)
    if payload[:_COMPANY_BYTES] != company.to_bytes(_COMPANY_BYTES, "little"):
        reason = f"manufacturer data: does not start with the number of the company, {company:04X}, low byte first"
        return (Quarantined(f"manufacturer_data {company:04X}", payload, reason),)
    return _decode_broadcast(registry, "manufacturer_data", company, payload[_COMPANY_BYTES:])


def _decode_broadcast(registry: Registry, field: BroadcastField, key: str | int, payload: bytes) -> tuple[Reading, ...]:
    """Unlike the registry, which ignores them, quarantine advertisements without a driver."""
    known = {(broadcast.field, broadcast.key) for driver in registry.drivers for broadcast in driver.broadcasts}
    if (field, key) not in known:
        return (Quarantined(f"{field} {key}", payload, "no driver decodes this advertisement"),)
    return registry.decode_broadcast(field, key, payload)


def _decode_number(name: str, payload: bytes) -> tuple[Reading, ...]:
    reader = Reader(payload)
    try:
        number = _NUMBERS[name](reader, name)
        reader.expect_end()
    except DecodeError as error:
        return (Quarantined(name, payload, str(error)),)
    return (Status("number", _SPECIAL_NAMES[number] if isinstance(number, SpecialValue) else number),)


def _parse_company(text: str) -> int:
    if not re.fullmatch("[0-9a-fA-F]{4}", text):
        raise UsageError(f"{text!r} is not the number of a company: use its 4 hexadecimal digits (006B)")
    return int(text, 16)


def _is_none(service: str) -> bool:
    return (service.split() or ["none"])[0].lower() == "none"


def _origin_as_json(origin: Origin | None) -> Json:
    if origin is None:
        return {}
    measured = origin.measured.isoformat() if origin.measured else None
    found = {"measured": measured, "clock": origin.clock, "user": origin.user, "record": origin.record}
    return {**found, "group": origin.group, "stored": origin.is_stored}


def _fields(value: object) -> Json:
    """The names and values that a text lists, numbers and truth as such; none if it is another text."""
    words = [word.partition("=") for word in value.split()] if isinstance(value, str) else []
    if not all(equals for _, equals, _ in words):
        return {}
    return {name: _TRUTH.get(text, int(text) if text.isdecimal() else text) for name, _, text in words}


def _in_unit(sample: int, scale: float) -> float:
    """A sample in its unit, without the digits that only come from the multiplication."""
    return float(f"{sample * scale:.9g}")


def _row(reading: Reading) -> tuple[str, str, str]:
    match reading:
        case Vital(kind, value, flags, origin):
            return kind, f"{value:g} {unit_of(kind)}".strip(), " ".join((*flags, *_origin_words(origin)))
        case Status(kind, status, origin):
            return kind, str(status), " ".join(_origin_words(origin))
        case Intervals(kind, ticks):
            return kind, " ".join(f"{tick * 1000 / TICKS_PER_SECOND:.1f}" for tick in ticks) + " ms", ""
        case Waveform(kind, samples, rate_hz, scale, last_ns):
            values = " ".join(f"{_in_unit(sample, scale):g}" for sample in samples)
            time = "" if last_ns is None else f", the last at {last_ns / 1e9:.3f} s"
            return kind, f"{values} {unit_of(kind)}", f"{len(samples)} samples at {rate_hz:g} Hz{time}"
        case Quarantined(_, _, reason):
            return "not decoded", reason, ""


def _origin_words(origin: Origin | None) -> Iterator[str]:
    if origin is not None:
        found = {"measured": origin.measured, "clock": origin.clock, "user": origin.user, "record": origin.record}
        yield from (f"{name}={value}" for name, value in found.items() if value is not None)
        yield from ("stored",) if origin.is_stored else ()
