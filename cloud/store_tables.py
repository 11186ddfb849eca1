"""The tables of the store of sealed blocks, their versions, and the migration from older ones."""

import secrets
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    func,
    inspect,
    select,
)

from cloud.databases import BIG

SCHEMA_VERSION: Final = 2
STORE_ID_BYTES: Final = 16
ALERT_LANE: Final = "alert"
CONFLICT: Final = "conflict"
"""Reason of a quarantined block whose place another block has."""

metadata: Final = MetaData()
schema: Final = Table("schema_version", metadata, Column("version", Integer, primary_key=True, autoincrement=False))


def _block_id() -> tuple[Column[str], Column[int], Column[str], Column[int]]:
    """The columns that identify a block."""
    return (
        Column("hub", Text, nullable=False),
        Column("epoch", BigInteger, nullable=False),
        Column("lane", Text, nullable=False),
        Column("seq", BigInteger, nullable=False),
    )


blocks: Final = Table(
    "blocks",
    metadata,
    *_block_id(),
    Column("key", LargeBinary, nullable=False),
    Column("block", LargeBinary, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    PrimaryKeyConstraint("hub", "epoch", "lane", "seq"),
)
work: Final = Table(
    "work",
    metadata,
    *_block_id(),
    Column("is_alert", Boolean, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    PrimaryKeyConstraint("hub", "epoch", "lane", "seq"),
    Index("work_by_arrival", "is_alert", "received_us", "epoch", "seq"),
)
"""One row for each block that the opener has not projected yet. It is written with the block, and deleted by the opener."""
keys: Final = Table(
    "keys",
    metadata,
    Column("hub", Text, primary_key=True),
    Column("id", LargeBinary, primary_key=True),
    Column("wrapped", LargeBinary, nullable=False),
)
rejected_keys: Final = Table(
    "rejected_keys",
    metadata,
    Column("hub", Text, primary_key=True),
    Column("id", LargeBinary, primary_key=True),
    Column("digest", LargeBinary, primary_key=True),
    Column("wrapped", LargeBinary, nullable=False),
    Column("received_us", BigInteger, nullable=False),
)
"""Wrapped keys whose id another wrapped key has."""
marks: Final = Table(
    "marks",
    metadata,
    Column("hub", Text, primary_key=True),
    Column("lane", Text, primary_key=True),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
)
quarantine: Final = Table(
    "quarantine",
    metadata,
    Column("id", BIG, primary_key=True),
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
state: Final = Table(
    "state",
    metadata,
    Column("store_id", LargeBinary, nullable=False),
    Column("commits", BigInteger, nullable=False),
    Column("stored", BigInteger, nullable=False),
    Column("quarantined", BigInteger, nullable=False),
    Column("conflicts", BigInteger, nullable=False),
    Column("key_conflicts", BigInteger, nullable=False),
    Column("projections_id", LargeBinary),
    Column("batches", BigInteger, nullable=False),
)
"""One row. `store_id` is random; `commits` grows with each commit that stores something; then come the numbers of rows.
`projections_id` and `batches` say which projections the work rows were deleted for, and how far these had come."""


def new_store_id() -> bytes:
    return secrets.token_bytes(STORE_ID_BYTES)


def read_version(connection: Connection) -> int | None:
    """Return the version of the tables; None if there are none."""
    if not inspect(connection).has_table(schema.name):
        return None
    return int(connection.execute(select(schema.c.version)).scalar_one())


def create_or_migrate(connection: Connection) -> None:
    """Create the tables, or migrate those of an older version, in the caller's transaction."""
    version = read_version(connection)
    if version == SCHEMA_VERSION:
        return
    if version == 1:
        _migrate_from_1(connection)
    else:
        metadata.create_all(connection)
        connection.execute(schema.insert().values(version=SCHEMA_VERSION))
    insert_state(connection)
    add_all_work(connection)


def add_all_work(connection: Connection) -> None:
    """Make every block work again that is not."""
    is_known = select(work.c.seq).where(*(work.c[name] == blocks.c[name] for name in ("hub", "epoch", "lane", "seq")))
    columns = [*(blocks.c[name] for name in ("hub", "epoch", "lane", "seq")), blocks.c.lane == ALERT_LANE, blocks.c.received_us]
    connection.execute(work.insert().from_select(list(work.c), select(*columns).where(~is_known.exists())))


def _migrate_from_1(connection: Connection) -> None:
    """Copy the blocks into a table without ids. All of them become work: the projections of that version are rebuilt."""
    connection.exec_driver_sql("ALTER TABLE blocks RENAME TO blocks_1")
    metadata.create_all(connection)  # leaves tables alone that exist already
    names = ", ".join(f'"{column.name}"' for column in blocks.c)
    connection.exec_driver_sql(f"INSERT INTO blocks ({names}) SELECT {names} FROM blocks_1 ORDER BY id")  # noqa: S608
    connection.exec_driver_sql("DROP TABLE blocks_1")
    connection.execute(schema.update().values(version=SCHEMA_VERSION))


def insert_state(connection: Connection) -> None:
    """Give the store an id, and count what it holds."""
    n_stored = select(func.count()).select_from(blocks).scalar_subquery()
    n_quarantined = select(func.count()).select_from(quarantine).scalar_subquery()
    n_conflicts = select(func.count()).select_from(quarantine).where(quarantine.c.reason == CONFLICT).scalar_subquery()
    n = connection.execute(select(n_stored.label("stored"), n_quarantined.label("quarantined"), n_conflicts.label("conflicts")))
    values = n.mappings().one()
    connection.execute(state.insert().values(store_id=new_store_id(), commits=0, key_conflicts=0, batches=0, **values))
