"""The clinic's store of sealed blocks: ingest commits them, the opener reads them. The store never sees a plaintext.

It uses SQLAlchemy Core: one set of statements serves SQLite (the embedded default) and, later, PostgreSQL. A block is stored
once, under (hub, epoch, lane, seq), and never without its wrapped key.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Self, cast

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    Select,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    func,
    inspect,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from config.files import make_private
from sync.errors import PermanentError, TransientError
from sync.seal import BlockHeader
from sync.wire import BlockId, Lane, Mark, WrappedKey

SCHEMA_VERSION: Final = 1
BUSY_TIMEOUT_S: Final = 5.0
"""How long a write waits for the write of another ingest. A commit takes tens of ms; the hub resends after 30 s."""
_SEQ_PAGE: Final = 500
"""Sequence numbers read at once while a mark advances."""

_metadata: Final = MetaData()
_schema: Final = Table("schema_version", _metadata, Column("version", Integer, primary_key=True, autoincrement=False))
_blocks: Final = Table(
    "blocks",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("hub", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("lane", Text, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("key", LargeBinary, nullable=False),
    Column("block", LargeBinary, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    UniqueConstraint("hub", "epoch", "lane", "seq"),
    sqlite_autoincrement=True,
)
_keys: Final = Table(
    "keys",
    _metadata,
    Column("hub", Text, primary_key=True),
    Column("id", LargeBinary, primary_key=True),
    Column("wrapped", LargeBinary, nullable=False),
)
_marks: Final = Table(
    "marks",
    _metadata,
    Column("hub", Text, primary_key=True),
    Column("lane", Text, primary_key=True),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
)
_quarantine: Final = Table(
    "quarantine",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("hub", Text, nullable=False),
    Column("lane", Text),
    Column("epoch", BigInteger),
    Column("seq", BigInteger),
    Column("reason", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("bytes", LargeBinary, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    UniqueConstraint("hub", "digest"),
    sqlite_autoincrement=True,
)


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A block as it was received. `id` grows in the order of commit; `position` is its place in the hub's sequences.

    `key` is the id of its data key; `received_us` is the clinic's clock, microseconds since 1970.
    """

    id: int
    hub: str
    position: BlockId
    key: bytes
    block: bytes
    received_us: int


@dataclass(frozen=True, slots=True)
class RejectedBlock:
    """Bytes kept in quarantine instead of being stored as a block, and why. `position` is None if the header is unreadable."""

    hub: str
    reason: str
    bytes: bytes
    position: BlockId | None = None


@dataclass(frozen=True, slots=True)
class CommitResult:
    """The outcome for a message's blocks.

    `new`: number of blocks stored now. `held`: blocks stored now or before. `conflicts`: blocks in quarantine, because another
    block has their position. A block in neither list was not stored, because its key is missing; the hub resends it with the
    key.
    """

    new: int
    held: tuple[BlockId, ...]
    conflicts: tuple[BlockId, ...]


class StoreCounts(NamedTuple):
    """Numbers of blocks stored and of blocks rejected."""

    stored: int
    quarantined: int


class Store:
    """One clinic's blocks, keys, marks and quarantine. Thread-safe; open it with `Store.open`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._counted = (0, 0)  # the highest id counted so far, and the number of blocks up to it

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the SQLite database, or create it. Only its owner may read it.

        Raises:
            PermanentError: the database is damaged, was made by a newer version, or cannot be written.
        """
        try:
            make_private(path)
        except OSError as error:
            raise PermanentError(
                f"cannot open the store {path} ({error.strerror}): check that its folder exists, and that you own both"
            ) from error
        engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_TIMEOUT_S})
        event.listen(engine, "connect", _set_pragmas)
        try:
            _create_or_check_schema(engine, path)
        except OperationalError as error:
            engine.dispose()
            raise PermanentError(
                f"cannot open the store {path} ({error.orig}): check that its folder exists and is writable, and check the disk"
            ) from error
        except DatabaseError as error:
            engine.dispose()
            raise PermanentError(f"the store {path} is damaged ({error.orig}): move it away and restore a backup") from error
        except PermanentError:
            engine.dispose()
            raise
        return cls(engine)

    def close(self) -> None:
        self._engine.dispose()

    def commit(
        self, hub: str, keys: Iterable[WrappedKey], blocks: Iterable[tuple[BlockHeader, bytes]], received_us: int
    ) -> CommitResult:
        """Store the keys and blocks that are not stored yet, in one transaction.

        Raises:
            TransientError: the database is locked or full; nothing was stored.
            PermanentError: the database is damaged.
        """
        new = 0
        held: list[BlockId] = []
        conflicts: list[BlockId] = []
        with self._transaction() as connection:
            for key in keys:
                connection.execute(insert(_keys).values(hub=hub, id=key.id, wrapped=key.wrapped).on_conflict_do_nothing())
            for header, block in blocks:
                if not _has_key(connection, hub, header.key):
                    continue
                position = BlockId(header.lane, header.epoch, header.seq)
                values = {"hub": hub, **position._asdict(), "key": header.key, "block": block, "received_us": received_us}
                if connection.execute(insert(_blocks).values(values).on_conflict_do_nothing()).rowcount:
                    new += 1
                elif _stored_bytes(connection, hub, position) != block:
                    conflicts.append(position)
                    _insert_rejected(connection, RejectedBlock(hub, "conflict", block, position), received_us)
                    continue
                held.append(position)
        return CommitResult(new, tuple(held), tuple(conflicts))

    def quarantine(self, rejected: Iterable[RejectedBlock], received_us: int) -> None:
        """Keep bytes that are not a valid block of their hub. The same bytes of the same hub are kept once.

        Raises:
            TransientError, PermanentError: as `commit`.
        """
        with self._transaction() as connection:
            for block in rejected:
                _insert_rejected(connection, block, received_us)

    def advance_mark(self, hub: str, lane: Lane, epoch: int) -> Mark:
        """Move the mark to the end of the gap-free sequence (quarantine included) and return it.

        It runs in a transaction after the commit and first locks the mark's row. Otherwise two ingests could each compute the
        mark before the other's rows are visible, and the mark would stay below those rows.

        Raises:
            TransientError, PermanentError: as `commit`.
        """
        sequence = {"hub": hub, "lane": lane, "epoch": epoch}
        row = (_marks.c.hub == hub) & (_marks.c.lane == lane) & (_marks.c.epoch == epoch)
        with self._transaction() as connection:
            lock = (
                insert(_marks)
                .values(**sequence, seq=0)
                .on_conflict_do_update(index_elements=list(sequence), set_={"seq": _marks.c.seq})
            )
            connection.execute(lock)
            before = connection.execute(select(_marks.c.seq).where(row)).scalar_one()
            seq = _last_contiguous_seq(connection, sequence, before)
            if seq > before:
                connection.execute(update(_marks).where(row).values(seq=seq))
        return Mark(lane, epoch, seq)

    def blocks_after(self, id_: int, limit: int) -> list[StoredBlock]:
        """Return up to `limit` blocks with an id above `id_`, in the order of commit."""
        return self._read_blocks(select(_blocks).where(_blocks.c.id > id_).order_by(_blocks.c.id).limit(limit))

    def blocks_by_id(self, ids: Iterable[int]) -> list[StoredBlock]:
        """Return the blocks with these ids, in the order of commit."""
        return self._read_blocks(select(_blocks).where(_blocks.c.id.in_(list(ids))).order_by(_blocks.c.id))

    def _read_blocks(self, query: Select[Any]) -> list[StoredBlock]:
        with self._transaction() as connection:
            return [
                StoredBlock(
                    row.id, row.hub, BlockId(cast("Lane", row.lane), row.epoch, row.seq), row.key, row.block, row.received_us
                )
                for row in connection.execute(query)
            ]

    def wrapped_key(self, hub: str, key_id: bytes) -> bytes | None:
        """Return a hub's data key, wrapped for the clinic; None if it has not arrived."""
        query = select(_keys.c.wrapped).where((_keys.c.hub == hub) & (_keys.c.id == key_id))
        with self._transaction() as connection:
            return cast("bytes | None", connection.execute(query).scalar_one_or_none())

    def list_quarantined(self) -> list[RejectedBlock]:
        """Return all rejected blocks, oldest first."""
        with self._transaction() as connection:
            rows = connection.execute(select(_quarantine).order_by(_quarantine.c.id)).all()
        return [RejectedBlock(row.hub, row.reason, row.bytes, _position_or_none(row.lane, row.epoch, row.seq)) for row in rows]

    def count_blocks(self) -> int:
        """Return the number of stored blocks."""
        return self.counts().stored

    def counts(self) -> StoreCounts:
        """Return the numbers of stored and of rejected blocks, both of one moment.

        Counts only the stored blocks that are new since the last call: their number grows for years.
        """
        last_id, n = self._counted
        newest_id = func.coalesce(func.max(_blocks.c.id), last_id)
        quarantined_query = select(func.count()).select_from(_quarantine).scalar_subquery()
        query = select(func.count(), newest_id, quarantined_query).where(_blocks.c.id > last_id)
        with self._transaction() as connection:
            n_new, newest, quarantined = connection.execute(query).one()
        self._counted = (newest, n + n_new)
        return StoreCounts(n + n_new, quarantined)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except PoolTimeoutError as error:
            raise TransientError("cannot use the clinic's store now: all its connections are in use") from error
        except OperationalError as error:
            raise TransientError(
                f"cannot use the clinic's store now ({error.orig}): check that its disk has space and no other program locks it"
            ) from error
        except DatabaseError as error:
            raise PermanentError(f"the clinic's store failed ({error.orig}): if it is damaged, restore a backup") from error


def _set_pragmas(connection: Any, _record: Any) -> None:
    """Set synchronous = FULL: an acknowledged block must survive a power cut, also in WAL mode."""
    connection.execute("PRAGMA synchronous = FULL")


def _create_or_check_schema(engine: Engine, path: Path) -> None:
    with engine.connect() as connection:
        if inspect(connection).has_table(_schema.name):
            version = connection.execute(select(_schema.c.version)).scalar_one()
            if version > SCHEMA_VERSION:
                raise PermanentError(
                    f"the store {path} was made by a newer pulsegate "
                    f"(schema {version}, this one knows {SCHEMA_VERSION}): update pulsegate"
                )
            return
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    with engine.begin() as connection:
        _metadata.create_all(connection)
        connection.execute(insert(_schema).values(version=SCHEMA_VERSION).on_conflict_do_nothing())


def _has_key(connection: Connection, hub: str, key_id: bytes) -> bool:
    query = select(_keys.c.id).where((_keys.c.hub == hub) & (_keys.c.id == key_id))
    return connection.execute(query).first() is not None


def _stored_bytes(connection: Connection, hub: str, position: BlockId) -> bytes:
    row = [_blocks.c.hub == hub, *(_blocks.c[name] == value for name, value in position._asdict().items())]
    return cast("bytes", connection.execute(select(_blocks.c.block).where(*row)).scalar_one())


def _insert_rejected(connection: Connection, rejected: RejectedBlock, received_us: int) -> None:
    values = {
        "hub": rejected.hub,
        "reason": rejected.reason,
        "digest": hashlib.sha256(rejected.bytes).digest(),
        "bytes": rejected.bytes,
        "received_us": received_us,
        **(rejected.position._asdict() if rejected.position else {}),
    }
    connection.execute(insert(_quarantine).values(values).on_conflict_do_nothing())


def _last_contiguous_seq(connection: Connection, sequence: dict[str, Any], mark: int) -> int:
    """Return the highest sequence number up to which every number after `mark` is held."""
    while True:
        held = {seq for table in (_blocks, _quarantine) for seq in _seqs_after(connection, table, sequence, mark)}
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
