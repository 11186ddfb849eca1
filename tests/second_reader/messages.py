"""Messages and block headers: the fields that `docs/protocol.md` defines, and their signatures."""

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.second_reader import cbor
from tests.second_reader.cbor import RefusedError
from tests.second_reader.keys import VERSION, WRAPPED_KEY_BYTES, verify_signature

Check = Callable[[Any], bool]
MAX_MESSAGE_BYTES: Final = 65_536
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_LANES: Final = ("alert", "vital", "wave", "archive")
_DIGEST_BYTES: Final = 32


def is_name(value: Any) -> bool:
    """Return whether the value is a name."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def is_lane(value: Any) -> bool:
    """Return whether the value is the name of a lane."""
    return isinstance(value, str) and value in _LANES


def whole(least: int, most: int = 2**53 - 1) -> Check:
    """Return the check for an integer between two limits."""
    return lambda value: type(value) is int and least <= value <= most


def raw(size: int) -> Check:
    """Return the check for that many bytes."""
    return lambda value: isinstance(value, bytes) and len(value) == size


def row(*checks: Check) -> Check:
    """Return the check for a list of exactly these items."""
    return lambda value: (
        isinstance(value, list)
        and len(value) == len(checks)
        and all(check(item) for check, item in zip(checks, value, strict=True))
    )


is_count, is_epoch = whole(0), whole(1)
is_id, is_digest = raw(16), raw(_DIGEST_BYTES)
is_audit_head = row(is_count, is_digest, raw(64))


def _rows(*checks: Check) -> Check:
    is_row = row(*checks)
    return lambda value: isinstance(value, list) and all(is_row(item) for item in value)


def _or_null(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_blocks(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, bytes) for item in value)


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(is_id(item) for item in value)


def _are_digests(value: Any) -> bool:
    return isinstance(value, bytes) and len(value) % _DIGEST_BYTES == 0


_are_held: Final = _rows(is_lane, is_epoch, is_count, _are_digests)
_are_outcomes: Final = _rows(is_lane, is_epoch, is_count, is_digest, _is_text)
_COMMON: Final[dict[str, Check]] = {"v": whole(VERSION, VERSION), "hub": is_name, "sig": raw(64)}
_ENVELOPE: Final = _COMMON | {
    "epoch": row(is_epoch, _or_null(is_epoch)),
    "heads": _rows(is_lane, is_count, is_digest, is_count),
    "seen": _or_null(row(is_id, is_count, is_count)),
    "blocks": _are_blocks,
    "keys": _rows(is_id, is_digest, is_name, is_count, raw(64)),
    "wraps": _rows(is_id, raw(8), raw(WRAPPED_KEY_BYTES)),
    "dropped": _rows(is_lane, is_epoch, is_count, is_count, is_digest),
}
_ADDED_TO_ENVELOPE: Final[dict[str, Check]] = {"marks": _rows(is_lane, is_epoch, is_count)}
_ACKNOWLEDGEMENT: Final = _COMMON | {
    "site": is_name,
    "store": is_id,
    "fence": is_count,
    "commits": is_count,
    "epoch": _or_null(is_epoch),
    "marks": _rows(is_lane, is_epoch, is_count, is_digest),
    "held": _are_held,
    "keys": _are_ids,
    "wraps": _rows(is_id, raw(8)),
    "aside": _are_outcomes,
    "refused": _are_outcomes,
    "live_s": whole(0, 600),
    "copied": lambda value: isinstance(value, bool),
}
_ADDED_TO_ACKNOWLEDGEMENT: Final[dict[str, Check]] = {
    "retry_after_s": whole(1, 300),
    "update_by_s": is_count,
    "audit": row(is_audit_head, _or_null(is_audit_head)),
}
_RECEIPT: Final = _COMMON | {
    "store": is_id,
    "fence": is_count,
    "opened": _are_held,
    "aside": _are_outcomes,
    "refused": _are_outcomes,
}


def _is_backlog(value: Any) -> bool:
    is_row = row(is_lane, is_count, _or_null(is_count))
    if not isinstance(value, list) or not all(is_row(item) for item in value):
        return False
    return [item[0] for item in value] == list(_LANES) and all((item[1] == 0) == (item[2] is None) for item in value)


def _are_links(value: Any) -> bool:
    is_row = row(_matches("[a-z_]{1,24}"), whole(1))
    if not isinstance(value, list) or len(value) > 16 or not all(is_row(item) for item in value):
        return False
    states = [item[0] for item in value]
    return states == sorted(set(states))


def _matches(pattern: str) -> Check:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII) is not None


_integer: Final = whole(-(2**53 - 1))
_STATUS: Final = _COMMON | {
    "epoch": is_epoch,
    "seq": whole(1),
    "at_us": is_count,
    "version": _matches("[0-9][0-9A-Za-z.+-]{0,31}"),
    "revision": is_count,
    "backlog": _is_backlog,
    "battery": _or_null(row(whole(0, 100), lambda value: isinstance(value, bool))),
    "clock_offset_us": _or_null(_integer),
    "certificate_days": _or_null(_integer),
    "models": _or_null(is_count),
    "free_bytes": is_count,
    "links": _are_links,
}
_ADDED_TO_STATUS: Final[dict[str, Check]] = {"audit": lambda value: isinstance(value, bytes) and 1 <= len(value) <= 512}
MAX_STATUS_BYTES: Final = 2048


def check_fields(content: Any, required: Mapping[str, Check], optional: Mapping[str, Check]) -> dict[str, Any]:
    """Return the map if its fields are as defined.

    Raises:
        RefusedError: it is no map, lacks a field, has one of another type, or `crit` names one that is not known.
    """
    if not isinstance(content, dict):
        raise RefusedError("not a map")
    known = {**required, **optional}
    crit = content.get("crit", [])
    if not isinstance(crit, list) or any(not isinstance(name, str) or name not in known for name in crit):
        raise RefusedError("`crit` names a field that is not known")
    for name, check in known.items():
        if name not in content and name in required:
            raise RefusedError(f"the field {name} is missing")
        if name in content and not check(content[name]):
            raise RefusedError(f"the field {name} is not as defined")
    return content


def open_envelope(data: bytes, device: bytes) -> dict[str, Any]:
    """Return an envelope that this device key signed.

    Raises:
        RefusedError: the message is no such envelope.
    """
    message = _parse(data, _ENVELOPE, _ADDED_TO_ENVELOPE)
    signed = (message["epoch"][0], message["heads"], _digest_unsigned(message))
    verify_signature(device, message["sig"], "pulsegate envelope", message["hub"], *signed)
    return message


def open_acknowledgement(data: bytes, signer: bytes) -> dict[str, Any]:
    """Return an acknowledgement that this key signed.

    Raises:
        RefusedError: the message is no such acknowledgement.
    """
    message = _parse(data, _ACKNOWLEDGEMENT, _ADDED_TO_ACKNOWLEDGEMENT)
    verify_signature(signer, message["sig"], "pulsegate acknowledgement", message["hub"], _digest_unsigned(message))
    return message


def open_receipt(data: bytes, signer: bytes) -> dict[str, Any]:
    """Return a receipt that this key signed.

    Raises:
        RefusedError: the message is no such receipt.
    """
    message = _parse(data, _RECEIPT)
    verify_signature(signer, message["sig"], "pulsegate receipt", message["hub"], _digest_unsigned(message))
    return message


def open_status(data: bytes, device: bytes) -> dict[str, Any]:
    """Return a status that this device key signed.

    Raises:
        RefusedError: the message is no such status.
    """
    message = _parse(data, _STATUS, _ADDED_TO_STATUS, MAX_STATUS_BYTES)
    verify_signature(device, message["sig"], "pulsegate status", message["hub"], _digest_unsigned(message))
    return message


def _parse(
    data: bytes, fields: Mapping[str, Check], added: Mapping[str, Check] | None = None, limit: int = MAX_MESSAGE_BYTES
) -> dict[str, Any]:
    if len(data) > limit:
        raise RefusedError(f"a message of more than {limit} bytes")
    return check_fields(cbor.decode(data), fields, added or {})


def _digest_unsigned(message: dict[str, Any]) -> bytes:
    return hashlib.sha256(cbor.encode({name: value for name, value in message.items() if name != "sig"})).digest()
