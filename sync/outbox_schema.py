"""The outbox's tables, how a database of an older version gets them, and what SQLite's errors mean.

The version is SQLite's own `user_version`, raised in the transaction that makes the change: a process killed in the middle
leaves the old version whole. `application_id` tells our file from any other database.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sync.errors import Permanent, SyncError, Transient
from sync.keys import HubKey
from sync.seal import SealError

APPLICATION_ID: Final = int.from_bytes(b"PGOB", "big")

SCHEMA: Final = 1
"""The version that this pulsegate reads and writes; `sync.outbox_migrations` leads to it."""


def prepare(connection: sqlite3.Connection, path: Path, *, hub: str, hub_key: HubKey) -> None:
    """Check that the database is ours to write to, then bring it to the present version.

    Raises:
        Permanent: another application's database, a newer version, or another hub's. Nothing was changed.
        SealError: sealed with another hub key. Nothing was changed.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA:
        raise Permanent(f"the buffer {path} was made by a newer pulsegate (schema {version}, this one knows {SCHEMA}); update")
    is_empty = version == 0 and connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if not is_empty:
        _refuse_foreign(connection, path, hub, hub_key)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    if version < SCHEMA:
        from sync.outbox_migrations import migrate  # noqa: PLC0415 - 5 MB that a running agent does not need

        with storage_errors(path):
            migrate(connection, hub=hub, hub_key=hub_key)


def _refuse_foreign(connection: sqlite3.Connection, path: Path, hub: str, hub_key: HubKey) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise Permanent(f"{path} is another application's database: name another file for the buffer")
    owner, check = connection.execute("SELECT hub, hub_key_check FROM buffer").fetchone()
    if check != hub_key.check_value():
        raise SealError(f"the buffer {path} was sealed with another hub key: restore that key file, or move the buffer away")
    if owner != hub:
        raise Permanent(f"the buffer {path} belongs to hub {owner}, not {hub}: set the name back, or move the buffer away")


@contextmanager
def transaction(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """All of the block's statements, or none; SQLite's errors become ours."""
    with storage_errors(path):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into Transient and Permanent ones that say what to do."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:  # misuse of the module: a defect of ours
            raise
        raise _meaning(error, code & 0xFF, path) from error


def _meaning(error: sqlite3.DatabaseError, code: int, path: Path) -> SyncError:
    match code:
        case sqlite3.SQLITE_FULL:
            return Transient(f"no room left for the buffer {path}: free some disk space; what is stored stays")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return Transient(f"another process keeps the buffer {path} locked: is a second agent running?")
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_NOMEM:
            return Transient(f"reading or writing the buffer {path} failed ({error}): check the disk")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return Permanent(
                f"the buffer {path} is damaged: move it away together with its -wal and -shm files and keep them, "
                "their blocks may still be recovered; a new buffer is made at the next start"
            )
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_AUTH:
            return Permanent(
                f"cannot write to the buffer {path} ({error}): check that its folder exists and who may write there"
            )
        case _:
            return Permanent(f"the buffer {path} refused an operation ({error}): report this as a defect")
