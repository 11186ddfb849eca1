"""Receives sealed blocks from the broker, commits them, and acknowledges them to their hub. It opens no block and has no state.

    message ──validate form and identity──> commit blocks ──> advance marks ──> acknowledge
                  └──> quarantine (kept, and acknowledged as rejected if the position in the sequence is known)

Several ingests may run at once: a block is stored once, and acknowledging it twice does no harm.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NoReturn, TypeVar

from cloud.store import Store
from cloud.stored_blocks import CommitResult, RejectedBlock
from sync.errors import TransientError
from sync.mqtt import Message
from sync.seal import BlockHeader, SealError, parse_header
from sync.transport import Transport, WorkerCall
from sync.wire import (
    MESSAGE_LIMIT_BYTES,
    Ack,
    BlockId,
    Envelope,
    Lane,
    Mark,
    Range,
    Rejected,
    WireError,
    ack_topic,
    decode_envelope,
    encode_ack,
    is_name,
    parse_up_topic,
)

SITE: Final = "main"
"""Name of the site in acknowledgements. There is one site."""
FENCE: Final = 1
"""Fencing token of the acknowledgements: hubs ignore those with a lower one. It never changes, because there is one site."""
UNKNOWN_HUB: Final = "?"
"""Hub of quarantined bytes whose topic names no hub. It is not a valid hub name (`sync.wire.is_name`)."""
T = TypeVar("T")
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _ValidatedMessage:
    """A message's blocks: the valid ones to store, and the rejected ones for quarantine."""

    hub: str
    envelope: Envelope
    valid: tuple[tuple[BlockHeader, bytes], ...]
    rejected: tuple[RejectedBlock, ...]


async def run_ingest(
    store: Store,
    mqtt: Transport,
    on_committed: Callable[[], None],
    *,
    now_us: Callable[[], int],
    call: WorkerCall = asyncio.to_thread,
) -> NoReturn:
    """Handle messages until cancelled. `on_committed` is called after each commit that stored new blocks.

    After a transient failure of a commit or an acknowledgement nothing is retried here: the hub resends unacknowledged blocks.

    Raises:
        PermanentError: the store is damaged.
    """
    while True:
        event = await mqtt.receive()
        if not isinstance(event, Message):
            continue
        try:
            ack, new_blocks = await call(handle_message, store, event, now_us())
            if new_blocks:
                on_committed()
            if ack is not None:
                await mqtt.publish(ack_topic(ack.hub), encode_ack(ack))
        except TransientError as error:
            _log.warning("message not acknowledged; the hub will resend it: %s", error)


def handle_message(store: Store, message: Message, received_us: int) -> tuple[Ack | None, int]:
    """Commit one message; returns the acknowledgement to send, if any, and the number of new blocks.

    Raises:
        TransientError, PermanentError: the store failed; nothing of the message may be acknowledged.
    """
    try:
        validated = _validate(message)
    except WireError as error:
        return _quarantine_message(store, message, str(error), received_us)
    except Exception as error:  # noqa: BLE001 - no message may stop the messages of other hubs
        return _quarantine_message(store, message, f"reading it failed: {type(error).__name__}", received_us)
    hub = validated.hub
    if validated.rejected:
        store.quarantine(validated.rejected, received_us)
    commit = store.commit(hub, validated.envelope.keys, validated.valid, received_us)
    if commit.new_conflicts:
        _log_conflicts(hub, commit)
    rejected = [
        *(Rejected(*block.position, block.reason) for block in validated.rejected if block.position),
        *(Rejected(*position, "conflict") for position in commit.conflicts),
    ]
    sequences: set[tuple[Lane, int]] = {(block.lane, block.epoch) for block in commit.held}
    sequences.update((block.lane, block.epoch) for block in rejected)
    marks = [store.advance_mark(hub, lane, epoch) for lane, epoch in sorted(sequences)]
    ack = Ack(
        hub,
        SITE,
        FENCE,
        tuple(marks),
        tuple(_ranges_beyond_marks(commit.held, marks)),
        tuple(key.id for key in validated.envelope.keys if key.id not in commit.conflicting_keys),
        tuple(rejected),
    )
    return ack, commit.new


def _log_conflicts(hub: str, commit: CommitResult) -> None:
    found = [
        *("block {}/{}/{}".format(*position) for position in commit.conflicts),
        *(f"data key {key.hex()}" for key in commit.conflicting_keys),
    ]
    text = "hub %s sent %d blocks or wrapped keys in place of others that are stored, the first of them %s: %s"
    advice = "they are kept aside; check whether two machines use this hub's name, or its buffer was restored from a backup"
    _log.warning(text, hub, commit.new_conflicts, found[0], advice)


def _quarantine_message(store: Store, message: Message, reason: str, received_us: int) -> tuple[None, int]:
    kept = message.payload[:MESSAGE_LIMIT_BYTES]
    store.quarantine([RejectedBlock(_hub_of_topic(message.topic), reason, kept)], received_us)
    return None, 0


def _validate(message: Message) -> _ValidatedMessage:
    """Check identity and form of a message and of its blocks.

    Raises:
        WireError: the payload is not an envelope of the topic's hub.
    """
    hub, lane = parse_up_topic(message.topic)
    if len(message.payload) > MESSAGE_LIMIT_BYTES:
        raise WireError(f"a message of {len(message.payload)} bytes, over the limit of {MESSAGE_LIMIT_BYTES}")
    envelope = decode_envelope(message.payload)
    if envelope.hub != hub:
        raise WireError("the envelope names another hub than its topic")
    valid: list[tuple[BlockHeader, bytes]] = []
    rejected: list[RejectedBlock] = []
    for block in envelope.blocks:
        try:
            header = parse_header(block)
        except SealError as error:
            rejected.append(RejectedBlock(hub, str(error), block))
            continue
        except Exception as error:  # noqa: BLE001 - the other blocks of the message are kept
            rejected.append(RejectedBlock(hub, f"reading its header failed: {type(error).__name__}", block))
            continue
        if header.hub != hub:
            rejected.append(RejectedBlock(hub, "the block names another hub than its topic", block))
        elif header.lane != lane:
            position = BlockId(header.lane, header.epoch, header.seq)
            rejected.append(RejectedBlock(hub, "the block belongs to another lane than its topic", block, position))
        else:
            valid.append((header, block))
    return _ValidatedMessage(hub, envelope, tuple(valid), tuple(rejected))


def _hub_of_topic(topic: str) -> str:
    """Return the hub that a topic names, even if the rest of the topic is not valid."""
    parts = topic.split("/")
    return parts[2] if len(parts) > 2 and is_name(parts[2]) else UNKNOWN_HUB


def _ranges_beyond_marks(held: Iterable[BlockId], marks: Iterable[Mark]) -> list[Range]:
    """Return the held blocks of this message beyond their mark, consecutive ones joined."""
    ends = {(mark.lane, mark.epoch): mark.seq for mark in marks}
    ranges: list[Range] = []
    for lane, epoch, seq in sorted(set(held)):
        if seq <= ends[lane, epoch]:
            continue
        if ranges and ranges[-1][:2] == (lane, epoch) and ranges[-1].last == seq - 1:
            ranges[-1] = ranges[-1]._replace(last=seq)
        else:
            ranges.append(Range(lane, epoch, seq, seq))
    return ranges
