"""Blood Pressure Service 1.1.1 (Bluetooth SIG): results of a cuff, the pressure while it measures, and stored results.

A cuff wakes, indicates one result or its whole memory, one indication each and not always the newest last, and sleeps. What
its results mean is in the GATT Specification Supplement, "Blood Pressure Measurement" and "Blood Pressure Record". A stored
result is a record in one or more segments, which `_Segments` joins. Nothing here starts a measurement or deletes a result.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from drivers import date_time
from drivers.codec import MeasuredTime, Reader, SpecialValue
from drivers.conversation import Context, Effect, Moment, Procedure, Value
from drivers.device import Quirk
from drivers.readings import DecodeError, Origin, Quarantined, Reading, Status, Vital, group_of
from drivers.spec import Characteristic, DriverSpec, uuid16

_MEASUREMENT_NUMBER: Final = 0x2A35
MEASUREMENT: Final = uuid16(_MEASUREMENT_NUMBER)
CUFF_PRESSURE: Final = uuid16(0x2A36)
FEATURE: Final = uuid16(0x2A49)
RECORD: Final = uuid16(0x2B36)

MMHG_PER_KPA: Final = 7.50062
CUFF_RANGE_MMHG: Final = (20.0, 300.0)
"""What a cuff can measure: from the lowest diastolic pressure of a newborn to the highest pressure that a cuff may reach
(IEC 80601-2-30). A value outside has another unit or layout than it says."""
PULSE_RANGE: Final = (20.0, 300.0)
"""Pulse rates (1/min) outside cannot be counted while a cuff deflates."""

_KPA: Final = 1 << 0
_TIME: Final = 1 << 1
_PULSE: Final = 1 << 2
_USER: Final = 1 << 3
_STATUS: Final = 1 << 4
_RESERVED_FLAGS: Final = 0b1110_0000

_STATUS_FLAGS: Final[Mapping[int, str]] = {
    1 << 0: "body_movement",
    1 << 1: "cuff_too_loose",
    1 << 2: "irregular_pulse",
    1 << 5: "improper_position",
}
_PULSE_RANGE_BITS: Final = ("", "pulse_above_range", "pulse_below_range", "pulse_range_reserved")
"""Status bits 3 and 4 are one field."""
_RESERVED_STATUS: Final = 0xFFC0
_UNKNOWN_USER: Final = 255

_PRESSURES: Final = ("systolic", "diastolic", "mean_pressure")
_Number = float | SpecialValue


@dataclass(frozen=True, slots=True)
class _Result:
    """The fields of a Blood Pressure Measurement; `pressures` in the unit of the flags, systolic, diastolic and mean."""

    flags: int
    pressures: tuple[_Number, _Number, _Number]
    time: MeasuredTime | None
    pulse: _Number
    user: int | None
    status: int


def decode_measurement(payload: bytes) -> tuple[Reading, ...]:
    """Decode a Blood Pressure Measurement, 0x2A35, to the readings of one result.

    Yields the systolic, diastolic and mean pressure in mmHg and the pulse rate, each where it is a number. A result without any
    pressure is a failed measurement, whatever its status says: some cuffs send no other sign of it. Its `cuff_status` has the
    flags that the values would have. Reserved bits are ignored, as the Core Specification requires, and kept: as flags, and in
    statuses with the field that they are set in.
    """
    return _readings(_read_whole(payload), group_of(payload))


def decode_cuff_pressure(payload: bytes) -> tuple[Reading, ...]:
    """Decode an Intermediate Cuff Pressure, 0x2A36: the pressure in the cuff while it measures, never a result.

    It has the layout of a measurement, with the pressure in place of the systolic one. What else it has is in a text, because
    it is no result: the date and time, the pulse rate and the user.
    """
    result = _read_whole(payload)
    pressure = result.pressures[0]
    if not isinstance(pressure, float):
        return ()
    details = [f"measured={result.time.at.isoformat() if result.time.at else result.time.clock}"] if result.time else []
    details += [f"pulse_rate={result.pulse:g}"] if isinstance(result.pulse, float) else []
    details += [] if result.user in (None, _UNKNOWN_USER) else [f"user={result.user}"]
    told = (Status("cuff_pressure_details", " ".join(details)),) if details else ()
    return (Vital("cuff_pressure", _in_mmhg(pressure, result), _flags(result)), *told)


def decode_feature(payload: bytes) -> tuple[Reading, ...]:
    """Decode the Blood Pressure Feature, 0x2A49: bits for what the cuff can detect."""
    reader = Reader(payload)
    bits = reader.u16("feature")
    reader.expect_end()
    return (Status("blood_pressure_feature", bits),)


def _read_whole(payload: bytes) -> _Result:
    reader = Reader(payload)
    result = _read_result(reader)
    reader.expect_end()
    return result


def _read_result(reader: Reader) -> _Result:
    flags = reader.u8("flags")
    return _Result(
        flags=flags,
        pressures=(reader.sfloat("systolic"), reader.sfloat("diastolic"), reader.sfloat("mean pressure")),
        time=reader.measured_time("time stamp") if flags & _TIME else None,
        pulse=reader.sfloat("pulse rate") if flags & _PULSE else SpecialValue.NAN,
        user=reader.u8("user") if flags & _USER else None,
        status=reader.u16("measurement status") if flags & _STATUS else 0,
    )


def _readings(result: _Result, group: int, record: int | None = None) -> tuple[Reading, ...]:
    """The readings of a result; `record` is its number where it comes from the cuff's memory."""
    origin = Origin(
        group=group,
        measured=result.time.at if result.time else None,
        clock=result.time.clock if result.time else None,
        record=record,
        user=None if result.user == _UNKNOWN_USER else result.user,
        is_stored=record is not None,
    )
    return (*_vitals(result, origin), *_reserved_bits(result, origin))


def _in_mmhg(pressure: float, result: _Result) -> float:
    return round(pressure * MMHG_PER_KPA, 1) if result.flags & _KPA else pressure


def _vitals(result: _Result, origin: Origin) -> list[Reading]:
    flags = _flags(result)
    sent = zip(_PRESSURES, result.pressures, strict=True)
    pressures = {kind: _in_mmhg(value, result) for kind, value in sent if isinstance(value, float)}
    readings: list[Reading] = [] if pressures else _failure(flags, origin)
    is_incomplete = not {"systolic", "diastolic"} <= pressures.keys()
    is_reversed = not is_incomplete and pressures["systolic"] <= pressures["diastolic"]
    for kind, mmhg in pressures.items():
        is_implausible = is_reversed or not CUFF_RANGE_MMHG[0] <= mmhg <= CUFF_RANGE_MMHG[1]
        doubts = ("incomplete_pressure",) * is_incomplete + ("implausible",) * is_implausible
        readings.append(Vital(kind, mmhg, flags + doubts, origin))
    if isinstance(result.pulse, float):
        readings.append(Vital("pulse_rate_cuff", result.pulse, flags + _pulse_doubts(result.pulse), origin))
    return readings


def _failure(flags: tuple[str, ...], origin: Origin) -> list[Reading]:
    """A failed measurement, and what the cuff says of it, as that the cuff is too loose."""
    reasons = [Status("cuff_status", ", ".join(flags), origin)] if flags else []
    return [Status("failed_measurement", "blood_pressure", origin), *reasons]


def _pulse_doubts(pulse: float) -> tuple[str, ...]:
    if pulse == 0:
        return ("no_pulse_found",)
    return () if PULSE_RANGE[0] <= pulse <= PULSE_RANGE[1] else ("implausible",)


def _flags(result: _Result) -> tuple[str, ...]:
    """What the cuff says of a result as a whole."""
    named = [name for bit, name in _STATUS_FLAGS.items() if result.status & bit]
    named += filter(None, [_PULSE_RANGE_BITS[result.status >> 3 & 3]])
    named += ["sent_in_kpa"] * bool(result.flags & _KPA)
    named += ["unknown_user"] * (result.user == _UNKNOWN_USER)
    named += ["reserved_bits"] * bool(result.status & _RESERVED_STATUS)
    named += ["reserved_flags"] * bool(result.flags & _RESERVED_FLAGS)
    return tuple(named)


def _reserved_bits(result: _Result, origin: Origin) -> list[Reading]:
    """The whole field, where a bit is set in it that the specification reserves."""
    readings: list[Reading] = []
    if result.status & _RESERVED_STATUS:
        readings.append(Status("blood_pressure_status", result.status, origin))
    if result.flags & _RESERVED_FLAGS:
        readings.append(Status("blood_pressure_flags", result.flags, origin))
    return readings


# Byte-swapped models

_BYTE_SWAPPED: Final = ("BM85", "BM48", "BM59", "ELITE 900")
_VENDOR_FLAG: Final = 1 << 6
"""Set by the byte-swapped models in every payload that was captured."""
_MEAN_PRESSURE_AT: Final = 5
_TIME_AT: Final = 7
_NAN_BYTES: Final = b"\xff\x07"


def decode_byte_swapped(payload: bytes) -> tuple[Reading, ...]:
    """Decode a measurement of a model that sends pulse rate and status with the high octet first.

    These models always send the user, although the flag of that field is clear, and a mean pressure of 0 for none. A payload
    whose flag announces the user has the layout of the specification: one firmware of the BM59 is reported to keep to it.
    """
    if payload and not payload[0] & _USER:
        return _readings(_read_whole(_restore_order(payload)), group_of(payload))
    return decode_measurement(payload)


def _restore_order(payload: bytes) -> bytes:
    """The payload in the layout of the specification. Octets keep their places, so that errors name the right one."""
    data = bytearray(payload)
    flags = data[0]
    if payload[_MEAN_PRESSURE_AT:_TIME_AT] == b"\0\0":
        data[_MEAN_PRESSURE_AT:_TIME_AT] = _NAN_BYTES
    at = _TIME_AT + (7 if flags & _TIME else 0)
    if flags & _PULSE:
        data[at : at + 2] = data[at : at + 2][::-1]
        at += 2
    if flags & _STATUS:
        data[at + 1 : at + 3] = data[at + 1 : at + 3][::-1]
    data[0] = flags & ~_VENDOR_FLAG | _USER
    return bytes(data)


# Stored results

_FIRST: Final = 1 << 0
_LAST: Final = 1 << 1
_COUNTER_SHIFT: Final = 2
_COUNTERS: Final = 64
"""The counter of the segments has 6 bits."""
_CRC_BYTES: Final = 2
"""A cuff with end-to-end protection appends a CRC to a record. It is not checked: the link layer has its own."""
_MAX_RECORD_BYTES: Final = 19 + _CRC_BYTES
"""A measurement with all its fields, and a CRC."""


@dataclass(frozen=True, slots=True)
class _Segment:
    """A value of Blood Pressure Record: a part of the stored measurement with the number `record`."""

    payload: bytes
    header: int
    record: int
    part: bytes

    @property
    def counter(self) -> int:
        return self.header >> _COUNTER_SHIFT

    def continues(self, before: "_Segment") -> bool:
        return (self.record, self.counter) == (before.record, (before.counter + 1) % _COUNTERS)

    def describe(self) -> Status:
        """Which part of which stored result this is, so that a missing one can be traced."""
        is_first, is_last = (str(bool(self.header & bit)).lower() for bit in (_FIRST, _LAST))
        text = f"sequence={self.record} uuid={_MEASUREMENT_NUMBER:04X} segment={self.counter} first={is_first} last={is_last}"
        return Status("blood_pressure_record", text)


def _read_segment(payload: bytes) -> _Segment:
    reader = Reader(payload)
    header, record = reader.u8("segmentation header"), reader.u16("sequence number")
    number = reader.u16("UUID of the stored value")
    if number != _MEASUREMENT_NUMBER:
        raise DecodeError(f"UUID of the stored value: {number:04X} has no decoder; only {_MEASUREMENT_NUMBER:04X} has one")
    return _Segment(payload, header, record, reader.read_rest())


class _Segments:
    """Joins the segments of stored results. It holds one record at most.

    A repeated segment is ignored. A segment that does not continue the record is refused; the record waits for the right one,
    and what is held of it is given up as undecodable when another record begins.
    """

    def __init__(self) -> None:
        self._held: list[_Segment] = []
        self._is_complete = True

    def add(self, payload: bytes) -> tuple[Reading, ...]:
        """Return the readings that a segment completes, and its description.

        Raises:
            DecodeError: the segment is malformed or continues nothing, or it is a record by itself that is malformed.
        """
        segment = _read_segment(payload)
        if segment in self._held:
            return ()
        readings = self._begin(segment) if segment.header & _FIRST else self._append(segment)
        return (*readings, segment.describe())

    def give_up(self) -> tuple[Reading, ...]:
        """End an incomplete record: its segments, unchanged, as values that could not be decoded."""
        lost = () if self._is_complete else self._held
        self._is_complete = True
        return tuple(Quarantined(RECORD, segment.payload, "a segment of its record is missing") for segment in lost)

    def _begin(self, segment: _Segment) -> tuple[Reading, ...]:
        is_complete = bool(segment.header & _LAST)
        readings = _decode_record([segment]) if is_complete else ()
        lost = self.give_up()
        self._held, self._is_complete = [segment], is_complete
        return lost + readings

    def _append(self, segment: _Segment) -> tuple[Reading, ...]:
        if self._is_complete:
            raise DecodeError(f"segment {segment.counter}: the first segment of its record is missing")
        if not segment.continues(self._held[-1]):
            raise DecodeError(f"segment {segment.counter}: it does not continue segment {self._held[-1].counter}")
        size = sum(len(held.part) for held in self._held) + len(segment.part)
        if not segment.part or size > _MAX_RECORD_BYTES:
            raise DecodeError(f"segment {segment.counter}: it is empty, or the record exceeds {_MAX_RECORD_BYTES} bytes")
        self._held.append(segment)
        self._is_complete = bool(segment.header & _LAST)
        return self._decode_held() if self._is_complete else ()

    def _decode_held(self) -> tuple[Reading, ...]:
        try:
            return _decode_record(self._held)
        except DecodeError as error:
            return tuple(Quarantined(RECORD, segment.payload, str(error)) for segment in self._held)


def _decode_record(segments: list[_Segment]) -> tuple[Reading, ...]:
    """Decode a whole record: a Blood Pressure Measurement, perhaps with a CRC."""
    record = segments[0].record
    value = b"".join(segment.part for segment in segments)
    reader = Reader(value)
    result = _read_result(reader)
    if reader.remaining == _CRC_BYTES:
        value = value[:-_CRC_BYTES]
    else:
        reader.expect_end()
    # Without a time, only the number tells two equal results apart. With one, the group is that of the result when indicated.
    identity = value if result.time else record.to_bytes(2, "little") + value
    return _readings(result, group_of(identity), record)


class _BloodPressureConversation:
    """Sets the clock of a cuff that has one in this service, and joins the segments of stored results."""

    def __init__(self, context: Context) -> None:
        del context
        self._segments = _Segments()

    def start(self, now: Moment) -> Procedure:
        return date_time.set_clock(now)

    def receive(self, value: Value) -> tuple[Effect, ...]:
        return self._segments.add(value.payload)

    def stop(self) -> Procedure:
        """Give up a record whose last segment has not come."""
        yield from self._segments.give_up()


DRIVER: Final = DriverSpec(
    name="blood_pressure",
    service=uuid16(0x1810),
    streams=(
        # First, because a cuff sends its result within a second of being connected, and then sleeps.
        Characteristic(MEASUREMENT, "indicate", decode_measurement),
        Characteristic(RECORD, "notify", is_optional=True),
        Characteristic(CUFF_PRESSURE, "notify", decode_cuff_pressure, is_optional=True),
    ),
    reads=(Characteristic(FEATURE, "read", decode_feature),),
    others=(date_time.CHARACTERISTIC,),
    bonding=True,  # Blood Pressure Profile 1.1.1, section 5: security mode 1, level 2 or 3
    quirks=(
        Quirk(
            why="Pulse rate and status are big endian, the user octet is sent although its flag is clear, and a mean pressure "
            "of 0 means none: three captures of a BM85, and the list of models in the vendor's app "
            "(derdilla/blood-pressure-monitor-fl, pull requests 735 and 737).",
            models=_BYTE_SWAPPED,
            decode={MEASUREMENT: decode_byte_swapped},
        ),
        date_time.BONDS_FIRST,
    ),
    converse=_BloodPressureConversation,
    sets_clock=True,
)
