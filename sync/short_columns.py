"""Packs short columns of integers as `sync.packing` does, byte for byte, without numpy.

A heart rate sensor sends ten values between two commits. For so few, numpy's fixed cost of some 100 µs a column is most of what
it costs to encode a vital sign.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final

SHORT: Final = 32
"""Up to so many values, this is faster than numpy."""
_CACHED: Final = 64
"""Columns whose packed form is remembered: readings that arrive together have equal times, and many columns are constant."""
_EXACT: Final = 1 << 61
"""Second differences of values below this fit 64 bits."""
_UNLIMITED: Final = 1 << 62
_SIGN: Final = 1 << 63
_MASK: Final = (1 << 64) - 1


@lru_cache(_CACHED)
def pack_short(values: tuple[int, ...], max_order: int, order_shift: int) -> bytes:
    """Return the shortest packed form of 64-bit integers; of several of that length, that with differences of the lowest order.

    The first byte is the order of the differences, shifted by `order_shift`, and the Rice parameter.
    """
    n = len(values)
    is_exact = n == 0 or (max(values) < _EXACT and min(values) > -_EXACT)
    levels = [values]
    for _ in range(min(max_order, n)):
        differences = tuple([after - before for before, after in pairwise(levels[-1])])
        levels.append(differences if is_exact else tuple(map(_wrap, differences)))
    heads = [to_varint(_to_zigzag(level[0])) for level in levels[:-1]]
    order = len(levels) - 1  # nearly always the shortest for times, and then spares the search in the others
    codes, k, bits = _find_parameter(levels[order]) or ([], 0, 0)
    room_bits = (bits + 7) // 8 * 8
    for lower in range(order - 1, -1, -1):
        room_bits += len(heads[lower]) * 8
        found = _find_parameter(levels[lower], room_bits)
        if found is not None:
            order, (codes, k, bits) = lower, found
            room_bits = (bits + 7) // 8 * 8
    start = bytes((order << order_shift | k,)) + to_varint(n)
    return start + b"".join(heads[:order]) + _pack_codes(codes, k, bits)


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


def _find_parameter(values: Sequence[int], limit_bits: int = _UNLIMITED) -> tuple[list[int], int, int] | None:
    """Return the zigzags of the values, the smallest Rice parameter that takes the fewest bits, and how many these are.

    None if these exceed `limit_bits`.
    """
    n = len(values)
    longest = max(max(values) << 1, ~(min(values) << 1)).bit_length() if n else 0
    least = max(0, longest - (2 * n).bit_length())  # below it, one bit more shortens the longest quotient by more than n bits
    if n * (least + 1) > limit_bits:
        return None
    codes = [value << 1 if value >= 0 else ~(value << 1) for value in values]
    k, bits = 0, n
    if longest:
        k = max(least, (sum(codes) // n).bit_length() - 1)
        bits = _count_bits(codes, k)
        # One bit more shortens the quotients the less, the more there are: no minimum lies beyond a step that gains nothing.
        while (fewer := _count_bits(codes, k + 1)) < bits:
            k, bits = k + 1, fewer
        while k > least and (fewer := _count_bits(codes, k - 1)) <= bits:
            k, bits = k - 1, fewer
    return None if bits > limit_bits else (codes, k, bits)


def _count_bits(codes: Sequence[int], k: int) -> int:
    return sum([code >> k for code in codes]) + len(codes) * (k + 1)


def _pack_codes(codes: Sequence[int], k: int, bits: int) -> bytes:
    """Return the quotients in unary, each a run of zeros and a one, then the remainders of k bits each, the highest first."""
    unary = remainders = 0
    mask = (1 << k) - 1
    for code in codes:
        unary = unary << (code >> k) + 1 | 1
        remainders = remainders << k | code & mask
    return ((unary << len(codes) * k | remainders) << -bits % 8).to_bytes((bits + 7) // 8, "big")
