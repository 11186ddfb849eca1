"""The signed messages between hub and clinic: envelopes of blocks (up), acknowledgements and receipts (down).

Each is one map of deterministic CBOR whose field `sig` signs all other fields. `docs/protocol.md` is the reference.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sync.audit_heads import SiteAudit, parse_site_audit, site_audit_as_list
from sync.consent import ConsentAnswer
from sync.data_keys import KeyStatement, WrappedKey
from sync.message_rows import (
    AcceptedMark,
    Dropped,
    Head,
    Held,
    Mark,
    Outcome,
    SeenStore,
    held_as_list,
    parse_accepted_mark,
    parse_dropped,
    parse_head,
    parse_held,
    parse_mark,
    parse_outcome,
    parse_seen,
    parse_statement,
    parse_wrap_id,
    parse_wrapped_key,
)
from sync.signed_maps import check_valid, decode_message, encode_signed, lists, parse_list
from sync.signing import Label, SigningKey, VerifyingKey
from sync.wire import (
    FORMAT,
    KEY_ID_BYTES,
    LIVE_LIMIT_S,
    RETRY_AFTER_LIMIT_S,
    STORE_ID_BYTES,
    WireError,
    is_bytes,
    is_count,
    is_epoch,
    is_name,
)


@dataclass(frozen=True, slots=True)
class Envelope:
    """Blocks as stored in the hub's buffer, what the clinic needs to open them, and what proves that it holds all of them.

    `epoch` is the hub's present epoch and `previous_epoch` the one before it in its buffer; `heads` are of the present epoch.
    `marks` are of earlier epochs; only some messages list them.
    """

    hub: str
    epoch: int
    previous_epoch: int | None
    heads: tuple[Head, ...]
    seen: SeenStore | None
    blocks: tuple[bytes, ...]
    keys: tuple[KeyStatement, ...] = ()
    wraps: tuple[WrappedKey, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    marks: tuple[AcceptedMark, ...] = ()


@dataclass(frozen=True, slots=True)
class SignedEnvelope:
    """An envelope that is not verified yet. `content` is SHA-256 over all that is signed besides epoch and heads."""

    envelope: Envelope
    content: bytes
    signature: bytes

    def verify(self, device: VerifyingKey) -> Envelope:
        """Return the envelope if the hub's device key signed it.

        Raises:
            SignatureError: it did not.
        """
        envelope = self.envelope
        device.verify(self.signature, Label.ENVELOPE, envelope.hub, *_signed_values(envelope, self.content))
        return envelope


@dataclass(frozen=True, slots=True)
class Ack:
    """What the clinic has committed of one hub.

    `store`, `fence` and `commits` identify the state of the store; `epoch` is the highest of this hub that the clinic holds.
    `keys` and `wraps` (key id, fingerprint) are those that it holds. `live_s` asks the hub to commit every second for so long.
    `copied` says that two machines seem to use the hub's identity. `retry_after_s` asks the hub to send no block but alerts for
    so long. `update_by_s` says that the agent is outdated: from then on (seconds since 1970) only alerts are taken. `audit` are
    the heads of the audit logs; None before the site has signed one. `consent` says what holds of the subject's consent, in the
    answer to a status.
    """

    hub: str
    site: str
    store: bytes
    fence: int
    commits: int
    epoch: int | None = None
    marks: tuple[Mark, ...] = ()
    held: tuple[Held, ...] = ()
    keys: tuple[bytes, ...] = ()
    wraps: tuple[tuple[bytes, bytes], ...] = ()
    aside: tuple[Outcome, ...] = ()
    refused: tuple[Outcome, ...] = ()
    live_s: int = 0
    copied: bool = False
    retry_after_s: int = 0
    update_by_s: int | None = None
    audit: SiteAudit | None = None
    consent: ConsentAnswer | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """The outcome of blocks at the clinic's opener: opened (lanes alert and vital only), set aside, or refused."""

    hub: str
    store: bytes
    fence: int
    opened: tuple[Held, ...] = ()
    aside: tuple[Outcome, ...] = ()
    refused: tuple[Outcome, ...] = ()


def encode_envelope(envelope: Envelope, device: SigningKey) -> bytes:
    """The payload of a message on an `up` topic.

    Raises:
        WireError: it would be larger than 64 KiB.
    """
    fields: dict[str, Any] = {
        "v": FORMAT,
        "hub": envelope.hub,
        "epoch": [envelope.epoch, envelope.previous_epoch],
        "heads": lists(envelope.heads),
        "seen": envelope.seen and list(envelope.seen),
        "blocks": list(envelope.blocks),
        "keys": lists(envelope.keys),
        "wraps": lists(envelope.wraps),
        "dropped": lists(envelope.dropped),
    }
    if envelope.marks:
        fields["marks"] = lists(envelope.marks)
    return encode_signed(fields, lambda content: device.sign(Label.ENVELOPE, envelope.hub, *_signed_values(envelope, content)))


def decode_envelope(data: bytes) -> SignedEnvelope:
    """The inverse of `encode_envelope`, without verification. The blocks themselves are not parsed.

    Raises:
        WireError: not an envelope.
    """
    names = ("v", "hub", "epoch", "heads", "seen", "blocks", "keys", "wraps", "dropped", "sig")
    message, content = decode_message(data, "envelope", names, ("marks",))
    epochs = message["epoch"]
    if not isinstance(epochs, list) or len(epochs) != 2 or not is_epoch(epochs[0]) or not _is_epoch_or_none(epochs[1]):
        raise WireError("envelope: epoch is not [epoch, epoch or null]")
    seen = None if message["seen"] is None else parse_seen(message["seen"])
    if message["seen"] is not None and seen is None:
        raise WireError("envelope: seen is not [store id, fence, commits] or null")
    envelope = Envelope(
        message["hub"],
        epoch=epochs[0],
        previous_epoch=epochs[1],
        heads=parse_list(message, "heads", parse_head),
        seen=seen,
        blocks=parse_list(message, "blocks", lambda item: item if isinstance(item, bytes) else None),
        keys=parse_list(message, "keys", parse_statement),
        wraps=parse_list(message, "wraps", parse_wrapped_key),
        dropped=parse_list(message, "dropped", parse_dropped),
        marks=parse_list(message, "marks", parse_accepted_mark) if "marks" in message else (),
    )
    return SignedEnvelope(envelope, content, message["sig"])


def encode_ack(ack: Ack, key: SigningKey) -> bytes:
    """The payload of a message on `down/ack`.

    Raises:
        WireError: it would be larger than 64 KiB.
    """
    fields: dict[str, Any] = {
        "v": FORMAT,
        "hub": ack.hub,
        "site": ack.site,
        "store": ack.store,
        "fence": ack.fence,
        "commits": ack.commits,
        "epoch": ack.epoch,
        "marks": lists(ack.marks),
        "held": [held_as_list(held) for held in ack.held],
        "keys": list(ack.keys),
        "wraps": lists(ack.wraps),
        "aside": lists(ack.aside),
        "refused": lists(ack.refused),
        "live_s": ack.live_s,
        "copied": ack.copied,
    }
    if ack.audit is not None:
        fields["audit"] = site_audit_as_list(ack.audit)
    if ack.retry_after_s:
        fields["retry_after_s"] = ack.retry_after_s
    if ack.update_by_s is not None:
        fields["update_by_s"] = ack.update_by_s
    if ack.consent is not None:
        fields["consent"] = ack.consent.as_list()
    return encode_signed(fields, lambda content: key.sign(Label.ACKNOWLEDGEMENT, ack.hub, content))


def decode_ack(data: bytes, key: VerifyingKey) -> Ack:
    """The inverse of `encode_ack`.

    Raises:
        WireError: not an acknowledgement.
        SignatureError: not signed by this key.
    """
    names = (*_STORE_FIELDS, "site", "commits", "epoch", "marks", "held", "keys", "wraps", "live_s", "copied")
    message, content = decode_message(data, "acknowledgement", names, _ADDED_TO_ACK)
    key.verify(message["sig"], Label.ACKNOWLEDGEMENT, message["hub"], content)
    _check_store(message, "acknowledgement")
    valid = {
        "site": is_name(message["site"]),
        "commits": is_count(message["commits"]),
        "epoch": _is_epoch_or_none(message["epoch"]),
        "live_s": is_count(message["live_s"]) and message["live_s"] <= LIVE_LIMIT_S,
        "copied": isinstance(message["copied"], bool),
    }
    added = {name: is_valid(message[name]) for name, is_valid in _ADDED_TO_ACK.items() if name in message}
    check_valid(valid | added, "acknowledgement")
    numbers = [name for name in added if name != "consent"]
    return Ack(
        **{name: message[name] for name in ("hub", "store", "fence", *valid, *numbers)},
        consent=ConsentAnswer.from_list(message.get("consent")),
        marks=parse_list(message, "marks", parse_mark),
        held=parse_list(message, "held", parse_held),
        keys=parse_list(message, "keys", lambda item: item if is_bytes(item, KEY_ID_BYTES) else None),
        wraps=parse_list(message, "wraps", parse_wrap_id),
        aside=parse_list(message, "aside", parse_outcome),
        refused=parse_list(message, "refused", parse_outcome),
        audit=parse_site_audit(message["audit"]) if "audit" in message else None,
    )


def encode_receipt(receipt: Receipt, key: SigningKey) -> bytes:
    """The payload of a message on `down/receipt`.

    Raises:
        WireError: it would be larger than 64 KiB.
    """
    fields = {
        "v": FORMAT,
        "hub": receipt.hub,
        "store": receipt.store,
        "fence": receipt.fence,
        "opened": [held_as_list(held) for held in receipt.opened],
        "aside": lists(receipt.aside),
        "refused": lists(receipt.refused),
    }
    return encode_signed(fields, lambda content: key.sign(Label.RECEIPT, receipt.hub, content))


def decode_receipt(data: bytes, key: VerifyingKey) -> Receipt:
    """The inverse of `encode_receipt`.

    Raises:
        WireError: not a receipt.
        SignatureError: not signed by this key.
    """
    message, content = decode_message(data, "receipt", (*_STORE_FIELDS, "opened"))
    key.verify(message["sig"], Label.RECEIPT, message["hub"], content)
    _check_store(message, "receipt")
    return Receipt(
        message["hub"],
        message["store"],
        message["fence"],
        opened=parse_list(message, "opened", parse_held),
        aside=parse_list(message, "aside", parse_outcome),
        refused=parse_list(message, "refused", parse_outcome),
    )


_ADDED_TO_ACK: Final[Mapping[str, Callable[[Any], bool]]] = {
    "retry_after_s": lambda value: is_count(value) and 1 <= value <= RETRY_AFTER_LIMIT_S,
    "update_by_s": is_count,
    "consent": lambda value: ConsentAnswer.from_list(value) is not None,
}
"""Fields that revision 1 of the protocol added (`sync.versions`). They are there only if they say something."""
_STORE_FIELDS: Final = ("v", "hub", "store", "fence", "aside", "refused", "sig")


def _signed_values(envelope: Envelope, content: bytes) -> tuple[Any, ...]:
    return envelope.epoch, lists(envelope.heads), content


def _check_store(message: Mapping[str, Any], what: str) -> None:
    check_valid({"store": is_bytes(message["store"], STORE_ID_BYTES), "fence": is_count(message["fence"])}, what)


def _is_epoch_or_none(value: object) -> bool:
    return value is None or is_epoch(value)
