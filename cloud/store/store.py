"""The clinic's store of sealed blocks: ingest commits them, the opener reads them. The store never sees a plaintext.

A block is stored once, under (hub, epoch, lane, seq), never without its data key's statement and a wrapped key, and in the same
transaction as its work row (`cloud.work`). The store has a random id, a fence, and counts its commits, so that hubs and
projections notice a loss or a restore.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self, cast

from sqlalchemy import Connection, Engine, select, tuple_
from sqlalchemy.exc import DBAPIError

from cloud.audit_actors import ORIGIN, service
from cloud.database_errors import is_transient, translating_errors
from cloud.databases import DatabaseLocation, describe_error, open_postgresql, open_sqlite, snapshot
from cloud.prepared_statements import plan_by_keys, use_prepared_statements
from cloud.store import hubs as store_hubs
from cloud.store import tables
from cloud.store.audit import append_to_log
from cloud.store.audit_refusals import Refusal, count_refusal
from cloud.store.commit import commit_messages
from cloud.store.commit_counts import count_commit
from cloud.store.erasure import erase_subject, list_erased
from cloud.store.marks import MarkedSequence, advance_marks
from cloud.store.partitions import RETRY_US, create_partitions
from cloud.store.rejections import keep_rejected_message
from cloud.store.schema import SCHEMA
from cloud.store.stored_blocks import (
    CheckedMessage,
    CommitResult,
    Progress,
    ProgressRequest,
    RejectedBlock,
    StoreCounts,
    StoredBlock,
    StoredBlockId,
    StoreIdentity,
    as_stored_blocks,
)
from config.files import make_private
from sync.audit import Action, Actor, AuditEvent, Category, Purpose, object_id
from sync.data_keys import KeyStatement, WrappedKey
from sync.errors import PermanentError, TransientError
from sync.messages import Envelope
from sync.wire import BlockId, Lane

BUSY_TIMEOUT_S: Final = 5.0
"""How long a write waits for the write of another ingest. A commit takes tens of ms; the hub resends after 2 s or more."""
_CLINIC: Final = service("clinic")


class Store:
    """One clinic's blocks, keys, marks and quarantine. Thread-safe; open it with `Store.open`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._partitioned_until_us = 0

    @classmethod
    def open(cls, location: DatabaseLocation) -> Self:
        """Open the database, or create its tables. Only its owner may read a file of SQLite.

        Raises:
            OlderSchemaError: the database must be migrated first (`cloud.migrations`).
            PermanentError: it is damaged, was made by a newer version, or cannot be used.
            ClinicError: other users may read the password file of PostgreSQL.
        """
        engine = _open_engine(location)
        try:
            SCHEMA.create_or_check(engine, location)
        except DBAPIError as error:
            engine.dispose()
            raise PermanentError(_describe_failed_opening(error, location)) from error
        except PermanentError:
            engine.dispose()
            raise
        return cls(engine)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Yield a connection in a transaction, which commits at the end. On SQLite a reader holds no lock before it writes.

        Raises:
            TransientError: the database is locked, full or unreachable; nothing was stored.
            PermanentError: the database is damaged.
        """
        with translating_errors("the clinic's store"), self._engine.begin() as connection:
            yield connection

    def view(self, envelopes: Sequence[Envelope], keys: set[tuple[str, bytes]], subjects: set[str]) -> store_hubs.StoreView:
        """Return what the store knows of these data keys (hub, id) and subjects, and which hubs know of more than it holds."""
        with self.transaction() as connection:
            return store_hubs.view_store(connection, envelopes, keys, subjects)

    def begin_after_loss(self, envelope: Envelope) -> store_hubs.Loss | None:
        """Take a new id and a higher fence, and make all blocks work, if the hub knows more of the store than it holds."""
        with self.transaction() as connection:
            return store_hubs.begin_after_loss(connection, envelope)

    def commit(self, messages: Sequence[CheckedMessage], received_us: int) -> list[CommitResult]:
        """Store what is new in messages, and a work row for each new block, in one transaction.

        Raises:
            TransientError, PermanentError: as `transaction`.
        """
        self._create_partitions(received_us)
        with self.transaction() as connection:
            return commit_messages(connection, messages, received_us)

    def advance_marks(self, requests: Sequence[ProgressRequest], now_us: int) -> list[Progress]:
        """Move the marks of sequences to the end of what is held without gaps; returns what the acknowledgements say.

        It runs in a transaction after the commit: see `cloud.store.marks`.

        Raises:
            TransientError, PermanentError: as `transaction`.
        """
        sequences = defaultdict[MarkedSequence, dict[int, bytes]](dict)
        for request in requests:
            for sequence in request.sequences:
                sequences[MarkedSequence(request.hub, *sequence)]
            for block in request.held:
                lane, epoch, seq = block.position
                sequences[MarkedSequence(request.hub, lane, epoch)][seq] = block.digest
        with self.transaction() as connection:
            marks = advance_marks(connection, sequences)
            return store_hubs.read_progress(connection, requests, marks, now_us)

    def keep_rejected_message(self, hub: str, reason: str, payload: bytes, received_us: int, refusal: Refusal) -> int | None:
        """Keep a message aside whose origin is not proven; returns the number of all so far if it is time to log it."""
        with self.transaction() as connection:
            count_refusal(connection, refusal, received_us)
            return keep_rejected_message(connection, hub, reason, payload, received_us)

    def identity(self) -> StoreIdentity:
        with self.transaction() as connection:
            return store_hubs.read_identity(connection)

    def blocks_after(self, after: StoredBlockId | None, limit: int, *, subject: str | None = None) -> list[StoredBlock]:
        """Return up to `limit` blocks, all or of a subject, behind a block, or the first ones, in the order of their ids."""
        query = select(tables.blocks).order_by(*_ID).limit(limit)
        if after is not None:
            query = query.where(tuple_(*_ID) > tuple_(*after))
        if subject is not None:
            query = query.where(tables.blocks.c.subject == subject)
        with self.transaction() as connection:
            return as_stored_blocks(connection.execute(query))

    def blocks_by_id(self, ids: Iterable[StoredBlockId]) -> list[StoredBlock]:
        """Return the blocks with these ids, in their order."""
        query = select(tables.blocks).where(tuple_(*_ID).in_(list(ids))).order_by(*_ID)
        with self.transaction() as connection:
            return as_stored_blocks(connection.execute(query))

    def key_statement(self, hub: str, key_id: bytes) -> KeyStatement | None:
        """Return what the hub signed for a data key; None if it has not arrived."""
        table = tables.statements.c
        query = select(*(table[name] for name in KeyStatement._fields)).where(table.hub == hub, table.id == key_id)
        with self.transaction() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else KeyStatement(*row)

    def wrapped_keys(self, hub: str, key_id: bytes) -> list[WrappedKey]:
        """Return a data key, wrapped for each recipient."""
        table = tables.wrapped_keys.c
        query = select(table.id, table.recipient, table.wrapped).where(table.hub == hub, table.id == key_id)
        with self.transaction() as connection:
            return [WrappedKey(*row) for row in connection.execute(query.order_by(table.recipient))]

    def add_wrapped(self, hub: str, wrapped: WrappedKey) -> None:
        """Store a data key that the clinic has wrapped again. The wrapped key of format 1 that it replaces goes."""
        with self.transaction() as connection:
            statement = tables.insert(connection, tables.wrapped_keys).values(hub=hub, **wrapped._asdict())
            n_new = connection.execute(statement.on_conflict_do_nothing()).rowcount
            keys_1 = tables.keys_1
            n_gone = connection.execute(keys_1.delete().where(keys_1.c.hub == hub, keys_1.c.id == wrapped.id)).rowcount
            if n_new or n_gone:
                count_commit(connection, StoreCounts())

    def key_1(self, hub: str, key_id: bytes) -> bytes | None:
        """Return a wrapped key of format 1; None if there is none, or it was wrapped again."""
        keys = tables.keys_1.c
        with self.transaction() as connection:
            query = select(keys.wrapped).where(keys.hub == hub, keys.id == key_id)
            return cast("bytes | None", connection.execute(query).scalar_one_or_none())

    def keys_1(self) -> list[tuple[str, bytes, str | None]]:
        """Return (hub, key id, subject) of all wrapped keys of format 1; the subject is None if no block is sealed with it."""
        keys, blocks = tables.keys_1.c, tables.blocks.c
        query = select(keys.hub, keys.id, blocks.subject).distinct()
        query = query.outerjoin_from(tables.keys_1, tables.blocks, (blocks.hub == keys.hub) & (blocks.key == keys.id))
        with self.transaction() as connection:
            return [(hub, id_, subject) for hub, id_, subject in connection.execute(query.order_by(keys.hub, keys.id))]

    def subjects(self) -> list[str]:
        """Return the subjects of all stored blocks."""
        with self.transaction() as connection:
            return sorted(connection.scalars(select(tables.blocks.c.subject).distinct()))

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Yield a connection that only reads, and sees the store as of one moment.

        Raises:
            TransientError, PermanentError: as `transaction`.
        """
        with translating_errors("the clinic's store"), snapshot(self._engine) as connection:
            yield connection

    def erased_subjects(self) -> frozenset[str]:
        """Return the subjects whose blocks were erased and are refused."""
        with self.transaction() as connection:
            return list_erased(connection)

    def erase(self, subject: str, at_us: int, actor: Actor = _CLINIC) -> None:
        """Delete a subject's blocks, keys and work, and refuse its blocks from now on. The audit log says so.

        Raises:
            TransientError, PermanentError: as `transaction`.
        """
        with self.transaction() as connection:
            objects = (object_id("blocks", erase_subject(connection, subject, at_us)),)
            event = AuditEvent(actor, Action.ERASE, Category.ALL_RECORDS, subject, objects, Purpose.SUBJECT_REQUEST)
            append_to_log(connection, ORIGIN, [event], at_us)

    def watch(self, subjects_until_us: Mapping[str, int]) -> None:
        """Note until when somebody watches these subjects; an earlier end than before changes nothing."""
        table = tables.watchers
        with self.transaction() as connection:
            for subject, until_us in sorted(subjects_until_us.items()):
                statement = tables.insert(connection, table).values(subject=subject, until_us=until_us)
                later = table.c.until_us < statement.excluded.until_us
                set_ = {"until_us": statement.excluded.until_us}
                connection.execute(statement.on_conflict_do_update(index_elements=["subject"], set_=set_, where=later))

    def list_quarantined(self) -> list[RejectedBlock]:
        """Return all rejected blocks, oldest first."""
        with self.transaction() as connection:
            rows = connection.execute(select(tables.quarantine).order_by(tables.quarantine.c.id)).all()
        return [
            RejectedBlock(row.hub, row.reason, row.bytes, _position_or_none(row.lane, row.epoch, row.seq), row.subject)
            for row in rows
        ]

    def list_rejected_messages(self) -> list[tuple[str, str, bytes]]:
        """Return (hub of the topic, reason, bytes) of the newest messages whose origin is not proven, oldest first."""
        table = tables.rejected_messages.c
        with self.transaction() as connection:
            query = select(table.hub, table.reason, table.bytes).order_by(table.id)
            return [tuple(row) for row in connection.execute(query)]

    def count_blocks(self) -> int:
        """Return the number of stored blocks."""
        return self.counts().stored

    def counts(self) -> StoreCounts:
        """Return the numbers of stored and of rejected blocks and keys, all of one moment."""
        with self.transaction() as connection:
            return StoreCounts(*connection.execute(select(*(tables.state.c[name] for name in StoreCounts._fields))).one())

    def _create_partitions(self, now_us: int) -> None:
        if now_us < self._partitioned_until_us:
            return
        try:
            with self.transaction() as connection:
                self._partitioned_until_us = create_partitions(connection, now_us)
        except TransientError:
            self._partitioned_until_us = now_us + RETRY_US


_ID: Final = tuple(tables.blocks.c[name] for name in StoredBlockId._fields)


def _open_engine(location: DatabaseLocation) -> Engine:
    if not isinstance(location, Path):
        engine = open_postgresql(location, BUSY_TIMEOUT_S)
        use_prepared_statements(engine)
        plan_by_keys(engine)
        return engine
    try:
        make_private(location)
    except OSError as error:
        raise PermanentError(
            f"cannot open the store {location} ({error.strerror}): check that its folder exists, and that you own both"
        ) from error
    return open_sqlite(location, BUSY_TIMEOUT_S)


def _describe_failed_opening(error: DBAPIError, location: DatabaseLocation) -> str:
    reason = describe_error(error)
    if not isinstance(location, Path):
        return (
            f"cannot open the store {location} ({reason}): "
            "check that the server runs, that the database exists, and that this user may create tables in it"
        )
    if is_transient(error):
        return f"cannot open the store {location} ({reason}): check that its folder exists and is writable, and check the disk"
    return f"the store {location} is damaged ({reason}): move it away and restore a backup"


def _position_or_none(lane: str | None, epoch: int | None, seq: int | None) -> BlockId | None:
    return None if lane is None or epoch is None or seq is None else BlockId(cast("Lane", lane), epoch, seq)
