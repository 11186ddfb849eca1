"""The signed messages between hub and clinic: envelopes of blocks (up), acknowledgements and receipts (down).

Each is one map of deterministic CBOR whose field `sig` signs all other fields. `docs/protocol.md` is the reference.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from sync.data_keys import KeyStatement, WrappedKey
from sync.message_rows import (
    Dropped,
    Head,
    Held,
    Mark,
    Outcome,
    SeenStore,
    held_as_list,
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
from sync.signed_maps import check_valid, decode_signed, encode_signed
from sync.signing import Label, SigningKey, VerifyingKey
from sync.wire import (
    FORMAT,
    KEY_ID_BYTES,
    LIVE_LIMIT_S,
    STORE_ID_BYTES,
    WireError,
    is_bytes,
    is_count,
    is_epoch,
    is_name,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Envelope:
    """Blocks as stored in the hub's buffer, what the clinic needs to open them, and what proves that it holds all of them.

    `epoch` is the hub's present epoch and `previous_epoch` the one before it in its buffer; `heads` are of the present epoch.
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
    `copied` says that two machines seem to use the hub's identity.
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
    fields = {
        "v": FORMAT,
        "hub": envelope.hub,
        "epoch": [envelope.epoch, envelope.previous_epoch],
        "heads": _lists(envelope.heads),
        "seen": envelope.seen and list(envelope.seen),
        "blocks": list(envelope.blocks),
        "keys": _lists(envelope.keys),
        "wraps": _lists(envelope.wraps),
        "dropped": _lists(envelope.dropped),
    }
    return encode_signed(fields, lambda content: device.sign(Label.ENVELOPE, envelope.hub, *_signed_values(envelope, content)))


def decode_envelope(data: bytes) -> SignedEnvelope:
    """The inverse of `encode_envelope`, without verification. The blocks themselves are not parsed.

    Raises:
        WireError: not an envelope.
    """
    names = ("v", "hub", "epoch", "heads", "seen", "blocks", "keys", "wraps", "dropped", "sig")
    message, content = decode_signed(data, "envelope", names)
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
        heads=_parse_list(message, "heads", parse_head),
        seen=seen,
        blocks=_parse_list(message, "blocks", lambda item: item if isinstance(item, bytes) else None),
        keys=_parse_list(message, "keys", parse_statement),
        wraps=_parse_list(message, "wraps", parse_wrapped_key),
        dropped=_parse_list(message, "dropped", parse_dropped),
    )
    return SignedEnvelope(envelope, content, message["sig"])


def encode_ack(ack: Ack, key: SigningKey) -> bytes:
    """The payload of a message on `down/ack`.

    Raises:
        WireError: it would be larger than 64 KiB.
    """
    fields = {
        "v": FORMAT,
        "hub": ack.hub,
        "site": ack.site,
        "store": ack.store,
        "fence": ack.fence,
        "commits": ack.commits,
        "epoch": ack.epoch,
        "marks": _lists(ack.marks),
        "held": [held_as_list(held) for held in ack.held],
        "keys": list(ack.keys),
        "wraps": _lists(ack.wraps),
        "aside": _lists(ack.aside),
        "refused": _lists(ack.refused),
        "live_s": ack.live_s,
        "copied": ack.copied,
    }
    return encode_signed(fields, lambda content: key.sign(Label.ACKNOWLEDGEMENT, ack.hub, content))


def decode_ack(data: bytes, key: VerifyingKey) -> Ack:
    """The inverse of `encode_ack`.

    Raises:
        WireError: not an acknowledgement.
        SignatureError: not signed by this key.
    """
    names = (*_STORE_FIELDS, "site", "commits", "epoch", "marks", "held", "keys", "wraps", "live_s", "copied")
    message, content = decode_signed(data, "acknowledgement", names)
    key.verify(message["sig"], Label.ACKNOWLEDGEMENT, message["hub"], content)
    _check_store(message, "acknowledgement")
    valid = {
        "site": is_name(message["site"]),
        "commits": is_count(message["commits"]),
        "epoch": _is_epoch_or_none(message["epoch"]),
        "live_s": is_count(message["live_s"]) and message["live_s"] <= LIVE_LIMIT_S,
        "copied": isinstance(message["copied"], bool),
    }
    check_valid(valid, "acknowledgement")
    return Ack(
        **{name: message[name] for name in ("hub", "store", "fence", *valid)},
        marks=_parse_list(message, "marks", parse_mark),
        held=_parse_list(message, "held", parse_held),
        keys=_parse_list(message, "keys", lambda item: item if is_bytes(item, KEY_ID_BYTES) else None),
        wraps=_parse_list(message, "wraps", parse_wrap_id),
        aside=_parse_list(message, "aside", parse_outcome),
        refused=_parse_list(message, "refused", parse_outcome),
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
        "aside": _lists(receipt.aside),
        "refused": _lists(receipt.refused),
    }
    return encode_signed(fields, lambda content: key.sign(Label.RECEIPT, receipt.hub, content))


def decode_receipt(data: bytes, key: VerifyingKey) -> Receipt:
    """The inverse of `encode_receipt`.

    Raises:
        WireError: not a receipt.
        SignatureError: not signed by this key.
    """
    message, content = decode_signed(data, "receipt", (*_STORE_FIELDS, "opened"))
    key.verify(message["sig"], Label.RECEIPT, message["hub"], content)
    _check_store(message, "receipt")
    return Receipt(
        message["hub"],
        message["store"],
        message["fence"],
        opened=_parse_list(message, "opened", parse_held),
        aside=_parse_list(message, "aside", parse_outcome),
        refused=_parse_list(message, "refused", parse_outcome),
    )


_STORE_FIELDS: Final = ("v", "hub", "store", "fence", "aside", "refused", "sig")


def _signed_values(envelope: Envelope, content: bytes) -> tuple[Any, ...]:
    return envelope.epoch, _lists(envelope.heads), content


def _check_store(message: Mapping[str, Any], what: str) -> None:
    check_valid({"store": is_bytes(message["store"], STORE_ID_BYTES), "fence": is_count(message["fence"])}, what)


def _parse_list(message: Mapping[str, Any], field: str, parse_item: Callable[[Any], T | None]) -> tuple[T, ...]:
    """Parse the items of a list field; `parse_item` returns None for a malformed item."""
    rows = message[field]
    if not isinstance(rows, list):
        raise WireError(f"{field} is not a list")
    parsed = [parse_item(row) for row in rows]
    if any(value is None for value in parsed):
        raise WireError(f"{field} has a malformed item")
    return tuple(cast("list[T]", parsed))


def _lists(rows: tuple[tuple[Any, ...], ...]) -> list[list[Any]]:
    return [list(row) for row in rows]


def _is_epoch_or_none(value: object) -> bool:
    return value is None or is_epoch(value)
