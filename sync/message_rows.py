"""The items of lists in messages, and their parsers. A parser returns None for a malformed item."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from sync.data_keys import KeyStatement, WrappedKey
from sync.signing import SIGNATURE_BYTES
from sync.wire import (
    DIGEST_BYTES,
    FINGERPRINT_BYTES,
    KEY_ID_BYTES,
    LANES,
    MAX_COUNT,
    STORE_ID_BYTES,
    UPLINK_LANES,
    BlockId,
    Lane,
    is_bytes,
    is_count,
    is_epoch,
    is_name,
)

REASON_LIMIT_CHARS: Final = 200
"""Longest reason of an outcome."""


class Head(NamedTuple):
    """The last block of a lane in the hub's present epoch (seq 0: none), and the highest mark that the hub has accepted."""

    lane: Lane
    seq: int
    chain: bytes
    mark: int


class SeenStore(NamedTuple):
    """The clinic's store that the hub knows: id, fence, and the highest count of commits that it acknowledged."""

    id: bytes
    fence: int
    commits: int


class Dropped(NamedTuple):
    """Blocks `first` … `last` that the hub deleted because its buffer was full; the chain value at `last`."""

    lane: Lane
    epoch: int
    first: int
    last: int
    chain: bytes


class Mark(NamedTuple):
    """The clinic holds blocks 1 … `seq` of this lane and epoch, dropped ranges included; the chain value at `seq`."""

    lane: Lane
    epoch: int
    seq: int
    chain: bytes


class AcceptedMark(NamedTuple):
    """The highest mark of a lane and epoch that the hub has accepted of its present store."""

    lane: Lane
    epoch: int
    seq: int


class Held(NamedTuple):
    """The clinic holds consecutive blocks from `first`: those with these digests."""

    lane: Lane
    epoch: int
    first: int
    digests: tuple[bytes, ...]


class Outcome(NamedTuple):
    """A block that the clinic does not store, and why: the text is for a person."""

    lane: Lane
    epoch: int
    seq: int
    digest: bytes
    reason: str


def join_consecutive(blocks: Iterable[tuple[BlockId, bytes]]) -> list[Held]:
    """Blocks with their digests as rows of `held` or `opened`, consecutive ones joined."""
    joined = list[Held]()
    for (lane, epoch, seq), digest in sorted(set(blocks)):
        last = joined[-1] if joined else None
        if last is not None and last[:2] == (lane, epoch) and last.first + len(last.digests) == seq:
            joined[-1] = last._replace(digests=(*last.digests, digest))
        else:
            joined.append(Held(lane, epoch, seq, (digest,)))
    return joined


def held_as_list(held: Held) -> list[Any]:
    return [held.lane, held.epoch, held.first, b"".join(held.digests)]


def _is_digest(value: object) -> bool:
    return is_bytes(value, DIGEST_BYTES)


def _starts_with_block_id(row: Any, length: int) -> bool:
    """Whether this is a list of `length` items that begins with lane, epoch and a count."""
    return isinstance(row, list) and len(row) == length and row[0] in LANES and is_epoch(row[1]) and is_count(row[2])


def parse_head(row: Any) -> Head | None:
    if not isinstance(row, list) or len(row) != len(Head._fields) or row[0] not in UPLINK_LANES:
        return None
    valid = is_count(row[1]) and _is_digest(row[2]) and is_count(row[3]) and row[3] <= row[1]
    return Head(*row) if valid else None


def parse_seen(row: Any) -> SeenStore | None:
    valid = isinstance(row, list) and len(row) == len(SeenStore._fields) and is_bytes(row[0], STORE_ID_BYTES)
    return SeenStore(*row) if valid and is_count(row[1]) and is_count(row[2]) else None


def parse_statement(row: Any) -> KeyStatement | None:
    if not isinstance(row, list) or len(row) != len(KeyStatement._fields):
        return None
    valid = is_bytes(row[0], KEY_ID_BYTES) and _is_digest(row[1]) and is_name(row[2]) and is_count(row[3])
    return KeyStatement(*row) if valid and is_bytes(row[4], SIGNATURE_BYTES) else None


def parse_wrapped_key(row: Any) -> WrappedKey | None:
    valid = isinstance(row, list) and len(row) == len(WrappedKey._fields) and _is_wrap_id(row[:2]) and isinstance(row[2], bytes)
    return WrappedKey(*row) if valid else None


def parse_wrap_id(row: Any) -> tuple[bytes, bytes] | None:
    return (row[0], row[1]) if isinstance(row, list) and len(row) == 2 and _is_wrap_id(row) else None


def _is_wrap_id(row: list[Any]) -> bool:
    return is_bytes(row[0], KEY_ID_BYTES) and is_bytes(row[1], FINGERPRINT_BYTES)


def parse_dropped(row: Any) -> Dropped | None:
    valid = _starts_with_block_id(row, len(Dropped._fields)) and is_count(row[3]) and 1 <= row[2] <= row[3]
    return Dropped(*row) if valid and _is_digest(row[4]) else None


def parse_mark(row: Any) -> Mark | None:
    return Mark(*row) if _starts_with_block_id(row, len(Mark._fields)) and _is_digest(row[3]) else None


def parse_accepted_mark(row: Any) -> AcceptedMark | None:
    return AcceptedMark(*row) if _starts_with_block_id(row, len(AcceptedMark._fields)) else None


def parse_held(row: Any) -> Held | None:
    valid = _starts_with_block_id(row, len(Held._fields)) and row[2] >= 1 and isinstance(row[3], bytes)
    if not valid or not row[3] or len(row[3]) % DIGEST_BYTES or row[2] + len(row[3]) // DIGEST_BYTES - 1 > MAX_COUNT:
        return None
    digests = tuple(row[3][i : i + DIGEST_BYTES] for i in range(0, len(row[3]), DIGEST_BYTES))
    return Held(row[0], row[1], row[2], digests)


def parse_outcome(row: Any) -> Outcome | None:
    valid = _starts_with_block_id(row, len(Outcome._fields)) and row[2] >= 1 and _is_digest(row[3]) and isinstance(row[4], str)
    return Outcome(*row) if valid and len(row[4]) <= REASON_LIMIT_CHARS else None
