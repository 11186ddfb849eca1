"""Reads small files as a whole, and refuses files that are not regular or are longer than a limit."""

from pathlib import Path
from typing import Final

from captures.recording import RecordingError

FILE_LIMIT_BYTES: Final = 4 << 30
"""The longest file that is read as a whole. Beyond it, a machine runs out of memory."""


def check_regular_file(path: Path) -> None:
    """Refuse what never ends or makes the reader wait: a pipe, a socket, a device, also behind a link.

    Raises:
        RecordingError: the path is not a regular file.
        OSError: the file does not exist.
    """
    path.stat()
    if not path.is_file():
        raise RecordingError(f"{path}: not a regular file but a folder, pipe or device; copy its content to a file")


def read_file(path: Path, limit_bytes: int = FILE_LIMIT_BYTES) -> bytes:
    """Return the content of a regular file.

    Raises:
        RecordingError: the path is not a regular file, or it is longer than the limit.
        OSError: the file cannot be read.
    """
    check_regular_file(path)
    size = path.stat().st_size
    if size > limit_bytes:
        raise RecordingError(
            f"{path}: {size} bytes long, the limit is {limit_bytes}; check that it is the right file, or split it"
        )
    return path.read_bytes()
