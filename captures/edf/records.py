"""Reads parts of the data records of an EDF file, some at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from captures.recording import CHUNK_SAMPLES, RecordingError
from captures.streams import Stream, open_stream

_BLOCK_BYTES: Final = 1 << 18
"""Records are read together up to this length, so that a file of short records takes few calls."""


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


def read_blocks(records: Records, start: int, width: int, item: int) -> Iterator[Block]:
    """Yield the bytes `start` to `start + width` of all records, in order; items of `item` bytes are not split.

    A block has at most `CHUNK_SAMPLES` items. Memory is bounded by the block, not by the record.

    Raises:
        RecordingError: the file has become shorter, or is a damaged gzip file.
        OSError: the file cannot be read.
    """
    most = CHUNK_SAMPLES * item
    together = max(1, min(_BLOCK_BYTES // records.size, most // max(1, width)))
    end = 0
    with open_stream(records.path) as stream:
        for first in range(0, records.count, together):
            count = min(together, records.count - first)
            for at in range(0, width, most):
                part = min(most, width - at)
                begin = records.start + first * records.size + start + at
                stream.skip(begin - end)
                end = begin + (count - 1) * records.size + part
                yield Block(first, at, _read_rows(stream, records, count, part))


def _read_rows(stream: Stream, records: Records, count: int, width: int) -> NDArray[np.uint8]:
    needed = (count - 1) * records.size + width
    raw = stream.read(needed)
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
