"""Body Composition Service 1.0 (Bluetooth SIG): fat, muscle, water, impedance and what else an analyser measures."""

from collections.abc import Iterator
from functools import partial
from typing import Final, Literal

from drivers import mi_body_scale
from drivers.codec import Reader
from drivers.device import Quirk
from drivers.readings import DecodeError, Origin, Reading, Status, Vital, group_of
from drivers.spec import Characteristic, DriverSpec, uuid16
from drivers.weighing import BODY_COMPOSITION, height_m, mass_kg, read_features, read_origin, spot

_Unit = Literal["0.1", "kJ", "mass", "height"]
_Sent = tuple[str, _Unit, int]
"""A field of a payload: kind, unit and the number as sent."""

_IMPERIAL: Final = 1 << 0
_TIME: Final = 1 << 1
_USER: Final = 1 << 2
_MULTIPLE_PACKETS: Final = 1 << 12
_RESERVED: Final = 0xE000
"""The only scales known to set these flags send another layout in the same characteristic: see the quirk below."""
_FIELDS: Final[tuple[tuple[int, str, _Unit], ...]] = (
    (1 << 3, "basal_metabolism", "kJ"),
    (1 << 4, "muscle_percentage", "0.1"),
    (1 << 5, "muscle_mass", "mass"),
    (1 << 6, "fat_free_mass", "mass"),
    (1 << 7, "soft_lean_mass", "mass"),
    (1 << 8, "body_water_mass", "mass"),
    (1 << 9, "impedance", "0.1"),
    (1 << 10, "weight", "mass"),
    (1 << 11, "height", "height"),
)
"""The optional fields in the order of the payload: flag, kind and unit."""
_NOT_BY_CURRENT: Final = frozenset({"basal_metabolism", "weight", "height"})
"""What the scale knows without a current through the body: it calculates the metabolism from the user's profile."""

_UNSUCCESSFUL: Final = 0xFFFF
"""Body fat could not be measured (section 3.2.1.2). In the other fields, no person has such a value."""
_TIME_START: Final = 4
_TIME_SIZE: Final = 7


def decode_measurement(payload: bytes) -> tuple[Reading, ...]:
    """Body Composition Measurement, 0x2A9C (section 3.2).

    Yields percentages in %, masses in kg, the metabolism in kJ, the impedance in Ohm and the height in m. A result too long for
    one packet comes in two: the readings of both have the same group if they have a time stamp.

    A scale that could not measure, for example through socks, sends zeros for all that it measures by current. They are a
    `placeholder`, not values. Each packet of two must have body fat; if the other has the value, it is 0 or unsuccessful.
    """
    reader = Reader(payload)
    flags = reader.u16("flags")
    if flags & _RESERVED:
        raise DecodeError(
            f"flags: {flags:04X} has reserved bits; the layout is not that of the service, or the model is unknown"
        )
    body_fat: _Sent = ("body_fat", "0.1", reader.u16("body fat percentage"))
    origin = read_origin(reader, _choose_group(flags, payload), has_time=bool(flags & _TIME), has_user=bool(flags & _USER))
    others: list[_Sent] = [(kind, unit, reader.u16(kind)) for flag, kind, unit in _FIELDS if flags & flag]
    reader.expect_end()

    is_split = bool(flags & _MULTIPLE_PACKETS)
    if is_split and body_fat[2] == 0:
        body_fat = ("body_fat", "0.1", _UNSUCCESSFUL)
    sent = [field for field in (body_fat, *others) if field[2] != _UNSUCCESSFUL]
    by_current = [raw for kind, _, raw in sent if kind not in _NOT_BY_CURRENT]
    if not by_current and not (is_split and sent):
        problem = "failed_measurement"
    else:
        problem = "" if any(by_current) or not by_current else "placeholder"
    return tuple(_convert_fields(sent, flags, origin, problem))


def _choose_group(flags: int, payload: bytes) -> int:
    """The group: that of the time stamp and the user ID if they come in a second packet too."""
    if flags & _MULTIPLE_PACKETS and flags & _TIME:
        return group_of(payload[_TIME_START : _TIME_START + _TIME_SIZE + bool(flags & _USER)])
    return group_of(payload)


def _convert_fields(fields: list[_Sent], flags: int, origin: Origin, problem: str) -> Iterator[Reading]:
    if problem:
        yield Status(problem, BODY_COMPOSITION, origin)
        fields = [field for field in fields if field[0] in _NOT_BY_CURRENT]
    for kind, unit, raw in fields:
        doubts = (
            *(("multiple_packets",) if flags & _MULTIPLE_PACKETS else ()),
            *(("placeholder",) if problem and kind == "basal_metabolism" else ()),
        )
        yield _convert(kind, unit, raw, origin, doubts, is_imperial=bool(flags & _IMPERIAL))


def _convert(kind: str, unit: _Unit, raw: int, origin: Origin, doubts: tuple[str, ...], *, is_imperial: bool) -> Vital:
    match unit:
        case "0.1":
            return spot(kind, raw / 10, origin, doubts)
        case "kJ":
            return spot(kind, raw, origin, doubts)
        case "mass":
            value = mass_kg(raw, is_imperial=is_imperial)
            return spot(kind, value, origin, (*doubts, "sent_in_lb") if is_imperial else doubts)
        case "height":
            value = height_m(raw, is_imperial=is_imperial)
            return spot(kind, value, origin, (*doubts, "sent_in_inches") if is_imperial else doubts)


decode_feature: Final = partial(
    read_features,
    names=("timestamp", "multiple_users", *(kind for _, kind, _ in _FIELDS)),
    weight_bit=11,
    height_bit=15,
)
"""Body Composition Feature, 0x2A9B (section 3.1)."""

_MEASUREMENT: Final = uuid16(0x2A9C)

DRIVER: Final = DriverSpec(
    name="body_composition",
    service=uuid16(0x181B),
    streams=(Characteristic(_MEASUREMENT, "indicate", decode_measurement),),
    reads=(Characteristic(uuid16(0x2A9B), "read", decode_feature),),
    quirks=(
        Quirk(
            "notifies the layout of its advertisement: 13 octets (Stack Overflow 59118489)",
            models=mi_body_scale.MODELS,
            decode={_MEASUREMENT: mi_body_scale.decode_frame},
        ),
    ),
)
