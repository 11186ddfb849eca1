"""Parses WFDB headers as people and tools write them (WFDB Applications Guide, header(5)).

Accepted beyond the specification: a byte order mark, Latin-1 text, comments after a line and between lines, dates with dashes,
dots or names of months, and a date before the time.
"""

import codecs
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from captures.files import read_file
from captures.recording import RecordingError
from captures.wfdb.clock import find_start_us

DEFAULT_RATE_HZ: Final = 250.0
"""Sampling rate if the header gives none: header(5)."""
DEFAULT_GAIN: Final = 200.0
"""ADC units per mV if the header gives none, or 0: header(5)."""
GAP: Final = "~"
"""The name of a segment in which nothing was recorded, and of the file of a signal that is not stored: header(5)."""

_HEADER_LIMIT_BYTES: Final = 1 << 20
"""A signal line has some 80 characters, so this is a record of thousands of signals, comments included."""
_LINE_LIMIT: Final = 4096
_DIGITS: Final = 15
"""Digits of the largest number in a header: samples of a thousand years."""
LARGEST_FRAME: Final = 1 << 20
"""Samples of a frame: 20 signals at 1000 Hz in frames of 52 s, as after a conversion of EDF."""

_RECORD: Final = re.compile(r"(?P<name>\S.*?)(?:/(?P<segments>\d+))? (?P<signals>\d+)(?: (?P<rest>.*))?")
_SIGNAL: Final = re.compile(
    r"(?P<file>\S.*?) (?P<format>\d+)(?:x(?P<per_frame>\d+))?(?::(?P<skew>\d+))?(?:\+(?P<offset>\d+))?(?: (?P<rest>\S.*))?"
)
_NUMBER: Final = r"[-+]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][-+]?\d+)?"
"""With a decimal comma too, as programs write it that follow the language of the machine."""
_GAIN: Final = re.compile(rf"(?P<gain>{_NUMBER})(?:\((?P<baseline>-?\d+)(?:\.\d*)?\))?(?:/(?P<unit>\S+))?")
_UNREADABLE: Final = re.compile(r"[-+]?(?:nan|inf|[\d.,(])", re.IGNORECASE)
"""How a gain begins that is not a number."""
_INTEGER: Final = re.compile(r"(-?\d+)(?:\.0*)?")
_FIELDS: Final = ("resolution", "zero", "initial", "checksum", "block")
_COMMENT: Final = re.compile(r"\s#(?!\d)")
"""A comment at the end of a signal line. `ECG #1` is a description."""
_UNNAMED: Final = re.compile(r"record .*, signal \d+")
"""The description that the WFDB library makes for a signal without one."""


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal line. `number` counts from 1; `gain` is in ADC units per `unit`; `skew` and `per_frame` as in header(5)."""

    number: int
    file: str
    format: int
    per_frame: int
    skew: int
    offset: int
    gain: float
    baseline: int
    unit: str
    is_calibrated: bool
    initial: int
    checksum: int
    name: str


@dataclass(frozen=True, slots=True)
class SegmentLine:
    """A segment of a multi-segment record: the name of its record, or `~` for a gap, and its length in frames."""

    name: str
    length: int


@dataclass(frozen=True, slots=True)
class Header:
    """A header. `segments` are those of a multi-segment record, which has no `signals` of its own.

    `rate_hz` is in frames per second, `length` in frames; each is None where the header does not state it. `invalid_rate` is
    what stands in place of a rate.
    """

    path: Path
    rate_hz: float | None
    length: int | None
    start_us: int | None
    signals: tuple[Signal, ...]
    segments: tuple[SegmentLine, ...] = ()
    notes: tuple[str, ...] = ()
    invalid_rate: str | None = None


def parse_header(path: Path) -> Header:
    """Read and parse a header.

    Raises:
        RecordingError: not a header, or a number in it is invalid.
        OSError: the file cannot be read.
    """
    lines = _read_lines(path)
    record = _RECORD.fullmatch(" ".join(lines[0].partition("#")[0].split())) if lines else None
    if record is None:
        raise RecordingError(f"{path}: not a WFDB header; its first line must be: name, number of signals, rate, length")
    fields = (record["rest"] or "").split()
    rate = fields.pop(0) if fields and ":" not in fields[0] else None
    length = None
    if fields and re.fullmatch(r"-?\d+(\.0*)?", fields[0]):
        length = _parse_count(path, "number of samples", fields.pop(0).partition(".")[0]) or None
    start_us, notes = find_start_us(fields)
    header = Header(path, _parse_rate(rate), length, start_us, (), notes=notes)
    if rate is not None and header.rate_hz is None:
        header = replace(header, invalid_rate=rate[:20])
    # A header named 100.hea that begins with `mitdb/100` names a folder and a record; otherwise 100 would be the segments.
    if record["segments"] and record["segments"] != path.stem:
        return replace(header, segments=_parse_segments(path, lines[1:], record["segments"]))
    return replace(header, signals=_parse_signals(path, lines[1:], record["signals"]))


def _read_lines(path: Path) -> list[str]:
    """The lines of a header without comment lines, each without blanks around it."""
    raw = read_file(path, _HEADER_LIMIT_BYTES)
    try:
        text = raw.decode("utf-16" if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except UnicodeDecodeError:
        text = raw.removeprefix(codecs.BOM_UTF8).decode("latin-1")
    if "\0" in text:
        raise RecordingError(f"{path}: not a WFDB header (it is not text); give the record's .hea file")
    lines = [line.strip(" \t\v\f\x1a\ufeff") for line in re.split(r"\r\n|\r|\n", text)]
    kept = [line for line in lines if line and not line.startswith("#")]
    if kept and max(map(len, kept)) > _LINE_LIMIT:
        raise RecordingError(
            f"{path}: not a WFDB header: a line, or a number in it, is longer than {_LINE_LIMIT} characters; fetch it again"
        )
    return kept


def _parse_rate(text: str | None) -> float | None:
    """Parse `frames per second/counter frequency(base counter)`, of which the counter is not used; None if it is not a rate."""
    number = re.split(r"[/(]", text, maxsplit=1)[0] if text else ""
    rate_hz = _parse_number(number) if re.fullmatch(_NUMBER, number) else 0.0
    return rate_hz if 0 < rate_hz < 1e6 else None


def _parse_number(text: str) -> float:
    return float(text.replace(",", "."))


def _parse_count(path: Path, what: str, text: str) -> int:
    if len(text) > _DIGITS or not text.isdecimal():
        raise RecordingError(f"{path}: invalid {what} in the header ({text[:20]}); fetch the header again")
    return int(text)


def _parse_segments(path: Path, lines: list[str], number: str) -> tuple[SegmentLine, ...]:
    stated = _parse_count(path, "number of segments", number)
    if not 0 < stated <= len(lines):
        raise RecordingError(f"{path}: the header states {stated} segments but names {len(lines)}; fetch the header again")
    found: list[SegmentLine] = []
    for line in lines[:stated]:
        words = line.partition("#")[0].rsplit(maxsplit=1)
        if len(words) < 2:
            raise RecordingError(f"{path}: invalid segment line {line[:40]!r}; it must be: name, number of samples")
        found.append(SegmentLine(words[0].strip(), _parse_count(path, "number of samples of a segment", words[1])))
    return tuple(found)


def _parse_signals(path: Path, lines: list[str], number: str) -> tuple[Signal, ...]:
    count = _parse_count(path, "number of signals", number)
    if not count:
        raise RecordingError(f"{path}: the record has no signals, only annotations; give a record with an ECG signal")
    if count > len(lines):
        raise RecordingError(f"{path}: the header states {count} signals but describes {len(lines)}; fetch the header again")
    return tuple(_parse_signal(path, at, line) for at, line in enumerate(lines[:count], start=1))


def _parse_signal(path: Path, number: int, line: str) -> Signal:
    text = " ".join(_COMMENT.split(line, maxsplit=1)[0].split())
    match = _SIGNAL.fullmatch(text)
    if match is None or any(len(match[field] or "") > _DIGITS for field in ("format", "per_frame", "skew", "offset")):
        raise RecordingError(f"{path}: invalid signal line {line[:40]!r}; correct the header")
    rest = (match["rest"] or "").split(" ")
    amount = _GAIN.fullmatch(rest[0])
    is_unreadable = amount is None and len(rest) > 1 and _UNREADABLE.match(rest[0]) and _INTEGER.fullmatch(rest[1])
    values, name = _parse_integers(rest[1:] if amount or is_unreadable else rest)
    per_frame = int(match["per_frame"] or 1) or 1
    gain = _parse_number(amount["gain"]) if amount else 0.0
    baseline = float(amount["baseline"] if amount and amount["baseline"] else values.get("zero", 0))
    if (gain and not 1e-15 < abs(gain) < 1e15) or abs(baseline) > 1 << 31 or per_frame > LARGEST_FRAME:
        raise RecordingError(f"{path}: invalid gain, baseline or frame in signal line {line[:40]!r}; correct the header")
    return Signal(
        number=number,
        file=match["file"],
        format=int(match["format"]),
        per_frame=per_frame,
        skew=int(match["skew"] or 0),
        offset=int(match["offset"] or 0),
        gain=gain or DEFAULT_GAIN,
        baseline=int(baseline),
        unit=(amount["unit"] if amount else None) or "mV",
        is_calibrated=gain != 0,
        initial=values.get("initial", 0),
        checksum=values.get("checksum", 0),
        name="" if _UNNAMED.fullmatch(name) else name,
    )


def _parse_integers(words: list[str]) -> tuple[dict[str, int], str]:
    """The integers from the resolution to the block size as far as they are given, and the description after them."""
    values: dict[str, int] = {}
    for field, word in zip(_FIELDS, words, strict=False):
        match = _INTEGER.fullmatch(word)
        if match is None or len(match[1]) > _DIGITS:
            break
        values[field] = int(match[1])
    return values, " ".join(words[len(values) :]).strip()
