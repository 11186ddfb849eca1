"""The number and date formats of the health profiles, as sensors encode them: IEEE 11073-20601 and GATT's Date Time."""

from datetime import datetime
from typing import Final

SFLOAT_NAN: Final = 0x07FF
FLOAT_NAN: Final = 0x007FFFFF
UNKNOWN_DATE: Final = bytes(7)
"""Year, month and day 0 stand for "not known" (GATT Specification Supplement, Date Time)."""


def encode_sfloat(value: float | None, decimals: int = 0) -> bytes:
    """Encode a value with that many decimals as SFLOAT: 4 bits of exponent, 12 bits of mantissa. None becomes NaN.

    Raises:
        OverflowError: the value has more digits than the mantissa can hold, or is taken for a special value.
    """
    if value is None:
        return SFLOAT_NAN.to_bytes(2, "little")
    mantissa = round(value * 10.0**decimals)
    if not -2046 < mantissa < 2046:
        raise OverflowError(f"{value} with {decimals} decimals does not fit in an SFLOAT")
    return ((-decimals & 0xF) << 12 | mantissa & 0xFFF).to_bytes(2, "little")


def encode_float(value: float | None, decimals: int = 1) -> bytes:
    """Encode a value with that many decimals as FLOAT: 8 bits of exponent, 24 bits of mantissa. None becomes NaN."""
    if value is None:
        return FLOAT_NAN.to_bytes(4, "little")
    return round(value * 10.0**decimals).to_bytes(3, "little", signed=True) + (-decimals).to_bytes(1, "little", signed=True)


def encode_date(date: datetime | None) -> bytes:
    """Encode a date and time in 7 octets; None becomes an unknown date."""
    if date is None:
        return UNKNOWN_DATE
    return date.year.to_bytes(2, "little") + bytes((date.month, date.day, date.hour, date.minute, date.second))


def decode_date(value: bytes) -> datetime:
    """Decode the first 7 octets of a Date Time or Current Time.

    Raises:
        ValueError: the date does not exist.
    """
    month, day, hour, minute, second = value[2:7]
    return datetime(int.from_bytes(value[:2], "little"), month, day, hour, minute, second)  # noqa: DTZ001  local time
