"""Opening the outbox's database: identity checks, migration, transactions, and the translation of SQLite's errors."""

import contextlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sync.errors import DiskFullError, PermanentError, SyncError, TransientError
from sync.keys import HubKey
from sync.outbox_migrations import APPLICATION_ID, SCHEMA_VERSION, migrate
from sync.seal import SealError

WAL_PAGES: Final = 256
"""Pages of 4 KiB after which SQLite moves the WAL into the database. With its default of 1000 the reserve for a full disk would
have to be four times as large."""


def prepare_database(connection: sqlite3.Connection, path: Path, *, hub: str, hub_key: HubKey) -> None:
    """Check that the database belongs to this hub, then migrate it to the present schema.

    Raises:
        PermanentError: the database belongs to another application or hub, or has a newer schema. Nothing was changed.
        SealError: it was sealed with another hub key. Nothing was changed.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise PermanentError(
            f"the buffer {path} was written by a newer pulsegate (schema {version}, this version supports {SCHEMA_VERSION}):"
            " update pulsegate"
        )
    is_empty = version == 0 and connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if not is_empty:
        _check_owner(connection, path, hub, hub_key)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
    if version < SCHEMA_VERSION:
        with translating_sqlite_errors(path):
            migrate(connection, hub=hub, hub_key=hub_key)


def _check_owner(connection: sqlite3.Connection, path: Path, hub: str, hub_key: HubKey) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise PermanentError(f"{path} is the database of another application: move it away, or set `data` to another folder")
    owner, check = connection.execute("SELECT hub, hub_key_check FROM buffer").fetchone()
    if check != hub_key.check_value():
        raise SealError(f"the buffer {path} was sealed with another hub key: restore that key file, or move the buffer away")
    if owner != hub:
        raise PermanentError(
            f"the buffer {path} belongs to hub {owner}, not {hub}: set `hub` back to {owner}, or move the buffer away"
        )


def shrink_wal(connection: sqlite3.Connection) -> None:
    """Move the WAL into the database and free its space. Best effort: on a full disk there may be no room for its pages."""
    with contextlib.suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def count_free_bytes(connection: sqlite3.Connection) -> int:
    """Space of deleted blocks in the database file, which new ones can use."""
    pages, size = (int(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("freelist_count", "page_size"))
    return pages * size


@contextmanager
def transaction(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Run the body's statements in one transaction, rolled back on an error. SQLite's errors are translated."""
    with translating_sqlite_errors(path):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


@contextmanager
def translating_sqlite_errors(path: Path) -> Iterator[None]:
    """Raise SQLite's errors in the body as TransientError or PermanentError, with a message that says what to do."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:  # misuse of the sqlite3 module: a defect in our code
            raise
        raise _translate(error, code & 0xFF, path) from error


def _translate(error: sqlite3.DatabaseError, code: int, path: Path) -> SyncError:
    match code:
        case sqlite3.SQLITE_FULL:
            return DiskFullError(
                f"cannot write the buffer {path}: the disk is full; free some disk space. Stored blocks are kept."
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return TransientError(f"the buffer {path} is locked by another process: stop the second agent if one is running")
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_NOMEM:
            return TransientError(f"cannot read or write the buffer {path} ({error}): check the disk")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return PermanentError(
                f"the buffer {path} is damaged: move it away together with its -wal and -shm files, and keep them,"
                " because their blocks may be recoverable; the next start creates a new buffer"
            )
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_AUTH:
            return PermanentError(f"cannot write to the buffer {path} ({error}): check that its folder exists and is writable")
        case _:
            return PermanentError(f"SQLite rejected an operation on the buffer {path} ({error}): report this as a defect")
