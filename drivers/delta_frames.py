"""Samples in the frames of Polar's Measurement Data service: columns of integers, and delta compression.

Source: Polar, "Polar Measurement Data", version 1.0 (2024), section 4.3, and the decoder of the vendor's SDK
(`parseDeltaFramesAll`). A compressed frame begins with a reference sample. Blocks of differences follow: width in bits, number
of samples, then the signed differences of all channels, sample by sample, packed from the lowest bit up. Each block is padded
to whole bytes.
"""

import struct
from itertools import accumulate
from typing import Final

from drivers.readings import DecodeError

Columns = tuple[tuple[int, ...], ...]
"""For each channel its samples, oldest first."""

MAX_VALUES: Final = 4096
"""Most values of all channels in a compressed frame: what 512 bytes hold at 1 bit each, and no attribute value is
longer (Core Specification 5.4, volume 3, part F, section 3.2.9). A block of width 0 may claim 255 samples in 2 bytes."""
MAX_WIDTH_BITS: Final = 32
"""Values have 32 bits, so no difference needs more."""

_SIGN: Final = bytes(0xFF if byte & 0x80 else 0 for byte in range(256))
"""For the highest byte of a number, the bytes that extend it."""
_WORD: Final = 1 << 32
_HALF_WORD: Final = 1 << 31


def check_records(body: bytes, size: int) -> None:
    """Check that the samples of a frame are whole records of `size` bytes, at least one.

    Raises:
        DecodeError: they are not.
    """
    if len(body) % size or not body:
        raise DecodeError(f"samples: {len(body)} bytes are not a whole number of {size}-byte samples (at least one)")


def read_column(data: bytes, start: int, stride: int, size: int) -> tuple[int, ...]:
    """The signed little-endian integers of `size` bytes (1 to 4) at `start` of each record of `stride` bytes.

    `data` consists of whole records. Slices extend the integers to 4 bytes, because a loop over the samples takes eight times
    as long.
    """
    words = bytearray(4 * (len(data) // stride))
    for byte in range(size):
        words[byte::4] = data[start + byte :: stride]
    if size < 4:
        extension = words[size - 1 :: 4].translate(_SIGN)
        for byte in range(size, 4):
            words[byte::4] = extension
    return struct.unpack(f"<{len(words) // 4}i", words)


def decode_deltas(data: bytes, channels: int, size: int) -> Columns:
    """Decode the content of a compressed frame with `channels` of `size` bytes each.

    Sums wrap around at 32 bits, as the vendor's do: of floating-point numbers, the bit patterns are added.

    Raises:
        DecodeError: the reference sample, a block's header or its differences are incomplete; a width exceeds 32 bits; the
            frame claims more than `MAX_VALUES`.
    """
    offset = channels * size
    if len(data) < offset:
        raise DecodeError(f"reference sample: needs {offset} bytes, the payload ends after {len(data)}")
    columns = [[value] for value in read_column(data[:offset], 0, size, size)]
    values = channels
    while offset < len(data):
        width, count, block = _read_block(data, offset, channels)
        values += count * channels
        if values > MAX_VALUES:
            raise DecodeError(f"delta block at byte {offset} of the samples: the frame claims more than {MAX_VALUES} values")
        deltas = _unpack(block, width, count * channels)
        for channel, column in enumerate(columns):
            column.extend(accumulate(deltas[channel::channels], initial=column.pop()))
        offset += 2 + len(block)
    return tuple(_wrap(column) for column in columns)


def _read_block(data: bytes, offset: int, channels: int) -> tuple[int, int, bytes]:
    """The width, number of samples and packed differences of a block."""
    if len(data) - offset < 2:
        raise DecodeError(f"delta block at byte {offset} of the samples: needs a width and a count, the payload ends before")
    width, count = data[offset], data[offset + 1]
    if width > MAX_WIDTH_BITS:
        raise DecodeError(f"delta block at byte {offset} of the samples: a width of {width} bits; at most {MAX_WIDTH_BITS}")
    size = (width * count * channels + 7) // 8
    block = data[offset + 2 : offset + 2 + size]
    if len(block) < size:
        raise DecodeError(
            f"delta block at byte {offset} of the samples: needs {size} bytes, the payload ends after {len(block)}"
        )
    return width, count, block


def _unpack(block: bytes, width: int, count: int) -> list[int]:
    """`count` signed integers of `width` bits. Of width 0, all are 0."""
    if width == 0:
        return [0] * count
    bits = int.from_bytes(block, "little")
    mask, sign = (1 << width) - 1, 1 << (width - 1)
    return [((bits >> shift & mask) ^ sign) - sign for shift in range(0, width * count, width)]


def _wrap(column: list[int]) -> tuple[int, ...]:
    """The column as signed integers of 32 bits."""
    if min(column) >= -_HALF_WORD and max(column) < _HALF_WORD:
        return tuple(column)
    return tuple((value + _HALF_WORD) % _WORD - _HALF_WORD for value in column)
