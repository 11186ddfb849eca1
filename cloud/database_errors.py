"""Tells a failure of a database from a statement that only one block's content makes fail."""

import sqlite3
from typing import Final

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

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
    if isinstance(error, DatabaseError):
        return not _is_caused_by_content(error)
    return isinstance(error, (TransientError, PermanentError, PoolTimeoutError))


def _is_in_transaction(connection: Connection) -> bool:
    driver: sqlite3.Connection | None = connection.connection.driver_connection
    return driver is not None and driver.in_transaction


def _is_caused_by_content(error: DatabaseError) -> bool:
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is None:  # found by Python's sqlite3 before SQLite ran, for example a value of a type that it does not know
        return not isinstance(error, OperationalError)
    return code & _PRIMARY_CODE in _CONTENT_CODES
