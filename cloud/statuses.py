"""What the clinic does with a hub's status: it keeps the last one, and records what the hub says of consent and erasure.

A status is answered only if the hub does not know what holds of its subject's consent.
"""

import logging
from typing import Final

from cloud.audit_log import AuditLog
from cloud.check_message import Registry, verify_status
from cloud.outdated import find_policy
from cloud.site_name import SITE
from cloud.store import Store
from cloud.store.consents import answer_hub
from cloud.store.erasure import note_confirmed
from cloud.store.hub_states import is_last_status, note_status, read_version
from cloud.store.hubs import read_standing
from sync.audit_heads import hub_audit_from_bytes
from sync.consent import subject_tag
from sync.messages import Ack
from sync.mqtt import Message
from sync.signing import SignatureError, VerifyingKey
from sync.status import HubStatus
from sync.wire import WireError

NOT_SIGNED: Final = "not-signed"
MALFORMED: Final = "malformed"
REPLAYED: Final = "replayed"
"""Why a message was refused, in the audit log."""
_log: Final = logging.getLogger(__name__)


class RefusedStatusError(Exception):
    """A status that changes nothing. `token` is the word of the audit log."""

    def __init__(self, reason: str, token: str) -> None:
        super().__init__(reason)
        self.token = token


def receive_status(
    store: Store, registry: Registry, message: Message, now_us: int, audit_key: VerifyingKey | None
) -> tuple[str, Ack | None]:
    """Keep a hub's status, if it follows the last one; returns the hub, and what to answer.

    Raises:
        RefusedStatusError: it is not authentic, or is older than the last one.
        TransientError, PermanentError: the store failed.
    """
    status = _verify(message, registry)
    with store.transaction() as connection:
        follows = note_status(connection, status, message.payload, now_us)
        is_repeated = not follows and is_last_status(connection, status.hub, message.payload)
    if is_repeated:  # the broker or a second ingest may repeat the last one
        return status.hub, None
    if not follows:
        raise RefusedStatusError("the status is older than the hub's last one", REPLAYED)
    if status.audit is not None and audit_key is not None:
        _note_audit(store, registry, audit_key, status.hub, status.audit, now_us)
    return status.hub, _follow(store, registry, status, now_us)


def _verify(message: Message, registry: Registry) -> HubStatus:
    try:
        return verify_status(message, registry)
    except (WireError, SignatureError) as error:
        raise RefusedStatusError(str(error), NOT_SIGNED if isinstance(error, SignatureError) else MALFORMED) from error
    except Exception as error:
        raise RefusedStatusError(f"reading it failed: {type(error).__name__}", MALFORMED) from error


def _follow(store: Store, registry: Registry, status: HubStatus, now_us: int) -> Ack | None:
    """Record what the status says of subjects that its hub is or was assigned to."""
    hub, told = status.hub, status.consent
    subjects = {subject_tag(hub, assignment.subject): assignment.subject for assignment in registry.assignments(hub)}
    erased = [subjects[tag] for tag in status.erased if tag in subjects]
    subject = None if told is None else subjects.get(told.tag)
    if subject is None and not erased:
        return None
    with store.transaction() as connection:
        note_confirmed(connection, hub, erased, now_us)
        answer = answer_hub(connection, hub, subject, told, now_us) if told is not None and subject is not None else None
        if answer is None:
            return None
        identity, is_copied = read_standing(connection, hub, now_us)
        policy = find_policy(*read_version(connection, hub), now_us)
    return Ack(hub, SITE, *identity, copied=is_copied, update_by_s=policy.update_by_s, consent=answer)


def _note_audit(store: Store, registry: Registry, audit_key: VerifyingKey, hub: str, field: bytes, now_us: int) -> None:
    """Keep the heads of the audit logs that a hub's status shows. A field that is not right is logged, and nothing else."""
    device = registry.device_key(hub)
    try:
        if device is not None:
            AuditLog(store, lambda: now_us).note_hub(audit_key, hub, device, hub_audit_from_bytes(field))
    except (WireError, SignatureError) as error:
        _log.warning("cannot use the heads of the audit log of hub %s: %s", hub, error)
