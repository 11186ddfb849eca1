"""Packed integers, packed floats and columns, as `docs/records.md` describes them."""

import struct
from itertools import pairwise
from typing import Any, Final

from tests.second_reader.cbor import RefusedError

_WORD: Final = 1 << 64
_FIRST_FLOAT_FORM: Final = 0xC0
_BITS_FORM: Final = 0xFF
_DIVISORS: Final = {0xC0: 1, 0xC1: 10, 0xC2: 100, 0xC3: 1000}
_MAX_EXACT: Final = 1 << 53
"""Integers below it in magnitude are exact in 64-bit floats."""


def is_integer(value: Any) -> bool:
    """Return whether the value is an integer (a boolean is none) of 64 bits with a sign."""
    return type(value) is int and -(1 << 63) <= value < 1 << 63


def pack_integers(values: list[int]) -> bytes:
    """Return the one packed form of these 64-bit integers."""
    forms = []
    rest, heads = values, b""
    for order in range(min(2, len(values)) + 1):
        codes = [_zigzag(value) for value in rest]
        k, n_bits = _choose_k(codes)
        forms.append((len(heads) + (n_bits + 7) // 8, order, k, heads, codes))
        if rest:
            heads += _varint(codes[0])
        rest = [_signed(after - before) for before, after in pairwise(rest)]
    _, order, k, heads, codes = min(forms)
    return bytes([order << 6 | k]) + _varint(len(values)) + heads + _pack_codes(codes, k)


def unpack_integers(data: bytes) -> list[int]:
    """Return the integers.

    Raises:
        RefusedError: the bytes are not the one packed form of any integers.
    """
    if not data:
        raise RefusedError("packed integers without a byte")
    order, k = data[0] >> 6, data[0] & 63
    n, at = _read_varint(data, 1)
    if order > min(2, n):
        raise RefusedError("packed integers of an order that is not possible")
    heads = []
    for _ in range(order):
        head, at = _read_varint(data, at)
        heads.append(_unzigzag(head))
    values = [_unzigzag(code) for code in _unpack_codes(data[at:], n - order, k)]
    for head in reversed(heads):
        total = head
        sums = [head]
        for value in values:
            total = _signed(total + value)
            sums.append(total)
        values = sums
    if pack_integers(values) != data:
        raise RefusedError("packed integers that are not in their only form")
    return values


def pack_floats(values: list[float]) -> bytes:
    """Return the one packed form of these floats."""
    for form, divisor in _DIVISORS.items():
        integers = _scale(values, divisor)
        if integers is not None:
            return bytes([form]) + pack_integers(integers)
    return bytes([_BITS_FORM]) + pack_integers([struct.unpack(">q", struct.pack(">d", value))[0] for value in values])


def unpack_floats(data: bytes) -> list[float]:
    """Return the floats.

    Raises:
        RefusedError: the bytes are not the one packed form of any floats.
    """
    integers = unpack_integers(data[1:])
    if data[0] == _BITS_FORM:
        values = [struct.unpack(">d", struct.pack(">q", integer))[0] for integer in integers]
    elif data[0] in _DIVISORS:
        if any(abs(integer) >= _MAX_EXACT for integer in integers):
            raise RefusedError("a decimal of 2^53 or more")
        values = [integer / _DIVISORS[data[0]] for integer in integers]
    else:
        raise RefusedError(f"packed floats of form {data[0]:02x}")
    if pack_floats(values) != data:
        raise RefusedError("packed floats that are not in their only form")
    return values


def encode_column(values: list[Any]) -> bytes | list[Any]:
    """Return a column as a writer writes it: packed if it can be."""
    if all(is_integer(value) for value in values):
        return pack_integers(values)
    if all(isinstance(value, float) for value in values):
        return pack_floats(values)
    return values


def decode_column(column: Any) -> list[Any]:
    """Return the values of a column.

    Raises:
        RefusedError: it is neither packed nor a list.
    """
    if isinstance(column, list):
        return column
    if not isinstance(column, bytes):
        raise RefusedError("a column that is neither bytes nor a list")
    is_float = column[:1] >= bytes([_FIRST_FLOAT_FORM])
    return unpack_floats(column) if is_float else unpack_integers(column)


def encode_differences(values: list[Any], base: list[Any], factor: int) -> bytes | list[Any]:
    """Return a column packed as differences from `factor` times another column, or as a list if it cannot be."""
    if all(type(value) is int for value in [*values, *base]):
        differences = [value - factor * start for value, start in zip(values, base, strict=True)]
        if all(is_integer(difference) for difference in differences):
            return pack_integers(differences)
    return values


def decode_differences(column: Any, base: list[Any], factor: int) -> list[Any]:
    """Return the values of a column that is packed as differences from `factor` times another.

    Raises:
        RefusedError: it is damaged, or the other column has another length or holds more than integers.
    """
    if isinstance(column, list):
        return column
    if not isinstance(column, bytes):
        raise RefusedError("a column that is neither bytes nor a list")
    differences = unpack_integers(column)
    if len(differences) != len(base) or any(type(start) is not int for start in base):
        raise RefusedError("differences from a column that has not as many integers")
    return [difference + factor * start for difference, start in zip(differences, base, strict=True)]


def _scale(values: list[float], divisor: int) -> list[int] | None:
    """The integers that give these floats when divided; None if there are none."""
    integers = []
    for value in values:
        product = value * divisor
        if not abs(product) < _MAX_EXACT:  # also if it is not a number
            return None
        integer = round(product)
        if struct.pack(">d", integer / divisor) != struct.pack(">d", value):
            return None
        integers.append(integer)
    return integers


def _choose_k(codes: list[int]) -> tuple[int, int]:
    """The smallest k with the fewest bits, and these bits. The number of bits is convex in k."""
    k, n_bits = 0, sum(codes) + len(codes)
    while k < 63:
        longer = sum(code >> (k + 1) for code in codes) + (k + 2) * len(codes)
        if longer >= n_bits:
            break
        k, n_bits = k + 1, longer
    return k, n_bits


def _pack_codes(codes: list[int], k: int) -> bytes:
    bits = "".join("0" * (code >> k) + "1" for code in codes)
    if k:
        bits += "".join(f"{code & ((1 << k) - 1):0{k}b}" for code in codes)
    n_bytes = (len(bits) + 7) // 8
    return int(bits.ljust(8 * n_bytes, "0") or "0", 2).to_bytes(n_bytes)


def _unpack_codes(data: bytes, n: int, k: int) -> list[int]:
    bits = f"{int.from_bytes(data):0{8 * len(data)}b}" if data else ""
    quotients = []
    at = 0
    for _ in range(n):
        one = bits.find("1", at)
        if one < 0:
            raise RefusedError("packed integers that are cut off")
        quotients.append(one - at)
        at = one + 1
    if at + n * k > len(bits):
        raise RefusedError("packed integers that are cut off")
    lows = [int(bits[start : start + k], 2) for start in range(at, at + n * k, k)] if k else [0] * n
    codes = [quotient << k | low for quotient, low in zip(quotients, lows, strict=True)]
    if any(code >= _WORD for code in codes):
        raise RefusedError("a packed integer of more than 64 bits")
    return codes


def _signed(value: int) -> int:
    """The value modulo 2^64, read as signed."""
    return (value + (_WORD >> 1)) % _WORD - (_WORD >> 1)


def _zigzag(value: int) -> int:
    return 2 * value if value >= 0 else -2 * value - 1


def _unzigzag(code: int) -> int:
    return code >> 1 if code % 2 == 0 else -(code >> 1) - 1


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value >= 128:
        groups.append(value & 127 | 128)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at == len(data):
            break
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128 and value < _WORD:
            return value, at
    raise RefusedError("a varint that is cut off or has more than 64 bits")
