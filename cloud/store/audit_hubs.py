"""What the site holds of each hub's audit log, and each hub of the site's: the highest signed heads, only forward."""

from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Row, select, update

from cloud.store import tables
from cloud.store.audit import append_to_log, lock_log, read_state
from sync.audit import (
    Action,
    Actor,
    AuditEvent,
    Category,
    End,
    Origin,
    Outcome,
    Purpose,
    Role,
    hash_row,
    log_start,
    object_id,
)
from sync.audit_heads import (
    HubAudit,
    SignedHead,
    check_head,
    head_from_bytes,
    head_to_bytes,
    read_audit_key,
)
from sync.signing import SignatureError, VerifyingKey

HUB_LOWER: Final = "hub-log-went-back"
HUB_CHANGED: Final = "hub-log-changed"
HUB_KEY: Final = "hub-audit-key-changed"
HUB_SAYS: Final = "hub-found-its-log-changed"
SITE_LOWER: Final = "site-log-went-back"
SITE_CHANGED: Final = "site-log-changed"
SITE_KEY: Final = "site-head-not-by-this-key"


class HubLog(NamedTuple):
    """The highest head that the site holds of a hub's log, when it came, and when a contradiction was first found, if ever."""

    hub: str
    head: SignedHead
    received_us: int
    forked_us: int | None


def list_hub_logs(connection: Connection) -> list[HubLog]:
    """Return what the site holds of each hub's log."""
    hubs = tables.audit_hubs.c
    rows = connection.execute(select(hubs.hub, hubs.head, hubs.received_us, hubs.forked_us).order_by(hubs.hub))
    return [HubLog(row.hub, head, row.received_us, row.forked_us) for row in rows if (head := head_from_bytes(row.head))]


def note_hub_audit(
    connection: Connection, site: Origin, key: VerifyingKey, hub: str, device: VerifyingKey, audit: HubAudit, now_us: int
) -> str | None:
    """Keep the heads that a hub's status message shows; returns what they contradict if that is new, otherwise None.

    A contradiction is also a row of the site's log. The lower head never replaces the higher one, so that the evidence stays.
    The caller has refused messages that are older than the hub's last: a replayed one shows a lower head rightly.

    Args:
        connection: in the caller's transaction.
        site: the origin of the site's log.
        key: the site's public audit key.
        hub: the hub whose device key signed the message.
        device: that device key.
        audit: the message's field `audit`.
        now_us: the time.

    Raises:
        SignatureError: the audit key is not certified by the device key, or the hub's head is not signed by it.
    """
    check_head(read_audit_key(device, hub, audit), Origin(End.HUB, hub), audit.head)
    lock_log(connection, site)  # nobody notes the same hub, appends or cuts meanwhile
    table = tables.audit_hubs
    known = connection.execute(select(table).where(table.c.hub == hub)).one_or_none()
    seen = head_from_bytes(known.seen) if known else None
    problem = _find_hub_problem(known, audit, hub, device) or _find_site_problem(connection, site, key, audit.seen)
    newest = audit.seen if _is_evidence(audit.seen, seen, key, site) else seen
    values = {"received_us": now_us, "seen": newest and head_to_bytes(newest)}
    if known is None or problem not in {HUB_LOWER, HUB_CHANGED, HUB_KEY}:
        values |= {"key": audit.key, "key_signature": audit.key_signature, "head": head_to_bytes(audit.head)}
    is_new = problem is not None and (known is None or known.forked_us is None)
    if is_new:
        values["forked_us"] = now_us
    if known is None:
        connection.execute(table.insert().values(hub=hub, **values))
    else:
        connection.execute(update(table).where(table.c.hub == hub).values(**values))
    if not is_new:
        return None
    actor = Actor("ingest", Role.SERVICE, site.name)
    objects = (object_id("hub", hub), object_id("problem", problem))
    event = AuditEvent(actor, Action.FIND_FORK, Category.LOG, None, objects, Purpose.SECURITY, Outcome.FAILED)
    append_to_log(connection, site, [event], now_us)
    return problem


def _find_hub_problem(known: Row[Any] | None, audit: HubAudit, hub: str, device: VerifyingKey) -> str | None:
    """Return how a hub's head contradicts the one that the site holds of it."""
    if audit.is_forked:
        return HUB_SAYS
    held = head_from_bytes(known.head) if known else None
    if known is None or held is None:
        return None
    if known.key != audit.key:
        return HUB_KEY if _is_certified(device, hub, known.key, known.key_signature) else None  # else a new device: a new log
    if audit.head.number < held.number:
        return HUB_LOWER
    return HUB_CHANGED if audit.head.number == held.number and audit.head.head != held.head else None


def _find_site_problem(connection: Connection, site: Origin, key: VerifyingKey, seen: SignedHead | None) -> str | None:
    """Return how the site's log contradicts the head that a hub holds of it."""
    if seen is None:
        return None
    if not _is_signed(key, site, seen):
        return SITE_KEY
    end, _, cut = read_state(connection, site)
    if seen.number > end.number:
        return SITE_LOWER
    if cut is not None and seen.number <= cut.number:
        return None
    if seen.number == 0:
        return None if seen.head == log_start(site).head else SITE_CHANGED
    rows = tables.audit_rows.c
    row = connection.execute(select(rows.row).where(rows.number == seen.number)).scalar_one_or_none()
    return None if row is not None and hash_row(row) == seen.head else SITE_CHANGED


def _is_evidence(shown: SignedHead | None, held: SignedHead | None, key: VerifyingKey, site: Origin) -> bool:
    """Whether a head of the site's log is one of its own and higher than the one that is held."""
    return shown is not None and (held is None or shown.number > held.number) and _is_signed(key, site, shown)


def _is_signed(key: VerifyingKey, site: Origin, head: SignedHead) -> bool:
    try:
        check_head(key, site, head)
    except SignatureError:
        return False
    return True


def _is_certified(device: VerifyingKey, hub: str, key: bytes, signature: bytes) -> bool:
    try:
        read_audit_key(device, hub, HubAudit(SignedHead(0, b"", b""), key, signature))
    except SignatureError:
        return False
    return True
