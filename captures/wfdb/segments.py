"""Places the segments of a record in time, and finds one signal in each (WFDB Applications Guide, header(5)).

In a record of variable layout, the signals of the segments differ in number and order; a first segment of length 0 describes
them. Signals of different segments are the same if they have the same name.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from captures.recording import LONGEST_S, RecordingError
from captures.wfdb.formats import NOT_STORED
from captures.wfdb.header import DEFAULT_RATE_HZ, GAP, Header, Signal, parse_header
from captures.wfdb.locate import find_named
from captures.wfdb.stored import StoredSignal, open_stored

_RATE_TOLERANCE: Final = 1e-3

Key = tuple[str, int]
"""A signal of a record: its name in lower case, and how many signals of the same name stand before it in a segment."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A segment, or a whole record without segments: the frames `first` … `first + length - 1` of the record.

    `length` is None for a record without segments whose length the header does not state.
    """

    header: Header
    first: int
    length: int | None


@dataclass(frozen=True, slots=True)
class Record:
    """A record. `placed` are its segments without gaps; `length` is the length in frames of a record of segments, else None.

    `signals` are those of the layout and of all segments, each with its key. `start_us` is the time of the first frame.
    """

    placed: tuple[Placed, ...]
    length: int | None
    rate_hz: float
    start_us: int | None
    signals: dict[Key, Signal]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """The frames of a record that a stored signal covers: `frames` from `first` on."""

    first: int
    frames: int
    stored: StoredSignal


def load_record(path: Path, rate_hz: float | None) -> Record:
    """Read the headers of a record. `rate_hz` is the rate that the user states, if any: then the headers need not state one.

    Raises:
        RecordingError: a header is damaged or missing, or the segments differ in their rate.
        OSError: a header cannot be read.
    """
    header = parse_header(path)
    notes = list(header.notes)
    if header.segments:
        placed, described, length = _place_segments(header)
        notes += _compare_lengths(header, placed, length)
    else:
        placed, described, length = [Placed(header, 0, header.length)], [header], None
    rates = [other.rate_hz for other in (header, *described) if other.rate_hz is not None]
    if rate_hz is None and header.invalid_rate is not None:
        raise RecordingError(
            f"{path}: the sampling rate in the header is {header.invalid_rate!r}; correct its first line, or give --rate"
        )
    if rate_hz is None and not rates:
        notes.append(f"the header states no sampling rate: {DEFAULT_RATE_HZ:g} Hz is assumed; if that is wrong, give --rate")
    frames_hz = rates[0] if rates else DEFAULT_RATE_HZ
    if (length or header.length or 0) / frames_hz > LONGEST_S:
        raise RecordingError(f"{path}: the header states more samples than a sensor records in 31 years; correct the header")
    start_us = header.start_us
    if start_us is None and placed and placed[0].first == 0:
        start_us = placed[0].header.start_us
    signals: dict[Key, Signal] = {}
    for other in described:
        signals |= {key: signal for key, signal in find_keys(other.signals).items() if key not in signals}
    return Record(tuple(placed), length, frames_hz, start_us, signals, tuple(notes))


def find_keys(signals: Sequence[Signal]) -> dict[Key, Signal]:
    """The signals of a header by their keys."""
    seen: Counter[str] = Counter()
    keys: dict[Key, Signal] = {}
    for signal in signals:
        name = signal.name.strip(" ,.").casefold()
        keys[name, seen[name]] = signal
        seen[name] += 1
    return keys


def find_parts(record: Record, key: Key) -> tuple[Part, ...]:
    """Find a signal in the segments that hold it.

    Raises:
        RecordingError: the signal has different rates in different segments; see also `open_stored`.
        OSError: a signal file cannot be read.
    """
    parts: list[Part] = []
    opened: dict[int, StoredSignal] = {}
    for placed in record.placed:
        signal = find_keys(placed.header.signals).get(key)
        if signal is None or signal.format == NOT_STORED or signal.file == GAP:
            continue
        if id(placed.header) not in opened:
            opened[id(placed.header)] = open_stored(placed.header, signal)
        stored = opened[id(placed.header)]
        if parts and parts[0].stored.signal.per_frame != signal.per_frame:
            raise RecordingError(
                f"{placed.header.path}: signal {signal.name[:40]!r} has {signal.per_frame} samples per frame, in another"
                f" segment {parts[0].stored.signal.per_frame}; give the segments one by one"
            )
        frames = stored.usable if placed.length is None else min(stored.usable, placed.length)
        parts.append(Part(placed.first, frames, stored))
    return tuple(parts)


def _place_segments(master: Header) -> tuple[list[Placed], list[Header], int]:
    """The segments with their places, all headers with the layout first, and the length of the record in frames."""
    headers: dict[str, Header] = {}
    placed: list[Placed] = []
    at = 0
    for number, line in enumerate(master.segments):
        if line.name != GAP and (line.length or not number):
            if line.name not in headers:
                headers[line.name] = _load_segment(master, line.name)
            if line.length:
                placed.append(Placed(headers[line.name], at, line.length))
        at += line.length
    return placed, list(headers.values()), at


def _compare_lengths(master: Header, placed: Sequence[Placed], length: int) -> list[str]:
    """Notes on lengths in the master header that differ from those of its segments."""
    notes = []
    if master.length not in (None, length):
        notes.append(f"the header states {master.length} samples, its segments have {length}: these are read")
    longer = [part for part in placed if part.length and (part.header.length or 0) > part.length]
    if longer:
        part = longer[0]
        notes.append(
            f"{len(longer)} segments are longer than the header of the record states, the first is"
            f" {part.header.path.stem[:40]} ({part.header.length} samples, not {part.length}): the rest of them is left out"
        )
    return notes


def _load_segment(master: Header, name: str) -> Header:
    path = find_named(master.path, "segment", f"{name.removesuffix('.hea')}.hea")
    header = parse_header(path)
    if header.segments:
        raise RecordingError(
            f"{master.path}: its segment {path.name[:40]} has segments of its own; give the segments one by one"
        )
    rates = header.rate_hz, master.rate_hz
    if rates[0] is not None and rates[1] is not None and abs(rates[0] / rates[1] - 1) > _RATE_TOLERANCE:
        raise RecordingError(
            f"{path}: a segment at {rates[0]:g} Hz in a record at {rates[1]:g} Hz; correct the headers, or give the segments"
            " one by one"
        )
    return header
