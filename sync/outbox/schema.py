"""Opening the outbox's database: identity checks, settings of SQLite, and migration."""

import os
import sqlite3
from pathlib import Path
from typing import Final

from sync.errors import DamagedBufferError, PermanentError
from sync.keys import HubKey
from sync.outbox.database import PAGE_BYTES, SECURE_DELETE, WAL_BYTES, OutboxDatabase, translating_sqlite_errors
from sync.outbox.migrations import APPLICATION_ID, SCHEMA_VERSION, migrate
from sync.outbox.reserve import Reserve
from sync.seal import SealError

_NEWER: Final = "the buffer {} was written by a newer pulsegate (schema {}, this version supports {}): update pulsegate"
BUSY_TIMEOUT_S: Final = 2.0
"""How long to wait for another process's transaction: longer than any of ours (tens of ms on an SD card), and short enough for
a person who waits at start for the message that a second agent is running."""
FULL_DISK_BYTES: Final = 256 * 1024
"""Less than this is a full disk at the start: SQLite needs 32 KiB for its shared-memory file and some pages for the WAL, and
reports a failure to create them in several ways."""

CACHE_KIB: Final = 256
"""SQLite's page cache; its default is 2 MB. The hub reads most pages once, and the system caches them, too."""


class NewerBufferError(PermanentError):
    """The buffer was written by a newer version."""


def open_database(path: Path, reserve: Reserve, *, hub: str, hub_key: HubKey) -> OutboxDatabase:
    """Open the database, or create it (mode 0600); check that it belongs to this hub, and migrate it to the present schema.

    Raises:
        PermanentError: the database belongs to another application or hub, or has a newer schema. Nothing was changed.
        SealError: it was sealed with another hub key. Nothing was changed.
    """
    with translating_sqlite_errors(path):
        _create_private_file(path)
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            database = OutboxDatabase(connection, path, reserve)
            _prepare(database, hub=hub, hub_key=hub_key)
        except BaseException:
            connection.close()
            raise
        return database


def is_disk_full(path: Path) -> bool:
    """Whether the disk has no room for the files that SQLite creates beside the database."""
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < FULL_DISK_BYTES


def _create_private_file(path: Path) -> None:
    try:
        path.touch(mode=0o600, exist_ok=True)
    except OSError as error:
        raise PermanentError(
            f"cannot create the buffer {path}: {error.strerror}; check that its folder exists and is writable"
        ) from error


def _prepare(database: OutboxDatabase, *, hub: str, hub_key: HubKey) -> None:
    version = int(database.rows("PRAGMA user_version")[0][0])
    if version > SCHEMA_VERSION:
        _check_newer(database, version)
    is_empty = version == 0 and database.rows("SELECT count(*) FROM sqlite_schema")[0][0] == 0
    if is_empty:
        database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    else:
        _check_owner(database, hub, hub_key)
    set_pragmas(database)
    if version < SCHEMA_VERSION:
        with database.overwriting():
            migrate(database.connection, hub=hub, hub_key=hub_key)


def set_pragmas(database: OutboxDatabase) -> None:
    """Make each commit durable, and bound the WAL."""
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute(SECURE_DELETE)
    database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    page_bytes = int(database.rows("PRAGMA page_size")[0][0])
    database.execute(f"PRAGMA wal_autocheckpoint = {WAL_BYTES // page_bytes}")


def _check_newer(database: OutboxDatabase, version: int) -> None:
    """Raise the error of a newer schema, or of a damaged number: the table of migrations then has no newer one."""
    applied = database.rows("SELECT max(CAST(name AS INTEGER)) FROM _sqlite_migrations")[0][0]
    if applied is not None and applied <= SCHEMA_VERSION:
        raise DamagedBufferError(f"the buffer {database.path} is damaged: the number of its schema is {version}")
    raise NewerBufferError(_NEWER.format(database.path, version, SCHEMA_VERSION))


def _check_owner(database: OutboxDatabase, hub: str, hub_key: HubKey) -> None:
    path = database.path
    if database.rows("PRAGMA application_id")[0][0] != APPLICATION_ID:
        raise PermanentError(f"{path} is the database of another application: move it away, or set `data` to another folder")
    owner, check = database.rows("SELECT hub, hub_key_check FROM buffer")[0]
    if check != hub_key.check_value():
        raise SealError(f"the buffer {path} was sealed with another hub key: restore that key file, or move the buffer away")
    if owner != hub:
        raise PermanentError(
            f"the buffer {path} belongs to hub {owner}, not {hub}: set `hub` back to {owner}, or move the buffer away"
        )
