"""Outboxes for tests, and the clinic's messages for their blocks."""

from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

from sync.chain import block_digest
from sync.data_keys import unwrap_key
from sync.keys import HubKey, HubKeys
from sync.message_rows import Held, Mark, Outcome
from sync.messages import Ack, Receipt
from sync.outbox import Outbox, OutboxBlock
from sync.recipients import RecipientKeyPair
from sync.registration import Registration
from sync.seal import open_block, parse_header
from sync.signing import SigningKey, Use
from sync.wire import LANES, BlockId, Lane

HUB_KEYS = HubKeys(HubKey(bytes(range(32))), SigningKey.from_bytes(Use.DEVICE, bytes(31) + b"\x01"))
SUBJECTS = ("subject-1", "subject-2")
RECIPIENTS = {subject: RecipientKeyPair.from_bytes(bytes([n]) * 96) for n, subject in enumerate(SUBJECTS, 1)}
BOOT_S = 1_790_000_000
REGISTERED_S = 1_767_225_600
DAY_S = 86_400
STORE, OTHER_STORE = bytes(15) + b"\x01", bytes(15) + b"\x02"


class Clock:
    def __init__(self, now: int = BOOT_S) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


class _EveryBlock:
    def __contains__(self, _id: object) -> bool:
        return True


EVERY_BLOCK: Container[BlockId] = _EveryBlock()
"""For `Outbox.apply_ack`: every block was sent."""


def registration(recipients: dict[str, RecipientKeyPair] = RECIPIENTS, backup_interval_h: int = 24) -> Registration:
    return Registration(
        "hub-1",
        "site-1",
        SigningKey.from_bytes(Use.ACKNOWLEDGEMENT, bytes(31) + b"\x02").public,
        SigningKey.from_bytes(Use.RECEIPT, bytes(31) + b"\x03").public,
        backup_interval_h,
        REGISTERED_S,
        {subject: pair.public for subject, pair in recipients.items()},
    )


def open_at(path: Path, **changes: Any) -> Outbox:
    arguments: dict[str, Any] = {
        "hub": "hub-1",
        "subject": "subject-1",
        "keys": HUB_KEYS,
        "registration": registration(),
        "clock": Clock(),
    }
    return Outbox.open(path, **(arguments | changes))


def all_pending(outbox: Outbox, lanes: Iterable[Lane] = LANES) -> list[OutboxBlock]:
    return [block for lane in lanes for block in outbox.pending(lane, (0, 0), 2**40)]


def find_block(outbox: Outbox, id_: BlockId) -> OutboxBlock:
    return next(block for block in all_pending(outbox, [id_.lane]) if block.id == id_)


def plaintext_at_clinic(outbox: Outbox, id_: BlockId, recipients: dict[str, RecipientKeyPair] = RECIPIENTS) -> bytes:
    """Open a pending block at the clinic, with its statement and wrapped key."""
    return open_at_clinic(outbox, find_block(outbox, id_), recipients)


def open_at_clinic(outbox: Outbox, block: OutboxBlock, recipients: dict[str, RecipientKeyPair] = RECIPIENTS) -> bytes:
    header = parse_header(block.sealed)
    assert header.key == block.key
    (statement,), wraps = outbox.keys_for([block.key], also_held=True)
    statement.verify("hub-1", HUB_KEYS.device.public)
    assert (statement.id, statement.subject) == (header.key, header.subject)
    recipient = recipients[header.subject]
    (wrapped,) = [wrapped for wrapped in wraps if wrapped.recipient == recipient.public.fingerprint]
    return open_block(block.sealed, unwrap_key(wrapped, statement, hub="hub-1", recipient=recipient))[1]


def held(*blocks: OutboxBlock) -> tuple[Held, ...]:
    return tuple(Held(*block.id, (block_digest(block.sealed),)) for block in blocks)


def outcome(block: OutboxBlock, reason: str = "erased") -> Outcome:
    return Outcome(*block.id, block_digest(block.sealed), reason)


def ack(store: bytes = STORE, fence: int = 7, commits: int = 1, **fields: Any) -> Ack:
    return Ack("hub-1", "site-1", store, fence, commits, **fields)


def receipt(store: bytes = STORE, fence: int = 7, **fields: Any) -> Receipt:
    return Receipt("hub-1", store, fence, **fields)


def mark_at(outbox: Outbox, lane: Lane) -> Mark:
    """The mark of a clinic that holds every block of the present epoch."""
    head = next(head for head in outbox.clinic_view().heads if head.lane == lane)
    return Mark(lane, outbox.epoch, head.seq, head.chain)


def tidy(outbox: Outbox) -> None:
    """One whole round."""
    while not outbox.tidy():
        pass


def pass_time(outbox: Outbox, clock: Clock, seconds: int) -> None:
    """Let time pass for a hub that is on: its clock never steps by more than a day."""
    for step_s in [DAY_S] * (seconds // DAY_S) + [seconds % DAY_S]:
        clock.now += step_s
        outbox.tidy()
