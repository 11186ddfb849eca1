"""Signed messages in general: a map of deterministic CBOR whose field `sig` signs SHA-256 over all other fields."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from sync.cbor import encode_cbor
from sync.signing import SIGNATURE_BYTES
from sync.wire import FORMAT, MESSAGE_LIMIT_BYTES, WireError, decode_cbor_map, is_bytes, is_name


def encode_signed(fields: Mapping[str, Any], sign: Callable[[bytes], bytes]) -> bytes:
    """The payload of a message; `sign` gets the digest of the fields.

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


def decode_signed(data: bytes, what: str, names: tuple[str, ...]) -> tuple[dict[str, Any], bytes]:
    """The fields of a message, and the digest that its signature covers. The signature is not verified.

    Raises:
        WireError: no such map, a field is missing, or it has another protocol version; `what` names the message.
    """
    message = decode_cbor_map(data, limit_bytes=MESSAGE_LIMIT_BYTES, fields=names, what=what)
    if type(message["v"]) is not int or message["v"] != FORMAT:
        raise WireError(f"{what} has another protocol version than this pulsegate ({FORMAT}): update the older side")
    check_valid({"hub": is_name(message["hub"]), "sig": is_bytes(message["sig"], SIGNATURE_BYTES)}, what)
    return message, _content_digest(message)


def check_valid(valid: Mapping[str, bool], what: str) -> None:
    """Raise WireError with the names of the fields that are not valid."""
    invalid = [name for name, is_valid in valid.items() if not is_valid]
    if invalid:
        raise WireError(f"{what}: invalid {', '.join(invalid)}; docs/protocol.md gives the allowed values")
