"""Commands of the clinic to a hub, as the section Command of `docs/protocol.md` describes them."""

import hashlib
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from tests.second_reader import cbor
from tests.second_reader.cbor import RefusedError
from tests.second_reader.keys import VERSION, Recipient, verify_signature
from tests.second_reader.messages import Check, check_fields, is_count, is_name, raw, whole

MAX_LIFE_S: Final = 7 * 24 * 3600
MAX_BODY_BYTES: Final = 8 * 1024
_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_HEADER: Final[dict[str, Check]] = {
    "v": whole(VERSION, VERSION),
    "hub": is_name,
    "n": whole(1),
    "issued": is_count,
    "expires": is_count,
    "to": raw(8),
    "sealed": lambda value: isinstance(value, bytes),
    "sig": raw(64),
}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_limits(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_text(name) and type(limit) in (int, float) for name, limit in value.items())


def _are_contexts(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_text(name) and (one is True or is_count(one)) for name, one in value.items())


_ARGUMENTS: Final[dict[str, dict[str, Check]]] = {
    "limits": {"values": _are_limits},
    "contexts": {"values": _are_contexts},
    "upload": {"policy": lambda value: value in ("all", "evidence", "none")},
    "log_level": {"level": lambda value: value in ("debug", "info", "warning", "error")},
    "restart": {},
    "request": {"lane": lambda value: value == "archive", "from_s": is_count, "to_s": is_count},
    "close_alert": {"alert": _is_text},
    "mark_false": {"alert": _is_text},
}
_BODY: Final[dict[str, Check]] = {
    "kind": lambda value: isinstance(value, str) and value in _ARGUMENTS,
    "subject": lambda value: value is None or is_name(value),
    "arguments": lambda value: isinstance(value, dict),
}
_WITHOUT_SUBJECT: Final = ("log_level", "restart")


def open_command(data: bytes, signer: bytes, hub: str, recipient: Recipient) -> dict[str, Any]:
    """Return number, times, kind, subject and arguments of a command that this key signed, sealed for this hub.

    Raises:
        RefusedError: the message is no such command.
    """
    message = check_fields(cbor.decode(data), _HEADER, {})
    unsigned = cbor.encode({name: value for name, value in message.items() if name != "sig"})
    verify_signature(signer, message["sig"], "pulsegate command", message["hub"], hashlib.sha256(unsigned).digest())
    if message["hub"] != hub or message["to"] != recipient.fingerprint:
        raise RefusedError("a command for another hub, or for another key of it")
    if not 0 < message["expires"] - message["issued"] <= MAX_LIFE_S:
        raise RefusedError("a command that lives too long, or ends before it begins")
    return {name: message[name] for name in ("n", "issued", "expires")} | _open_body(message, recipient)


def _open_body(message: dict[str, Any], recipient: Recipient) -> dict[str, Any]:
    bound = (message[name] for name in ("hub", "n", "issued", "expires"))
    info = cbor.encode(["pulsegate command for a hub", VERSION, *bound])
    try:
        opened = _SUITE.decrypt(message["sealed"], recipient.private, info)
    except (InvalidTag, ValueError):
        raise RefusedError("the body does not open") from None
    if len(opened) > MAX_BODY_BYTES:
        raise RefusedError(f"a body of more than {MAX_BODY_BYTES} bytes")
    body = check_fields(cbor.decode(opened), _BODY, {})
    kind, subject = body["kind"], body["subject"]
    if kind in _WITHOUT_SUBJECT and subject is not None:
        raise RefusedError(f"a command {kind} with a subject")
    if kind not in _WITHOUT_SUBJECT and not is_name(subject):
        raise RefusedError(f"a command {kind} without a subject")
    if check_fields(body["arguments"], _ARGUMENTS[kind], {}).keys() != _ARGUMENTS[kind].keys():
        raise RefusedError(f"an argument that a command {kind} does not have")
    return {name: body[name] for name in _BODY}
