"""Titles of columns: splits them into name and unit, and recognises those of times, dates and sample numbers."""

import re
import string
from typing import Final

from captures.leads import NAME_LIMIT, millivolts_per_unit, split_words
from captures.table.layout import Column
from captures.table.times import seconds_per_unit

_FILLERS: Final = f"{string.whitespace}_,:;"
"""Characters between a column's name and its unit."""
_BRACKETS: Final = {"]": "[", ")": "(", "}": "{", ">": "<"}
_TIME_WORDS: Final = frozenset(
    (
        *("time", "times", "timestamp", "timestamps", "timer", "elapsed", "datetime", "clock", "epoch", "utc", "unix", "ts"),
        *("date", "timedelta", "hours", "minutes", "seconds", "secs", "sec", "milliseconds", "millis", "msec", "ms"),
        *("microseconds", "micros", "usec", "us", "nanoseconds", "nanos", "ns"),
        *("zeit", "uhrzeit", "zeitstempel", "datum", "temps", "heure", "horodatage", "tiempo", "hora", "fecha", "tempo"),
        *("tid", "tijd", "czas", "время", "时间", "時間"),
    )
)
_NOT_TIME_WORDS: Final = frozenset(
    ("rr", "ibi", "interval", "intervals", "hr", "zone", "timezone", "temp", "temperature", "offset", "delta", "diff", "error")
)
_DATE_WORDS: Final = frozenset(("date", "datum", "day", "fecha", "tag", "data"))
_INDEX_WORDS: Final = frozenset(
    (
        *("index", "idx", "sample", "samples", "n", "no", "nr", "num", "number", "count", "counter", "frame", "frames", "tick"),
        *("ticks", "row", "rows", "seq", "sequence", "point", "points", "i", "k", "cnt", "clk", "cycles"),
    )
)
_COUNTS: Final = (
    r"adc|adu|counts?|cts|raw|lsb|bits?|digits?|digital|units?|a\.?u\.?|arb\.?|nu|n\.u\.|no_units|none|codes?|steps?"
)
COUNTS: Final = re.compile(_COUNTS, re.IGNORECASE)
"""Units of samples whose scale is unknown."""
_OTHER_UNITS: Final = re.compile(
    r"(?:bpm|/min|1/min|[°º]?[cfk]|deg|degc|%|m?g|g's|m/s\^?2|m/s²|dps|deg/s|rad/s|[mk]?ohms?|[mk]?Ω|[mk]?hz|m?mhg|kpa|l|l/min"
    rf"|ma|ua|{_COUNTS})",
    re.IGNORECASE,
)
"""Units other than voltages."""
_FORMAT: Final = re.compile(r"[hmsdy:./\- fhx_]+", re.IGNORECASE)
"""A description such as hh:mm:ss.mmm."""


def read_column(number: int, title: str) -> Column:
    """The column of a title: its unit stands in brackets, or after an underscore, comma or blank; it may be empty.

    A bracket that does not hold a unit stays a part of the name. The time is proportional to the length of the title.
    """
    text = title.strip().strip("\"'").strip()
    name, unit = _split_brackets(text)
    if not unit:
        name, unit = _split_last_word(text)
    return Column(number, name[:NAME_LIMIT], unit[:NAME_LIMIT])


def is_unit(text: str) -> bool:
    """Whether a text is a unit that a column can have."""
    unit = text.strip()[:NAME_LIMIT]
    return bool(millivolts_per_unit(unit) or seconds_per_unit(unit) or _OTHER_UNITS.fullmatch(unit) or _is_index_unit(unit))


def read_unit(cell: str) -> str | None:
    """The unit in a cell of a row of units: empty where there is none; None if the cell is something else."""
    text = cell.strip().strip("\"'[](){}").strip()
    if not text or text in ("-", "--", "n/a", "N/A"):
        return ""
    return text if is_unit(text) or (":" in text and _FORMAT.fullmatch(text[:NAME_LIMIT])) else None


def is_time_title(column: Column) -> bool:
    """Whether a column is named as one of times, and has no unit or one of time."""
    words = split_words(column.name)
    named = not _TIME_WORDS.isdisjoint(words) or words == ["t"]
    return named and _NOT_TIME_WORDS.isdisjoint(words) and _may_be_time(column.unit)


def is_date_title(column: Column) -> bool:
    """Whether a column is named as one of dates."""
    return not _DATE_WORDS.isdisjoint(split_words(column.name))


def is_index_title(column: Column) -> bool:
    """Whether a column is named as one of sample numbers. An empty title is that of the row numbers of pandas and R."""
    words = split_words(column.name)
    return column.name.strip() in ("", "#") or "#" in column.name or (bool(words) and _INDEX_WORDS.issuperset(words))


def is_index_unit(unit: str) -> bool:
    """Whether a unit says that times are numbers of samples or of ticks of an unknown clock."""
    return _is_index_unit(unit.strip()[:NAME_LIMIT])


def _is_index_unit(unit: str) -> bool:
    words = split_words(unit)
    return unit == "#" or (bool(words) and _INDEX_WORDS.issuperset(words))


def _may_be_time(unit: str) -> bool:
    text = unit.strip()[:NAME_LIMIT]
    is_format = ":" in text and _FORMAT.fullmatch(text) is not None
    return not text or seconds_per_unit(text) is not None or _is_index_unit(text) or is_format or text.lower() in _TIME_WORDS


def _split_brackets(text: str) -> tuple[str, str]:
    """Name and unit of a title with a unit in brackets: `ECG [mV]`, `ECG_I [mV](/api/…)`, `ECG (mV) raw`."""
    rest = text
    for _ in range(3):
        if not rest or rest[-1] not in _BRACKETS:
            break
        start = rest.rfind(_BRACKETS[rest[-1]], 0, -1)
        if start < 0:
            break
        inner = rest[start + 1 : -1].strip()
        name = rest[:start].rstrip(_FILLERS)
        if is_unit(inner) or (":" in inner and _FORMAT.fullmatch(inner[:NAME_LIMIT])):
            return name, inner
        rest = rest[:start].rstrip()
    return text.rstrip(_FILLERS), ""


def _split_last_word(text: str) -> tuple[str, str]:
    """Name and unit of a title such as `ecg_mv`, `time, s` and `ECG mV`."""
    for mark in ("_", ",", "/", " ", "-", "."):
        name, found, unit = text.rpartition(mark)
        if found and name.strip(_FILLERS) and _is_suffix(unit.strip()):
            return name.rstrip(_FILLERS), unit.strip()
    return text.rstrip(_FILLERS), ""


_SUFFIX: Final = re.compile(
    r"(?:[mµμun]|mc)?[sv]|m?sec|milli(?:s|volts?|seconds?)|micro(?:s|volts?|seconds?)|seconds|volts|min", re.IGNORECASE
)


def _is_suffix(unit: str) -> bool:
    return _SUFFIX.fullmatch(unit[:NAME_LIMIT]) is not None
