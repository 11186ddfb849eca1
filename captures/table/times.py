"""Parses the times in the cells of a table: numbers, times of day, dates, and digits such as 20240505123000."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal

import numpy as np

from captures.recording import Samples
from captures.table.cells import MISSING, CellError, parse_number, parse_numbers

SECONDS: Final = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds", "sek", "sekunden", "secondes", "segundos"), 1.0),
    **dict.fromkeys(("ms", "msec", "msecs", "millis", "millisec", "millisecond", "milliseconds", "millisekunden"), 1e-3),
    **dict.fromkeys(("us", "µs", "μs", "usec", "usecs", "micros", "microsec", "microsecond", "microseconds"), 1e-6),
    **dict.fromkeys(("ns", "nsec", "nanos", "nanosec", "nanosecond", "nanoseconds"), 1e-9),
    **dict.fromkeys(("min", "mins", "minute", "minutes", "minuten"), 60.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours", "stunden"), 3600.0),
    **dict.fromkeys(("d", "day", "days", "tage"), 86_400.0),
}
"""Seconds in a unit of time."""
DAY_S: Final = 86_400.0
_FRACTION_UNIT: Final = re.compile(r"(?:s|sec|seconds?)\s*/\s*(\d{1,7})|1\s*/\s*(\d{1,7})\s*(?:s|sec|seconds?)?", re.IGNORECASE)

_MONTH_NAMES: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS: Final = {name: at for at, name in enumerate(_MONTH_NAMES, start=1)}
_DATE: Final = (
    r"(?:(?P<y>\d{4})[-/.](?P<m>\d{1,2})[-/.](?P<d>\d{1,2})"
    r"|(?P<a>\d{1,2})(?P<mark>[-/.])(?P<b>\d{1,2})[-/.](?P<y2>\d{4}|\d{2})"
    r"|(?P<d3>\d{1,2})[- ](?P<m3>[A-Za-z]{3})[A-Za-z]{0,6}[- ](?P<y3>\d{4})"
    r"|(?P<m5>[A-Za-z]{3})[A-Za-z]{0,6}\.? (?P<d5>\d{1,2}),? (?P<y5>\d{4})"
    r"|(?P<y4>\d{4})(?P<m4>\d{2})(?P<d4>\d{2}))"
)
_CLOCK: Final = (
    r"(?P<p>\d{1,4}):(?P<q>\d{2})(?::(?P<r>\d{2}))?(?:[.,:](?P<f>\d{1,9}))?\d{0,9}\s*(?P<half>[AaPp])?(?:\.?[Mm]\.?)?"
    r"\s*(?P<zone>Z|UTC|GMT|[+-]\d{2}:?\d{2}|[+-]\d{2})?(?:\[[\w/]{1,40}\])?"
)
_CALENDAR: Final = re.compile(_DATE + r"(?:\s*,?\s*[ T_]\s*|[-.])" + _CLOCK, re.ASCII)
_DATE_ALONE: Final = re.compile(_DATE, re.ASCII)
_CLOCK_ALONE: Final = re.compile(r"(?:(?P<days>\d{1,5}) days? )?" + _CLOCK, re.ASCII)
"""A time of day, also as pandas writes durations: 0 days 00:00:00.008."""
_STAMP: Final = re.compile(
    r"(?P<day>(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))[T_ -]?"
    r"(?P<hour>[01]\d|2[0-3])(?P<minute>[0-5]\d)(?P<second>[0-5]\d)"
    r"[._]?(?P<fraction>\d{3}|\d{6}|\d{9})?Z?",
    re.ASCII,
)
_BRACKETED: Final = re.compile(r"\[(\d{1,2}:\d{2}:\d{2}(?:\.\d{1,9})?)(?:\s+(\d{1,2})/(\d{1,2})/(\d{4}))?\]", re.ASCII)
"""A time of day and a date as WFDB's programs print them: [12:30:00.000 05/05/2024], day first."""
_LONGEST: Final = 64

Kind = Literal["number", "calendar", "clock", "stamp"]


@dataclass(frozen=True, slots=True)
class TimeFormat:
    """How times are written. `day_first` says how a date such as 03/05/2024 is read; None where the file leaves that open.

    A `clock` has no date: its times are seconds since midnight, or since the start of a recording.
    """

    kind: Kind
    day_first: bool | None = None


def find_format(cells: Sequence[str], decimal_comma: bool) -> TimeFormat | None:
    """The format of the majority of the cells; None if they are not times."""
    given = [_open_brackets(cell.strip()) for cell in cells if cell.strip().lower() not in MISSING]
    if not given or any(len(cell) > _LONGEST for cell in given):
        return None
    kinds: tuple[tuple[Kind, Callable[[str], object]], ...] = (
        ("stamp", _STAMP.fullmatch),
        ("clock", _CLOCK_ALONE.fullmatch),
        ("calendar", _CALENDAR.fullmatch),
        ("number", lambda cell: parse_number(cell, decimal_comma) is not None),
    )
    for kind, matches in kinds:
        if sum(bool(matches(cell)) for cell in given) > len(given) / 2:
            return TimeFormat(kind, _find_day_first(given) if kind == "calendar" else None)
    return None


def is_date(cell: str) -> bool:
    """Whether a cell is a date without a time of day."""
    return len(cell) <= _LONGEST and _DATE_ALONE.fullmatch(cell.strip()) is not None


def is_time(cell: str) -> bool:
    """Whether a cell is a time of day, a date, or both."""
    text = cell.strip()
    if len(text) > _LONGEST:
        return False
    return any(pattern.fullmatch(text) for pattern in (_CLOCK_ALONE, _CALENDAR, _DATE_ALONE, _STAMP))


def find_day(cell: str) -> float | None:
    """Seconds from 1970 to the start of the day in a time whose day and month are the same number, such as 05/05/2024."""
    found = _CALENDAR.fullmatch(cell.strip()) if len(cell) <= _LONGEST else None
    if found is None or found["a"] is None or int(found["a"]) != int(found["b"]) or len(found["y2"]) != 4:
        return None
    return _find_day(cell.strip()[: found.start("p")].rstrip(" T_,-."), True)


def parse_times(cells: Sequence[str], form: TimeFormat, decimal_comma: bool) -> Samples:
    """The times in some cells, shape (cells,); NaN where there is none.

    Those of a calendar or a stamp are seconds since 1970 (local times count as UTC), those of a clock seconds. Dates whose
    order of day and month is unknown are left out, and the times are those of a clock.

    Raises:
        CellError: a cell is not a time in this format.
    """
    if form.kind == "number":
        return parse_numbers(cells, decimal_comma)
    parse = {"calendar": _parse_calendar, "clock": _parse_clock, "stamp": _parse_stamp}[form.kind]
    found = np.empty(len(cells))
    for at, cell in enumerate(cells):
        value = parse(_open_brackets(cell.strip()), form)
        if value is None and cell.strip().lower() not in MISSING:
            raise CellError(at, cell.strip())
        found[at] = np.nan if value is None else value
    return found


def seconds_per_unit(unit: str) -> float | None:
    """The seconds in a unit of time, such as `ms` or `s/256`; None if it is not one."""
    text = unit.strip().lower()[:_LONGEST]
    fraction = _FRACTION_UNIT.fullmatch(text)
    if fraction:
        parts = int(fraction[1] or fraction[2])
        return 1 / parts if parts else None
    return SECONDS.get(text)


def _open_brackets(cell: str) -> str:
    """A time of WFDB's programs with its date first; any other cell as it is."""
    found = _BRACKETED.fullmatch(cell) if cell.startswith("[") else None
    if found is None:
        return cell
    clock, day, month, year = found.groups()
    return f"{day}.{month}.{year} {clock}" if day else clock


def _find_day_first(cells: Sequence[str]) -> bool | None:
    """Whether days come before months in dates such as 25/05/2024; None if the dates allow both."""
    is_open = False
    for cell in cells:
        found = _CALENDAR.fullmatch(cell)
        if found is None or found["a"] is None:
            continue
        first, second = int(found["a"]), int(found["b"])
        if found["mark"] == ".":
            return True
        if first > 12 and len(found["y2"]) == 4:  # 24-05-05 may begin with the year
            return True
        if second > 12:
            return False
        is_open = True
    return None if is_open else True


def _parse_calendar(cell: str, form: TimeFormat) -> float | None:
    found = _CALENDAR.fullmatch(cell) if len(cell) <= _LONGEST else None
    if found is None:
        return None
    clock = _clock_seconds(found, False) if int(found["p"]) <= 24 else None
    if clock is None or form.day_first is None:
        return clock
    day = _find_day(cell[: found.start("p")].rstrip(" T_,-."), form.day_first)
    return None if day is None else day + clock


@lru_cache(maxsize=64)
def _find_day(date: str, day_first: bool) -> float | None:
    """Seconds from 1970 to the start of a date; None if the date does not exist."""
    found = _DATE_ALONE.fullmatch(date)
    if found is None:
        return None
    if found["a"]:
        a, b = int(found["a"]), int(found["b"])
        day, month = (a, b) if day_first else (b, a)
        year = int(found["y2"]) + (2000 if len(found["y2"]) == 2 else 0)
    elif found["m3"] or found["m5"]:
        name = "3" if found["m3"] else "5"
        year, month, day = int(found[f"y{name}"]), _MONTHS.get(found[f"m{name}"].lower(), 0), int(found[f"d{name}"])
    else:
        year, month, day = (int(found[name] or found[f"{name}4"]) for name in "ymd")
    try:
        return datetime(year, month, day, tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def _parse_clock(cell: str, _form: TimeFormat) -> float | None:
    found = _CLOCK_ALONE.fullmatch(cell) if len(cell) <= _LONGEST else None
    seconds = _clock_seconds(found) if found else None
    return None if found is None or seconds is None else int(found["days"] or 0) * DAY_S + seconds


def _clock_seconds(found: re.Match[str], of_minutes: bool = True) -> float | None:
    """Seconds of a time of day in UTC; None if the time does not exist. Two numbers are minutes and seconds if `of_minutes`."""
    first, second, third = int(found["p"]), int(found["q"]), found["r"]
    fraction = int(found["f"]) / 10 ** len(found["f"]) if found["f"] else 0.0
    if second > 59 or int(third or 0) > 60:
        return None
    if third is None:
        return first * 60 + second + fraction if of_minutes else first * 3600 + second * 60
    half = found["half"]
    if half:
        if not 1 <= first <= 12:
            return None
        first = first % 12 + (12 if half in "pP" else 0)
    return first * 3600 + second * 60 + int(third) + fraction - _zone_seconds(found["zone"])


@lru_cache(maxsize=16)
def _zone_seconds(zone: str | None) -> float:
    if not zone or zone in ("Z", "UTC", "GMT"):
        return 0.0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    return (-1 if zone[0] == "-" else 1) * (int(digits[:2]) * 3600.0 + int(digits[2:]) * 60.0)


def _parse_stamp(cell: str, _form: TimeFormat) -> float | None:
    found = _STAMP.fullmatch(cell) if len(cell) <= _LONGEST else None
    day = _find_day(found["day"], True) if found else None
    if found is None or day is None:
        return None
    fraction = int(found["fraction"]) / 10 ** len(found["fraction"]) if found["fraction"] else 0.0
    return day + int(found["hour"]) * 3600 + int(found["minute"]) * 60 + int(found["second"]) + fraction
