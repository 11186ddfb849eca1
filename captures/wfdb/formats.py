"""Decodes the signal formats of WFDB (WFDB Applications Guide, signal(5)): bytes to ADC values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Adc = NDArray[np.signedinteger[Any]]
FLAC_BITS: Final = {508: 8, 516: 16, 524: 24}
"""Formats whose signal file is a FLAC stream, and the largest number of bits of its samples."""
NOT_STORED: Final = 0
"""The format of a signal without samples."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format packs `block_samples` samples in `block_bytes` bytes. `unpack` turns whole blocks into samples.

    `partial` is the number of samples in the first 0, 1, 2 … bytes of a block. `invalid` marks a missing sample; None if no
    value does. With `is_difference`, a value is the change from the sample before.
    """

    unpack: Callable[[bytes], Adc]
    block_bytes: int
    block_samples: int
    partial: tuple[int, ...]
    invalid: int | None
    is_difference: bool = False

    def count_samples(self, size: int) -> int:
        """The number of samples in `size` bytes."""
        blocks, rest = divmod(size, self.block_bytes)
        return blocks * self.block_samples + self.partial[rest]

    def count_bytes(self, samples: int) -> int:
        """The number of bytes of the blocks that hold `samples` samples."""
        return -(-samples // self.block_samples) * self.block_bytes

    def decode(self, raw: bytes) -> Adc:
        """Unpack all samples, also those of a partial block at the end."""
        return self.unpack(raw + bytes(-len(raw) % self.block_bytes))[: self.count_samples(len(raw))]


def invalid_value(number: int) -> int | None:
    """The ADC value that marks a missing sample in a format; None if none does."""
    return -1 << (FLAC_BITS[number] - 1) if number in FLAC_BITS else FORMATS[number].invalid


def _plain(dtype: str) -> Format:
    size = np.dtype(dtype).itemsize
    return Format(lambda raw: np.frombuffer(raw, dtype), size, 1, (0,) * size, -1 << (8 * size - 1))


def _unpack_24(raw: bytes) -> Adc:
    wide = np.zeros((len(raw) // 3, 4), np.uint8)
    wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
    return wide.view("<i4").reshape(-1) >> 8


def _unpack_80(raw: bytes) -> Adc:
    return np.frombuffer(raw, np.uint8).astype(np.int16) - 128


def _unpack_160(raw: bytes) -> Adc:
    return np.frombuffer(raw, "<u2").astype(np.int32) - 32768


def _unpack_212(raw: bytes) -> Adc:
    """Pairs of 12-bit two's complement samples in three bytes; the middle byte holds both high nibbles."""
    low, middle, high = np.frombuffer(raw, np.uint8).reshape(-1, 3).T.astype(np.int16)
    pairs = np.empty((low.size, 2), np.int16)
    pairs[:, 0] = low | (middle & 0x0F) << 8
    pairs[:, 1] = high | (middle & 0xF0) << 4
    return ((pairs ^ 0x800) - 0x800).reshape(-1)


def _unpack_310(raw: bytes) -> Adc:
    """Three 10-bit samples in two words of 16 bits: two in bits 1 to 10 of each, one in the highest five bits of both."""
    first, second = np.frombuffer(raw, "<u2").reshape(-1, 2).T.astype(np.int32)
    triples = np.stack(((first >> 1) & 0x3FF, (second >> 1) & 0x3FF, first >> 11 | second >> 11 << 5), axis=1)
    return ((triples ^ 0x200) - 0x200).reshape(-1)


def _unpack_311(raw: bytes) -> Adc:
    """Three 10-bit samples in a word of 32 bits, the lowest bits first."""
    word = np.frombuffer(raw, "<u4").astype(np.int64)
    triples = np.stack((word & 0x3FF, (word >> 10) & 0x3FF, (word >> 20) & 0x3FF), axis=1)
    return ((triples ^ 0x200) - 0x200).reshape(-1)


FORMATS: Final[Mapping[int, Format]] = {
    8: Format(lambda raw: np.frombuffer(raw, np.int8), 1, 1, (0,), None, is_difference=True),
    16: _plain("<i2"),
    24: Format(_unpack_24, 3, 1, (0, 0, 0), -1 << 23),
    32: _plain("<i4"),
    61: _plain(">i2"),
    80: Format(_unpack_80, 1, 1, (0,), -128),
    160: Format(_unpack_160, 2, 1, (0, 0), -32768),
    212: Format(_unpack_212, 3, 2, (0, 0, 1), -2048),
    310: Format(_unpack_310, 4, 3, (0, 0, 1, 1), -512),
    311: Format(_unpack_311, 4, 3, (0, 0, 1, 2), -512),
}
