"""Opens a file of any supported kind: its first bytes decide, then its name."""

import codecs
from pathlib import Path
from typing import Final

from captures.bluetooth import is_bluetooth_capture, read_bluetooth_capture
from captures.csv import read_csv
from captures.files import check_regular_file
from captures.jsonl import read_capture
from captures.payloads import PayloadCapture
from captures.recording import ReadOptions, Recording, RecordingError, RrRecording, UnknownKindError
from captures.streams import open_stream
from captures.wfdb import read_wfdb

NO_OPTIONS: Final = ReadOptions()
_FIRST_BYTES: Final = 256
_TABLE_SUFFIXES: Final = (".csv", ".tsv", ".txt")

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
    if path.is_dir():
        raise RecordingError(f"{path}: is a folder; give the files in it")
    check_regular_file(path)
    suffix = path.suffix.lower()
    if suffix in (".hea", ".dat", ".mat"):
        return read_wfdb(path.with_suffix(".hea") if suffix != ".hea" else path)
    begin = _first_bytes(path)
    if is_bluetooth_capture(begin):
        return read_bluetooth_capture(path, begin, options)
    if not begin.strip():
        raise RecordingError(f"{path}: the file is empty; give a recording or a capture")
    if begin.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{"):
        return read_capture(path)
    if path.with_suffix("").suffix.lower() in _TABLE_SUFFIXES or suffix in _TABLE_SUFFIXES:
        return read_csv(path)
    raise UnknownKindError(
        f"{path}: neither a recording nor a capture; give a WFDB header (.hea), a CSV file (.csv, .tsv, .csv.gz), a"
        " capture (JSON lines that `pulsegate record` wrote) or a Bluetooth capture (btsnoop, pcap, pcapng)"
    )


def _first_bytes(path: Path) -> bytes:
    """The first bytes of a file, decompressed."""
    with open_stream(path) as stream:
        return stream.read(_FIRST_BYTES)
