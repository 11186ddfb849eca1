"""Read the fields of a GATT payload, with bounds checks."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum, auto
from typing import Final

from drivers.readings import ClockState, DecodeError

LAST_FACTORY_YEAR: Final = 2000
"""A sensor whose clock was never set counts from a date in this year or before. GATT sensors have been made since 2010."""
_DATE_TIME_BYTES: Final = 7


class SpecialValue(Enum):
    """The special values of an SFLOAT or FLOAT, which are not numbers: IEEE 11073-20601, annexes F.6 and F.7."""

    NAN = auto()
    NOT_AT_THIS_RESOLUTION = auto()
    PLUS_INFINITY = auto()
    MINUS_INFINITY = auto()
    RESERVED = auto()


_SFLOAT_SPECIAL: Final[Mapping[int, SpecialValue]] = {
    0x07FF: SpecialValue.NAN,
    0x0800: SpecialValue.NOT_AT_THIS_RESOLUTION,
    0x07FE: SpecialValue.PLUS_INFINITY,
    0x0802: SpecialValue.MINUS_INFINITY,
    0x0801: SpecialValue.RESERVED,
}
_FLOAT_SPECIAL: Final[Mapping[int, SpecialValue]] = {
    0x007FFFFF: SpecialValue.NAN,
    0x00800000: SpecialValue.NOT_AT_THIS_RESOLUTION,
    0x007FFFFE: SpecialValue.PLUS_INFINITY,
    0x00800002: SpecialValue.MINUS_INFINITY,
    0x00800001: SpecialValue.RESERVED,
}


@dataclass(frozen=True, slots=True)
class DateTime:
    """GATT Date Time (0x2A08), in the sensor's local time; None where the sensor does not know a part."""

    year: int | None
    month: int | None
    day: int | None
    hour: int
    minute: int
    second: int


@dataclass(frozen=True, slots=True)
class MeasuredTime:
    """When a sensor measured, by its own clock and in its local time; None where it does not say. See `ClockState`."""

    at: datetime | None
    clock: ClockState


class Reader:
    """Reads little-endian fields from a payload, front to back.

    Each method takes the name of the field to read. Where the payload is too short, or its value is not allowed for the
    field, it raises `DecodeError` with that name and the offset.
    """

    __slots__ = ("_offset", "_payload")

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._offset = 0

    @property
    def remaining(self) -> int:
        """Number of unread bytes."""
        return len(self._payload) - self._offset

    def read_bytes(self, field: str, size: int) -> bytes:
        """The next `size` bytes, unconverted."""
        start, end = self._offset, self._offset + size
        if end > len(self._payload):
            raise DecodeError(f"{field} at byte {start}: needs {size} bytes, the payload ends after {self.remaining}")
        self._offset = end
        return self._payload[start:end]

    def read_rest(self) -> bytes:
        """All unread bytes, possibly none."""
        return self.read_bytes("rest", self.remaining)

    def expect_end(self) -> None:
        """Check that every byte has been read.

        Raises:
            DecodeError: bytes are left over.
        """
        if self.remaining:
            raise DecodeError(f"end at byte {self._offset}: {self.remaining} bytes follow that belong to no field")

    def u8(self, field: str) -> int:
        return self._integer(field, 1)

    def u16(self, field: str) -> int:
        return self._integer(field, 2)

    def u24(self, field: str) -> int:
        return self._integer(field, 3)

    def u32(self, field: str) -> int:
        return self._integer(field, 4)

    def u64(self, field: str) -> int:
        return self._integer(field, 8)

    def i8(self, field: str) -> int:
        return self._integer(field, 1, signed=True)

    def i16(self, field: str) -> int:
        return self._integer(field, 2, signed=True)

    def i24(self, field: str) -> int:
        return self._integer(field, 3, signed=True)

    def i32(self, field: str) -> int:
        return self._integer(field, 4, signed=True)

    def sfloat(self, field: str) -> float | SpecialValue:
        """IEEE 11073-20601 SFLOAT: a signed 12-bit mantissa times ten to the power of a signed 4-bit exponent."""
        word = self.u16(field)
        special = _SFLOAT_SPECIAL.get(word)
        if special is not None:
            return special
        mantissa = _sign_extend(word & 0x0FFF, bits=12)
        exponent = _sign_extend(word >> 12, bits=4)
        # Division by an exact power of ten gives the double nearest to the decimal; multiplication by 0.1 would not.
        return mantissa * 10.0**exponent if exponent >= 0 else mantissa / 10.0**-exponent

    def float32(self, field: str) -> float | SpecialValue:
        """IEEE 11073-20601 FLOAT: a signed 24-bit mantissa times ten to the power of a signed 8-bit exponent."""
        word = self.u32(field)
        special = _FLOAT_SPECIAL.get(word)
        if special is not None:
            return special
        mantissa = _sign_extend(word & 0x00FFFFFF, bits=24)
        exponent = _sign_extend(word >> 24, bits=8)
        # Powers of ten above 22 are not exact; the conversion of a decimal text gives the nearest double for all of them.
        return float(f"{mantissa}e{exponent}")

    def date_time(self, field: str) -> DateTime:
        """GATT Date Time (0x2A08), 7 bytes; a year, month or day of 0 means unknown."""
        start = self._offset
        year, month, day = self.u16(field), self.u8(field), self.u8(field)
        hour, minute, second = self.u8(field), self.u8(field), self.u8(field)
        if not _is_date(year, month, day) or hour > 23 or minute > 59 or second > 59:
            found = f"{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"
            raise DecodeError(f"{field} at byte {start}: {found} is not a valid date and time")
        return DateTime(year or None, month or None, day or None, hour, minute, second)

    def measured_time(self, field: str) -> MeasuredTime:
        """The same 7 bytes as the time of a measurement, which is worth keeping whatever the clock says.

        `at` is None where a part is unknown or the date does not exist. A date up to `LAST_FACTORY_YEAR` means `not_set`.
        """
        sent = Reader(self.read_bytes(field, _DATE_TIME_BYTES))
        try:
            when = sent.date_time(field)
        except DecodeError:
            return MeasuredTime(None, "invalid")
        if when.year is None or when.month is None or when.day is None:
            return MeasuredTime(None, "unknown")
        at = datetime(when.year, when.month, when.day, when.hour, when.minute, when.second)  # noqa: DTZ001  # local time
        return MeasuredTime(at, "not_set" if at.year <= LAST_FACTORY_YEAR else "set")

    def utf8(self, field: str) -> str:
        """The rest of the payload as text, up to the first NUL: many sensors fill their buffer with NULs or leftovers."""
        start = self._offset
        try:
            return self.read_rest().partition(b"\0")[0].decode("utf-8")
        except UnicodeDecodeError as error:
            raise DecodeError(f"{field} at byte {start + error.start}: not UTF-8 ({error.reason})") from error

    def _integer(self, field: str, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.read_bytes(field, size), "little", signed=signed)


def _sign_extend(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def _is_date(year: int, month: int, day: int) -> bool:
    """Whether GATT allows this date: years start at 1582. Unknown parts are replaced by a leap year, January and the 1st."""
    if year and not 1582 <= year <= 9999:
        return False
    try:
        date(year or 2000, month or 1, day or 1)
    except ValueError:
        return False
    return True
