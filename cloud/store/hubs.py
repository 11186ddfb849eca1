"""What the store knows of each hub: its epochs and heads, whether it was copied, and whether the store itself was lost."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import BindParameter, Connection, Executable, and_, bindparam, func, or_, select, update

from cloud.store import tables
from cloud.store.stored_blocks import Progress, StoreIdentity
from cloud.store.tables import insert
from sync.audit_heads import SiteAudit, head_from_bytes
from sync.cbor import encode_cbor
from sync.data_keys import KeyStatement
from sync.message_rows import Mark
from sync.messages import Envelope, SignedEnvelope
from sync.wire import FENCE_STEP_LIMIT, LIVE_LIMIT_S, WireError

COPY_WINDOW_US: Final = 24 * 3600 * 1_000_000
"""Two events within this time say that a hub was copied; one may be a buffer that was restored once. It is reported so long."""
LATE_MESSAGE_US: Final = 10 * 60 * 1_000_000
"""Messages of a superseded epoch that were under way when the next began arrive within this time."""
_OF_HUB: Final = "heard_us", "revision", "outdated_us"
_IDENTITY: Final = tables.state.c.store_id, tables.state.c.fence, tables.state.c.commits


def _list(name: str) -> BindParameter[Any]:
    return bindparam(name, expanding=True)


def _view_query() -> Executable:
    """The store's identity and what it knows of the hub, with each stored statement of `keys`, or one row without one."""
    table = tables.statements
    is_wanted = and_(table.c.hub == bindparam("of_hub"), table.c.id.in_(_list("keys")))
    columns = [table.c[name] for name in KeyStatement._fields]
    of_hub = tables.hub_states.c.hub == bindparam("of_hub")
    known = [select(tables.hub_states.c[name]).where(of_hub).scalar_subquery().label(name) for name in _OF_HUB]
    return select(*_IDENTITY, *columns, *known).select_from(tables.state.outerjoin(table, is_wanted))


def _progress_query() -> Executable:
    epochs, hubs, watchers = tables.epochs.c, tables.hubs.c, tables.watchers.c
    latest = select(func.max(epochs.epoch)).where(epochs.hub == bindparam("of_hub"))
    copied = select(hubs.hub).where(hubs.hub == bindparam("of_hub"), hubs.copied_us > bindparam("since_us"))
    until = select(func.max(watchers.until_us)).where(watchers.subject.in_(_list("subjects")))
    signed = select(tables.audit_log.c.signed).scalar_subquery()
    audit = tables.audit_hubs.c
    of_hub = select(audit.head).where(audit.hub == bindparam("of_hub")).scalar_subquery()
    return select(*_IDENTITY, latest.scalar_subquery(), copied.exists(), until.scalar_subquery(), signed, of_hub)


def _own_epoch_query() -> Executable:
    """What is known of an epoch. It is superseded if a later one came after it began, before `long_ago_us`."""
    own, later = tables.epochs.c, tables.epochs.alias().c
    came_after = and_(later.first_us >= own.first_us, later.first_us < bindparam("long_ago_us"))
    superseding = select(later.epoch).where(later.hub == own.hub, later.epoch > own.epoch, came_after)
    query = select(own.blocks, superseding.exists().label("is_superseded"))
    return query.where(own.hub == bindparam("of_hub"), own.epoch == bindparam("of_epoch"))


# Built once: to build a query takes longer than to run it.
_VIEW: Final = _view_query()
_ERASED: Final = select(tables.erased.c.subject).where(tables.erased.c.subject.in_(_list("subjects")))
_PROGRESS: Final = _progress_query()
_OWN_EPOCH: Final = _own_epoch_query()


class StoreView(NamedTuple):
    """What ingest must know before it checks a message's blocks.

    `statements` are those stored for these data keys. `is_lost`: the hub knows of commits that the store does not have. The
    last three are those of `hub_states`; they are None for a hub that is not known there yet.
    """

    statements: dict[bytes, KeyStatement]
    erased: frozenset[str]
    is_lost: bool
    heard_us: int | None
    revision: int | None
    outdated_us: int | None


@dataclass(frozen=True, slots=True)
class Loss:
    """The store was lost or restored from a backup. `evidence` says what a hub knows that the store does not."""

    evidence: str
    before: StoreIdentity
    after: StoreIdentity
    stored: int


def read_identity(connection: Connection) -> StoreIdentity:
    """Return the store's id, fence and commits."""
    return StoreIdentity(*connection.execute(select(*_IDENTITY)).one())


def view_store(connection: Connection, envelope: Envelope, keys: set[bytes], subjects: set[str]) -> StoreView:
    """Return what the store knows of a message's data keys and subjects, and whether it lost what the hub knows of it."""
    rows = connection.execute(_VIEW, {"of_hub": envelope.hub, "keys": list(keys)}).all()
    n = len(StoreIdentity._fields)
    return StoreView(
        {row.id: KeyStatement(*row[n : -len(_OF_HUB)]) for row in rows if row.id is not None},
        frozenset(connection.scalars(_ERASED, {"subjects": list(subjects)})),
        find_loss(connection, envelope, StoreIdentity(*rows[0][:n])) is not None,
        *rows[0][-len(_OF_HUB) :],
    )


def find_loss(connection: Connection, envelope: Envelope, identity: StoreIdentity) -> str | None:
    """Return what the hub knows of this store or a later one that the store itself does not know; None if there is nothing."""
    seen = envelope.seen
    if seen is None:
        return None
    if seen.id != identity.id:
        is_later = identity.fence <= seen.fence < identity.fence + FENCE_STEP_LIMIT
        return f"another store with fence {seen.fence}" if is_later else None
    if seen.commits > identity.commits:
        return f"{seen.commits} commits of this store"
    heads = {head.lane: head for head in envelope.heads if head.mark}
    if not heads:
        return None
    marks = tables.marks.c
    query = select(marks.lane, marks.seq).where(marks.hub == envelope.hub, marks.epoch == envelope.epoch)
    known = {row.lane: row.seq for row in connection.execute(query)}
    lost = [head for head in heads.values() if head.mark > known.get(head.lane, 0)]
    return f"the mark {lost[0].lane}/{envelope.epoch}/{lost[0].mark}" if lost else None


def begin_after_loss(connection: Connection, envelope: Envelope) -> Loss | None:
    """Give the store a new id if it was lost; None if it was not, or if another ingest has done it meanwhile."""
    connection.execute(update(tables.state).values(commits=tables.state.c.commits))  # locks it
    before = read_identity(connection)
    evidence = find_loss(connection, envelope, before)
    if evidence is None or envelope.seen is None:
        return None
    tables.begin_new_store(connection, max(before.fence, envelope.seen.fence) + 1)
    stored = connection.execute(select(tables.state.c.stored)).scalar_one()
    return Loss(evidence, before, read_identity(connection), stored)


def read_progress(connection: Connection, hub: str, marks: Iterable[Mark], subjects: set[str], now_us: int) -> Progress:
    """Return what an acknowledgement to a hub says; `subjects` are those that it seals for now."""
    parameters = {"of_hub": hub, "since_us": now_us - COPY_WINDOW_US, "subjects": list(subjects)}
    *identity, epoch, is_copied, until_us, signed, of_hub = connection.execute(_PROGRESS, parameters).one()
    live_s = max(0, min(LIVE_LIMIT_S, ((until_us or 0) - now_us) // 1_000_000))
    return Progress(tuple(marks), StoreIdentity(*identity), epoch, bool(is_copied), live_s, _read_heads(signed, of_hub))


def _read_heads(signed: bytes | None, of_hub: bytes | None) -> SiteAudit | None:
    """Return the heads of the audit logs; None if the site has signed none, or one is damaged: that must not stop ingest."""
    try:
        own = head_from_bytes(signed)
        return SiteAudit(own, head_from_bytes(of_hub)) if own else None
    except WireError:
        return None


def note_epoch(connection: Connection, signed: SignedEnvelope, received_us: int) -> tuple[bool, bool]:
    """Store what the hub signed of its present epoch, if it names more blocks than before.

    Returns whether anything was stored, and whether the hub is found copied now and was not before.
    """
    envelope, table = signed.envelope, tables.epochs
    n_blocks = sum(head.seq for head in envelope.heads)
    parameters = {"of_hub": envelope.hub, "of_epoch": envelope.epoch, "long_ago_us": received_us - LATE_MESSAGE_US}
    own = connection.execute(_OWN_EPOCH, parameters).one_or_none()
    if own is not None and n_blocks <= own.blocks:
        return False, False
    is_event = own.is_superseded if own is not None else _follows_another_than_the_latest(connection, envelope)
    evidence = {
        "blocks": n_blocks,
        "heads": encode_cbor([list(head) for head in envelope.heads]),
        "content": signed.content,
        "signature": signed.signature,
    }
    first = {"hub": envelope.hub, "epoch": envelope.epoch, "previous": envelope.previous_epoch, "first_us": received_us}
    statement = insert(connection, table).values(**first, **evidence)
    statement = statement.on_conflict_do_update(
        index_elements=["hub", "epoch"], set_=evidence, where=table.c.blocks < statement.excluded.blocks
    )
    connection.execute(statement)
    return True, is_event and _note_event(connection, envelope.hub, received_us)


def _follows_another_than_the_latest(connection: Connection, envelope: Envelope) -> bool:
    """Whether a new epoch follows one that others have followed already, as far as the clinic knows.

    An epoch that a later one names as its previous has only arrived late. One without a previous epoch is of a new buffer.
    """
    epochs, previous = tables.epochs.c, envelope.previous_epoch
    if previous is None:
        return False
    is_later = epochs.epoch > previous
    is_known_otherwise = epochs.previous == envelope.epoch
    query = select(func.count().filter(is_later), func.count().filter(is_known_otherwise)).where(epochs.hub == envelope.hub)
    n_later, n_followers = connection.execute(query.where(or_(is_later, is_known_otherwise))).one()
    return n_later > 0 and n_followers == 0


def _note_event(connection: Connection, hub: str, received_us: int) -> bool:
    """Note that the hub was restored or copied; returns whether it is the second time within a day and was not noted yet."""
    table = tables.hubs
    row = connection.execute(select(table).where(table.c.hub == hub)).one_or_none()
    since_us = received_us - COPY_WINDOW_US
    is_second = row is not None and row.event_us > since_us
    was_copied = row is not None and row.copied_us is not None and row.copied_us > since_us
    values = {"event_us": received_us} | ({"copied_us": received_us} if is_second else {})
    statement = insert(connection, table).values(hub=hub, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["hub"], set_=values))
    return is_second and not was_copied
