"""Deterministic CBOR as `docs/protocol.md` restricts it, without any library.

Maps become dicts with text keys, floats and integers stay apart, and there is exactly one encoding of each value.
"""

import math
import struct
from typing import Any, Final

MAX_DEPTH: Final = 16
"""Nested lists and maps; the outermost counts."""
_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _LIST, _MAP, _OTHER = 0, 1, 2, 3, 4, 5, 7
_SMALLEST: Final = {24: 24, 25: 1 << 8, 26: 1 << 16, 27: 1 << 32}
"""The smallest argument for which 1, 2, 4 or 8 bytes are the shortest form."""
_SIMPLE: Final = {20: False, 21: True, 22: None}
_FLOATS: Final = {25: ">e", 26: ">f", 27: ">d"}
_NAN: Final = b"\xf9\x7e\x00"


class RefusedError(ValueError):
    """The input is not what the documents describe."""


def decode(data: bytes) -> Any:
    """Return the value that `data` encodes.

    Raises:
        RefusedError: `data` is not the deterministic encoding of one value.
    """
    value, end = _decode_item(data, 0, 0)
    if end != len(data):
        raise RefusedError(f"{len(data) - end} bytes follow the CBOR item")
    return value


def encode(value: Any) -> bytes:
    """Return the deterministic encoding of a value.

    Raises:
        RefusedError: the value has none: an integer of more than 64 bits, a key that is no text, another type.
    """
    if value is None or isinstance(value, bool):
        return bytes([0xE0 | {False: 20, True: 21, None: 22}[value]])
    if isinstance(value, int):
        return _encode_head(_UNSIGNED, value) if value >= 0 else _encode_head(_NEGATIVE, -1 - value)
    if isinstance(value, float):
        return _encode_float(value)
    if isinstance(value, bytes):
        return _encode_head(_BYTES, len(value)) + value
    if isinstance(value, str):
        text = value.encode()
        return _encode_head(_TEXT, len(text)) + text
    if isinstance(value, list):
        return _encode_head(_LIST, len(value)) + b"".join(encode(item) for item in value)
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        pairs = sorted((encode(key), encode(item)) for key, item in value.items())
        return _encode_head(_MAP, len(pairs)) + b"".join(key + item for key, item in pairs)
    raise RefusedError(f"a value of type {type(value).__name__} has no encoding")


def _take(data: bytes, at: int, size: int) -> tuple[bytes, int]:
    if at + size > len(data):
        raise RefusedError("the CBOR item is cut off")
    return data[at : at + size], at + size


def _decode_item(data: bytes, start: int, depth: int) -> tuple[Any, int]:
    first, at = _take(data, start, 1)
    major, info = first[0] >> 5, first[0] & 31
    if major == _OTHER:
        return _decode_other(data, at, info)
    argument, at = _decode_argument(data, at, info)
    if major == _UNSIGNED:
        return argument, at
    if major == _NEGATIVE:
        return -1 - argument, at
    if major == _BYTES:
        return _take(data, at, argument)
    if major == _TEXT:
        return _decode_text(data, at, argument)
    if depth == MAX_DEPTH:
        raise RefusedError(f"more than {MAX_DEPTH} nested lists and maps")
    if major == _LIST:
        return _decode_list(data, at, argument, depth + 1)
    if major == _MAP:
        return _decode_map(data, at, argument, depth + 1)
    raise RefusedError("a tag")


def _decode_argument(data: bytes, at: int, info: int) -> tuple[int, int]:
    if info < 24:
        return info, at
    if info not in _SMALLEST:
        raise RefusedError("an indefinite length, or a reserved one")
    raw, at = _take(data, at, 1 << (info - 24))
    argument = int.from_bytes(raw)
    if argument < _SMALLEST[info]:
        raise RefusedError("an integer or length that is not in its shortest form")
    return argument, at


def _decode_other(data: bytes, at: int, info: int) -> tuple[Any, int]:
    if info in _SIMPLE:
        return _SIMPLE[info], at
    if info not in _FLOATS:
        raise RefusedError("a simple value other than false, true and null")
    raw, end = _take(data, at, 1 << (info - 24))
    (value,) = struct.unpack(_FLOATS[info], raw)
    if _encode_float(value) != data[at - 1 : end]:
        raise RefusedError("a float that is not in its shortest form")
    return value, end


def _decode_text(data: bytes, at: int, size: int) -> tuple[str, int]:
    raw, at = _take(data, at, size)
    try:
        return raw.decode(), at
    except UnicodeDecodeError:
        raise RefusedError("a text that is not UTF-8") from None


def _decode_list(data: bytes, at: int, size: int, depth: int) -> tuple[list[Any], int]:
    items = []
    for _ in range(size):
        item, at = _decode_item(data, at, depth)
        items.append(item)
    return items, at


def _decode_map(data: bytes, at: int, size: int, depth: int) -> tuple[dict[str, Any], int]:
    entries = {}
    last_key = b""
    for _ in range(size):
        key, end = _decode_item(data, at, depth)
        if not isinstance(key, str):
            raise RefusedError("a key that is not a text")
        if data[at:end] <= last_key:
            raise RefusedError("keys that are not in order, or not unique")
        last_key = data[at:end]
        entries[key], at = _decode_item(data, end, depth)
    return entries, at


def _encode_head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major << 5 | argument])
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << (8 * size):
            return bytes([major << 5 | info]) + argument.to_bytes(size)
    raise RefusedError("an integer of more than 64 bits")


def _encode_float(value: float) -> bytes:
    if math.isnan(value):
        return _NAN
    for info in (25, 26):
        try:
            raw = struct.pack(_FLOATS[info], value)
        except OverflowError:
            continue
        if struct.unpack(_FLOATS[info], raw)[0] == value:
            return bytes([_OTHER << 5 | info]) + raw
    return bytes([_OTHER << 5 | 27]) + struct.pack(">d", value)
