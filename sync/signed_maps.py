"""What all signed messages have in common: a map of deterministic CBOR whose field `sig` signs all other fields.

`docs/protocol.md` is the reference.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar, cast

from sync.cbor import encode_cbor
from sync.signing import SIGNATURE_BYTES
from sync.wire import FORMAT, MESSAGE_LIMIT_BYTES, WireError, decode_cbor_map, is_bytes, is_name

T = TypeVar("T")


def encode_signed(fields: Mapping[str, Any], sign: Callable[[bytes], bytes]) -> bytes:
    """Encode a message; `sign` gets the digest of its fields and returns the signature.

    Raises:
        WireError: it would be larger than 64 KiB.
    """
    payload = encode_cbor({**fields, "sig": sign(_content_digest(fields))})
    if len(payload) > MESSAGE_LIMIT_BYTES:
        raise WireError(
            f"cannot send a message of {len(payload)} bytes: the limit is {MESSAGE_LIMIT_BYTES}; put fewer blocks into it"
        )
    return payload


def _content_digest(fields: Mapping[str, Any]) -> bytes:
    """SHA-256 over the encoding of all fields but `sig`."""
    return hashlib.sha256(encode_cbor({name: value for name, value in fields.items() if name != "sig"})).digest()


def decode_message(
    data: bytes,
    what: str,
    names: Collection[str],
    optional: Collection[str] = (),
    limit_bytes: int = MESSAGE_LIMIT_BYTES,
) -> tuple[dict[str, Any], bytes]:
    """Return the fields of a message, not verified, and the digest of what its signature covers. `what` is for errors.

    Raises:
        WireError: not such a message.
    """
    message = decode_cbor_map(data, limit_bytes=limit_bytes, fields=names, optional=optional, what=what)
    if type(message["v"]) is not int or message["v"] != FORMAT:
        raise WireError(f"{what} has another protocol version than this pulsegate ({FORMAT}): update the older side")
    check_valid({"hub": is_name(message["hub"]), "sig": is_bytes(message["sig"], SIGNATURE_BYTES)}, what)
    return message, _content_digest(message)


def check_valid(valid: Mapping[str, bool], what: str) -> None:
    """Refuse a message with invalid fields.

    Raises:
        WireError: a value of `valid` is False; the error names its fields.
    """
    invalid = [name for name, is_valid in valid.items() if not is_valid]
    if invalid:
        raise WireError(f"{what}: invalid {', '.join(invalid)}; docs/protocol.md gives the allowed values")


def parse_list(message: Mapping[str, Any], field: str, parse_item: Callable[[Any], T | None]) -> tuple[T, ...]:
    """Parse the items of a list field; `parse_item` returns None for a malformed item.

    Raises:
        WireError: the field is not a list, or has a malformed item.
    """
    rows = message[field]
    if not isinstance(rows, list):
        raise WireError(f"{field} is not a list")
    parsed = [parse_item(row) for row in rows]
    if any(value is None for value in parsed):
        raise WireError(f"{field} has a malformed item")
    return tuple(cast("list[T]", parsed))


def lists(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    """Return rows as CBOR writes them."""
    return [list(row) for row in rows]
