"""What crosses the broker: topics, the envelope that carries sealed blocks up, the acknowledgement that comes down.

`docs/protocol.md` is the reference. Every message is one CBOR map in the deterministic form of RFC 8949, section 4.2.1;
anything else, trailing bytes included, is refused, so that equal messages are equal bytes.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeVar, cast, get_args

import cbor2

from sync.errors import Permanent

PROTOCOL: Final = 1
MESSAGE_LIMIT: Final = 64 * 1024
"""Bytes of one MQTT payload. Every broker takes that much by default, and a 2G uplink sends it within a keep-alive interval."""
MAX_INTEGER: Final = 2**63 - 1
"""Largest epoch and sequence number: what SQLite and PostgreSQL hold in one column."""

Lane = Literal["alert", "vital", "wave", "archive"]
LANES: Final[tuple[Lane, ...]] = get_args(Lane)
"""In order of importance."""
UPLINK_LANES: Final[tuple[Lane, ...]] = ("alert", "vital", "wave")
"""The lanes that leave the hub unasked; `archive` stays until the clinic asks for a stretch of it."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TOPIC: Final = re.compile(rf"pulsegate/v1/({_NAME.pattern})/up/(alert|vital|wave)")
T = TypeVar("T")


class WireError(Permanent):
    """Bytes that are no message of this protocol."""


class BlockId(NamedTuple):
    """The place of a block among all that its hub ever sealed."""

    lane: Lane
    epoch: int
    seq: int


class Mark(NamedTuple):
    """All of 1 … `seq` of this lane and epoch is held."""

    lane: Lane
    epoch: int
    seq: int


class Range(NamedTuple):
    """All of `first` … `last`, both included, is held."""

    lane: Lane
    epoch: int
    first: int
    last: int


class Rejected(NamedTuple):
    """A block that the clinic holds in quarantine instead of in its store, and why."""

    lane: Lane
    epoch: int
    seq: int
    reason: str


class WrappedKey(NamedTuple):
    """A data key's id (16 bytes) and the key itself, wrapped for the clinic."""

    id: bytes
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """Blocks of one lane as they lie in the hub's buffer, and those of their keys that the clinic has not confirmed yet."""

    hub: str
    blocks: tuple[bytes, ...]
    keys: tuple[WrappedKey, ...] = ()


@dataclass(frozen=True, slots=True)
class Ack:
    """What the clinic has committed. `site` names the store, `fence` grows each time another site takes over.

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
    """Whether this can name a hub, subject or site: 1 to 64 of `A-Z a-z 0-9 . _ -`, the first a letter or digit."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def is_count(value: object) -> bool:
    """Whether this is an integer from 0 to 2⁶³ - 1, and no bool."""
    return type(value) is int and 0 <= value <= MAX_INTEGER


def up_topic(hub: str, lane: Lane) -> str:
    return f"pulsegate/v1/{hub}/up/{lane}"


def ack_topic(hub: str) -> str:
    return f"pulsegate/v1/{hub}/down/ack"


UP_TOPICS: Final = tuple(up_topic("+", lane) for lane in UPLINK_LANES)
"""What an ingest subscribes to."""


def parse_up_topic(topic: str) -> tuple[str, Lane]:
    """Hub and lane of a topic that blocks come on.

    Raises:
        WireError: it is no such topic.
    """
    match = _TOPIC.fullmatch(topic)
    if match is None:
        raise WireError("not a topic for blocks: expected pulsegate/v1/<hub>/up/<alert|vital|wave>")
    return match[1], cast("Lane", match[2])


def dumps(value: Any) -> bytes:
    """CBOR in its deterministic form."""
    return cbor2.dumps(value, canonical=True)


def load_map(data: bytes, *, what: str) -> dict[str, Any]:
    """The map of text keys that `data` holds; `what` names it in the error.

    Raises:
        WireError: not CBOR, no such map, or not in the deterministic form.
    """
    try:
        value = cbor2.loads(data)
        deterministic = dumps(value) == data
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise WireError(f"{what} is not CBOR: {type(error).__name__}") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise WireError(f"{what} is no CBOR map with text keys")
    if not deterministic:
        raise WireError(f"{what} is not deterministic CBOR (RFC 8949, section 4.2.1)")
    return value


def encode_envelope(envelope: Envelope) -> bytes:
    """The payload of a message on an up topic.

    Raises:
        WireError: it would be larger than 64 KiB.
    """
    keys = [list(key) for key in envelope.keys]
    return _limited(dumps({"v": PROTOCOL, "hub": envelope.hub, "blocks": list(envelope.blocks), "keys": keys}))


def decode_envelope(data: bytes) -> Envelope:
    """The inverse of `encode_envelope`. The blocks are not looked into.

    Raises:
        WireError: not an envelope.
    """
    message = _message(data, "envelope", {"v", "hub", "blocks", "keys"})
    blocks = _list(message, "blocks", lambda item: item if isinstance(item, bytes) else None)
    return Envelope(message["hub"], blocks, _list(message, "keys", _wrapped_key))


def encode_ack(ack: Ack) -> bytes:
    """The payload of a message on `down/ack`.

    Raises:
        WireError: it would be larger than 64 KiB.
    """
    rows = {
        "marks": [list(mark) for mark in ack.marks],
        "ranges": [list(stretch) for stretch in ack.ranges],
        "rejected": [list(block) for block in ack.rejected],
    }
    return _limited(dumps({"v": PROTOCOL, "hub": ack.hub, "site": ack.site, "fence": ack.fence, "keys": list(ack.keys)} | rows))


def decode_ack(data: bytes) -> Ack:
    """The inverse of `encode_ack`.

    Raises:
        WireError: not an acknowledgement.
    """
    message = _message(data, "acknowledgement", {"v", "hub", "site", "fence", "marks", "ranges", "keys", "rejected"})
    if not is_name(message["site"]) or not is_count(message["fence"]):
        raise WireError("acknowledgement: site is no name or fence no unsigned integer")
    return Ack(
        message["hub"],
        message["site"],
        message["fence"],
        _list(message, "marks", _mark),
        _list(message, "ranges", _range),
        _list(message, "keys", lambda item: item if _is_key_id(item) else None),
        _list(message, "rejected", _rejected),
    )


def _limited(payload: bytes) -> bytes:
    if len(payload) > MESSAGE_LIMIT:
        raise WireError(f"a message of {len(payload)} bytes is over the limit of {MESSAGE_LIMIT}: put fewer blocks into it")
    return payload


def _message(data: bytes, what: str, fields: set[str]) -> dict[str, Any]:
    message = load_map(data, what=what)
    if message.get("v") != PROTOCOL:
        raise WireError(f"{what} is of a protocol version that this pulsegate does not speak (it speaks {PROTOCOL}); update")
    missing, unknown = sorted(fields - message.keys()), sorted(message.keys() - fields)
    if missing or unknown:
        raise WireError(f"{what} lacks {missing} and has {len(unknown)} unknown fields")
    if not is_name(message["hub"]):
        raise WireError(f"{what}: hub is no name of 1 to 64 letters, digits, '.', '_' and '-'")
    return message


def _list(message: dict[str, Any], field: str, item: Callable[[Any], T | None]) -> tuple[T, ...]:
    """The items of a list field, each turned into what `item` makes of it; None from `item` means that it is malformed."""
    rows = message[field]
    if not isinstance(rows, list):
        raise WireError(f"{field} is no list")
    parsed = [item(row) for row in rows]
    if any(value is None for value in parsed):
        raise WireError(f"an item of {field} is malformed")
    return tuple(cast("list[T]", parsed))


def _is_key_id(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == 16


def _is_place(row: Any, length: int) -> bool:
    return isinstance(row, list) and len(row) == length and row[0] in LANES and is_count(row[1]) and is_count(row[2])


def _wrapped_key(row: Any) -> WrappedKey | None:
    valid = isinstance(row, list) and len(row) == 2 and _is_key_id(row[0]) and isinstance(row[1], bytes)
    return WrappedKey(row[0], row[1]) if valid else None


def _mark(row: Any) -> Mark | None:
    return Mark(*row) if _is_place(row, 3) else None


def _range(row: Any) -> Range | None:
    return Range(*row) if _is_place(row, 4) and is_count(row[3]) and 1 <= row[2] <= row[3] else None


def _rejected(row: Any) -> Rejected | None:
    return Rejected(*row) if _is_place(row, 4) and isinstance(row[3], str) else None
