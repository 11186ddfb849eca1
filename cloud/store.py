"""The clinic's store of sealed blocks: ingest commits them, the opener reads them. The store never sees a plaintext.

A block is stored once, under (hub, epoch, lane, seq), never without its wrapped key, and in the same transaction as its work
row (`cloud.work`). The store has a random id and counts its commits, so that what reads it notices a loss or a restore.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self, cast

from sqlalchemy import Connection, Engine, Table, select, tuple_, update
from sqlalchemy.exc import DBAPIError

from cloud import store_tables as tables
from cloud.database_errors import is_transient, translating_errors
from cloud.databases import DatabaseLocation, describe_error, lock_schema, open_postgresql, open_sqlite
from cloud.store_commit import (
    compare_with_stored,
    count_commit,
    insert,
    insert_blocks,
    insert_keys,
    insert_rejected,
    with_key,
)
from cloud.store_tables import CONFLICT, SCHEMA_VERSION
from cloud.stored_blocks import CommitResult, RejectedBlock, StoreCounts, StoredBlock, StoredBlockId, as_stored_blocks
from config.files import make_private
from sync.errors import PermanentError
from sync.seal import BlockHeader
from sync.wire import BlockId, Lane, Mark, WrappedKey

BUSY_TIMEOUT_S: Final = 5.0
"""How long a write waits for the write of another ingest. A commit takes tens of ms; the hub resends after 30 s."""
_SEQ_PAGE: Final = 500
"""Sequence numbers read at once while a mark advances."""


class Store:
    """One clinic's blocks, keys, marks and quarantine. Thread-safe; open it with `Store.open`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, location: DatabaseLocation) -> Self:
        """Open the database, or create or migrate its tables. Only its owner may read a file of SQLite.

        Raises:
            PermanentError: the database is damaged, was made by a newer version, or cannot be used.
            ClinicError: other users may read the password file of PostgreSQL.
        """
        engine = _open_engine(location)
        try:
            _create_or_check_schema(engine, location)
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

    def commit(
        self, hub: str, keys: Iterable[WrappedKey], blocks: Iterable[tuple[BlockHeader, bytes]], received_us: int
    ) -> CommitResult:
        """Store the keys and blocks that are not stored yet, and a work row for each new block, in one transaction.

        Raises:
            TransientError, PermanentError: as `transaction`.
        """
        with self.transaction() as connection:
            new_keys, conflicting_keys, new_key_conflicts = insert_keys(connection, hub, keys, received_us)
            storable = with_key(connection, hub, blocks)
            new = insert_blocks(connection, hub, storable, received_us)
            held, conflicts, new_conflicts = compare_with_stored(connection, hub, storable, new, received_us)
            if new_keys or new or new_key_conflicts or new_conflicts:
                counts = StoreCounts(len(new), new_conflicts, new_conflicts, new_key_conflicts)
                count_commit(connection, counts)
        return CommitResult(len(new), tuple(held), tuple(conflicts), tuple(conflicting_keys), new_conflicts + new_key_conflicts)

    def quarantine(self, rejected: Iterable[RejectedBlock], received_us: int) -> None:
        """Keep bytes that are not a valid block of their hub. The same bytes of the same hub are kept once.

        Raises:
            TransientError, PermanentError: as `transaction`.
        """
        with self.transaction() as connection:
            new = [block for block in rejected if insert_rejected(connection, block, received_us)]
            if new:
                n_conflicts = sum(block.reason == CONFLICT for block in new)
                count_commit(connection, StoreCounts(0, len(new), n_conflicts, 0))

    def advance_mark(self, hub: str, lane: Lane, epoch: int) -> Mark:
        """Move the mark to the end of the gap-free sequence (quarantine included) and return it.

        It runs in a transaction after the commit and first locks the mark's row. Otherwise two ingests could each compute the
        mark before the other's rows are visible, and the mark would stay below those rows.

        Raises:
            TransientError, PermanentError: as `transaction`.
        """
        marks = tables.marks
        sequence = {"hub": hub, "lane": lane, "epoch": epoch}
        row = (marks.c.hub == hub) & (marks.c.lane == lane) & (marks.c.epoch == epoch)
        with self.transaction() as connection:
            lock = (
                insert(connection, marks)
                .values(**sequence, seq=0)
                .on_conflict_do_update(index_elements=list(sequence), set_={"seq": marks.c.seq})
            )
            connection.execute(lock)
            before = connection.execute(select(marks.c.seq).where(row)).scalar_one()
            seq = _last_contiguous_seq(connection, sequence, before)
            if seq > before:
                connection.execute(update(marks).where(row).values(seq=seq))
        return Mark(lane, epoch, seq)

    def blocks_after(self, after: StoredBlockId | None, limit: int) -> list[StoredBlock]:
        """Return up to `limit` blocks behind a block, or the first ones, in the order of their ids."""
        query = select(tables.blocks).order_by(*_ID).limit(limit)
        if after is not None:
            query = query.where(tuple_(*_ID) > tuple_(*after))
        with self.transaction() as connection:
            return as_stored_blocks(connection.execute(query))

    def blocks_by_id(self, ids: Iterable[StoredBlockId]) -> list[StoredBlock]:
        """Return the blocks with these ids, in their order."""
        query = select(tables.blocks).where(tuple_(*_ID).in_(list(ids))).order_by(*_ID)
        with self.transaction() as connection:
            return as_stored_blocks(connection.execute(query))

    def wrapped_key(self, hub: str, key_id: bytes) -> bytes | None:
        """Return a hub's data key, wrapped for the clinic; None if it has not arrived."""
        keys = tables.keys.c
        query = select(keys.wrapped).where((keys.hub == hub) & (keys.id == key_id))
        with self.transaction() as connection:
            return cast("bytes | None", connection.execute(query).scalar_one_or_none())

    def list_quarantined(self) -> list[RejectedBlock]:
        """Return all rejected blocks, oldest first."""
        with self.transaction() as connection:
            rows = connection.execute(select(tables.quarantine).order_by(tables.quarantine.c.id)).all()
        return [RejectedBlock(row.hub, row.reason, row.bytes, _position_or_none(row.lane, row.epoch, row.seq)) for row in rows]

    def count_blocks(self) -> int:
        """Return the number of stored blocks."""
        return self.counts().stored

    def counts(self) -> StoreCounts:
        """Return the numbers of stored and of rejected blocks and keys, all of one moment."""
        with self.transaction() as connection:
            return StoreCounts(*connection.execute(select(*(tables.state.c[name] for name in StoreCounts._fields))).one())


_ID: Final = tuple(tables.blocks.c[name] for name in StoredBlockId._fields)


def _open_engine(location: DatabaseLocation) -> Engine:
    if not isinstance(location, Path):
        return open_postgresql(location, BUSY_TIMEOUT_S)
    try:
        make_private(location)
    except OSError as error:
        raise PermanentError(
            f"cannot open the store {location} ({error.strerror}): check that its folder exists, and that you own both"
        ) from error
    return open_sqlite(location, BUSY_TIMEOUT_S)


def _create_or_check_schema(engine: Engine, location: DatabaseLocation) -> None:
    with engine.connect() as connection:
        version = tables.read_version(connection)
    if version == SCHEMA_VERSION:
        return
    if version is not None and version > SCHEMA_VERSION:
        raise PermanentError(
            f"the store {location} was made by a newer pulsegate "
            f"(schema {version}, this one knows {SCHEMA_VERSION}): update pulsegate"
        )
    with engine.begin() as connection:
        lock_schema(connection)
        tables.create_or_migrate(connection)


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


def _last_contiguous_seq(connection: Connection, sequence: dict[str, Any], mark: int) -> int:
    """Return the highest sequence number up to which every number after `mark` is held."""
    while True:
        held = {seq for table in (tables.blocks, tables.quarantine) for seq in _seqs_after(connection, table, sequence, mark)}
        page = sorted(held)[:_SEQ_PAGE]
        contiguous = next((i for i, seq in enumerate(page) if seq != mark + 1 + i), len(page))
        mark += contiguous
        if contiguous < _SEQ_PAGE:
            return mark


def _seqs_after(connection: Connection, table: Table, sequence: dict[str, Any], mark: int) -> Sequence[int]:
    rows = [table.c[name] == value for name, value in sequence.items()]
    query = select(table.c.seq).where(*rows, table.c.seq > mark).order_by(table.c.seq).limit(_SEQ_PAGE)
    return connection.execute(query).scalars().all()


def _position_or_none(lane: str | None, epoch: int | None, seq: int | None) -> BlockId | None:
    return None if lane is None or epoch is None or seq is None else BlockId(cast("Lane", lane), epoch, seq)
