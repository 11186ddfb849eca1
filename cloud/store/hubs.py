"""What the store knows of each hub: its epochs and heads, whether it was copied, and whether the store itself was lost."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Executable, and_, bindparam, func, or_, select, true, update

from cloud.row_sets import RowInsert, RowQuery
from cloud.store import tables
from cloud.store.commit_counts import ERASED
from cloud.store.consents import WITHOUT_CONSENT
from cloud.store.marks import MarkedSequence
from cloud.store.stored_blocks import Progress, ProgressRequest, StoreIdentity
from cloud.store.tables import insert
from sync.audit_heads import SiteAudit, head_from_bytes
from sync.cbor import encode_cbor
from sync.message_rows import AcceptedMark, Mark
from sync.messages import Envelope, SignedEnvelope
from sync.wire import FENCE_STEP_LIMIT, LIVE_LIMIT_S, WireError

COPY_WINDOW_US: Final = 24 * 3600 * 1_000_000
"""Two events within this time say that a hub was copied; one may be a buffer that was restored once. It is reported so long."""
LATE_MESSAGE_US: Final = 10 * 60 * 1_000_000
"""Messages of a superseded epoch that were under way when the next began arrive within this time."""
_IDENTITY: Final = tables.state.c.store_id, tables.state.c.fence, tables.state.c.commits


def _statements_query(are_wanted: ColumnElement[bool]) -> Executable:
    """The store's identity with hub, key and subject of each wanted statement; one row without these if there is none."""
    table = tables.statements
    return select(*_IDENTITY, table.c.hub, table.c.id, table.c.subject).select_from(tables.state.outerjoin(table, are_wanted))


def _progress_query(are_wanted: ColumnElement[bool]) -> Executable:
    """The store's identity, each hub's latest epoch, whether it was found copied, and heads of audit logs.

    `are_wanted` names one epoch of each hub.
    """
    own, other, hubs = tables.epochs.c, tables.epochs.alias().c, tables.hubs.c
    latest = select(func.max(other.epoch)).where(other.hub == own.hub).scalar_subquery()
    copied = select(hubs.hub).where(hubs.hub == own.hub, hubs.copied_us > bindparam("since_us")).exists()
    signed = select(tables.audit_log.c.signed).scalar_subquery()
    audit = tables.audit_hubs.c
    head = select(audit.head).where(audit.hub == own.hub).scalar_subquery()
    columns = own.hub, *_IDENTITY, latest, copied, signed, head
    return select(*columns).join_from(tables.epochs, tables.state, true()).where(are_wanted)


def _epochs_query(are_wanted: ColumnElement[bool]) -> Executable:
    """What is known of epochs. One is superseded if a later one came after it began, before `long_ago_us`."""
    own, later = tables.epochs.c, tables.epochs.alias().c
    came_after = and_(later.first_us >= own.first_us, later.first_us < bindparam("long_ago_us"))
    superseding = select(later.epoch).where(later.hub == own.hub, later.epoch > own.epoch, came_after)
    return select(own.hub, own.epoch, own.blocks, superseding.exists().label("is_superseded")).where(are_wanted)


_STATEMENTS, _EPOCHS = tables.statements.c, tables.epochs.c
_VIEW: Final = RowQuery((_STATEMENTS.hub, _STATEMENTS.id), _statements_query)
_MARKS: Final = RowQuery(
    (tables.marks.c.hub, tables.marks.c.epoch),
    lambda are_wanted: select(*(tables.marks.c[name] for name in ("hub", "epoch", "lane", "seq"))).where(are_wanted),
)
_PROGRESS: Final = RowQuery((_EPOCHS.hub, _EPOCHS.epoch), _progress_query)
_WATCHED: Final = RowQuery(
    [tables.watchers.c.subject],
    lambda are_wanted: select(tables.watchers.c.subject, tables.watchers.c.until_us).where(are_wanted),
)
_HUBS: Final = RowQuery(
    [tables.hub_states.c.hub],
    lambda are_wanted: select(*(tables.hub_states.c[name] for name in ("hub", "heard_us", "revision", "outdated_us"))).where(
        are_wanted
    ),
)
_KNOWN_EPOCHS: Final = RowQuery((_EPOCHS.hub, _EPOCHS.epoch), _epochs_query)
_EVIDENCE: Final = ("blocks", "heads", "content", "signature")
_KEEP_EPOCH: Final = RowInsert(
    tables.epochs,
    ("hub", "epoch", "previous", "first_us", *_EVIDENCE),
    lambda new: new.on_conflict_do_update(
        index_elements=["hub", "epoch"],
        set_={name: new.excluded[name] for name in _EVIDENCE},
        where=_EPOCHS.blocks < new.excluded.blocks,
    ),
)


class KnownHub(NamedTuple):
    """What `hub_states` says of a hub. All are None for a hub that is not known there yet."""

    heard_us: int | None = None
    revision: int | None = None
    outdated_us: int | None = None


_UNKNOWN_HUB: Final = KnownHub()


class StoreView(NamedTuple):
    """What ingest must know before it checks the blocks of messages.

    `statements` are the subjects of the stored statements, by hub and data key. `unconsented` subjects do not consent.
    `lost`: the envelopes whose hub knows of commits that the store does not have. `hubs` are those that are known in
    `hub_states`.
    """

    statements: dict[str, dict[bytes, str]]
    erased: frozenset[str]
    unconsented: frozenset[str]
    lost: tuple[Envelope, ...]
    hubs: Mapping[str, KnownHub]

    def of_hub(self, hub: str) -> KnownHub:
        """Return what is known of a hub."""
        return self.hubs.get(hub, _UNKNOWN_HUB)


class NotedEpoch(NamedTuple):
    """Whether something of an envelope's epoch was stored, and whether its hub is found copied now and was not before."""

    is_new: bool
    is_newly_copied: bool


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


def view_store(
    connection: Connection, envelopes: Sequence[Envelope], keys: set[tuple[str, bytes]], subjects: set[str]
) -> StoreView:
    """Return what the store knows of these data keys (hub, id) and subjects, and which hubs know of more than it holds."""
    n = len(StoreIdentity._fields)
    identity, statements = None, defaultdict[str, dict[bytes, str]](dict)
    for row in _VIEW.execute(connection, keys):
        identity = StoreIdentity(*row[:n])
        if row.hub is not None:
            statements[row.hub][row.id] = row.subject
    identity = identity or read_identity(connection)
    erased = frozenset(row.subject for row in ERASED.execute(connection, [(subject,) for subject in subjects]))
    unconsented = frozenset(row.subject for row in WITHOUT_CONSENT.execute(connection, [(subject,) for subject in subjects]))
    marks = _read_marks(connection, envelopes)
    lost = tuple(envelope for envelope in envelopes if find_loss(envelope, identity, marks) is not None)
    rows = _HUBS.execute(connection, {(envelope.hub,) for envelope in envelopes})
    return StoreView(statements, erased, unconsented, lost, {row.hub: KnownHub(*row[1:]) for row in rows})


def _read_marks(connection: Connection, envelopes: Iterable[Envelope]) -> dict[tuple[str, int, str], int]:
    """Return the marks (hub, epoch, lane) of the epochs of which envelopes name a mark."""
    epochs = {(envelope.hub, mark.epoch) for envelope in envelopes for mark in _accepted_marks(envelope)}
    return {(row.hub, row.epoch, row.lane): row.seq for row in _MARKS.execute(connection, epochs)}


def find_loss(envelope: Envelope, identity: StoreIdentity, marks: Mapping[tuple[str, int, str], int]) -> str | None:
    """Return what the hub knows of this store or a later one that the store itself does not know; None if there is nothing.

    `marks` are the store's, by (hub, epoch, lane).
    """
    seen = envelope.seen
    if seen is None:
        return None
    if seen.id != identity.id:
        is_later = identity.fence <= seen.fence < identity.fence + FENCE_STEP_LIMIT
        return f"another store with fence {seen.fence}" if is_later else None
    if seen.commits > identity.commits:
        return f"{seen.commits} commits of this store"
    lost = [mark for mark in _accepted_marks(envelope) if mark.seq > marks.get((envelope.hub, mark.epoch, mark.lane), 0)]
    return "the mark {}/{}/{}".format(*lost[0]) if lost else None


def _accepted_marks(envelope: Envelope) -> list[AcceptedMark]:
    """Return the marks that the hub has accepted, of its present epoch and of the earlier ones that it names."""
    present = [AcceptedMark(head.lane, envelope.epoch, head.mark) for head in envelope.heads if head.mark]
    return [*present, *envelope.marks]


def begin_after_loss(connection: Connection, envelope: Envelope) -> Loss | None:
    """Give the store a new id if it was lost; None if it was not, or if another ingest has done it meanwhile."""
    connection.execute(update(tables.state).values(commits=tables.state.c.commits))  # locks it
    before = read_identity(connection)
    evidence = find_loss(envelope, before, _read_marks(connection, [envelope]))
    if evidence is None or envelope.seen is None:
        return None
    tables.begin_new_store(connection, max(before.fence, envelope.seen.fence) + 1)
    stored = connection.execute(select(tables.state.c.stored)).scalar_one()
    return Loss(evidence, before, read_identity(connection), stored)


def read_progress(
    connection: Connection, requests: Sequence[ProgressRequest], marks: Mapping[MarkedSequence, Mark], now_us: int
) -> list[Progress]:
    """Return what the acknowledgement of each message says."""
    since_us = now_us - COPY_WINDOW_US
    rows = _PROGRESS.execute(connection, {(request.hub, request.epoch) for request in requests}, since_us=since_us)
    of_hub = {row.hub: row[1:] for row in rows}
    subjects = {(subject,) for request in requests for subject in request.subjects}
    until_us = {row.subject: row.until_us for row in _WATCHED.execute(connection, subjects)}
    found = []
    for request in requests:
        *identity, epoch, is_copied, signed, head = of_hub[request.hub]
        watched_us = max((until_us.get(subject, 0) for subject in request.subjects), default=0) - now_us
        live_s = max(0, min(LIVE_LIMIT_S, watched_us // 1_000_000))
        own = tuple(marks[MarkedSequence(request.hub, *sequence)] for sequence in sorted(request.sequences))
        audit = _read_heads(signed, head)
        found.append(Progress(own, StoreIdentity(*identity), epoch, bool(is_copied), live_s, audit))
    return found


def read_standing(connection: Connection, hub: str, now_us: int) -> tuple[StoreIdentity, bool]:
    """Return the store's identity, and whether a hub was found copied lately: what any acknowledgement says."""
    copied = select(tables.hubs.c.hub).where(tables.hubs.c.hub == hub, tables.hubs.c.copied_us > now_us - COPY_WINDOW_US)
    return read_identity(connection), connection.execute(copied).first() is not None


def _read_heads(signed: bytes | None, of_hub: bytes | None) -> SiteAudit | None:
    """Return the heads of the audit logs; None if the site has signed none, or one is damaged: that must not stop ingest."""
    try:
        own = head_from_bytes(signed)
        return SiteAudit(own, head_from_bytes(of_hub)) if own else None
    except WireError:
        return None


def note_epochs(connection: Connection, messages: Sequence[SignedEnvelope], received_us: int) -> list[NotedEpoch]:
    """Store what hubs signed of their present epochs, where it names more blocks than before."""
    envelopes = [signed.envelope for signed in messages]
    long_ago_us = received_us - LATE_MESSAGE_US
    rows = _KNOWN_EPOCHS.execute(connection, {(found.hub, found.epoch) for found in envelopes}, long_ago_us=long_ago_us)
    n_known = {(row.hub, row.epoch): row.blocks for row in rows}
    superseded = {(row.hub, row.epoch) for row in rows if row.is_superseded}
    grown, noted = dict[tuple[str, int], Sequence[Any]](), list[NotedEpoch]()
    for signed, envelope in zip(messages, envelopes, strict=True):
        epoch, n_blocks = (envelope.hub, envelope.epoch), sum(head.seq for head in envelope.heads)
        if epoch in n_known and n_blocks <= n_known[epoch]:
            noted.append(NotedEpoch(is_new=False, is_newly_copied=False))
            continue
        row = _epoch_row(signed, n_blocks, received_us)
        if epoch in n_known:
            is_event = epoch in superseded
            grown[epoch] = row
        else:
            is_event = _follows_another_than_the_latest(connection, envelope)
            _KEEP_EPOCH.execute(connection, [row])  # at once: the hub's next epoch may be in the same group
        n_known[epoch] = n_blocks
        noted.append(NotedEpoch(True, is_event and _note_event(connection, envelope.hub, received_us)))
    _KEEP_EPOCH.execute(connection, [grown[epoch] for epoch in sorted(grown)])
    return noted


def _epoch_row(signed: SignedEnvelope, n_blocks: int, received_us: int) -> Sequence[Any]:
    envelope = signed.envelope
    heads = encode_cbor([list(head) for head in envelope.heads])
    key = envelope.hub, envelope.epoch, envelope.previous_epoch, received_us
    return (*key, n_blocks, heads, signed.content, signed.signature)


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
