"""Finds the header and the signal files of a WFDB record by the names that people and headers give."""

from pathlib import Path
from typing import Final

from captures.files import check_regular_file
from captures.recording import RecordingError
from captures.wfdb.header import parse_header

_SIGNAL_SUFFIXES: Final = (".dat", ".mat")
_SHOWN: Final = 5
_LARGEST_FOLDER: Final = 1000
"""Most headers of a folder that are parsed to distinguish records from their segments."""


def find_header(path: Path) -> Path | None:
    """Return the header of the record that a path names; None if it names no record.

    The path may be the header, a signal file, the name of a record without suffix, or a folder that holds one record.

    Raises:
        RecordingError: a folder without a record, or with several.
        OSError: the folder cannot be read.
    """
    if path.suffix.lower() == ".hea" and not path.is_dir():
        return find_file(path.parent, path.name) or path
    if path.suffix.lower() in _SIGNAL_SUFFIXES and path.is_file():
        return find_file(path.parent, f"{path.stem}.hea")
    if path.is_dir() or not path.exists():
        beside = find_file(path.parent, f"{path.name}.hea") if path.name else None
        return beside or (_find_only_record(path) if path.is_dir() else None)
    return None


def find_file(folder: Path, name: str) -> Path | None:
    """Return the file of this name in a folder, else the only one whose name differs only in case; None if it has neither."""
    path = folder / name
    try:
        if path.exists():
            return path
        same = [other for other in folder.iterdir() if other.name.casefold() == name.casefold()]
    except (OSError, ValueError):
        return None
    return same[0] if len(same) == 1 else None


def find_named(header: Path, what: str, name: str) -> Path:
    """Return the regular file that a header names. If the file is not in the folder stated, it may lie beside the header.

    Raises:
        RecordingError: the file does not exist, or is a pipe or device.
    """
    parts = name.replace("\\", "/").split("/")
    # A header must not name files elsewhere on the machine; what it names there may have been copied beside it.
    is_inside = len(parts) > 1 and parts[0] and ".." not in parts and ":" not in name
    inside = find_file(header.parent.joinpath(*parts[:-1]), parts[-1]) if is_inside else None
    file = inside or (find_file(header.parent, parts[-1]) if parts[-1] not in ("", ".", "..") else None)
    if file is None:
        raise RecordingError(f"{header}: its {what} {name[:80]} is missing; put it beside the header")
    check_regular_file(file)
    return file


def _find_only_record(folder: Path) -> Path:
    headers = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".hea")
    if not headers:
        raise RecordingError(f"{folder}: is a folder without a WFDB header (.hea); give the files in it")
    if 1 < len(headers) <= _LARGEST_FOLDER:
        segments = {name for header in headers for name in _segment_names(header)}
        headers = [header for header in headers if header.stem.casefold() not in segments] or headers
    if len(headers) > 1:
        shown = ", ".join(header.name[:40] for header in headers[:_SHOWN])
        more = f" and {len(headers) - _SHOWN} more" if len(headers) > _SHOWN else ""
        raise RecordingError(f"{folder}: is a folder with {len(headers)} records ({shown}{more}); give one or more of them")
    return headers[0]


def _segment_names(header: Path) -> set[str]:
    try:
        return {Path(segment.name).name.casefold() for segment in parse_header(header).segments}
    except (RecordingError, OSError):
        return set()
