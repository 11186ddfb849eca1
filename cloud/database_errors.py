"""Tells failures of a database from each other: those that pass, those that stay, and those that one block's content causes."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from cloud.databases import POSTGRESQL, describe_error, server_fields
from sync.errors import PermanentError, TransientError

_PRIMARY_CODE: Final = 0xFF
"""The low byte of SQLite's extended result code is its primary result code."""
_CONTENT_CODES: Final = frozenset(
    {
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_RANGE,
        sqlite3.SQLITE_TOOBIG,
    }
)
"""Results that the values of a statement cause. All others are the state of the file, disk or lock."""
_CONTENT_CLASSES: Final = frozenset({"22", "23", "54", "P0"})
"""PostgreSQL's SQLSTATE classes of the same: data exception, constraint, limit of a statement, raised by a trigger."""
_TRANSIENT_CLASSES: Final = frozenset({"08", "25", "40", "53", "55", "57"})
"""SQLSTATE classes that pass: connection, state of a transaction, deadlock, resources, lock, shutdown."""
_LOCK_STATES: Final = frozenset({"55P03", "40P01"})
"""lock_not_available and deadlock_detected."""


@contextmanager
def translating_errors(database: str) -> Iterator[None]:
    """Raise the failures of a database as ours; `database` names it in messages.

    Raises:
        TransientError: it is locked, full or unreachable; trying again may help.
        PermanentError: it is damaged, or does not take the statement.
    """
    try:
        yield
    except PoolTimeoutError as error:
        raise TransientError(f"cannot use {database} now: all its connections are in use") from error
    except ConnectionError as error:
        raise TransientError(f"cannot use {database} now (its server ended the connection): check that it runs") from error
    except DBAPIError as error:
        if is_transient(error):
            raise TransientError(
                f"cannot use {database} now ({describe_error(error)}): "
                "check that its disk has space, that no other program locks it, and that its server runs"
            ) from error
        raise PermanentError(f"{database} failed ({describe_error(error)}): if it is damaged, restore a backup") from error


def is_transient(error: DBAPIError) -> bool:
    """Whether trying again may help."""
    state = _sqlstate(error)
    if state is not None:
        return state[:2] in _TRANSIENT_CLASSES
    return isinstance(error, (OperationalError, InterfaceError)) or error.connection_invalidated


def is_lock_conflict(error: DBAPIError) -> bool:
    """Whether PostgreSQL gave up waiting for a lock, or ended a deadlock."""
    return _sqlstate(error) in _LOCK_STATES


def find_database_failure(connection: Connection, error: Exception) -> Exception | None:
    """Return the failure of a database behind an error of a savepoint; None if the content of the savepoint caused the error.

    SQLite rolls back the whole transaction on some failures. Leaving the savepoint then raises an error that hides the first.
    Nothing may be written after that: it would be committed alone.
    """
    errors: list[Exception] = [error]
    while isinstance(errors[-1].__context__, Exception):
        errors.append(errors[-1].__context__)
    failures = [found for found in errors if _is_failure(found)]
    if failures:
        return failures[-1]
    return None if _is_in_transaction(connection) else error


def _is_failure(error: Exception) -> bool:
    if isinstance(error, DBAPIError):
        return not _is_caused_by_content(error)
    return isinstance(error, (TransientError, PermanentError, PoolTimeoutError, ConnectionError))


def _is_in_transaction(connection: Connection) -> bool:
    if connection.dialect.name == POSTGRESQL:  # never ends a transaction that has a savepoint
        return not connection.invalidated
    driver: sqlite3.Connection | None = connection.connection.driver_connection
    return driver is not None and driver.in_transaction


def _is_caused_by_content(error: DBAPIError) -> bool:
    state = _sqlstate(error)
    if state is not None:
        return state[:2] in _CONTENT_CLASSES
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is None:  # found by the driver before the database ran, for example a value of a type that it does not know
        return not isinstance(error, (OperationalError, InterfaceError))
    return code & _PRIMARY_CODE in _CONTENT_CODES


def _sqlstate(error: DBAPIError) -> str | None:
    """Return PostgreSQL's five-character code of an error; None for an error of SQLite or of the driver."""
    return server_fields(error.orig).get("C")
