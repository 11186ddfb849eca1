"""Reads the header of an EDF, EDF+, BDF or BDF+ file (edfplus.info/specs; BDF: biosemi.com/faq/file_format.htm)."""

import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

from captures.recording import RecordingError

FIXED_BYTES: Final = 256
"""Length of the first part of a header, and of the part of each signal."""
_MOST_SIGNALS: Final = 9999
"""Four digits."""
_BDF_VERSION: Final = b"\xffBIOSEMI"
_SIGNAL_FIELDS: Final = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)
"""Widths: label, transducer, unit, physical minimum and maximum, digital minimum and maximum, filters, samples, reserved."""
_ANNOTATIONS: Final = frozenset(("edf annotations", "bdf annotations"))
_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_CLOCK: Final = re.compile(r"(\d{1,2})[.:\-/ ](\d{1,2})[.:\-/ ](\d{1,2})")
_LONG_DATE: Final = re.compile(r"Startdate\s+(\d{1,2})-([A-Za-z]{3})-(\d{4})\b", re.IGNORECASE)
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_CLIPPING_YEAR: Final = 85
"""Years of two digits from 85 on are 19yy, those before 20yy: EDF+ specification, 2.1.3."""
_NO_DATE: Final = date(1985, 1, 1)
"""EDF+ writers set this date where the true one is removed. EDF exists since 1992."""
_YEARS: Final = range(1985, 2200)
"""A year outside this range is damaged."""
_LARGEST_SCALE: Final = 1e12
"""Larger than the gain or offset of any sensor; its product with a sample stays finite."""
_ODD_MICRO: Final = re.compile(r"[^\x00-\x7f]{1,2}(v(?:olts?)?)", re.IGNORECASE)
"""A unit whose µ is written in an unknown code page. No other prefix of a unit is outside ASCII."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal. `start` is the number of samples before it in a data record, `samples` the number of its own.

    The limits are None where the header gives no number.
    """

    number: int
    label: str
    unit: str
    physical: tuple[float | None, float | None]
    digital: tuple[float | None, float | None]
    start: int
    samples: int

    @property
    def is_annotations(self) -> bool:
        """Whether it holds texts instead of samples."""
        return self.label.casefold() in _ANNOTATIONS

    @property
    def scale(self) -> tuple[float, float] | None:
        """Gain and offset that turn a stored number into the unit, or None where the header does not define them."""
        (low, high), (first, last) = self.physical, self.digital
        if low is None or high is None or first is None or last is None or low == high or first == last:
            return None
        gain = (high - low) / (last - first)
        offset = low - first * gain
        return (gain, offset) if 0 < abs(gain) < _LARGEST_SCALE and abs(offset) < _LARGEST_SCALE else None


@dataclass(frozen=True, slots=True)
class Header:
    """What a header states. `sample_bytes` is 2 (EDF) or 3 (BDF), `record_s` is 0 where the file gives no duration.

    `records` is the stated number of data records, or None if it is open. The data may start at each of `data_starts`.
    """

    sample_bytes: int
    start_us: int | None
    has_gaps: bool
    records: int | None
    record_s: float
    signals: tuple[Signal, ...]
    data_starts: tuple[int, ...]
    notes: tuple[str, ...]

    @property
    def record_bytes(self) -> int:
        """Length of a data record."""
        return self.sample_bytes * sum(signal.samples for signal in self.signals)


def is_edf(begin: bytes) -> bool:
    """Whether a file with these first 256 bytes is an EDF, EDF+, BDF or BDF+ file."""
    if begin.startswith(_BDF_VERSION):
        return True
    count, length = parse_integer(begin[252:256]), parse_integer(begin[184:192])
    if count is not None and count > 0 and length == FIXED_BYTES * (count + 1):
        return True
    return (
        begin[:8].rstrip(b" \0") == b"0"
        and b"\n" not in begin[:FIXED_BYTES]
        and _CLOCK.fullmatch(_text(begin[176:184])) is not None
    )


def parse_header(path: Path, fixed: bytes, rest: bytes) -> Header:
    """Parse the first 256 bytes of a file, and the bytes that describe its signals.

    Raises:
        RecordingError: the header is cut or states impossible numbers.
    """
    count = count_signals(path, fixed)
    if len(rest) < FIXED_BYTES * count:
        raise RecordingError(f"{path}: cut within its header, which describes {count} signals; fetch the file again")
    described = FIXED_BYTES * (count + 1)
    stated = parse_integer(fixed[184:192])
    start_us, notes = _parse_start(fixed)
    if stated != described:
        notes.append(f"the header states a length of {_text(fixed[184:192])[:8]!r} bytes, its {count} signals take {described}")
    records = parse_integer(fixed[236:244])
    duration = parse_number(fixed[244:252])
    return Header(
        sample_bytes=3 if fixed[:8] == _BDF_VERSION else 2,
        start_us=start_us,
        has_gaps=_text(fixed[192:236]).upper().startswith(("EDF+D", "BDF+D")),
        records=records if records is not None and records >= 0 else None,
        record_s=duration if duration is not None and duration > 0 else 0.0,
        signals=_parse_signals(path, rest, count),
        data_starts=(described,) if stated is None or stated in (described, 0) or stated < 0 else (described, stated),
        notes=tuple(notes),
    )


def count_signals(path: Path, fixed: bytes) -> int:
    """The number of signals that the first 256 bytes of a file state.

    Raises:
        RecordingError: the bytes are too few, or state no signal.
    """
    if len(fixed) < FIXED_BYTES:
        raise RecordingError(f"{path}: cut within its EDF header, at byte {len(fixed)} of {FIXED_BYTES}; fetch the file again")
    count = parse_integer(fixed[252:256])
    if count is None or not 1 <= count <= _MOST_SIGNALS:
        stated = _text(fixed[252:256])[:4]
        raise RecordingError(f"{path}: its EDF header states {stated!r} signals; fetch the file again, or export it again")
    return count


def parse_number(field: bytes) -> float | None:
    """A number in ASCII, with decimal point or comma, blanks anywhere; None for any other text, or if it is not finite."""
    text = "".join(_text(field).split()).replace(",", ".")
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    return value if math.isfinite(value) else None


def parse_integer(field: bytes) -> int | None:
    """A whole number in ASCII of at most eight digits, the width of a field; None for any other text."""
    value = parse_number(field)
    return int(value) if value is not None and value.is_integer() and abs(value) < 1e8 else None


def _text(field: bytes) -> str:
    """Text in UTF-8 or Latin-1, up to the first zero byte, on one line; blanks around it and doubled ones are left out."""
    try:
        text = field.decode("utf-8")
    except UnicodeDecodeError:
        text = field.decode("latin-1")
    return " ".join(text.split("\0")[0].split())


def _unit(field: bytes) -> str:
    text = _text(field)
    odd = _ODD_MICRO.fullmatch(text)
    return f"u{odd[1]}" if odd else text


def _parse_signals(path: Path, rest: bytes, count: int) -> tuple[Signal, ...]:
    columns: list[list[bytes]] = []
    at = 0
    for width in _SIGNAL_FIELDS:
        columns.append([rest[at + width * i : at + width * (i + 1)] for i in range(count)])
        at += width * count
    labels, _, units, low, high, first, last, _, samples, _ = columns
    signals: list[Signal] = []
    start = 0
    for i in range(count):
        length = parse_integer(samples[i])
        if length is None or length < 0:
            shown = f"{_text(samples[i])[:8]!r} samples a data record of signal {i + 1} ({_text(labels[i])[:16]!r})"
            raise RecordingError(f"{path}: its header states {shown}; fetch the file again, or export it again")
        physical = (parse_number(low[i]), parse_number(high[i]))
        digital = (parse_number(first[i]), parse_number(last[i]))
        signals.append(Signal(i + 1, _text(labels[i]), _unit(units[i]), physical, digital, start, length))
        start += length
    return tuple(signals)


def _parse_start(fixed: bytes) -> tuple[int | None, list[str]]:
    """Date and time of the start as UTC, since EDF has no time zone; None if one of them is missing; and notes.

    The date in the recording field (EDF+) has a year of four digits, so it comes first.
    """
    day, notes = _parse_date(fixed)
    clock = _CLOCK.fullmatch(_text(fixed[176:184]))
    hour, minute, second = map(int, clock.groups()) if clock else (24, 0, 0)
    if hour > 23 or minute > 59 or second > 59:
        return None, [*notes, f"its start time {_text(fixed[176:184])[:8]!r} is not a time: the start is unknown"]
    if day is None:
        return None, notes
    start = datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=UTC)
    return (start - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1), notes


def _parse_date(fixed: bytes) -> tuple[date | None, list[str]]:
    text = _text(fixed[168:176])
    short, long = _short_date(text), _long_date(_text(fixed[88:168]))
    day = long or short
    if day is None:
        return None, [f"its start date {text[:8]!r} is not a date (day.month.year): the start is unknown"]
    if day == _NO_DATE:
        return None, ["its start date 01.01.85 means that the true one was removed: the start is unknown"]
    if long and short and (long.day, long.month, long.year % 100) != (short.day, short.month, short.year % 100):
        return day, [f"its two start dates differ: {long} is taken, not {short}"]
    if long is None and "." not in text and day.day <= 12 and day.day != day.month:
        return day, [f"its start date {text[:8]!r} is read as day, month, year: {day}"]
    return day, []


def _short_date(text: str) -> date | None:
    match = _CLOCK.fullmatch(text)
    if match is None:
        return None
    day, month, year = map(int, match.groups())
    return _date(year + (1900 if year >= _CLIPPING_YEAR else 2000), month, day)


def _long_date(recording: str) -> date | None:
    match = _LONG_DATE.match(recording)
    if match is None or match[2].lower() not in _MONTHS:
        return None
    return _date(int(match[3]), _MONTHS.index(match[2].lower()) + 1, int(match[1]))


def _date(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day) if year in _YEARS else None
    except ValueError:
        return None
