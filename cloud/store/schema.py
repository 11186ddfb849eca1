"""The revisions of the store that this program knows (`cloud.migrations`), and how a new store is made."""

from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from cloud.schemas import Schema
from cloud.store import tables
from cloud.store.partitions import create_default_partition


def create_tables(connection: Connection) -> None:
    """Create the tables of a new store."""
    tables.metadata.create_all(connection)
    create_default_partition(connection)
    connection.execute(tables.schema.insert().values(version=SCHEMA.last_contract))
    SCHEMA.stamp(connection, SCHEMA.newest)
    tables.insert_state(connection)


SCHEMA: Final = Schema(
    name="store",
    folder=Path(__file__).parents[1] / "migrations" / "store",
    revisions=tables.revisions,
    oldest_program=tables.schema.c.version,
    create=create_tables,
    first=1,
    newest=9,
    contracts=frozenset({3}),
)
"""Programs of schema 6 and before had one number for both: what they made is stamped with it."""
