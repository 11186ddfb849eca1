"""The numbered changes that make an outbox of any older version one of the present version."""

import sqlite3
from typing import Final

from sqlite_utils import Database, Migrations

from sync.keys import HubKey
from sync.outbox_schema import APPLICATION_ID

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


def migrate(connection: sqlite3.Connection, *, hub: str, hub_key: HubKey) -> None:
    """Apply what is missing, each change in a transaction of its own together with the record that it was made."""
    changes = Migrations("outbox")

    @changes(name="1")
    def _create(database: Database) -> None:
        for statement in _VERSION_1.split(";\n"):
            database.conn.execute(statement)
        database.conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.conn.execute("INSERT INTO buffer VALUES (?, ?, 0)", (hub, hub_key.check_value()))
        database.conn.execute("PRAGMA user_version = 1")

    changes.apply(Database(connection, execute_plugins=False))
