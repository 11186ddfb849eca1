"""Reads parts of the data records of an EDF file, some at a time."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

import numpy as np
from numpy.typing import NDArray

from captures.files import EXPANSION_LIMIT, FILE_LIMIT_BYTES, GZIP_MAGIC
from captures.recording import CHUNK_SAMPLES, RecordingError

_BLOCK_BYTES: Final = 1 << 18
"""Records are read together up to this length, so that a file of short records takes few calls."""
_SMALLEST_LIMIT_BYTES: Final = 1 << 20
"""A gzip file may unpack to this length at any ratio."""


@dataclass(frozen=True, slots=True)
class Records:
    """Where the data records of a file are: `count` records of `size` bytes from byte `start` on."""

    path: Path
    start: int
    size: int
    count: int


@dataclass(frozen=True, slots=True)
class Block:
    """The same bytes of consecutive records, shape (records, bytes). `at` is the number of the first byte in its span."""

    first: int
    at: int
    rows: NDArray[np.uint8]


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """Open a plain or gzipped file.

    Raises:
        RecordingError: the gzip file is damaged, found here or while it is read.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        packed = file.read(2) == GZIP_MAGIC
        file.seek(0)
        try:
            yield cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if packed else file
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise RecordingError(f"{path}: damaged gzip file ({str(error)[:80]}); fetch the file again") from error


def measure_bytes(path: Path) -> int:
    """The length of a file, unpacked.

    Raises:
        RecordingError: a damaged gzip file, or one that unpacks to too much.
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(2) != GZIP_MAGIC:
            return size
    limit = min(FILE_LIMIT_BYTES, max(_SMALLEST_LIMIT_BYTES, EXPANSION_LIMIT * size))
    unpacked = 0
    with open_bytes(path) as file:
        while part := file.read(_BLOCK_BYTES):
            unpacked += len(part)
            if unpacked > limit:
                raise RecordingError(f"{path}: a gzip file of more than {limit} bytes; decompress it and check what it holds")
    return unpacked


def read_blocks(records: Records, start: int, width: int, item: int) -> Iterator[Block]:
    """Yield the bytes `start` to `start + width` of all records, in order; items of `item` bytes are not split.

    A block has at most `CHUNK_SAMPLES` items. Memory is bounded by the block, not by the record.

    Raises:
        RecordingError: the file has become shorter, or is a damaged gzip file.
        OSError: the file cannot be read.
    """
    most = CHUNK_SAMPLES * item
    together = max(1, min(_BLOCK_BYTES // records.size, most // max(1, width)))
    with open_bytes(records.path) as file:
        for first in range(0, records.count, together):
            count = min(together, records.count - first)
            for at in range(0, width, most):
                part = min(most, width - at)
                yield Block(first, at, _read_rows(file, records, first, count, (start + at, part)))


def _read_rows(file: IO[bytes], records: Records, first: int, count: int, span: tuple[int, int]) -> NDArray[np.uint8]:
    start, width = span
    file.seek(records.start + first * records.size + start)
    needed = (count - 1) * records.size + width
    raw = file.read(needed)
    if len(raw) < needed:
        raise RecordingError(f"{records.path}: became shorter while it was read; fetch the file again")
    stride = records.size if count > 1 else width
    rows = np.zeros(count * stride, np.uint8)
    rows[:needed] = np.frombuffer(raw, np.uint8)
    return rows.reshape(count, stride)[:, :width]


def decode_samples(rows: NDArray[np.uint8], sample_bytes: int) -> NDArray[np.int32]:
    """The samples in the rows, in order: two's complement, low byte first, of 2 or 3 bytes."""
    flat = np.ascontiguousarray(rows).reshape(-1)
    if sample_bytes == 2:
        return flat.view("<i2").astype(np.int32)
    low, middle, high = flat.reshape(-1, 3).T.astype(np.int32)
    return ((low | middle << 8 | high << 16) ^ 0x800000) - 0x800000
