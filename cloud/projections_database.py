"""The database of the projections: opening, migrating, emptying it, and erasing a subject from it."""

import logging
import secrets
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, MetaData, event, select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from cloud import tables
from cloud.database_errors import is_transient, translating_errors
from cloud.databases import POSTGRESQL, DatabaseLocation, open_postgresql, open_sqlite
from cloud.prepared_statements import use_prepared_statements
from cloud.schemas import Schema
from config.files import make_private
from sync.errors import PermanentError, TransientError

_log: Final = logging.getLogger(__name__)

ID_BYTES: Final = 16
BUSY_TIMEOUT_S: Final = 10.0
"""How long the opener, nearly the only writer, waits for `open --rebuild` beside a running clinic."""


def create_empty_tables(connection: Connection) -> None:
    """Recreate all tables empty, also those of the first versions, which did not say their version."""
    existing = tables.metadata
    if connection.dialect.name != POSTGRESQL:  # the file holds nothing else; a database of PostgreSQL may hold the store too
        existing = MetaData()
        existing.reflect(connection)
    existing.drop_all(connection)
    tables.metadata.create_all(connection)
    SCHEMA.stamp(connection, SCHEMA.newest)
    insert_source(connection)


SCHEMA: Final = Schema(
    name="projections",
    folder=Path(__file__).parent / "migrations" / "projections",
    revisions=tables.revisions,
    oldest_program=tables.source.c.schema,
    create=create_empty_tables,
    first=9,
    newest=13,
    contracts=frozenset(),
)
"""The revisions that this program knows (`cloud.migrations`). Older projections are emptied: the opener fills them again."""


def open_projections(location: DatabaseLocation) -> Engine:
    """Open the projections, or create them. A damaged file of SQLite is emptied: the opener then rebuilds it from the blocks.

    Raises:
        OlderSchemaError: they must be migrated first (`cloud.migrations`).
        TransientError, PermanentError: the database is locked, cannot be reached or written, or was made by a newer version.
        OSError: the file cannot be created, or belongs to another user.
        ClinicError: other users may read the password file of PostgreSQL.
    """
    engine = _open_engine(location)
    try:
        SCHEMA.create_or_check(engine, location)
    except DBAPIError as error:
        engine.dispose()
        if is_transient(error) or not isinstance(location, Path):
            with translating_errors(f"the projections {location}"):
                raise
        _log.warning("%s is damaged: rebuilding it from the blocks", location)
        for suffix in ("", "-wal", "-shm"):
            location.with_name(location.name + suffix).unlink(missing_ok=True)
        return open_projections(location)
    except PermanentError:
        engine.dispose()
        raise
    return engine


def _open_engine(location: DatabaseLocation) -> Engine:
    if not isinstance(location, Path):
        engine = open_postgresql(location, BUSY_TIMEOUT_S)
        use_prepared_statements(engine)
        return engine
    make_private(location)
    engine = open_sqlite(location, BUSY_TIMEOUT_S)
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "begin", _begin_transaction)
    return engine


def reset_projections(engine: Engine) -> None:
    """Recreate all tables empty, in a transaction of their own: the opener then begins again."""
    with engine.begin() as connection:
        create_empty_tables(connection)


def empty_tables(connection: Connection) -> None:
    """Delete every row of data. Openers lock that of `source` first: dropping its table would wait for them in a ring."""
    others = [table for table in tables.metadata.sorted_tables if table not in {tables.source, tables.revisions}]
    if connection.dialect.name == POSTGRESQL:
        connection.exec_driver_sql(f"TRUNCATE {', '.join(table.name for table in others)}")
        return
    for table in others:
        connection.execute(table.delete())


def erase_subject(engine: Engine, subject: str) -> None:
    """Delete all rows of a subject. On SQLite they are overwritten with zeros, also in the log of transactions.

    Raises:
        TransientError, PermanentError: the database failed, or a reader holds the log.
    """
    with translating_errors("the projections"), engine.begin() as connection:
        connection.execute(select(tables.source).with_for_update())  # no opener is writing from here on
        for table in tables.metadata.sorted_tables:
            if "subject" in table.c:
                connection.execute(table.delete().where(table.c.subject == subject))
    if engine.dialect.name != POSTGRESQL:
        with translating_errors("the projections"), engine.connect() as connection:
            driver: Any = connection.connection.driver_connection  # its own connection: a transaction would prevent it
            is_busy, _, _ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if is_busy:
            raise TransientError(
                f"the log of the projections, which still holds data of {subject}, is in use: repeat the command"
            )


def insert_source(connection: Connection) -> None:
    """Give empty projections an id. They come from no store yet."""
    connection.execute(
        tables.source.insert().values(
            schema=SCHEMA.last_contract, id=secrets.token_bytes(ID_BYTES), batches=0, store_id=None, commits=0
        )
    )


def _set_up(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # `_begin_transaction` begins: Python's sqlite3 would begin too late for a savepoint
    connection.execute("PRAGMA secure_delete = ON")  # pages hold copies of rows that moved: `erase_subject` cannot find them


def _begin_transaction(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
