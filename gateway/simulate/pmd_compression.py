"""Compressed frames of Polar Measurement Data: a reference sample, then blocks of differences with a width of their own."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

COMPRESSED: Final = 0x80
"""Bit of the frame type."""
BLOCK_SAMPLES: Final = 8
"""Differences in one block. A device changes the width with the signal, so a frame has several blocks."""


def encode_compressed_frame(
    measurement: int, frame_type: int, last_ns: int, samples: NDArray[np.int64], reference_bytes: int
) -> bytes:
    """Encode samples, one row a sample and one column a channel, as a compressed frame.

    `reference_bytes` is the size of each channel of the first sample, signed, little-endian. Each block is the width in bits,
    the number of differences, and these for all channels, signed, packed from the least significant bit, padded to an octet.
    """
    header = bytes((measurement,)) + last_ns.to_bytes(8, "little") + bytes((COMPRESSED | frame_type,))
    reference = b"".join(int(value).to_bytes(reference_bytes, "little", signed=True) for value in samples[0])
    differences = np.diff(samples, axis=0)
    starts = range(0, len(differences), BLOCK_SAMPLES)
    return header + reference + b"".join(_encode_block(differences[start : start + BLOCK_SAMPLES]) for start in starts)


def _encode_block(differences: NDArray[np.int64]) -> bytes:
    width = max(int(value).bit_length() if value >= 0 else (~int(value)).bit_length() for value in differences.flat) + 1
    packed = 0
    for index, value in enumerate(differences.flat):
        packed |= (int(value) & ((1 << width) - 1)) << (index * width)
    return bytes((width, len(differences))) + packed.to_bytes((width * differences.size + 7) // 8, "little")
