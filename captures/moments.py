"""Parses the date and time in the header of a file, and numbers that count from 1970."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ISO: Final = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})[T ]+(\d{1,2})(:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?)\s*(Z|UTC|GMT|[+-]\d{2}:?\d{2})?"
)
_UNITS_US: Final = ((1e9, 2.5e9, 1e6), (1e12, 2.5e12, 1e3), (1e15, 2.5e15, 1.0), (1e18, 2.5e18, 1e-3))
"""Numbers from 2001 to 2049 in seconds, milliseconds, microseconds and nanoseconds since 1970.
Later ones are of 1900 or 1904 as epoch."""
LONGEST_MOMENT: Final = 64
"""Characters of a text that are parsed."""


def parse_moment(text: str) -> int | None:
    """The microseconds since 1970 of a date with time as in ISO 8601; None if the text is something else.

    A blank may stand for the `T`, and before the zone. A time without a zone counts as UTC.
    """
    found = _ISO.fullmatch(text[:LONGEST_MOMENT].strip())
    if not found:
        return None
    year, month, day, hour, rest, zone = found.groups()
    offset = "+00:00" if zone in (None, "Z", "UTC", "GMT") else zone
    try:
        moment = datetime.fromisoformat(f"{year}-{int(month):02}-{int(day):02}T{int(hour):02}{rest}{offset}")
        return (moment - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return None


def moment_of_number(value: float) -> int | None:
    """The microseconds since 1970 of a number that counts from 1970 in s, ms, µs or ns; None outside 2001 to 2049."""
    factor = next((factor for low, high, factor in _UNITS_US if low <= value < high), None)
    return None if factor is None else round(value * factor)
