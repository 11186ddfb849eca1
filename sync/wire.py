"""What hub and clinic have in common: lanes, block ids, limits, topics, and the checks of CBOR maps from outside.

`docs/protocol.md` is the reference.
"""

import re
from collections.abc import Collection
from typing import Any, Final, Literal, NamedTuple, cast, get_args

from sync.cbor import CborError, decode_cbor, encode_cbor
from sync.errors import PermanentError

FORMAT: Final = 2
"""Version of blocks and messages. It is part of everything that is signed."""
MESSAGE_LIMIT_BYTES: Final = 64 * 1024
"""Largest MQTT payload. Every broker accepts it by default, and a 2G uplink sends it within a keep-alive interval."""
PLAINTEXT_LIMIT_BYTES: Final = 56 * 1024
"""The longest plaintext of one block. A message of 64 KiB always has room for the block, its header (< 400), its statement and
wrapped key (1,400) and the envelope's other fields (< 3,000)."""
KEY_ID_BYTES: Final = 16
STORE_ID_BYTES: Final = 16
FINGERPRINT_BYTES: Final = 8
DIGEST_BYTES: Final = 32
"""Length of a digest, a chain value and a commitment: SHA-256."""
UNKNOWN_CHAIN: Final = bytes(DIGEST_BYTES)
"""The chain value at the end of a dropped range that damage of the hub's buffer made unknown."""
MAX_COUNT: Final = 2**53 - 1
"""Largest epoch, sequence number and counter: every JSON and JavaScript reader represents it exactly."""
EPOCH_RANDOM_BITS: Final = 20
"""Random low bits of an epoch: the other bits are seconds since 1970."""
LIVE_LIMIT_S: Final = 600
"""The longest time for which one acknowledgement can ask a hub to commit every second."""
RETRY_AFTER_LIMIT_S: Final = 300
"""The longest time for which one acknowledgement can ask a hub to send only alerts: as long as a hub may be silent before the
clinic raises an alarm. A hub loses nothing meanwhile, and then asks again with one message."""
FENCE_STEP_LIMIT: Final = 1000
"""Largest growth of the fence from one store to the next. No single wrong message can use up all fences."""

Lane = Literal["alert", "vital", "wave", "archive"]
LANES: Final[tuple[Lane, ...]] = get_args(Lane)
"""All lanes, most important first."""
UPLINK_LANES: Final[tuple[Lane, ...]] = ("alert", "vital", "wave")
"""The lanes that the hub sends without a request; `archive` stays on the hub until the clinic requests a part of it."""

ON_REQUEST_LANE: Final[Lane] = "archive"

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TOPIC: Final = re.compile(rf"pulsegate/v1/({_NAME.pattern})/up/(?:alert|vital|wave)")

_STATUS_TOPIC: Final = re.compile(rf"pulsegate/v1/({_NAME.pattern})/up/status")


class WireError(PermanentError):
    """Bytes or a topic that do not follow this protocol."""


class BlockId(NamedTuple):
    """Identifies a block among all blocks that its hub ever sealed."""

    lane: Lane
    epoch: int
    seq: int


def is_name(value: object) -> bool:
    """Whether this is a valid hub, subject or site name: 1 to 64 of `A-Z a-z 0-9 . _ -`, the first a letter or digit."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def is_count(value: object) -> bool:
    """Whether this is an integer from 0 to 2⁵³ - 1 and not a bool."""
    return type(value) is int and 0 <= value <= MAX_COUNT


def is_epoch(value: object) -> bool:
    """Whether this is an integer from 1 to 2⁵³ - 1 and not a bool."""
    return is_count(value) and value != 0


def is_bytes(value: object, length: int) -> bool:
    """Whether these are exactly so many bytes."""
    return isinstance(value, bytes) and len(value) == length


def epoch_seconds(epoch: int) -> int:
    """The seconds since 1970 that an epoch holds: about when it began, by the hub's clock."""
    return epoch >> EPOCH_RANDOM_BITS


def up_topic(hub: str, lane: Lane) -> str:
    return f"pulsegate/v1/{hub}/up/{lane}"


def status_topic(hub: str) -> str:
    return f"pulsegate/v1/{hub}/up/status"


def ack_topic(hub: str) -> str:
    return f"pulsegate/v1/{hub}/down/ack"


def receipt_topic(hub: str) -> str:
    return f"pulsegate/v1/{hub}/down/receipt"


def command_topic(hub: str) -> str:
    return f"pulsegate/v1/{hub}/down/command"


UP_TOPICS: Final = (*(up_topic("+", lane) for lane in UPLINK_LANES), status_topic("+"))
"""The topics that ingest subscribes to."""


def hub_of_topic(topic: str) -> str:
    """The hub that a topic for envelopes names.

    Raises:
        WireError: it is not a topic for envelopes.
    """
    match = _TOPIC.fullmatch(topic)
    if match is None:
        raise WireError("not a topic for envelopes: expected pulsegate/v1/<hub>/up/<alert|vital|wave>")
    return match[1]


def hub_of_status_topic(topic: str) -> str | None:
    """The hub that a topic for statuses names; None if it is another topic."""
    match = _STATUS_TOPIC.fullmatch(topic)
    return match[1] if match else None


def decode_cbor_map(
    data: bytes, *, limit_bytes: int, fields: Collection[str], optional: Collection[str] = (), what: str
) -> dict[str, Any]:
    """Decode a deterministic CBOR map with text keys that has all `fields`; `what` names the message in errors.

    Fields that are neither in `fields` nor `optional` are ignored, unless `crit` names them.

    Raises:
        WireError: larger than `limit_bytes`, not CBOR without tags, not such a map, not in the deterministic form, a field is
            missing, or the map needs a reader that understands another field.
    """
    try:
        value = decode_cbor(data, limit_bytes=limit_bytes)
    except CborError as error:
        raise WireError(f"{what} is not valid CBOR: {error}") from error
    if not isinstance(value, dict) or not {str}.issuperset(map(type, value)):
        raise WireError(f"{what} is not a CBOR map with text keys")
    if encode_cbor(value) != data:
        raise WireError(f"{what} is not deterministic CBOR (RFC 8949, section 4.2.1)")
    missing = [name for name in fields if name not in value]
    if missing:
        raise WireError(f"{what}: missing fields: {', '.join(missing)}")
    if "crit" in value:
        _check_critical(value, {*fields, *optional}, what)
    return cast("dict[str, Any]", value)


def _check_critical(message: dict[str, Any], known: Collection[str], what: str) -> None:
    critical = message["crit"]
    if not isinstance(critical, list) or not all(isinstance(name, str) for name in critical):
        raise WireError(f"{what}: crit is not a list of names")
    if not set(critical) <= set(known):
        raise WireError(f"{what} needs a newer pulsegate: it has fields that this version must not ignore; update pulsegate")
