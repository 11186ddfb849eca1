"""Opens a file of any supported kind: its first bytes decide, then its name."""

import codecs
import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from captures.bluetooth import is_bluetooth_capture, read_bluetooth_capture
from captures.edf import is_edf, read_edf
from captures.exports.alivecor import read_alivecor, starts_alivecor
from captures.exports.reading import read_json
from captures.exports.rows import read_rows_of_lists, starts_rows_of_lists
from captures.exports.viatom import read_viatom, starts_viatom
from captures.files import check_regular_file
from captures.intervals import read_intervals
from captures.jsonl import read_capture
from captures.payloads import PayloadCapture
from captures.recording import ReadOptions, Recording, RecordingError, RrRecording, UnknownKindError
from captures.streams import open_stream
from captures.table.reader import read_table
from captures.wfdb import find_header, read_wfdb

NO_OPTIONS: Final = ReadOptions()
_FIRST_BYTES: Final = 1024
_JSON: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\{|\[\s*[\[{\d-])|\xff\xfe[\[{]\0|\xfe\xff\0[\[{]")
"""How a JSON document of objects or numbers begins, or a line of JSON lines."""
_TEXT_SUFFIXES: Final = (".csv", ".tsv", ".txt", ".hrm", ".rr", ".ibi")

_ZIP: Final = b"PK\3\4"
_ARCHIVE: Final = "a zip archive or an Excel workbook; unpack it, or save the sheet as CSV"
_UNKNOWN: Final = (
    "neither a recording nor a capture; give a WFDB header (.hea), a table (.csv, .tsv, .txt), an EDF or BDF file, an export"
    " (JSON, .atc), a capture (JSON lines that `pulsegate record` wrote) or a Bluetooth capture (btsnoop, pcap, pcapng)"
)

Opened = Recording | RrRecording | PayloadCapture


def open_file(path: Path, options: ReadOptions = NO_OPTIONS) -> Opened:
    """Open a recording, or a capture of the payloads of a sensor.

    Raises:
        UnknownKindError: the file is of another kind.
        RecordingError: the file is missing, damaged or not supported, or leaves open what `options` must state.
    """
    try:
        return _open(path, options)
    except FileNotFoundError as error:
        raise RecordingError(f"{error.filename}: no such file; check the name") from error
    except MemoryError:
        raise RecordingError(f"{path}: needs more memory than this machine has; split the recording") from None
    except OSError as error:
        raise RecordingError(f"{path}: cannot read the file: {error.strerror or error}; check its permissions") from error


def open_recording(path: Path, options: ReadOptions = NO_OPTIONS) -> Recording:
    """Open a recording of an ECG or a pulse wave; see `open_file`.

    Raises:
        UnknownKindError: the file is of another kind.
        RecordingError: see `open_file`.
    """
    opened = open_file(path, options)
    if not isinstance(opened, Recording):
        raise UnknownKindError(f"{path}: holds no samples of an ECG or a pulse wave; give a recording")
    return opened


def _open(path: Path, options: ReadOptions) -> Opened:
    opened = _read(path, options)
    is_capture = isinstance(opened, PayloadCapture)
    given = {"--unit": options.unit, "--rate": options.rate_hz} if is_capture else {"--gatt": options.gatt}
    unused = [name for name, value in given.items() if value is not None]
    return replace(opened, notes=(*opened.notes, f"not used for this kind of file: {', '.join(unused)}")) if unused else opened


def _read(path: Path, options: ReadOptions) -> Opened:
    header = find_header(path)
    if header is not None:
        return read_wfdb(header, options)
    check_regular_file(path)
    suffix = path.suffix.lower()
    begin = _first_bytes(path)
    if is_bluetooth_capture(begin):
        return read_bluetooth_capture(path, begin, options)
    if starts_alivecor(begin):
        return read_alivecor(path, options)
    _refuse_useless(path, suffix, begin)
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
    if path.with_suffix("").suffix.lower() in _TEXT_SUFFIXES or suffix in _TEXT_SUFFIXES:
        return read_intervals(path, options) or read_table(path, options)
    raise UnknownKindError(f"{path}: {_ARCHIVE if begin.startswith(_ZIP) else _UNKNOWN}")


def _refuse_useless(path: Path, suffix: str, begin: bytes) -> None:
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
