"""The numbered migrations that bring an outbox of any older version to the present schema.

The version is SQLite's own `user_version`. A migration raises it in its own transaction, so a process killed in the middle
leaves the older version intact.
"""

import sqlite3
from typing import Final

from sync.keys import HubKey

APPLICATION_ID: Final = int.from_bytes(b"PGOB", "big")
"""SQLite's `application_id` of our database file: it distinguishes the file from any other database."""
SCHEMA_VERSION: Final = 2
"""The schema that this pulsegate reads and writes: the number of the last migration."""

_VERSION_1: Final = """
CREATE TABLE buffer (            -- one row
    hub TEXT NOT NULL,
    hub_key_check BLOB NOT NULL, -- HubKey.check_value()
    epoch INTEGER NOT NULL       -- of the latest opening
) STRICT;
CREATE TABLE keys (
    id BLOB PRIMARY KEY,
    subject TEXT NOT NULL,
    day INTEGER NOT NULL,        -- UTC days since 1970
    clinic BLOB NOT NULL,        -- fingerprint of the clinic's key that it is wrapped for
    local BLOB NOT NULL,         -- sealed with the hub's key
    wrapped BLOB NOT NULL,       -- for the clinic
    held INTEGER NOT NULL DEFAULT 0,
    UNIQUE (subject, day, clinic)
) STRICT;
CREATE TABLE lanes (
    lane TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    last INTEGER NOT NULL,       -- highest seq given out
    acknowledged INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL,      -- of the blocks that are still here
    PRIMARY KEY (lane, epoch)
) STRICT;
CREATE TABLE blocks (
    lane TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    key BLOB NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (lane, epoch, seq)
) STRICT;
CREATE TABLE state (name TEXT PRIMARY KEY, sealed BLOB NOT NULL) STRICT;
"""
"""SQLite stores this text with its comments in the database file: never edit it, add a migration."""

_VERSION_2_STATE: Final = """
CREATE TABLE state (
    subject TEXT NOT NULL,       -- to whom the value belongs
    name TEXT NOT NULL,
    sealed BLOB NOT NULL,        -- with the hub's key
    PRIMARY KEY (subject, name)
) STRICT
"""


def migrate(connection: sqlite3.Connection, *, hub: str, hub_key: HubKey) -> None:
    """Apply the missing migrations, each in its own transaction together with its entry in the table of migrations."""
    from sqlite_utils import Database, Migrations  # noqa: PLC0415 - 5 MB that a running agent does not need

    migrations = Migrations("outbox")

    @migrations(name="1")
    def _create(database: Database) -> None:
        for statement in _VERSION_1.split(";\n"):
            database.conn.execute(statement)
        database.conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.conn.execute("INSERT INTO buffer VALUES (?, ?, 0)", (hub, hub_key.check_value()))
        database.conn.execute("PRAGMA user_version = 1")

    @migrations(name="2")
    def _key_state_by_subject(database: Database) -> None:
        """Give each state to the subject of the newest data key: the one whose readings were stored last."""
        rows = database.conn.execute("SELECT name, sealed FROM state").fetchall()
        subjects = database.conn.execute("SELECT subject FROM keys ORDER BY day DESC, rowid DESC LIMIT 1").fetchall()
        database.conn.execute("DROP TABLE state")
        database.conn.execute(_VERSION_2_STATE)
        for name, sealed in rows:
            subject = subjects[0][0]
            value = hub_key.open(sealed, f"state {name}".encode())
            resealed = hub_key.seal(value, f"state {subject} {name}".encode())
            database.conn.execute("INSERT INTO state VALUES (?, ?, ?)", (subject, name, resealed))
        database.conn.execute("PRAGMA user_version = 2")

    migrations.apply(Database(connection, execute_plugins=False))
