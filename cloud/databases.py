"""Opens the clinic's databases, SQLite (the embedded default) or PostgreSQL, and holds the few statements that differ.

Both speak the same SQL through SQLAlchemy Core. Decision 14 says why PostgreSQL's driver is pg8000.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pg8000.dbapi
from sqlalchemy import URL, BigInteger, Connection, Engine, Integer, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, DisconnectionError

from cloud.database_url import PostgresUrl
from config.tls import explain_failure
from sync.errors import TransientError

DatabaseLocation = Path | PostgresUrl
"""A file of SQLite, or a database of PostgreSQL."""

POSTGRESQL: Final = "postgresql"
BIG: Final = BigInteger().with_variant(Integer(), "sqlite")
"""64 bits on both databases: SQLite's INTEGER always has them, and only an INTEGER key numbers rows by itself there."""
_DIALECTS: Final = {"sqlite": sqlite, POSTGRESQL: postgresql}
_SCHEMA_LOCK: Final = 0x70756C7365  # "pulse"
"""Number of PostgreSQL's advisory lock that one process holds while it creates or migrates tables."""


def open_sqlite(path: Path, busy_timeout_s: float) -> Engine:
    """Return an engine of a SQLite file; a write waits `busy_timeout_s` for the write of another process.

    Its errors do not show the values of a statement: these can be a patient's.
    """
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": busy_timeout_s}, hide_parameters=True)
    event.listen(engine, "connect", _set_pragmas)
    return engine


def open_postgresql(url: PostgresUrl, lock_timeout_s: float) -> Engine:
    """Return an engine of a PostgreSQL database; a statement waits `lock_timeout_s` for a lock of another process.

    A connection that the server has closed is replaced when it is taken from the pool. With TLS, each new connection uses the
    certificate that is there then. Errors do not show the values of a statement.
    """
    address = URL.create(f"{POSTGRESQL}+pg8000", url.user, database=url.database)
    engine = create_engine(address, connect_args=url.connect_args(), hide_parameters=True)

    def set_timeout(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"SET lock_timeout = {round(lock_timeout_s * 1000)}")
        connection.commit()

    def connect_by_tls(dialect: Any, _record: object, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
        tls = url.make_tls_context()
        try:
            return dialect.connect(*arguments, **{**options, "ssl_context": tls})
        except (OSError, pg8000.dbapi.Error) as error:
            if tls is None or tls.failure is None:
                raise
            raise TransientError(f"no connection: the database {url} {explain_failure(tls.failure)}") from error

    if url.identity is not None:
        event.listen(engine, "do_connect", connect_by_tls)
    event.listen(engine, "connect", set_timeout)
    event.listen(engine, "checkout", _check_connection)
    return engine


def _check_connection(connection: Any, _record: object, _proxy: object) -> None:
    """Let the pool replace a connection that the server has closed. SQLAlchemy's own check misses pg8000's ConnectionError."""
    try:
        connection.autocommit = True  # one message to the server instead of three
        connection.cursor().execute("SELECT 1")
        connection.autocommit = False
    except (pg8000.dbapi.Error, ConnectionError) as error:
        raise DisconnectionError from error


def _set_pragmas(connection: Any, _record: object) -> None:
    """Set synchronous = FULL: a commit must survive a power cut, also in WAL mode."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """Yield a connection that only reads, and sees the database as of one moment."""
    with engine.begin() as connection:
        if connection.dialect.name == POSTGRESQL:  # on SQLite every transaction does
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield connection


def insert_into(table: Table, dialect: str) -> Any:
    """Return an INSERT that accepts `on_conflict_do_nothing` and `on_conflict_do_update`."""
    return _DIALECTS[dialect].insert(table)


def lock_schema(connection: Connection) -> None:
    """Let no other process create or migrate tables until this transaction ends."""
    if connection.dialect.name == POSTGRESQL:
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _SCHEMA_LOCK})
        return
    driver: Any = connection.connection.driver_connection
    if not driver.in_transaction:  # the projections begin each transaction themselves
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def try_lock_schema(connection: Connection) -> bool:
    """Let no other process create or migrate tables until this session of PostgreSQL ends; false if one does so now.

    It does not wait: one who waits has a snapshot, for which CREATE INDEX CONCURRENTLY would wait.
    """
    return bool(connection.execute(text("SELECT pg_try_advisory_lock(:number)"), {"number": _SCHEMA_LOCK}).scalar_one())


def describe_error(error: DBAPIError) -> str:
    """Return the driver's message. PostgreSQL's details are left out: they quote values of rows."""
    found: BaseException | None = error.orig
    while found is not None:  # pg8000 hides a refused log-in behind the error of closing the connection
        if fields := server_fields(found):
            return f"{fields.get('M')}, SQLSTATE {fields.get('C')}"
        found = found.__context__
    return str(error.orig)


def server_fields(error: BaseException | None) -> dict[str, str]:
    """Return the fields of PostgreSQL's error message by their letters; none for an error of the driver or of SQLite."""
    arguments = getattr(error, "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], dict) else {}
