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
    words = [word for field in fields for word in re.split(r"(?<=\d)T(?=\d)", field)]
    if not words:
        return None, ()
    clocks = [offset for word in words if ":" in word and (offset := _parse_time(word)) is not None]
    dates = [date for date in map(_parse_date, words) if date is not None]
    if not dates:
        spelled = _parse_date(" ".join(word for word in words if ":" not in word))
        dates = [] if spelled is None else [spelled]
    if clocks and dates:
        return round((dates[0] + clocks[0]).timestamp() * 1_000_000), ()
    if clocks and len(words) == 1:
        return None, ()
    return None, (f"the start {' '.join(words)[:40]!r} in the header is not understood",)


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
