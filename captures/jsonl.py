"""The capture format of pulsegate: the payloads of a sensor, byte for byte, as JSON lines.

Version 1. The first line is the header::

    {"format": "pulsegate-capture", "version": 1, "sensor": "Polar H10 1A2B", "started_us": 1714920600000000,
     "device_information": {"manufacturer": "Polar Electro Oy", "model": "H10", "firmware": "5.0.0", "name": "Polar H10 1A2B"}}

Every other line is a payload received from a characteristic, or an event of the link. `t` is seconds since the start on the
monotonic clock, below 1e9, and never decreases; `started_us` is the wall clock at the start, in UTC, microseconds since 1970::

    {"t": 0.512, "char": "00002a37-0000-1000-8000-00805f9b34fb", "hex": "1648c502"}
    {"t": 61.7, "event": "disconnected"}

Readers ignore unknown keys and accept a gzipped file. A change that an older reader would misunderstand needs a new version.
"""

import codecs
import json
import os
import re
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TextIO

from captures.payloads import EVENTS, CaptureHeader, Entry, LinkEvent, Payload, PayloadCapture, Truncation
from captures.recording import LONGEST_S, ReadOptions, RecordingError
from captures.streams import Stream, open_stream
from drivers.device import DeviceInformation

FORMAT: Final = "pulsegate-capture"
VERSION: Final = 1
LINE_LIMIT: Final = 16_384
"""Characters in a line: an attribute has at most 512 bytes (Core 5.4, vol 3, part F, 3.2.9), 1,024 hexadecimal digits."""
_BLANK_LINES: Final = 100
"""Blank lines before the header that are skipped."""
_EARLIEST_US: Final = 1_262_304_000_000_000
"""2010-01-01: Bluetooth LE was published in that year, so an earlier time comes from a clock that was not set, or is in another
unit."""
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b"{\0", b"\0{")
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


_DEVICE_FIELDS: Final = ("manufacturer", "model", "firmware")


class CaptureWriter:
    """Writes a new capture; when a call returns, its line is complete in the file.

    Raises:
        FileExistsError: the file exists; a capture is never overwritten.
        OSError: the file cannot be created or written.
    """

    def __init__(self, path: Path, header: CaptureHeader) -> None:
        # Readable only by its owner: these are measurements of a patient.
        self._path = path
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file: TextIO = os.fdopen(descriptor, "w", encoding="utf-8", buffering=1)
        self._write(
            {
                "format": FORMAT,
                "version": VERSION,
                "sensor": header.sensor,
                "started_us": header.started_us,
                "device_information": {name: getattr(header.device, name) for name in _DEVICE_FIELDS},
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def write_payload(self, t: float, characteristic: str, payload: bytes) -> None:
        """Writes a payload that was received `t` seconds after the start."""
        self._write({"t": round(t, 6), "char": characteristic.lower(), "hex": payload.hex()})

    def write_event(self, t: float, name: str) -> None:
        """Writes an event of the link: one of `EVENTS`."""
        if name not in EVENTS:
            raise ValueError(f"{name!r} is not an event of a capture; use {' or '.join(EVENTS)}")
        self._write({"t": round(t, 6), "event": name})

    def close(self) -> None:
        self._file.close()

    def delete(self) -> None:
        """Closes and deletes the file, because nothing was recorded."""
        self.close()
        self._path.unlink(missing_ok=True)

    def _write(self, line: Mapping[str, object]) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")


def read_capture(path: Path, options: ReadOptions) -> PayloadCapture:
    """Open a capture. The file states everything, so options are not used.

    Raises:
        RecordingError: the file is not a capture, or has a newer version.
        OSError: the file cannot be read.
    """
    header = read_header(path)
    notes = []
    if 0 < header.started_us < _EARLIEST_US:
        header = replace(header, started_us=0)
        notes.append("the clock of the recorder was not set, so the date is unknown")
    unused = [name for name, value in (("--signal", options.signal), ("--gatt", options.gatt)) if value is not None]
    if unused:
        notes.append(f"not used for a capture of pulsegate: {', '.join(unused)}")
    return PayloadCapture(header, lambda: read_entries(path), tuple(notes))


def read_header(path: Path) -> CaptureHeader:
    """Reads the first line of a capture.

    Raises:
        RecordingError: the file is not a capture, or has a newer version.
        OSError: the file cannot be read.
    """
    with open_stream(path) as file:
        number, line = _read_first_line(file)
    if line.startswith(_UTF_16):
        raise RecordingError(f"{path}: not text in UTF-8, but in UTF-16, as PowerShell writes it; convert it")
    found = _json_object(path, number, line)
    if found.get("format") != FORMAT:
        raise RecordingError(f'{path}: line {number}: not a capture: "format" is not "{FORMAT}"; give a capture of pulsegate')
    if found.get("version") != VERSION:
        version = reprlib.repr(found.get("version"))
        raise RecordingError(f"{path}: line {number}: version {version} is not supported, only {VERSION}; update pulsegate")
    sensor, started_us, device = found.get("sensor", ""), found.get("started_us"), found.get("device_information", {})
    if not isinstance(sensor, str):
        raise RecordingError(f'{path}: line {number}: "sensor" is {reprlib.repr(sensor)}, not a name; name the sensor')
    if isinstance(started_us, bool) or not isinstance(started_us, int) or not 0 <= started_us < 1 << 53:
        wanted = "not microseconds since 1970; correct it"
        raise RecordingError(f'{path}: line {number}: "started_us" is {reprlib.repr(started_us)}, {wanted}')
    if not isinstance(device, dict) or not all(isinstance(value, str) for value in device.values()):
        raise RecordingError(f'{path}: line {number}: "device_information" must hold strings only; correct or remove it')
    known = {name: device[name] for name in ("manufacturer", "model", "firmware", "name") if name in device}
    return CaptureHeader(sensor, started_us, DeviceInformation(**known))


def read_entries(path: Path) -> Iterator[Entry]:
    """Yields the lines after the header in order, without holding the file in memory; the last may be a `Truncation`.

    Raises:
        RecordingError: a line is damaged; the entries before it are valid.
        OSError: the file cannot be read.
    """
    last_t = 0.0
    with open_stream(path) as file:
        number = _read_first_line(file)[0] + 1
        while line := file.readline(LINE_LIMIT):
            try:
                entry = _parse_entry(path, number, line)
            except RecordingError:
                if line.endswith(b"\n") or len(line) == LINE_LIMIT:
                    raise
                yield Truncation(f"line {number}, the last one, is truncated and ignored; the lines before it are complete")
                return
            if entry is not None:
                if entry.t < last_t:
                    raise RecordingError(f"{path}: line {number}: t decreases from {last_t} to {entry.t}; sort the lines by t")
                last_t = entry.t
                yield entry
            number += 1
        if file.is_cut:
            yield Truncation(f"the gzip file is cut after line {number - 1}; the lines before are complete")


def _read_first_line(file: Stream) -> tuple[int, bytes]:
    """The first line that is not blank, and its number."""
    number = 1
    while (line := file.readline(LINE_LIMIT)).isspace() and number < _BLANK_LINES:
        number += 1
    return number, line


def _parse_entry(path: Path, number: int, line: bytes) -> Payload | LinkEvent | None:
    if not line.strip():
        return None
    found = _json_object(path, number, line)
    if "format" in found:
        raise RecordingError(f"{path}: line {number}: a second capture begins here; split the file there and replay both parts")
    t = found.get("t")
    if isinstance(t, bool) or not isinstance(t, int | float) or not 0 <= t < LONGEST_S:
        wanted = f"not seconds since the start, 0 to {LONGEST_S:g}"
        raise RecordingError(f'{path}: line {number}: "t" is {reprlib.repr(t)}, {wanted}; correct or remove the line')
    if "event" in found:
        if found["event"] not in EVENTS:
            raise RecordingError(
                f"{path}: line {number}: unknown event {reprlib.repr(found['event'])}; use {' or '.join(EVENTS)}"
            )
        return LinkEvent(float(t), found["event"])
    characteristic, payload = found.get("char"), found.get("hex")
    if not isinstance(characteristic, str) or not _UUID.fullmatch(characteristic.lower()):
        raise RecordingError(
            f'{path}: line {number}: "char" is {reprlib.repr(characteristic)}, not a 128-bit UUID; correct or remove the line'
        )
    try:
        return Payload(float(t), characteristic.lower(), bytes.fromhex(payload or ""))
    except (TypeError, ValueError):
        raise RecordingError(f'{path}: line {number}: "hex" is not hexadecimal text; correct or remove the line') from None


def _json_object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    if len(line) == LINE_LIMIT:
        raise RecordingError(f"{path}: line {number}: longer than {LINE_LIMIT} bytes; the file is not a capture, or is damaged")
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise RecordingError(f"{path}: line {number}: not JSON in UTF-8; correct or remove the line") from None
    if not isinstance(found, dict):
        raise RecordingError(f"{path}: line {number}: not a JSON object; correct or remove the line")
    return found
