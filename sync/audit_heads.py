"""Signed heads of audit logs: how hub and clinic make them, exchange them, and judge a log by them.

A head (number of rows, hash of the last row) signed by the log's audit key names every row up to there. Each end sends its own
head and the highest one that it holds of the other end. Who gets his own head back has evidence that he cannot have lost: it is
signed by his own key. `docs/audit-log.md` is the reference.
"""

from typing import Any, Final, NamedTuple

from sync.audit import Origin, Position
from sync.cbor import CborError, decode_cbor, encode_cbor
from sync.signing import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, Label, SignatureError, SigningKey, Use, VerifyingKey
from sync.wire import DIGEST_BYTES, WireError, is_bytes, is_count

_LIMIT_BYTES: Final = 1024
"""Of a stored head or note: they have 120 bytes."""


class SignedHead(NamedTuple):
    """A place in a log, signed by the log's audit key."""

    number: int
    head: bytes
    signature: bytes

    @property
    def position(self) -> Position:
        return Position(self.number, self.head)


class CutNote(NamedTuple):
    """The rows up to this place were deleted because their retention was over, at this time; signed by the log's audit key."""

    number: int
    head: bytes
    at_us: int
    signature: bytes

    @property
    def position(self) -> Position:
        return Position(self.number, self.head)


class HubAudit(NamedTuple):
    """The field `audit` of a message on `up/status`.

    `key` is the hub's public audit key, and `key_signature` that of its device key over it. `seen` is the highest head that the
    hub holds of its site. `is_forked`: the site once showed a head of the hub's log that is not in the log.
    """

    head: SignedHead
    key: bytes
    key_signature: bytes
    seen: SignedHead | None = None
    is_forked: bool = False


class SiteAudit(NamedTuple):
    """The field `audit` of an acknowledgement: the site's head, and the highest one that it holds of the hub."""

    head: SignedHead
    seen: SignedHead | None = None


def sign_head(key: SigningKey, origin: Origin, place: Position) -> SignedHead:
    return SignedHead(*place, key.sign(Label.AUDIT_HEAD, origin.name, str(origin.end), *place))


def check_head(key: VerifyingKey, origin: Origin, head: SignedHead) -> None:
    """Raise SignatureError if the head is not signed by this key for this log."""
    key.verify(head.signature, Label.AUDIT_HEAD, origin.name, str(origin.end), *head.position)


def sign_cut(key: SigningKey, origin: Origin, place: Position, at_us: int) -> CutNote:
    return CutNote(*place, at_us, key.sign(Label.AUDIT_CUT, origin.name, str(origin.end), *place, at_us))


def check_cut(key: VerifyingKey, origin: Origin, cut: CutNote) -> None:
    """Raise SignatureError if the note is not signed by this key for this log."""
    key.verify(cut.signature, Label.AUDIT_CUT, origin.name, str(origin.end), *cut.position, cut.at_us)


def certify_audit_key(device: SigningKey, hub: str, audit: VerifyingKey) -> bytes:
    """The device key's signature over the hub's audit key."""
    return device.sign(Label.AUDIT_KEY, hub, audit.to_bytes())


def read_audit_key(device: VerifyingKey, hub: str, audit: HubAudit) -> VerifyingKey:
    """The hub's audit key, if its device key certified it.

    Raises:
        SignatureError: it did not.
    """
    device.verify(audit.key_signature, Label.AUDIT_KEY, hub, audit.key)
    try:
        return VerifyingKey.from_bytes(Use.AUDIT, audit.key)
    except ValueError as error:
        raise SignatureError(f"the audit key of hub {hub} is not a point of P-256") from error


def hub_audit_to_bytes(audit: HubAudit) -> bytes:
    """The field `audit` of a status: at most 400 bytes."""
    return encode_cbor([list(audit.head), audit.key, audit.key_signature, audit.seen and list(audit.seen), audit.is_forked])


def hub_audit_from_bytes(data: bytes) -> HubAudit:
    """The inverse of `hub_audit_to_bytes`.

    Raises:
        WireError: not such a field.
    """
    row = _decode(data)
    if isinstance(row, list) and len(row) == len(HubAudit._fields):
        head, key, signature, seen, is_forked = row
        if is_bytes(key, PUBLIC_KEY_BYTES) and is_bytes(signature, SIGNATURE_BYTES) and isinstance(is_forked, bool):
            return HubAudit(_parse_head(head), key, signature, None if seen is None else _parse_head(seen), is_forked)
    raise WireError("audit is not [head, key, signature, head or null, true or false]")


def site_audit_as_list(audit: SiteAudit) -> list[Any]:
    """The field `audit` of an acknowledgement."""
    return [list(audit.head), audit.seen and list(audit.seen)]


def parse_site_audit(row: Any) -> SiteAudit:
    """The inverse of `site_audit_as_list`.

    Raises:
        WireError: not such a field.
    """
    if isinstance(row, list) and len(row) == len(SiteAudit._fields):
        return SiteAudit(_parse_head(row[0]), None if row[1] is None else _parse_head(row[1]))
    raise WireError("audit is not [head, head or null]")


def head_to_bytes(head: SignedHead) -> bytes:
    """A signed head as the databases store it."""
    return encode_cbor(list(head))


def head_from_bytes(data: bytes | None) -> SignedHead | None:
    """The inverse of `head_to_bytes`; None for null.

    Raises:
        WireError: not a head.
    """
    return None if data is None else _parse_head(_decode(data))


def cut_to_bytes(cut: CutNote) -> bytes:
    """The note of a cut as the databases store it."""
    return encode_cbor(list(cut))


def cut_from_bytes(data: bytes | None) -> CutNote | None:
    """The inverse of `cut_to_bytes`; None for null.

    Raises:
        WireError: not such a note.
    """
    if data is None:
        return None
    row = _decode(data)
    is_cut = isinstance(row, list) and len(row) == len(CutNote._fields) and is_count(row[0]) and is_count(row[2])
    if is_cut and is_bytes(row[1], DIGEST_BYTES) and is_bytes(row[3], SIGNATURE_BYTES):
        return CutNote(*row)
    raise WireError("the note of a cut of an audit log is damaged")


def _decode(data: bytes) -> Any:
    try:
        return decode_cbor(data, limit_bytes=_LIMIT_BYTES)
    except CborError as error:
        raise WireError(f"a head or a note of an audit log is damaged: {error}") from error


def _parse_head(row: Any) -> SignedHead:
    is_head = isinstance(row, list) and len(row) == len(SignedHead._fields) and is_count(row[0])
    if is_head and is_bytes(row[1], DIGEST_BYTES) and is_bytes(row[2], SIGNATURE_BYTES):
        return SignedHead(*row)
    raise WireError("a head of an audit log is not [number, hash, signature]")
