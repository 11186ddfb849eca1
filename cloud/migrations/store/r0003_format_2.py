"""Copy blocks and keys into the tables of format 2.

All blocks become work where there were no work rows: the projections of schema 1 are rebuilt. Marks go: no hub sends blocks of
format 1 any more.
"""

import hashlib
import secrets
from collections.abc import Callable
from typing import Any, Final

from alembic import op
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    inspect,
    text,
)

from cloud.databases import BIG, POSTGRESQL
from sync.format_1.blocks import parse_header
from sync.seal import SealError
from sync.wire import STORE_ID_BYTES

revision = "0003"
down_revision = "0002"
kind = "contract"

UNKNOWN_SUBJECT: Final = "?"
"""Subject of a block of format 1 whose header cannot be read. It is not a valid name."""
_PAGE: Final = 500
_OLD: Final = "_before_3"
_OLD_TABLES: Final = ("blocks", "keys", "marks", "quarantine", "rejected_keys", "state")
Row = dict[str, Any]
metadata: Final = MetaData()


def _block_id() -> tuple[Column[Any], ...]:
    kinds: dict[str, Any] = {"hub": Text, "epoch": BigInteger, "lane": Text, "seq": BigInteger}
    return tuple(Column(name, kind, nullable=False) for name, kind in kinds.items())


blocks: Final = Table(
    "blocks",
    metadata,
    *_block_id(),
    Column("subject", Text, nullable=False),
    Column("key", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("block", LargeBinary, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    PrimaryKeyConstraint("hub", "epoch", "lane", "seq"),
    postgresql_partition_by="RANGE (epoch)",
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
statements: Final = Table(
    "statements",
    metadata,
    Column("hub", Text, primary_key=True),
    Column("id", LargeBinary, primary_key=True),
    Column("commitment", LargeBinary, nullable=False),
    Column("subject", Text, nullable=False),
    Column("day", BigInteger, nullable=False),
    Column("signature", LargeBinary, nullable=False),
)
wrapped_keys: Final = Table(
    "wrapped_keys",
    metadata,
    Column("hub", Text, primary_key=True),
    Column("id", LargeBinary, primary_key=True),
    Column("recipient", LargeBinary, primary_key=True),
    Column("wrapped", LargeBinary, nullable=False),
)
keys_1: Final = Table(
    "keys_1",
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
    Column("bytes", LargeBinary, nullable=False),
    Column("received_us", BigInteger, nullable=False),
)
marks: Final = Table(
    "marks",
    metadata,
    Column("hub", Text, primary_key=True),
    Column("lane", Text, primary_key=True),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("chain", LargeBinary, nullable=False),
)
dropped: Final = Table(
    "dropped",
    metadata,
    Column("hub", Text, primary_key=True),
    Column("lane", Text, primary_key=True),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    Column("last", BigInteger, nullable=False),
    Column("chain", LargeBinary, nullable=False),
)
epochs: Final = Table(
    "epochs",
    metadata,
    Column("hub", Text, primary_key=True),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("previous", BigInteger),
    Column("blocks", BigInteger, nullable=False),
    Column("heads", LargeBinary, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("first_us", BigInteger, nullable=False),
)
hubs: Final = Table(
    "hubs",
    metadata,
    Column("hub", Text, primary_key=True),
    Column("event_us", BigInteger, nullable=False),
    Column("copied_us", BigInteger),
)
erased: Final = Table(
    "erased", metadata, Column("subject", Text, primary_key=True), Column("at_us", BigInteger, nullable=False)
)
erased_sequences: Final = Table(
    "erased_sequences",
    metadata,
    Column("hub", Text, primary_key=True),
    Column("lane", Text, primary_key=True),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
)
watchers: Final = Table(
    "watchers", metadata, Column("subject", Text, primary_key=True), Column("until_us", BigInteger, nullable=False)
)
quarantine: Final = Table(
    "quarantine",
    metadata,
    Column("id", BIG, primary_key=True),
    Column("hub", Text, nullable=False),
    Column("lane", Text),
    Column("epoch", BigInteger),
    Column("seq", BigInteger),
    Column("subject", Text),
    Column("reason", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("bytes", LargeBinary, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    UniqueConstraint("hub", "digest"),
    Index("quarantine_by_position", "hub", "epoch", "lane", "seq"),
    sqlite_autoincrement=True,
)
rejected_messages: Final = Table(
    "rejected_messages",
    metadata,
    Column("id", BIG, primary_key=True),
    Column("hub", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("bytes", LargeBinary, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)
state: Final = Table(
    "state",
    metadata,
    Column("store_id", LargeBinary, nullable=False),
    *(
        Column(name, BigInteger, nullable=False)
        for name in ("fence", "commits", "stored", "quarantined", "conflicts", "key_conflicts", "rejected_messages")
    ),
    *(Column(name, BigInteger, nullable=False) for name in ("copied_hubs", "rejection_logged_us")),
    Column("projections_id", LargeBinary),
    Column("batches", BigInteger, nullable=False),
)


def upgrade() -> None:
    """Copy the content of the tables of schema 1 or 2 into new ones."""
    connection = op.get_bind()
    names = set(inspect(connection).get_table_names())
    old = [name for name in _OLD_TABLES if name in names]
    for name in old:
        _rename(connection, name)
    metadata.create_all(connection)  # leaves `work` alone, if it exists
    if connection.dialect.name == POSTGRESQL:
        op.execute("CREATE TABLE blocks_default PARTITION OF blocks DEFAULT")
    _copy(connection, "blocks", blocks, "hub, epoch, lane, seq", _add_subject_and_digest)
    _copy(connection, "keys", keys_1, "hub, id", lambda row: row)
    _copy(connection, "quarantine", quarantine, "id", _add_subject)
    if "rejected_keys" in old:
        _copy(connection, "rejected_keys", rejected_keys, "hub, id, digest", _rename_bytes)
    insert_state(connection, has_old="state" in old)
    if "work" not in names:
        columns = "hub, epoch, lane, seq"
        op.execute(f"INSERT INTO work SELECT {columns}, lane = 'alert', received_us FROM blocks")  # noqa: S608
    if connection.dialect.name == POSTGRESQL:
        op.execute("SELECT setval('quarantine_id_seq', max(id)) FROM quarantine")
    for name in old:
        op.drop_table(name + _OLD)


def insert_state(connection: Connection, *, has_old: bool) -> None:
    """Insert the row of `state`: that of schema 2, or a new id and the counts of what the store holds."""
    values: Row = dict.fromkeys((column.name for column in state.c), 0)
    values |= {"store_id": secrets.token_bytes(STORE_ID_BYTES), "fence": 1, "projections_id": None}
    if has_old:
        values |= connection.execute(text(f"SELECT * FROM state{_OLD}")).mappings().one()  # noqa: S608
    else:
        counts = {
            "stored": "blocks",
            "quarantined": "quarantine",
            "conflicts": "quarantine WHERE reason = 'conflict'",
        }
        for name, table in counts.items():
            values[name] = connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()  # noqa: S608
    connection.execute(state.insert().values(**values))


def _rename(connection: Connection, name: str) -> None:
    """Rename a table; on PostgreSQL also its indexes and sequences, whose names the new ones get."""
    if connection.dialect.name == POSTGRESQL:
        owned = connection.execute(
            text(
                "SELECT c.relname, c.relkind = 'S' FROM pg_class c JOIN pg_depend d ON d.objid = c.oid"
                " WHERE d.refobjid = to_regclass(:name) AND c.relkind = 'S'"
                " UNION SELECT c.relname, false FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid"
                " WHERE i.indrelid = to_regclass(:name)"
            ),
            {"name": name},
        )
        for owned_name, is_sequence in owned.all():
            op.execute(f"ALTER {'SEQUENCE' if is_sequence else 'INDEX'} {owned_name} RENAME TO {owned_name}{_OLD}")
    op.rename_table(name, name + _OLD)


def _copy(connection: Connection, name: str, target: Table, order: str, convert: Callable[[Row], Row]) -> None:
    """Copy all rows of an old table, a page at a time."""
    rows = connection.execute(text(f"SELECT * FROM {name}{_OLD} ORDER BY {order}")).mappings()  # noqa: S608
    for page in rows.partitions(_PAGE):
        values = [{key: value for key, value in convert(dict(row)).items() if key in target.c} for row in page]
        connection.execute(target.insert(), values)


def _add_subject_and_digest(row: Row) -> Row:
    return row | {"subject": _subject_of(row["block"]) or UNKNOWN_SUBJECT, "digest": hashlib.sha256(row["block"]).digest()}


def _add_subject(row: Row) -> Row:
    return row | {"subject": _subject_of(row["bytes"])}


def _rename_bytes(row: Row) -> Row:
    return row | {"bytes": row["wrapped"]}


def _subject_of(block: bytes) -> str | None:
    try:
        return parse_header(block).subject
    except SealError:
        return None
