"""Audit logs: the form of a row, the chain over the rows, signed heads and cuts, as `docs/audit-log.md` defines them."""

import hashlib
import re
from typing import Any, Final

from tests.second_reader import cbor
from tests.second_reader.cbor import RefusedError
from tests.second_reader.keys import VERSION, verify_signature
from tests.second_reader.messages import is_audit_head, is_count, is_digest, is_name, raw, row, whole

_TOKEN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+-]{0,79}", re.ASCII)


def _is_token(value: Any) -> bool:
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None


def _is_token_or_null(value: Any) -> bool:
    return value is None or _is_token(value)


def _is_name_or_null(value: Any) -> bool:
    return value is None or is_name(value)


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 16 and all(map(_is_token, value))


def _is_end(value: Any) -> bool:
    return value in {"hub", "site"}


def _is_label(value: Any) -> bool:
    return value == "pulsegate audit row"


_is_row: Final = row(
    _is_label,
    whole(VERSION, VERSION),
    whole(1),
    is_count,
    row(_is_end, is_name),
    row(_is_token, _is_token, _is_token),
    _is_token_or_null,
    _is_token,
    _is_token,
    _is_name_or_null,
    _are_objects,
    _is_token,
    _is_token,
    whole(1),
    is_digest,
)


def start(end: str, name: str) -> bytes:
    """Return the hash before the first row."""
    return hashlib.sha256(cbor.encode(["pulsegate audit log", VERSION, end, name])).digest()


def check_chain(end: str, name: str, rows: list[bytes]) -> list[bytes]:
    """Return the hash of each row of a whole log.

    Raises:
        RefusedError: a row is no row of this log, or does not follow the one before.
    """
    hashes = [start(end, name)]
    for number, data in enumerate(rows, 1):
        content = cbor.decode(data)
        if not _is_row(content) or content[2] != number or content[4] != [end, name]:
            raise RefusedError(f"not row {number} of this log")
        if content[14] != hashes[-1]:
            raise RefusedError(f"row {number} does not follow the one before")
        hashes.append(hashlib.sha256(data).digest())
    return hashes[1:]


def check_head(head: Any, key: bytes, end: str, name: str) -> None:
    """Raise RefusedError if this is no head of the log, signed by its audit key."""
    if not is_audit_head(head):
        raise RefusedError("not a head")
    verify_signature(key, head[2], "pulsegate audit head", name, end, head[0], head[1])


def check_cut(cut: Any, key: bytes, end: str, name: str) -> None:
    """Raise RefusedError if this is no note of a cut of the log, signed by its audit key."""
    if not row(is_count, is_digest, is_count, raw(64))(cut):
        raise RefusedError("not the note of a cut")
    verify_signature(key, cut[3], "pulsegate audit cut", name, end, *cut[:3])


def check_status(audit: Any, device: bytes, hub: str, site_key: bytes, site: str) -> None:
    """Raise RefusedError if this is no field `audit` of a hub's status."""
    if not isinstance(audit, list) or len(audit) != 5 or not isinstance(audit[4], bool):
        raise RefusedError("not the field audit of a status")
    head, key, signature, seen, _ = audit
    verify_signature(device, signature, "pulsegate audit key", hub, key)
    check_head(head, key, "hub", hub)
    if seen is not None:
        check_head(seen, site_key, "site", site)
