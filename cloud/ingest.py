"""Takes sealed blocks from the broker, commits them, and tells their hub so. It opens nothing and remembers nothing.

    message ──form, identity──> commit blocks ──> advance marks ──> acknowledge
                  └──> quarantine (held, so acknowledged too where its place in the sequence is known)

Any number of ingests may share the work: a block is stored once, and an acknowledgement repeats safely.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NoReturn, TypeVar

from cloud.store import Quarantined, Store
from sync.errors import Transient
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
FENCE: Final = 1  # one site, which nobody takes over from
UNKNOWN_HUB: Final = "?"
"""Owner of quarantined bytes whose topic names no hub. No hub can be called so (`sync.wire.is_name`)."""
T = TypeVar("T")
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Sorted:
    """A message's blocks: those to store, and those to set aside."""

    hub: str
    envelope: Envelope
    good: tuple[tuple[BlockHeader, bytes], ...]
    bad: tuple[Quarantined, ...]


async def run_ingest(
    store: Store,
    mqtt: Transport,
    on_committed: Callable[[], None],
    *,
    now_us: Callable[[], int],
    call: WorkerCall = asyncio.to_thread,
) -> NoReturn:
    """Serve until cancelled. `on_committed` is called after each commit of blocks that were not there before.

    A commit or answer that fails for a reason that may pass is left to the hub: it sends again what stays unanswered.

    Raises:
        Permanent: the store is damaged.
    """
    while True:
        event = await mqtt.receive()
        if not isinstance(event, Message):
            continue
        try:
            ack, fresh = await call(take, store, event, now_us())
            if fresh:
                on_committed()
            if ack is not None:
                await mqtt.publish(ack_topic(ack.hub), encode_ack(ack))
        except Transient as error:
            _log.warning("left unanswered: %s", error)


def take(store: Store, message: Message, received_us: int) -> tuple[Ack | None, int]:
    """Commit one message; the acknowledgement to send, if any, and how many of its blocks are new.

    Raises:
        Transient, Permanent: the store failed; nothing of the message may be acknowledged.
    """
    try:
        sorted_ = _sort(message)
    except WireError as error:
        store.quarantine([Quarantined(_owner(message.topic), str(error), message.payload[:MESSAGE_LIMIT_BYTES])], received_us)
        return None, 0
    hub = sorted_.hub
    if sorted_.bad:
        store.quarantine(sorted_.bad, received_us)
    commit = store.commit(hub, sorted_.envelope.keys, sorted_.good, received_us)
    rejected = [
        *(Rejected(*bad.place, bad.reason) for bad in sorted_.bad if bad.place),
        *(Rejected(*place, "conflict") for place in commit.conflicts),
    ]
    sequences: set[tuple[Lane, int]] = {(block.lane, block.epoch) for block in commit.held}
    sequences.update((block.lane, block.epoch) for block in rejected)
    marks = [store.advance(hub, lane, epoch) for lane, epoch in sorted(sequences)]
    ack = Ack(
        hub,
        SITE,
        FENCE,
        tuple(marks),
        tuple(_ranges(commit.held, marks)),
        tuple(key.id for key in sorted_.envelope.keys),
        tuple(rejected),
    )
    return ack, commit.fresh


def _sort(message: Message) -> _Sorted:
    """Check identity and form of a message and of its blocks.

    Raises:
        WireError: not an envelope of the hub that the topic belongs to.
    """
    hub, lane = parse_up_topic(message.topic)
    if len(message.payload) > MESSAGE_LIMIT_BYTES:
        raise WireError(f"a message of {len(message.payload)} bytes, over the limit of {MESSAGE_LIMIT_BYTES}")
    envelope = decode_envelope(message.payload)
    if envelope.hub != hub:
        raise WireError("the envelope names another hub than its topic")
    good: list[tuple[BlockHeader, bytes]] = []
    bad: list[Quarantined] = []
    for block in envelope.blocks:
        try:
            header = parse_header(block)
        except SealError as error:
            bad.append(Quarantined(hub, str(error), block))
            continue
        if header.hub != hub:
            bad.append(Quarantined(hub, "the block names another hub than its topic", block))
        elif header.lane != lane:
            place = BlockId(header.lane, header.epoch, header.seq)
            bad.append(Quarantined(hub, "the block belongs to another lane than its topic", block, place))
        else:
            good.append((header, block))
    return _Sorted(hub, envelope, tuple(good), tuple(bad))


def _owner(topic: str) -> str:
    """The hub that a topic names, also where the rest of the topic is not ours."""
    parts = topic.split("/")
    return parts[2] if len(parts) > 2 and is_name(parts[2]) else UNKNOWN_HUB


def _ranges(held: Iterable[BlockId], marks: Iterable[Mark]) -> list[Range]:
    """The blocks of this message that lie beyond their mark, consecutive ones joined."""
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
