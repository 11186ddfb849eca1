"""The clinic's store of sealed blocks: what ingest commits and the opener reads. It never sees a plaintext.

SQLAlchemy Core, so that one set of statements serves SQLite (the embedded default) and, later, PostgreSQL. A block is stored
once, under (hub, epoch, lane, seq), and never without its wrapped key.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, cast

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
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

from sync.errors import Permanent, Transient
from sync.seal import BlockHeader
from sync.wire import BlockId, Lane, Mark, WrappedKey

SCHEMA: Final = 1
BUSY_TIMEOUT_S: Final = 5.0
"""How long a write waits for another ingest's: a commit takes tens of ms, the hub sends again after 30 s."""
_PAGE: Final = 500
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
    """A block as it came. `id` grows with the order of commit; `received_us` is the clinic's clock, microseconds since 1970."""

    id: int
    hub: str
    place: BlockId
    key: bytes
    block: bytes
    received_us: int


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Bytes that are held but not stored as a block, and why. `place` is known if their header could be trusted to name it."""

    hub: str
    reason: str
    bytes: bytes
    place: BlockId | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """What became of a message's blocks. `held`: stored, now or before. `conflicts`: another block has the place.

    Conflicts are in quarantine. A block in neither had no key and was left out; the hub sends it again, with its key.
    """

    fresh: int
    held: tuple[BlockId, ...]
    conflicts: tuple[BlockId, ...]


class Store:
    """One clinic's blocks, keys, marks and quarantine. Thread-safe; made by `Store.open`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the SQLite database, or create it.

        Raises:
            Permanent: damaged, made by a newer version, or not to be written to.
        """
        engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_TIMEOUT_S})
        event.listen(engine, "connect", _set_pragmas)
        try:
            _prepare(engine, path)
        except OperationalError as error:
            engine.dispose()
            raise Permanent(
                f"cannot open the store {path} ({error.orig}): check its folder, who may write there, the disk"
            ) from error
        except DatabaseError as error:
            engine.dispose()
            raise Permanent(f"the store {path} is damaged ({error.orig}): move it away, and restore a backup") from error
        except Permanent:
            engine.dispose()
            raise
        return cls(engine)

    def close(self) -> None:
        self._engine.dispose()

    def commit(
        self, hub: str, keys: Iterable[WrappedKey], blocks: Iterable[tuple[BlockHeader, bytes]], received_us: int
    ) -> Commit:
        """Store keys and blocks that are not there yet, in one transaction.

        Raises:
            Transient: locked or full; nothing was stored.
            Permanent: the database is damaged.
        """
        fresh = 0
        held: list[BlockId] = []
        conflicts: list[BlockId] = []
        with self._transaction() as connection:
            for key in keys:
                connection.execute(insert(_keys).values(hub=hub, id=key.id, wrapped=key.wrapped).on_conflict_do_nothing())
            for header, block in blocks:
                if not _knows_key(connection, hub, header.key):
                    continue
                place = BlockId(header.lane, header.epoch, header.seq)
                values = {"hub": hub, **place._asdict(), "key": header.key, "block": block, "received_us": received_us}
                if connection.execute(insert(_blocks).values(values).on_conflict_do_nothing()).rowcount:
                    fresh += 1
                elif _stored_bytes(connection, hub, place) != block:
                    conflicts.append(place)
                    _set_aside(connection, Quarantined(hub, "conflict", block, place), received_us)
                    continue
                held.append(place)
        return Commit(fresh, tuple(held), tuple(conflicts))

    def quarantine(self, items: Iterable[Quarantined], received_us: int) -> None:
        """Keep bytes that are no block of the hub's. The same bytes of the same hub are kept once.

        Raises:
            Transient, Permanent: as `commit`.
        """
        with self._transaction() as connection:
            for item in items:
                _set_aside(connection, item, received_us)

    def advance(self, hub: str, lane: Lane, epoch: int) -> Mark:
        """Move the mark over all that is held without a hole (quarantine included) and return it.

        A transaction after the commit's, with the mark's row locked first: two ingests that each compute the mark before
        the other's rows are visible would both stop short of them, for ever.

        Raises:
            Transient, Permanent: as `commit`.
        """
        place = {"hub": hub, "lane": lane, "epoch": epoch}
        row = (_marks.c.hub == hub) & (_marks.c.lane == lane) & (_marks.c.epoch == epoch)
        with self._transaction() as connection:
            lock = (
                insert(_marks)
                .values(**place, seq=0)
                .on_conflict_do_update(index_elements=list(place), set_={"seq": _marks.c.seq})
            )
            connection.execute(lock)
            before = connection.execute(select(_marks.c.seq).where(row)).scalar_one()
            seq = _end_of_run(connection, place, before)
            if seq > before:
                connection.execute(update(_marks).where(row).values(seq=seq))
        return Mark(lane, epoch, seq)

    def blocks_after(self, id_: int, limit: int) -> list[StoredBlock]:
        """Blocks in the order in which they were committed, from the first with a larger id on."""
        query = select(_blocks).where(_blocks.c.id > id_).order_by(_blocks.c.id).limit(limit)
        with self._transaction() as connection:
            return [
                StoredBlock(
                    row.id, row.hub, BlockId(cast("Lane", row.lane), row.epoch, row.seq), row.key, row.block, row.received_us
                )
                for row in connection.execute(query)
            ]

    def wrapped_key(self, hub: str, key_id: bytes) -> bytes | None:
        """A hub's data key, wrapped for the clinic."""
        query = select(_keys.c.wrapped).where((_keys.c.hub == hub) & (_keys.c.id == key_id))
        with self._transaction() as connection:
            return cast("bytes | None", connection.execute(query).scalar_one_or_none())

    def quarantined(self) -> list[Quarantined]:
        """All of the quarantine, oldest first."""
        with self._transaction() as connection:
            rows = connection.execute(select(_quarantine).order_by(_quarantine.c.id)).all()
        return [Quarantined(row.hub, row.reason, row.bytes, _place_or_none(row.lane, row.epoch, row.seq)) for row in rows]

    def quarantine_count(self) -> int:
        """How many items are in quarantine."""
        with self._transaction() as connection:
            return int(connection.execute(select(func.count()).select_from(_quarantine)).scalar_one())

    def count(self) -> int:
        """How many blocks are stored."""
        with self._transaction() as connection:
            return int(connection.execute(select(func.count()).select_from(_blocks)).scalar_one())

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except OperationalError as error:
            raise Transient(f"the clinic's store cannot be used now ({error.orig}): check its disk and server") from error
        except DatabaseError as error:
            raise Permanent(f"the clinic's store refused ({error.orig}): restore a backup if it is damaged") from error


def _set_pragmas(connection: Any, _record: Any) -> None:
    """FULL: an acknowledged block survives a power cut, also in WAL mode."""
    connection.execute("PRAGMA synchronous = FULL")


def _prepare(engine: Engine, path: Path) -> None:
    with engine.connect() as connection:
        if inspect(connection).has_table(_schema.name):
            version = connection.execute(select(_schema.c.version)).scalar_one()
            if version > SCHEMA:
                raise Permanent(
                    f"the store {path} was made by a newer pulsegate (schema {version}, this one knows {SCHEMA}); update"
                )
            return
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    with engine.begin() as connection:
        _metadata.create_all(connection)
        connection.execute(insert(_schema).values(version=SCHEMA).on_conflict_do_nothing())


def _knows_key(connection: Connection, hub: str, key_id: bytes) -> bool:
    query = select(_keys.c.id).where((_keys.c.hub == hub) & (_keys.c.id == key_id))
    return connection.execute(query).first() is not None


def _stored_bytes(connection: Connection, hub: str, place: BlockId) -> bytes:
    columns = _blocks.c
    at = (columns.hub == hub) & (columns.epoch == place.epoch) & (columns.lane == place.lane) & (columns.seq == place.seq)
    return cast("bytes", connection.execute(select(columns.block).where(at)).scalar_one())


def _set_aside(connection: Connection, item: Quarantined, received_us: int) -> None:
    values = {
        "hub": item.hub,
        "reason": item.reason,
        "digest": hashlib.sha256(item.bytes).digest(),
        "bytes": item.bytes,
        "received_us": received_us,
        **(item.place._asdict() if item.place else {}),
    }
    connection.execute(insert(_quarantine).values(values).on_conflict_do_nothing())


def _end_of_run(connection: Connection, place: dict[str, Any], mark: int) -> int:
    """The highest sequence number to which everything after `mark` is held."""
    while True:
        page = sorted({seq for table in (_blocks, _quarantine) for seq in _held_after(connection, table, place, mark)})[:_PAGE]
        run = next((i for i, seq in enumerate(page) if seq != mark + 1 + i), len(page))
        mark += run
        if run < _PAGE:
            return mark


def _held_after(connection: Connection, table: Table, place: dict[str, Any], mark: int) -> Sequence[int]:
    here = [table.c[name] == value for name, value in place.items()]
    query = select(table.c.seq).where(*here, table.c.seq > mark).order_by(table.c.seq).limit(_PAGE)
    return connection.execute(query).scalars().all()


def _place_or_none(lane: str | None, epoch: int | None, seq: int | None) -> BlockId | None:
    return None if lane is None or epoch is None or seq is None else BlockId(cast("Lane", lane), epoch, seq)
