"""Creates the tables of the store, or migrates those of an older version."""

import hashlib
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Connection, inspect, text

from cloud.store import tables
from cloud.store.partitions import create_default_partition
from sync.format_1.blocks import parse_header
from sync.seal import SealError

FORMAT_2_VERSION: Final = 3
"""The first version whose tables hold blocks of format 2."""
UNKNOWN_SUBJECT: Final = "?"
"""Subject of a block of format 1 whose header cannot be read. It is not a valid name."""
_PAGE: Final = 500
_OLD: Final = "_before_3"
Row = dict[str, Any]


def create_or_migrate(connection: Connection) -> None:
    """Create the tables, or migrate those of an older version, in the caller's transaction."""
    version = tables.read_version(connection)
    if version == tables.SCHEMA_VERSION:
        return
    if version is None:
        tables.metadata.create_all(connection)
        create_default_partition(connection)
        connection.execute(tables.schema.insert().values(version=tables.SCHEMA_VERSION))
        tables.insert_state(connection)
        return
    if version < FORMAT_2_VERSION:
        _migrate(connection)
    tables.metadata.create_all(connection)  # versions 4 to 7 added tables; it leaves alone those that exist
    connection.execute(tables.schema.update().values(version=tables.SCHEMA_VERSION))


def _migrate(connection: Connection) -> None:
    """Copy the content of the tables of schema 1 or 2 into new ones.

    All blocks become work where there were no work rows: the projections of schema 1 are rebuilt. Marks go: no hub sends blocks
    of format 1 any more.
    """
    old = set(inspect(connection).get_table_names()) - {"schema_version", "work"}
    for name in old:
        connection.exec_driver_sql(f"ALTER TABLE {name} RENAME TO {name}{_OLD}")
    has_work = inspect(connection).has_table("work")
    tables.metadata.create_all(connection)  # leaves tables alone that exist already
    create_default_partition(connection)
    _copy(connection, "blocks", tables.blocks, "hub, epoch, lane, seq", _add_subject_and_digest)
    _copy(connection, "keys", tables.keys_1, "hub, id", lambda row: row)
    _copy(connection, "quarantine", tables.quarantine, "id", _add_subject)
    if "rejected_keys" in old:
        _copy(connection, "rejected_keys", tables.rejected_keys, "hub, id, digest", _rename_bytes)
    if "state" in old:
        tables.insert_state(connection, **connection.execute(text(f"SELECT * FROM state{_OLD}")).mappings().one())  # noqa: S608
    else:
        tables.insert_state(connection)
    if not has_work:
        tables.add_all_work(connection)
    for name in old:
        connection.exec_driver_sql(f"DROP TABLE {name}{_OLD}")


def _copy(connection: Connection, name: str, target: Any, order: str, convert: Callable[[Row], Row]) -> None:
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
