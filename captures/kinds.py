"""Opens a file that is not a WFDB record with the reader that fits its first bytes; texts also by their suffix."""

import codecs
import re
from pathlib import Path
from typing import Final

from captures.bluetooth import is_bluetooth_capture, read_bluetooth_capture
from captures.edf import is_edf, read_edf
from captures.exports.alivecor import read_alivecor, starts_alivecor
from captures.exports.reading import read_json
from captures.exports.rows import read_rows_of_lists, starts_rows_of_lists
from captures.exports.viatom import read_viatom, starts_viatom
from captures.intervals import read_intervals
from captures.jsonl import read_capture
from captures.payloads import PayloadCapture
from captures.recording import ReadOptions, Recording, RecordingError, RrRecording, UnknownKindError
from captures.streams import open_stream
from captures.table.reader import read_table

_FIRST_BYTES: Final = 1024
_JSON: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\{|\[\s*[\[{\d-])|\xff\xfe[\[{]\0|\xfe\xff\0[\[{]")
"""How a JSON document of objects or numbers begins, or a line of JSON lines."""
_TEXT_SUFFIXES: Final = (".csv", ".tsv", ".txt", ".hrm", ".rr", ".ibi")
_NOT_TEXT: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
"""Bytes that no text in ASCII, UTF-8 or Latin-1 holds."""
_ZIP: Final = b"PK\3\4"
_ARCHIVE: Final = "a zip archive or an Excel workbook; unpack it, or save the sheet as CSV"
_UNKNOWN: Final = (
    "neither a recording nor a capture; give a WFDB header (.hea), a table (.csv, .tsv, .txt), an EDF or BDF file, an export"
    " (JSON, .atc), a capture (JSON lines that `pulsegate record` wrote) or a Bluetooth capture (btsnoop, pcap, pcapng)"
)


def read_by_content(path: Path, options: ReadOptions) -> Recording | RrRecording | PayloadCapture:
    """Open a regular file.

    Raises:
        UnknownKindError: no reader supports the file.
        RecordingError: the file is damaged or not supported, or leaves open what `options` must state.
        OSError: the file cannot be read.
    """
    suffix = path.suffix.lower()
    begin = _first_bytes(path)
    if is_bluetooth_capture(begin):
        return read_bluetooth_capture(path, begin, options)
    if starts_alivecor(begin):
        return read_alivecor(path, options)
    _refuse_unreadable(path, suffix, begin)
    if is_edf(begin):
        return read_edf(path, options)
    if _holds_capture(begin):
        return read_capture(path, options)
    if _JSON.match(begin):
        return read_json(path, options)
    if starts_viatom(begin):
        return read_viatom(path, begin, options)
    if starts_rows_of_lists(begin) and (recording := read_rows_of_lists(path, options)) is not None:
        return recording
    if suffix in _TEXT_SUFFIXES or path.with_suffix("").suffix.lower() in _TEXT_SUFFIXES or not _NOT_TEXT.search(begin):
        return read_intervals(path, options) or read_table(path, options)
    raise UnknownKindError(f"{path}: {_ARCHIVE if begin.startswith(_ZIP) else _UNKNOWN}")


def _refuse_unreadable(path: Path, suffix: str, begin: bytes) -> None:
    """Refuse samples without their header, and a file without content."""
    if suffix == ".mat" or (suffix == ".dat" and b"\0" in begin):
        raise RecordingError(
            f"{path}: holds samples without their rate and gain; its header {path.stem}.hea is missing; put it beside the file"
        )
    if not begin.strip():
        raise RecordingError(f"{path}: the file is empty; give a recording or a capture")


def _holds_capture(begin: bytes) -> bool:
    text = begin.removeprefix(codecs.BOM_UTF8).lstrip(b" \t\r\n\xff\xfe\0").replace(b"\0", b"")
    return text.startswith(b"{") and b'"format"' in text


def _first_bytes(path: Path) -> bytes:
    """The first bytes of a file, decompressed."""
    with open_stream(path) as stream:
        return stream.read(_FIRST_BYTES)
