"""Packs short columns of integers as `sync.packing` does, byte for byte, without numpy.

A heart rate sensor sends ten values between two commits. For so few, numpy's fixed cost of some 100 µs a column is most of what
it costs to encode a vital sign.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final

SHORT: Final = 32
"""Up to so many values, this is faster than numpy."""
_SIGN: Final = 1 << 63
_MASK: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class _Layout:
    """One way to pack integers: differences of `order`, `codes` (zigzag) with the Rice parameter `k` in so many `bits`.

    `size` is the number of bytes, with the first values of the differences.
    """

    order: int
    codes: list[int]
    k: int
    bits: int
    size: int


def pack_short(values: Sequence[int], max_order: int, order_shift: int) -> bytes:
    """Return the shortest packed form of 64-bit integers; of several of that length, that with differences of the lowest order.

    The first byte is the order of the differences, shifted by `order_shift`, and the Rice parameter.
    """
    levels = [list(values)]
    for _ in range(min(max_order, len(values))):
        levels.append([_wrap(after - before) for before, after in pairwise(levels[-1])])
    heads = b"".join(to_varint(_to_zigzag(level[0])) for level in levels[:-1])
    ends = [0, *accumulate(len(to_varint(_to_zigzag(level[0]))) for level in levels[:-1])]
    best: _Layout | None = None
    # The highest order comes first: it is nearly always the shortest for times, and then spares the search in the others.
    for order in range(len(levels) - 1, -1, -1):
        codes = [_to_zigzag(value) for value in levels[order]]
        limit = None if best is None else (best.size - ends[order]) * 8
        found = _best_parameter(codes, limit)
        if found is not None:
            best = _Layout(order, codes, *found, size=ends[order] + (found[1] + 7) // 8)
    assert best is not None
    start = bytes((best.order << order_shift | best.k,)) + to_varint(len(values))
    return start + heads[: ends[best.order]] + _pack_codes(best.codes, best.k, best.bits)


def to_varint(code: int) -> bytes:
    """Return an unsigned integer in groups of seven bits, the lowest first; all but the last have the highest bit set."""
    groups = bytearray()
    while code >= 0x80:
        groups.append(code & 0x7F | 0x80)
        code >>= 7
    groups.append(code)
    return bytes(groups)


def _wrap(value: int) -> int:
    """The value modulo 2^64, as a signed integer."""
    return (value + _SIGN & _MASK) - _SIGN


def _to_zigzag(value: int) -> int:
    return value << 1 if value >= 0 else ~(value << 1)


def _best_parameter(codes: Sequence[int], limit: int | None) -> tuple[int, int] | None:
    """Return the smallest Rice parameter that takes the fewest bits, and how many these are; None if these exceed `limit`."""
    n = len(codes)
    if n == 0:
        return 0, 0
    longest = max(codes).bit_length()
    first = max(0, longest - (2 * n).bit_length())  # below it, one bit more shortens the longest quotient by more than n bits
    if limit is not None and n * (first + 1) > limit:
        return None
    best_k, best_bits = first, sum([code >> first for code in codes]) + n * (first + 1)
    for k in range(first + 1, max(first, longest - 1) + 1):
        bits = sum([code >> k for code in codes]) + n * (k + 1)
        if bits < best_bits:
            best_k, best_bits = k, bits
    return None if limit is not None and best_bits > limit else (best_k, best_bits)


def _pack_codes(codes: Sequence[int], k: int, bits: int) -> bytes:
    """Return the quotients in unary, each a run of zeros and a one, then the remainders of k bits each, the highest first."""
    unary = remainders = 0
    for code in codes:
        unary = unary << (code >> k) + 1 | 1
        remainders = remainders << k | code & (1 << k) - 1
    padding = -bits % 8
    return ((unary << len(codes) * k | remainders) << padding).to_bytes((bits + 7) // 8, "big")
