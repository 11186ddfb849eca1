"""Reads the start of a record from the date and time in its header, in the orders and notations in use."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

_TIME: Final = re.compile(r"(?:(?:(\d{1,2}):)?(\d{1,2}):)?(\d{1,2}(?:\.\d{0,9})?)")
"""Without hours, the first number is minutes: WFDB library, `strtim`."""
_DATES: Final = (
    re.compile(r"(?P<day>\d{1,2})[-/.](?P<month>\d{1,2})[-/.](?P<year>\d{4})"),
    re.compile(r"(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})"),
    re.compile(r"(?P<day>\d{1,2})[-/. ]?(?P<month>[A-Za-z]{3,9})[-/. ]?(?P<year>\d{4})"),
)
_YEARS: Final = (1900, 3000)
"""MIMIC shifts its dates to later centuries."""
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def find_start_us(fields: Sequence[str]) -> tuple[int | None, tuple[str, ...]]:
    """Return date and time as UTC, since WFDB has no time zone, and notes; None where one of them is missing or not understood.

    The date may stand before the time, or be joined to it by `T`.
    """
    words = [word.strip("[]") for field in fields for word in re.split(r"(?<=\d)T(?=\d)", field)]
    if not words:
        return None, ()
    times = [word for word in words if ":" in word]
    rest = [word for word in words if ":" not in word]
    offset = _parse_time(times[0]) if len(times) == 1 else None
    if offset is not None and not rest:
        return None, ()
    day = _parse_date(" ".join(rest))
    if offset is None or day is None:
        return None, (f"the start {' '.join(words)[:40]!r} in the header is not understood",)
    short = times[0].count(":") == 1
    notes = (f"the time {times[0]!r} in the header is read as minutes and seconds, as WFDB does",) if short else ()
    return round((day + offset).timestamp() * 1_000_000), notes


def _parse_time(text: str) -> timedelta | None:
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    hours, minutes, seconds = int(match[1] or 0), int(match[2] or 0), float(match[3])
    return timedelta(hours=hours, minutes=minutes, seconds=seconds) if hours < 24 and minutes < 60 and seconds < 60 else None


def _parse_date(text: str) -> datetime | None:
    for pattern in _DATES:
        match = pattern.fullmatch(text[:40])
        if match is None:
            continue
        month = match["month"].lower()
        if month.isalpha():
            month = str(_MONTHS.index(month[:3]) + 1) if month[:3] in _MONTHS else "0"
        try:
            date = datetime(int(match["year"]), int(month), int(match["day"]), tzinfo=UTC)
        except ValueError:
            return None
        return date if _YEARS[0] <= date.year <= _YEARS[1] else None
    return None
