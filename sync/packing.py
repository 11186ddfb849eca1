"""Packs integers, numbers and samples into few bytes: differences with Rice codes (`docs/records.md` describes every bit).

The packed form is determined by the values: order of the differences and Rice parameter are those of the shortest form. It does
not depend on the version of a library, as deflated bytes would. Quotients and remainders lie in two runs of bits, so that numpy
packs and unpacks a whole array at once. Each value takes at least one bit: no bytes unpack to more than eight values each.

Ten seconds of ECG at 130 Hz in microvolts take 0.96 to 1.07 bytes a sample; first differences, byte-shuffled and deflated, take
1.23 to 1.43 (`python -m benchmarks.record_size`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sync.records import RecordError
from sync.short_columns import SHORT, pack_short, to_varint

MAX_SAMPLES: Final = 200_000
"""Samples in one block, strips and intervals included: ten times those in a full block of a strap's frames. It bounds what a
block takes in memory: 56 kB could otherwise be 450,000 samples."""

_MAX_ORDER: Final = 2
"""Second differences: a third makes the noise of an ECG larger, not smaller."""
_ORDER_SHIFT: Final = 6
_PARAMETER_MASK: Final = 0x3F
_DECIMALS: Final = 0xC0
"""Marks numbers that are integers divided by a power of ten, whose exponent is added to it."""
_MAX_DECIMALS: Final = 3
"""Most decimals that sensors report: a scale in steps of 5 g."""
_FLOAT_BITS: Final = 0xFF
"""Marks numbers that are packed as the bits of their IEEE 754 form."""
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class _Layout:
    """One way to pack integers: differences of `order`, `codes` (zigzag) with the Rice parameter `k`, in so many `bits`."""

    order: int
    heads: bytes
    codes: NDArray[np.uint64]
    k: int
    bits: int

    @property
    def size(self) -> int:
        return len(self.heads) + -(-self.bits // 8)


def pack_samples(samples: NDArray[np.int32]) -> bytes:
    """Return the packed form of samples."""
    return pack_integers(samples.astype(np.int64))


def unpack_samples(packed: bytes, limit: int = MAX_SAMPLES) -> NDArray[np.int32]:
    """The inverse of `pack_samples`.

    Raises:
        RecordError: the bytes are damaged, or hold more than `limit` samples or one beyond 32 bits.
    """
    values = unpack_integers(packed, limit)
    samples = values.astype(np.int32)
    if not np.array_equal(samples, values):
        raise RecordError("a sample does not fit 32 bits")
    return samples


def pack_column(values: Sequence[Any]) -> bytes | list[Any]:
    """Return the packed form of values that are all 64-bit integers or all floats, otherwise the values as a list."""
    kinds = set(map(type, values))
    if kinds <= {int} and (not values or (min(values) >= _INT64_MIN and max(values) <= _INT64_MAX)):
        if len(values) <= SHORT:
            return pack_short(tuple(values), _MAX_ORDER, _ORDER_SHIFT)
        return pack_integers(np.array(values, np.int64))
    return _pack_floats(np.array(values, np.float64)) if kinds == {float} else list(values)


def unpack_column(packed: Any, limit: int) -> list[Any]:
    """The inverse of `pack_column`.

    Raises:
        RecordError: the column is neither a list nor packed, is damaged, or has more than `limit` values.
    """
    if isinstance(packed, bytes):
        if packed[:1] >= bytes([_DECIMALS]):
            return _unpack_floats(packed, limit)
        return list(unpack_integers(packed, limit).tolist())
    if not isinstance(packed, list) or len(packed) > limit:
        raise RecordError(f"a column is not a list of up to {limit} values")
    return packed


def pack_integers(values: NDArray[np.int64]) -> bytes:
    """Return the shortest packed form; of several of that length, that with differences of the lowest order."""
    orders = range(min(_MAX_ORDER, len(values)) + 1)
    layout = min((_plan(values, order) for order in orders), key=lambda layout: layout.size)
    prefix = bytes([layout.order << _ORDER_SHIFT | layout.k]) + to_varint(len(values))
    return prefix + layout.heads + _pack_codes(layout)


def unpack_integers(packed: bytes, limit: int) -> NDArray[np.int64]:
    """The inverse of `pack_integers`. It also accepts longer forms: whoever must refuse these packs again and compares.

    Raises:
        RecordError: the bytes are truncated, have others after them, or hold more than `limit` values.
    """
    order, k = (packed[0] >> _ORDER_SHIFT, packed[0] & _PARAMETER_MASK) if packed else (0, 0)
    n, place = _read_varint(packed, 1)
    if order > min(_MAX_ORDER, n):
        raise RecordError("packed values have an unknown form")
    if n > limit:
        raise RecordError(f"there are more than {limit} packed values left in this block")
    heads: list[int] = []
    for _ in range(order):
        code, place = _read_varint(packed, place)
        heads.append(code)
    values = _from_zigzag(_unpack_codes(np.frombuffer(packed, np.uint8)[place:], n - order, k))
    for code in reversed(heads):
        values = np.cumsum(np.concatenate([_from_zigzag(np.array([code], np.uint64)), values]))
    return values


def _plan(values: NDArray[np.int64], order: int) -> _Layout:
    heads = b""
    for _ in range(order):
        heads += to_varint(int(_to_zigzag(values[:1])[0]))
        values = np.diff(values)  # modulo 2^64
    codes = _to_zigzag(values)
    k, bits = _best_parameter(codes)
    return _Layout(order, heads, codes, k, bits)


def _best_parameter(codes: NDArray[np.uint64]) -> tuple[int, int]:
    """Return the smallest Rice parameter that takes the fewest bits, and how many these are."""
    n = len(codes)
    if n == 0:
        return 0, 0
    longest = int(codes.max()).bit_length()
    first = max(0, longest - (2 * n).bit_length())  # below it, one bit more shortens the longest quotient by more than n bits
    parameters = np.arange(first, max(first, longest - 1) + 1)
    bits = (codes[:, None] >> parameters.astype(np.uint64)).sum(axis=0).astype(np.int64) + n * (parameters + 1)
    best = int(bits.argmin())
    return first + best, int(bits[best])


def _pack_codes(layout: _Layout) -> bytes:
    """Return the quotients in unary, each a run of zeros and a one, then the remainders of k bits each, the highest first."""
    quotients = (layout.codes >> np.uint64(layout.k)).astype(np.int64)
    ends = np.cumsum(quotients + 1) - 1
    n = len(ends)
    bits = np.zeros(layout.bits, np.uint8)
    bits[ends] = 1
    places = np.arange(layout.k - 1, -1, -1, dtype=np.uint64)
    bits[layout.bits - n * layout.k :] = (layout.codes[:, None] >> places & np.uint64(1)).reshape(-1)
    return np.packbits(bits).tobytes()


def _unpack_codes(packed: NDArray[np.uint8], n: int, k: int) -> NDArray[np.uint64]:
    bits = np.unpackbits(packed)
    ends = np.flatnonzero(bits)[:n]
    unary = int(ends[-1]) + 1 if n and len(ends) else 0
    if len(ends) < n or not 0 <= len(bits) - unary - n * k < 8:
        raise RecordError("packed values are truncated, or followed by other bytes")
    quotients = np.diff(ends, prepend=-1).astype(np.uint64) - np.uint64(1)
    places = np.arange(k - 1, -1, -1, dtype=np.uint64)
    remainders = (bits[unary : unary + n * k].reshape(n, k).astype(np.uint64) << places).sum(axis=1, dtype=np.uint64)
    codes: NDArray[np.uint64] = (quotients << np.uint64(k)) + remainders
    return codes


def _to_zigzag(values: NDArray[np.int64]) -> NDArray[np.uint64]:
    return ((values << 1) ^ (values >> 63)).view(np.uint64)


def _from_zigzag(codes: NDArray[np.uint64]) -> NDArray[np.int64]:
    return (codes >> np.uint64(1)).astype(np.int64) ^ -(codes & np.uint64(1)).astype(np.int64)


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    """Return the unsigned integer of up to 64 bits at `place`, and the place behind it."""
    code = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            break
        code |= (data[place] & 0x7F) << shift
        place += 1
        if data[place - 1] < 0x80 and code < 2**64:
            return code, place
    raise RecordError("packed values are truncated, or an integer has more than 64 bits")


def _pack_floats(values: NDArray[np.float64]) -> bytes:
    for decimals in range(_MAX_DECIMALS + 1):
        divisor = 10.0**decimals
        with np.errstate(invalid="ignore", over="ignore"):
            scaled = np.rint(values * divisor)
            is_exact = np.abs(scaled) < 2**53
        if is_exact.all() and (scaled.astype(np.int64) / divisor).tobytes() == values.tobytes():
            return bytes([_DECIMALS + decimals]) + pack_integers(scaled.astype(np.int64))
    return bytes([_FLOAT_BITS]) + pack_integers(values.view(np.int64))


def _unpack_floats(packed: bytes, limit: int) -> list[float]:
    decimals = packed[0] - _DECIMALS
    if decimals > _MAX_DECIMALS and packed[0] != _FLOAT_BITS:
        raise RecordError("packed values have an unknown form")
    values = unpack_integers(packed[1:], limit)
    return list((values.view(np.float64) if packed[0] == _FLOAT_BITS else values / 10.0**decimals).tolist())
