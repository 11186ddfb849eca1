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


def is_database_failure(connection: Connection, error: Exception) -> bool:
    """Whether this error of a savepoint is a failure of a database, not of the content that was written in the savepoint.

    SQLite rolls back the whole transaction on some failures. Nothing may be written after that: it would be committed alone.
    """
    if isinstance(error, (TransientError, PermanentError, PoolTimeoutError)) or not _is_in_transaction(connection):
        return True
    return isinstance(error, DatabaseError) and not _is_caused_by_content(error)


def _is_in_transaction(connection: Connection) -> bool:
    driver: sqlite3.Connection | None = connection.connection.driver_connection
    return driver is not None and driver.in_transaction


def _is_caused_by_content(error: DatabaseError) -> bool:
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is None:  # found by Python's sqlite3 before SQLite ran, for example a value of a type that it does not know
        return not isinstance(error, OperationalError)
    return code & _PRIMARY_CODE in _CONTENT_CODES
