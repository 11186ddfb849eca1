"""What the store holds and what it answers: values without behaviour."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from sync.audit_heads import SiteAudit
from sync.data_keys import KeyStatement
from sync.message_rows import Mark
from sync.messages import SignedEnvelope
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


class NewBlock(NamedTuple):
    """A block of a message that may be stored if its data key is: its place, subject, data key's id, digest and bytes."""

    position: BlockId
    subject: str
    key: bytes
    digest: bytes
    bytes: bytes


@dataclass(frozen=True, slots=True)
class RejectedBlock:
    """Bytes kept in quarantine instead of being stored as a block, and why.

    `position` is None if they are not a block of their hub; `subject` is None if the header is unreadable.
    """

    hub: str
    reason: str
    bytes: bytes
    position: BlockId | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class CheckedMessage:
    """A message whose signature is verified. The device key signed these statements.

    `blocks` may be stored if their data key is; `rejected` go to quarantine; `refused` may not be kept, as their subject was
    erased, nor may `unconsented`, as theirs does not consent.
    """

    signed: SignedEnvelope
    statements: tuple[KeyStatement, ...]
    blocks: tuple[NewBlock, ...]
    rejected: tuple[RejectedBlock, ...] = ()
    refused: tuple[NewBlock, ...] = ()
    unconsented: tuple[NewBlock, ...] = ()

    @property
    def hub(self) -> str:
        return self.signed.envelope.hub


@dataclass(frozen=True, slots=True)
class CommitResult:
    """The outcome for a message's blocks and keys.

    `new`: number of blocks stored now. `reopened`: number of blocks that became work again because they came again. `held`:
    blocks stored now or before. `conflicts`: blocks in quarantine, because another block has their position. A block in neither
    list was not stored, because its key is missing; the hub resends it with the key. `keys` and `wraps` (key id, fingerprint)
    are those of the message that are stored. `conflicting_keys`: ids of statements and wrapped keys that were kept aside,
    because others have their place. `new_conflicts`: blocks and keys that were put aside now and not before.
    """

    new: int
    reopened: int
    held: tuple[NewBlock, ...]
    conflicts: tuple[NewBlock, ...]
    keys: tuple[bytes, ...]
    wraps: tuple[tuple[bytes, bytes], ...]
    conflicting_keys: tuple[bytes, ...]
    new_conflicts: int
    is_newly_copied: bool


class StoreIdentity(NamedTuple):
    """The store's random id, its fence, and its number of commits."""

    id: bytes
    fence: int
    commits: int


class ProgressRequest(NamedTuple):
    """A message whose acknowledgement has to say how far the clinic is: its hub and present epoch, and what it is about.

    `held` are its blocks that are stored; `sequences` the (lane, epoch) of these, and others that it is about. `subjects` are
    those that the hub seals for now.
    """

    hub: str
    epoch: int
    held: tuple[NewBlock, ...]
    sequences: set[tuple[Lane, int]]
    subjects: set[str]


@dataclass(frozen=True, slots=True)
class Progress:
    """What an acknowledgement says of the store: see `sync.messages.Ack`."""

    marks: tuple[Mark, ...]
    identity: StoreIdentity
    epoch: int | None
    is_copied: bool
    live_s: int
    audit: SiteAudit | None


class StoreCounts(NamedTuple):
    """Numbers of blocks stored and of blocks rejected; how many of these were conflicts; numbers of conflicting keys.

    `rejected_messages` counts all that ever came, of which the newest are kept; `copied_hubs` how often a hub was found copied.
    """

    stored: int = 0
    quarantined: int = 0
    conflicts: int = 0
    key_conflicts: int = 0
    rejected_messages: int = 0
    copied_hubs: int = 0


def as_stored_blocks(rows: Iterable[Any]) -> list[StoredBlock]:
    """Return the blocks of rows with all columns of the table of blocks."""
    return [
        StoredBlock(row.hub, BlockId(cast("Lane", row.lane), row.epoch, row.seq), row.key, row.block, row.received_us)
        for row in rows
    ]
