"""Opens a file, plain or gzipped, for reading from its start block by block."""

import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from captures.files import check_regular_file
from captures.recording import RecordingError

TEXT_LIMIT_BYTES: Final = 1 << 30
"""The longest text that is read whole: three days of one lead at 250 Hz. As a table, it takes ten times this in memory."""
EXPANSION_LIMIT: Final = 100
"""How many times longer than the compressed file its content may be. Times and samples compress fivefold to tenfold, the equal
bytes of a gzip bomb a thousandfold."""
_BLOCK_BYTES: Final = 1 << 16
GZIP_MAGIC: Final = b"\x1f\x8b"
_HARMLESS_BYTES: Final = 1 << 20
"""Files up to this length are accepted at any compression ratio: a short file of zeros is harmless."""
_GZIP: Final = 16 + zlib.MAX_WBITS
"""zlib's name for the gzip format (RFC 1952)."""


class Stream(io.BufferedReader):
    """The bytes of a file. `is_cut` is True at the end of a gzip file that ends too early; the bytes before are right."""

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__(raw, _BLOCK_BYTES)
        self._source = raw

    @property
    def is_cut(self) -> bool:
        return isinstance(self._source, _Gzip) and self._source.is_cut

    def skip(self, count: int) -> None:
        """Skip a number of bytes, at most to the end of the file."""
        if not isinstance(self._source, _Gzip):
            self.seek(count, io.SEEK_CUR)
            return
        while count and (block := self.read(min(count, _BLOCK_BYTES))):
            count -= len(block)

    def measure(self) -> int:
        """Read to the end of the file. Returns the number of bytes from the current position."""
        if not isinstance(self._source, _Gzip):
            return -self.tell() + self.seek(0, io.SEEK_END)
        count = 0
        while block := self.read(_BLOCK_BYTES):
            count += len(block)
        return count


@contextmanager
def open_stream(path: Path) -> Iterator[Stream]:
    """Open a regular file; a gzip file is decompressed while it is read, in constant memory.

    Reading raises `RecordingError` where a gzip file is damaged or expands more than any capture does.

    Raises:
        RecordingError: not a regular file.
        OSError: the file cannot be opened.
    """
    check_regular_file(path)
    with path.open("rb", buffering=0) as file:
        is_gzip = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        file.seek(0)
        with Stream(_Gzip(path, file) if is_gzip else file) as stream:
            yield stream


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, plain or gzipped, without a byte order mark.

    Raises:
        RecordingError: not a regular file, not UTF-8 text, a damaged gzip file, or a text that is too long.
        OSError: the file cannot be read.
    """
    with open_stream(path) as stream:
        raw = stream.read(TEXT_LIMIT_BYTES + 1)
        check_complete(path, stream)
    if len(raw) > TEXT_LIMIT_BYTES:
        raise RecordingError(
            f"{path}: more than {TEXT_LIMIT_BYTES} bytes of text; check that it is the right file, or split it"
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordingError(f"{path}: not UTF-8 text (byte {error.start}); export it as UTF-8 CSV") from error


def check_complete(path: Path, stream: Stream) -> None:
    """Refuse a gzip file that ends too early, for readers that need the whole file.

    Raises:
        RecordingError: the file ends too early.
    """
    if stream.is_cut:
        raise RecordingError(f"{path}: damaged gzip file (it ends too early); fetch the file again")


class _Gzip(io.RawIOBase):
    """The decompressed bytes of a gzip file, of one or several members."""

    def __init__(self, path: Path, file: io.FileIO) -> None:
        super().__init__()
        self._path = path
        self._file = file
        self._member = zlib.decompressobj(_GZIP)
        self._rest = b""
        self._read_bytes = self._given_bytes = 0
        self.is_cut = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # always called by BufferedReader
        while True:
            if not self._rest:
                self._rest = self._file.read(_BLOCK_BYTES)
                self._read_bytes += len(self._rest)
            is_end = not self._rest
            block = self._decompress(len(buffer))
            if block:
                buffer[: len(block)] = block
                return len(block)
            if is_end:
                self.is_cut = not self._member.eof
                return 0

    def _decompress(self, limit: int) -> bytes:
        if self._member.eof:  # the next member; zeros between members and at the end are padding
            self._rest = self._rest.lstrip(b"\0")
            if not self._rest:
                return b""
            self._member = zlib.decompressobj(_GZIP)
        try:
            block = self._member.decompress(self._rest, limit)
        except zlib.error as error:
            raise RecordingError(f"{self._path}: damaged gzip file ({error}); fetch the file again") from error
        self._rest = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
        self._given_bytes += len(block)
        if self._given_bytes > max(_HARMLESS_BYTES, EXPANSION_LIMIT * self._read_bytes):
            raise RecordingError(
                f"{self._path}: a gzip file that expands more than {EXPANSION_LIMIT} times;"
                " decompress it and check what it holds"
            )
        return block
