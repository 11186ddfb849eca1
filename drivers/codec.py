"""Read the fields of a GATT payload, with bounds checks."""

from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Final

from drivers.readings import DecodeError


class SfloatSpecial(Enum):
    """The special values of an SFLOAT, which are not numbers: IEEE 11073-20601, annex F.7."""

    NAN = 0x07FF
    NOT_AT_THIS_RESOLUTION = 0x0800
    PLUS_INFINITY = 0x07FE
    MINUS_INFINITY = 0x0802
    RESERVED = 0x0801


_SPECIAL: Final = {special.value: special for special in SfloatSpecial}


@dataclass(frozen=True, slots=True)
class DateTime:
    """GATT Date Time (0x2A08), in the sensor's local time; None where the sensor does not know a part."""

    year: int | None
    month: int | None
    day: int | None
    hour: int
    minute: int
    second: int


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
        if self.remaining < size:
            found = self.remaining
            raise DecodeError(f"{field} at byte {self._offset}: needs {size} bytes, the payload ends after {found}")
        start, self._offset = self._offset, self._offset + size
        return self._payload[start : self._offset]

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

    def sfloat(self, field: str) -> float | SfloatSpecial:
        """IEEE 11073-20601 SFLOAT: a signed 12-bit mantissa times ten to the power of a signed 4-bit exponent."""
        word = self.u16(field)
        special = _SPECIAL.get(word)
        if special is not None:
            return special
        mantissa = _sign_extend(word & 0x0FFF, bits=12)
        exponent = _sign_extend(word >> 12, bits=4)
        # Division by an exact power of ten gives the double nearest to the decimal; multiplication by 0.1 would not.
        return mantissa * 10.0**exponent if exponent >= 0 else mantissa / 10.0**-exponent

    def date_time(self, field: str) -> DateTime:
        """GATT Date Time (0x2A08), 7 bytes; a year, month or day of 0 means unknown."""
        start = self._offset
        year, month, day = self.u16(field), self.u8(field), self.u8(field)
        hour, minute, second = self.u8(field), self.u8(field), self.u8(field)
        if not _is_date(year, month, day) or hour > 23 or minute > 59 or second > 59:
            found = f"{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"
            raise DecodeError(f"{field} at byte {start}: {found} is not a valid date and time")
        return DateTime(year or None, month or None, day or None, hour, minute, second)

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
