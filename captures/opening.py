"""Opens a file of any supported kind: a WFDB record by its name, any other file by its first bytes."""

from dataclasses import replace
from pathlib import Path
from typing import Final

from captures.files import check_regular_file
from captures.payloads import PayloadCapture
from captures.recording import ReadOptions, Recording, RecordingError, RrRecording, UnknownKindError
from captures.wfdb import find_header, read_wfdb

NO_OPTIONS: Final = ReadOptions()

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
    from captures.kinds import read_by_content  # noqa: PLC0415  importing the other readers takes as long as replaying 100 s of ECG

    return read_by_content(path, options)
