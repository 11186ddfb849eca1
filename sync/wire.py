"""The messages between hub and clinic: topics, envelopes of sealed blocks (up) and acknowledgements (down).

`docs/protocol.md` is the reference. Every message is one CBOR map in the deterministic form of RFC 8949, section 4.2.1. Any
other encoding, trailing bytes included, is rejected; equal messages therefore have equal bytes.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeVar, cast, get_args

from sync.cbor import CborError, decode_cbor, encode_cbor
from sync.errors import PermanentError

PROTOCOL: Final = 1
MESSAGE_LIMIT_BYTES: Final = 64 * 1024
"""Largest MQTT payload. Every broker accepts it by default, and a 2G uplink sends it within a keep-alive interval."""
PLAINTEXT_LIMIT_BYTES: Final = 56 * 1024
"""The longest plaintext of one block. A message of 64 KiB always has room for the block, its header (< 400) and its
wrapped key (1,177)."""
MAX_INTEGER: Final = 2**63 - 1
"""Largest epoch and sequence number: the largest integer of a column in SQLite and PostgreSQL."""

Lane = Literal["alert", "vital", "wave", "archive"]
LANES: Final[tuple[Lane, ...]] = get_args(Lane)
"""All lanes, most important first."""
UPLINK_LANES: Final[tuple[Lane, ...]] = ("alert", "vital", "wave")
"""The lanes that the hub sends without a request; `archive` stays on the hub until the clinic requests a part of it."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TOPIC: Final = re.compile(rf"pulsegate/v1/({_NAME.pattern})/up/(alert|vital|wave)")
T = TypeVar("T")


class WireError(PermanentError):
    """Bytes or a topic that do not follow this protocol."""


class BlockId(NamedTuple):
    """Identifies a block among all blocks that its hub ever sealed."""

    lane: Lane
    epoch: int
    seq: int


class Mark(NamedTuple):
    """The clinic holds blocks 1 … `seq` of this lane and epoch."""

    lane: Lane
    epoch: int
    seq: int


class Range(NamedTuple):
    """The clinic holds blocks `first` … `last` of this lane and epoch, both included."""

    lane: Lane
    epoch: int
    first: int
    last: int


class Rejected(NamedTuple):
    """A block that the clinic holds in quarantine instead of in its store, and the reason."""

    lane: Lane
    epoch: int
    seq: int
    reason: str


class WrappedKey(NamedTuple):
    """The id of a data key (16 bytes) and the key itself, wrapped for the clinic."""

    id: bytes
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """Blocks of one lane, as stored in the hub's buffer, and those of their keys that the clinic has not confirmed yet."""

    hub: str
    blocks: tuple[bytes, ...]
    keys: tuple[WrappedKey, ...] = ()


@dataclass(frozen=True, slots=True)
class Ack:
    """The blocks and keys that the clinic has committed. `site` names the store; `fence` grows when another site takes over.

    A hub ignores an acknowledgement whose fence is lower than the highest it has seen.
    """

    hub: str
    site: str
    fence: int
    marks: tuple[Mark, ...] = ()
    ranges: tuple[Range, ...] = ()
    keys: tuple[bytes, ...] = ()
    rejected: tuple[Rejected, ...] = ()


def is_name(value: object) -> bool:
    """Whether this is a valid hub, subject or site name: 1 to 64 of `A-Z a-z 0-9 . _ -`, the first a letter or digit."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def is_uint63(value: object) -> bool:
    """Whether this is an integer from 0 to 2⁶³ - 1 and not a bool."""
    return type(value) is int and 0 <= value <= MAX_INTEGER


def up_topic(hub: str, lane: Lane) -> str:
    return f"pulsegate/v1/{hub}/up/{lane}"


def ack_topic(hub: str) -> str:
    return f"pulsegate/v1/{hub}/down/ack"


UP_TOPICS: Final = tuple(up_topic("+", lane) for lane in UPLINK_LANES)
"""The topics that ingest subscribes to."""


def parse_up_topic(topic: str) -> tuple[str, Lane]:
    """Hub and lane of a topic for blocks.

    Raises:
        WireError: it is not a topic for blocks.
    """
    match = _TOPIC.fullmatch(topic)
    if match is None:
        raise WireError("not a topic for blocks: expected pulsegate/v1/<hub>/up/<alert|vital|wave>")
    return match[1], cast("Lane", match[2])


def decode_cbor_map(data: bytes, *, limit_bytes: int, what: str) -> dict[str, Any]:
    """Decode a deterministic CBOR map with text keys; `what` names the message in errors.

    Raises:
        WireError: larger than `limit_bytes`, not CBOR without tags, not such a map, or not in the deterministic form.
    """
    try:
        value = decode_cbor(data, limit_bytes=limit_bytes)
    except CborError as error:
        raise WireError(f"{what} is not valid CBOR: {error}") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise WireError(f"{what} is not a CBOR map with text keys")
    if encode_cbor(value) != data:
        raise WireError(f"{what} is not deterministic CBOR (RFC 8949, section 4.2.1)")
    return value


def encode_envelope(envelope: Envelope) -> bytes:
    """The payload of a message on an `up` topic.

    Raises:
        WireError: it would be larger than 64 KiB.
    """
    keys = [list(key) for key in envelope.keys]
    return _check_size(encode_cbor({"v": PROTOCOL, "hub": envelope.hub, "blocks": list(envelope.blocks), "keys": keys}))


def decode_envelope(data: bytes) -> Envelope:
    """The inverse of `encode_envelope`. The blocks themselves are not parsed.

    Raises:
        WireError: not an envelope.
    """
    message = _decode_message(data, "envelope", {"v", "hub", "blocks", "keys"})
    blocks = _parse_list(message, "blocks", lambda item: item if isinstance(item, bytes) else None)
    return Envelope(message["hub"], blocks, _parse_list(message, "keys", _parse_wrapped_key))


def encode_ack(ack: Ack) -> bytes:
    """The payload of a message on `down/ack`.

    Raises:
        WireError: it would be larger than 64 KiB.
    """
    rows = {
        "marks": [list(mark) for mark in ack.marks],
        "ranges": [list(range_) for range_ in ack.ranges],
        "rejected": [list(block) for block in ack.rejected],
    }
    return _check_size(
        encode_cbor({"v": PROTOCOL, "hub": ack.hub, "site": ack.site, "fence": ack.fence, "keys": list(ack.keys)} | rows)
    )


def decode_ack(data: bytes) -> Ack:
    """The inverse of `encode_ack`.

    Raises:
        WireError: not an acknowledgement.
    """
    message = _decode_message(data, "acknowledgement", {"v", "hub", "site", "fence", "marks", "ranges", "keys", "rejected"})
    if not is_name(message["site"]) or not is_uint63(message["fence"]):
        raise WireError("acknowledgement: site is not a name, or fence is not an unsigned integer")
    return Ack(
        message["hub"],
        message["site"],
        message["fence"],
        _parse_list(message, "marks", _parse_mark),
        _parse_list(message, "ranges", _parse_range),
        _parse_list(message, "keys", lambda item: item if _is_key_id(item) else None),
        _parse_list(message, "rejected", _parse_rejected),
    )


def _check_size(payload: bytes) -> bytes:
    if len(payload) > MESSAGE_LIMIT_BYTES:
        raise WireError(
            f"cannot send a message of {len(payload)} bytes: the limit is {MESSAGE_LIMIT_BYTES}; put fewer blocks into it"
        )
    return payload


def _decode_message(data: bytes, what: str, fields: set[str]) -> dict[str, Any]:
    message = decode_cbor_map(data, limit_bytes=MESSAGE_LIMIT_BYTES, what=what)
    version = message.get("v")
    if type(version) is not int or version != PROTOCOL:
        raise WireError(f"{what} has another protocol version than this pulsegate ({PROTOCOL}): update the older side")
    missing, unknown = sorted(fields - message.keys()), sorted(message.keys() - fields)
    if missing or unknown:
        raise WireError(f"{what}: missing fields: {missing}; number of unknown fields: {len(unknown)}")
    if not is_name(message["hub"]):
        raise WireError(f"{what}: hub is not a name of 1 to 64 letters, digits, '.', '_' and '-'")
    return message


def _parse_list(message: dict[str, Any], field: str, parse_item: Callable[[Any], T | None]) -> tuple[T, ...]:
    """Parse the items of a list field; `parse_item` returns None for a malformed item."""
    rows = message[field]
    if not isinstance(rows, list):
        raise WireError(f"{field} is not a list")
    parsed = [parse_item(row) for row in rows]
    if any(value is None for value in parsed):
        raise WireError(f"{field} has a malformed item")
    return tuple(cast("list[T]", parsed))


def _is_key_id(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == 16


def _starts_with_block_id(row: Any, length: int) -> bool:
    """Whether this is a list of `length` items that begins with lane, epoch and seq."""
    return isinstance(row, list) and len(row) == length and row[0] in LANES and is_uint63(row[1]) and is_uint63(row[2])


def _parse_wrapped_key(row: Any) -> WrappedKey | None:
    valid = isinstance(row, list) and len(row) == 2 and _is_key_id(row[0]) and isinstance(row[1], bytes)
    return WrappedKey(row[0], row[1]) if valid else None


def _parse_mark(row: Any) -> Mark | None:
    return Mark(*row) if _starts_with_block_id(row, 3) else None


def _parse_range(row: Any) -> Range | None:
    return Range(*row) if _starts_with_block_id(row, 4) and is_uint63(row[3]) and 1 <= row[2] <= row[3] else None


def _parse_rejected(row: Any) -> Rejected | None:
    return Rejected(*row) if _starts_with_block_id(row, 4) and isinstance(row[3], str) else None
