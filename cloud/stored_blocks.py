"""What the store holds and what it answers: values without behaviour."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from sync.wire import BlockId, Lane


class StoredBlockId(NamedTuple):
    """Identifies a block of any hub. Blocks are listed in this order."""

    hub: str
    epoch: int
    lane: Lane
    seq: int


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A block as it was received. `position` is its place in the hub's sequences.

    `key` is the id of its data key; `received_us` is the clinic's clock, microseconds since 1970.
    """

    hub: str
    position: BlockId
    key: bytes
    block: bytes
    received_us: int

    @property
    def id(self) -> StoredBlockId:
        lane, epoch, seq = self.position
        return StoredBlockId(self.hub, epoch, lane, seq)


@dataclass(frozen=True, slots=True)
class RejectedBlock:
    """Bytes kept in quarantine instead of being stored as a block, and why. `position` is None if the header is unreadable."""

    hub: str
    reason: str
    bytes: bytes
    position: BlockId | None = None


@dataclass(frozen=True, slots=True)
class CommitResult:
    """The outcome for a message's blocks.

    `new`: number of blocks stored now. `held`: blocks stored now or before. `conflicts`: blocks in quarantine, because another
    block has their position. A block in neither list was not stored, because its key is missing; the hub resends it with the
    key. `conflicting_keys`: ids of wrapped keys that were kept aside, because another wrapped key has their id.
    `new_conflicts`: blocks and wrapped keys that were put aside now and not before.
    """

    new: int
    held: tuple[BlockId, ...]
    conflicts: tuple[BlockId, ...]
    conflicting_keys: tuple[bytes, ...]
    new_conflicts: int


class StoreCounts(NamedTuple):
    """Numbers of blocks stored and of blocks rejected; how many of these were conflicts; numbers of conflicting keys."""

    stored: int
    quarantined: int
    conflicts: int
    key_conflicts: int


def as_stored_blocks(rows: Iterable[Any]) -> list[StoredBlock]:
    """Return the blocks of rows with all columns of the table of blocks."""
    return [
        StoredBlock(row.hub, BlockId(cast("Lane", row.lane), row.epoch, row.seq), row.key, row.block, row.received_us)
        for row in rows
    ]
