"""Reads whole files of unknown origin, with bounds: only regular files, and no more bytes than a recording can have."""

import gzip
import io
import zlib
from pathlib import Path
from typing import Final

from captures.recording import RecordingError

FILE_LIMIT_BYTES: Final = 4 << 30
"""The longest file that is read: two days of 12 leads at 1000 Hz and 16 bits. Beyond it, a machine runs out of memory."""
TEXT_LIMIT_BYTES: Final = 1 << 30
"""The longest text that a compressed file may hold: three days of one lead at 250 Hz. As a table, it takes ten times this in
memory."""
EXPANSION_LIMIT: Final = 100
"""How many times longer than the compressed file its text may be. Times and samples compress fivefold to tenfold, the equal
bytes of a gzip bomb a thousandfold."""
SMALLEST_LIMIT_BYTES: Final = 1 << 20
"""A text of this length is accepted at any ratio: a short file of zeros is harmless."""
GZIP_MAGIC: Final = b"\x1f\x8b"


def check_regular_file(path: Path) -> None:
    """Refuse what never ends or makes the reader wait: a pipe, a socket, a device, also behind a link.

    Raises:
        RecordingError: the path is not a regular file.
        OSError: there is no such file.
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


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, plain or gzipped, without a byte order mark.

    Raises:
        RecordingError: not a regular file, not UTF-8 text, a damaged gzip file, or a text that is too long.
        OSError: the file cannot be read.
    """
    raw = read_file(path)
    try:
        return (_decompress(path, raw) if raw.startswith(GZIP_MAGIC) else raw).decode("utf-8-sig")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise RecordingError(f"{path}: damaged gzip file ({error}); fetch the file again") from error
    except UnicodeDecodeError as error:
        raise RecordingError(f"{path}: not UTF-8 text (byte {error.start}); export it as UTF-8 CSV") from error


def _decompress(path: Path, raw: bytes) -> bytes:
    limit = min(TEXT_LIMIT_BYTES, max(SMALLEST_LIMIT_BYTES, EXPANSION_LIMIT * len(raw)))
    with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
        text = file.read(limit + 1)
    if len(text) > limit:
        raise RecordingError(f"{path}: a gzip file of more than {limit} bytes of text; decompress it and check what it holds")
    return text
