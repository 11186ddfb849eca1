"""Verifies the clinic's messages and applies them to the outbox, on the storage thread: a verification takes 80 µs or more."""

from dataclasses import dataclass

from sync.audit_heads import SiteAudit
from sync.consent import ConsentAnswer
from sync.in_flight import SentBlocks
from sync.messages import Ack, Receipt, decode_ack, decode_receipt
from sync.outbox import Applied, Outbox
from sync.registration import Registration
from sync.versions import OUTDATED
from sync.wire import BlockId


@dataclass(frozen=True, slots=True)
class Received:
    """What a message changed in the outbox, and what else it says.

    `live_s`, `is_copied` and `audit` are None unless the message is an accepted acknowledgement of more commits than any
    before: an older one, sent again by the broker, says nothing about the present. `pause_s` and `update_by_s` are None unless
    it is one of at least as many commits. `aside_reason` and `refused_reason` are those of the last block that was set aside
    and of the last one that was refused. `outdated` are blocks that the clinic refuses as this agent is outdated; they stay
    pending. `consent` is what an accepted acknowledgement says of it: its number tells which one is later.
    """

    applied: Applied
    live_s: int | None = None
    is_copied: bool | None = None
    audit: SiteAudit | None = None
    aside_reason: str | None = None
    refused_reason: str | None = None
    pause_s: int | None = None
    update_by_s: int | None = None
    outdated: tuple[BlockId, ...] = ()
    consent: ConsentAnswer | None = None


def receive_ack(outbox: Outbox, registration: Registration, payload: bytes, sent: SentBlocks) -> Received:
    """Verify and apply an acknowledgement; `sent` are the blocks without an answer.

    Raises:
        WireError, SignatureError: not an acknowledgement, or not by the registered clinic. Nothing was changed.
        PermanentError, TransientError: the outbox failed.
    """
    ack = decode_ack(payload, registration.acknowledgement)
    before = outbox.clinic_view().seen
    applied = outbox.apply_ack(ack, sent)
    aside, refused = _last_reasons(applied, ack)
    known = before.commits if before is not None and before.id == ack.store else -1
    if not applied.accepted or ack.commits < known:
        consent = ack.consent if applied.accepted else None
        return Received(applied, aside_reason=aside, refused_reason=refused, consent=consent)
    return Received(
        applied,
        ack.live_s if ack.commits > known else None,
        ack.copied if ack.commits > known else None,
        ack.audit if ack.commits > known else None,
        aside,
        refused,
        pause_s=ack.retry_after_s,
        update_by_s=ack.update_by_s,
        outdated=tuple(BlockId(*row[:3]) for row in ack.refused if row.reason == OUTDATED),
        consent=ack.consent,
    )


def receive_receipt(outbox: Outbox, registration: Registration, payload: bytes, _sent: SentBlocks) -> Received:
    """Verify and apply a receipt.

    Raises:
        WireError, SignatureError: not a receipt, or not by the registered clinic. Nothing was changed.
        PermanentError, TransientError: the outbox failed.
    """
    receipt = decode_receipt(payload, registration.receipt)
    applied = outbox.apply_receipt(receipt)
    return Received(applied, None, None, None, *_last_reasons(applied, receipt))


def _last_reasons(applied: Applied, message: Ack | Receipt) -> tuple[str | None, str | None]:
    aside = message.aside[-1].reason if applied.aside else None
    return aside, message.refused[-1].reason if applied.refused else None
