"""Verifies the clinic's messages and applies them to the outbox, on the storage thread: a verification takes 80 µs or more."""

from dataclasses import dataclass

from sync.in_flight import SentBlocks
from sync.messages import decode_ack, decode_receipt
from sync.outbox import Applied, Outbox
from sync.registration import Registration


@dataclass(frozen=True, slots=True)
class Received:
    """What a message changed in the outbox, and what else it says.

    `live_s` and `is_copied` are None unless the message is an accepted acknowledgement of more commits than any before: an
    older one, sent again by the broker, says nothing about the present. `reason` is that of the last block that was set aside.
    """

    applied: Applied
    live_s: int | None = None
    is_copied: bool | None = None
    reason: str | None = None


def receive_ack(outbox: Outbox, registration: Registration, payload: bytes, sent: SentBlocks) -> Received:
    """Verify and apply an acknowledgement; `sent` are the blocks without an answer.

    Raises:
        WireError, SignatureError: not an acknowledgement, or not by the registered clinic. Nothing was changed.
        PermanentError, TransientError: the outbox failed.
    """
    ack = decode_ack(payload, registration.acknowledgement)
    before = outbox.clinic_view().seen
    applied = outbox.apply_ack(ack, sent)
    reason = ack.aside[-1].reason if applied.aside else None
    if not applied.accepted or (before is not None and before.id == ack.store and before.commits >= ack.commits):
        return Received(applied, reason=reason)
    return Received(applied, ack.live_s, ack.copied, reason)


def receive_receipt(outbox: Outbox, registration: Registration, payload: bytes, _sent: SentBlocks) -> Received:
    """Verify and apply a receipt.

    Raises:
        WireError, SignatureError: not a receipt, or not by the registered clinic. Nothing was changed.
        PermanentError, TransientError: the outbox failed.
    """
    receipt = decode_receipt(payload, registration.receipt)
    applied = outbox.apply_receipt(receipt)
    return Received(applied, reason=receipt.aside[-1].reason if applied.aside else None)
