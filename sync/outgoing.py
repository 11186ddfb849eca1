"""Makes one signed message of the most urgent blocks in the outbox.

It runs on the storage thread, in one call for all of it: a call takes longer than reading an empty lane, and a signature would
delay the event loop (50 µs on a PC, 1 ms on a small hub).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from sync.data_keys import KeyStatement, WrappedKey
from sync.in_flight import SentBlocks
from sync.messages import Envelope, encode_envelope
from sync.outbox import Outbox, OutboxBlock
from sync.signing import SigningKey
from sync.wire import BlockId, Lane

MESSAGE_BLOCKS_LIMIT_BYTES: Final = 48 * 1024
"""Limit of the blocks' bytes in one message: with their keys and 3 bytes of CBOR for each it stays below 64 KiB. A larger block
(up to `sync.wire.PLAINTEXT_LIMIT_BYTES`) is sent alone."""
MESSAGE_KEYS_LIMIT: Final = 8
"""Limit of data keys in one message: a statement (190 bytes at most) and a wrapped key (1,200) each. A message of full size
keeps 4,000 bytes for its other fields, 2,000 of them for dropped ranges and 900 for marks. Every UTC day has its own key, so
eight keys cover eight days."""

Position = tuple[int, int]
"""(epoch, seq) of a block within its lane."""


class Due(IntEnum):
    """Which message without blocks is due.

    `DROPPED` lists dropped ranges, if there are any. `HELLO` asks whether the clinic has another store, or restored this one
    from a backup, if the hub ever had an answer. It lists the marks of earlier epochs; so does a message with blocks in its
    place.
    """

    NOTHING = 0
    DROPPED = 1
    HELLO = 2


@dataclass(frozen=True, slots=True)
class Sender:
    """The hub that sends, and the device key that signs its messages."""

    hub: str
    device: SigningKey


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a lane, after one position and up to another, and how much of it to read: at least one block."""

    lane: Lane
    is_live: bool
    after: Position
    until: Position
    limit_bytes: int
    must_fit: bool
    """Whether a first block over the limit has to wait."""


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message to send: its blocks, how many of them were `resent`, and its payload.

    `section` was read up to `end`; it is None for a message without blocks. If all blocks up to `end` are in flight, `payload`
    is empty.
    """

    section: Section | None
    end: Position
    ids: tuple[BlockId, ...]
    resent: int
    payload: bytes


def prepare_message(
    outbox: Outbox, sender: Sender, sections: Iterable[Section], sent: SentBlocks, due: Due = Due.NOTHING
) -> OutgoingMessage | None:
    """Make a message of the first section that has blocks. Returns None if there is nothing to send, or no room for it.

    If no section has blocks, a message without blocks is made if it is `due`.

    Raises:
        PermanentError, TransientError: the outbox failed.
    """
    for section in sections:
        rows = outbox.pending(section.lane, section.after, section.limit_bytes, until=section.until)
        if rows:
            return _prepare_section(outbox, sender, section, rows, sent, due)
    view = outbox.clinic_view() if due else None
    if view and (view.dropped or (due is Due.HELLO and view.seen)):
        return OutgoingMessage(None, (0, 0), (), 0, _encode(outbox, sender, (), (), (), due))
    return None


def _prepare_section(
    outbox: Outbox, sender: Sender, section: Section, rows: Sequence[OutboxBlock], sent: SentBlocks, due: Due
) -> OutgoingMessage | None:
    unsent = [row for row in rows if row.id not in sent.in_flight]
    if not unsent:
        return OutgoingMessage(section, _position(rows[-1]), (), 0, b"")
    if section.must_fit and unsent[0] is rows[0] and len(rows[0].sealed) > section.limit_bytes:
        return None
    blocks, statements, wraps = _limit_keys(outbox, unsent, sent)
    ids = tuple(block.id for block in blocks)
    payload = _encode(outbox, sender, [block.sealed for block in blocks], statements, wraps, due)
    return OutgoingMessage(section, _position(blocks[-1]), ids, len(sent.before.intersection(ids)), payload)


def _limit_keys(
    outbox: Outbox, blocks: Sequence[OutboxBlock], sent: SentBlocks
) -> tuple[Sequence[OutboxBlock], list[KeyStatement], list[WrappedKey]]:
    """As many of the first blocks as need at most `MESSAGE_KEYS_LIMIT` keys, or one block, and their keys.

    Keys that the clinic has confirmed are omitted, unless a block was sent before: a clinic that lost its store needs them.
    """
    while True:
        is_resent = any(block.id in sent.before for block in blocks)
        statements, wraps = outbox.keys_for((block.key for block in blocks), also_held=is_resent)
        if len(blocks) == 1 or max(len(statements), len(wraps)) <= MESSAGE_KEYS_LIMIT:
            return blocks, statements, wraps
        blocks = blocks[: len(blocks) // 2]


def _encode(
    outbox: Outbox,
    sender: Sender,
    blocks: Sequence[bytes],
    statements: Sequence[KeyStatement],
    wraps: Sequence[WrappedKey],
    due: Due,
) -> bytes:
    view = outbox.clinic_view()
    envelope = Envelope(
        sender.hub,
        epoch=view.epoch,
        previous_epoch=view.previous_epoch,
        heads=view.heads,
        seen=view.seen,
        blocks=tuple(blocks),
        keys=tuple(statements),
        wraps=tuple(wraps),
        dropped=view.dropped,
        marks=view.marks if due is Due.HELLO else (),
    )
    return encode_envelope(envelope, sender.device)


def _position(block: OutboxBlock) -> Position:
    return block.id.epoch, block.id.seq
