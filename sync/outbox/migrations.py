"""The numbered migrations that bring an outbox of any older version to the present schema.

The version is SQLite's own `user_version`. A migration raises it in its own transaction, so a process killed in the middle
leaves the older version intact.
"""

import sqlite3
from typing import Final

from sync.keys import HubKey

APPLICATION_ID: Final = int.from_bytes(b"PGOB", "big")
"""SQLite's `application_id` of our database file: it distinguishes the file from any other database."""
SCHEMA_VERSION: Final = 4
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

_VERSION_3: Final = """
ALTER TABLE buffer ADD COLUMN previous INTEGER;
ALTER TABLE buffer ADD COLUMN generation INTEGER NOT NULL DEFAULT 1;
ALTER TABLE buffer ADD COLUMN store BLOB;
ALTER TABLE buffer ADD COLUMN fence INTEGER NOT NULL DEFAULT 0;
ALTER TABLE buffer ADD COLUMN commits INTEGER NOT NULL DEFAULT 0;
ALTER TABLE keys RENAME TO keys_1;
ALTER TABLE blocks RENAME TO blocks_1;
DROP TABLE lanes;
CREATE TABLE keys (
    number INTEGER PRIMARY KEY, -- of the key in the tables of blocks
    id BLOB NOT NULL UNIQUE,
    subject TEXT NOT NULL,
    day INTEGER NOT NULL, -- UTC days since 1970
    commitment BLOB NOT NULL,
    signature BLOB NOT NULL,
    local BLOB, -- sealed with the hub key; NULL if the subject was erased
    held INTEGER NOT NULL DEFAULT 0 -- whether the clinic's store holds the statement
) STRICT;
CREATE TABLE wraps (
    key INTEGER NOT NULL, -- keys.number
    recipient BLOB NOT NULL, -- fingerprint
    wrapped BLOB NOT NULL,
    held INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (key, recipient)
) STRICT;
CREATE TABLE recipients ( -- as last registered
    subject TEXT PRIMARY KEY,
    public BLOB NOT NULL
) STRICT;
CREATE TABLE sequences ( -- one row for each lane and epoch that ever had a block
    id INTEGER PRIMARY KEY,
    lane TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    last INTEGER NOT NULL, -- highest seq given out
    chain BLOB NOT NULL, -- chain value there
    mark INTEGER NOT NULL DEFAULT 0, -- highest mark of the clinic's store
    open_from INTEGER NOT NULL DEFAULT 1, -- no block before this seq waits for the clinic
    pending INTEGER NOT NULL DEFAULT 0,
    unopened INTEGER NOT NULL DEFAULT 0,
    released INTEGER NOT NULL DEFAULT 0,
    aside INTEGER NOT NULL DEFAULT 0,
    refused INTEGER NOT NULL DEFAULT 0,
    dropped INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0, -- of the blocks that are still here
    open_bytes INTEGER NOT NULL DEFAULT 0, -- of those that wait for the clinic
    UNIQUE (lane, epoch)
) STRICT;
CREATE TABLE dropped ( -- blocks that were deleted to make room, until a mark passes them
    sequence INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    chain BLOB NOT NULL, -- at last
    PRIMARY KEY (sequence, first)
) STRICT;
CREATE TABLE unreadable_1 ( -- blocks of format 1 that could not be opened
    lane TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    key BLOB NOT NULL,
    sealed BLOB NOT NULL
) STRICT
"""
"""New columns of `buffer`: `previous` is the epoch before (NULL: none), `generation` the number of the clinic's store (see
`sync.outbox.block_tables`); `store` (NULL: none yet), `fence` and `commits` are of the clinic's last message. `keys_1` and
`blocks_1` are of format 1 and stay until all blocks are sealed again."""
_BLOCKS: Final = """
CREATE TABLE blocks_{} (
    id INTEGER PRIMARY KEY, -- sequence and seq: see sync.outbox.block_tables
    state INTEGER NOT NULL,
    since INTEGER NOT NULL, -- when the state last changed: seconds since 1970
    key INTEGER NOT NULL, -- keys.number
    digest BLOB NOT NULL,
    chain BLOB NOT NULL,
    sealed BLOB NOT NULL
) STRICT
"""
"""One table for each lane: blocks are appended at its end, which writes the fewest pages, and no index is needed."""
_VERSION_4: Final = """
CREATE TABLE observed ( -- the last stretches of time that the clock showed without a leap, in order: seconds since 1970
    first INTEGER NOT NULL,
    last INTEGER NOT NULL
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

    @migrations(name="3")
    def _create_format_2(database: Database) -> None:
        """The blocks of format 1 are sealed again afterwards, in small steps (`sync.outbox.format_1`)."""
        for statement in _VERSION_3.split(";\n"):
            database.conn.execute(statement)
        for lane in ("alert", "vital", "wave", "archive"):
            database.conn.execute(_BLOCKS.format(lane))
        # An epoch of format 1 was a number of seconds. 0: none yet.
        database.conn.execute("UPDATE buffer SET epoch = epoch << 20")
        database.conn.execute("PRAGMA user_version = 3")

    @migrations(name="4")
    def _create_observed(database: Database) -> None:
        """The time before is taken up when the buffer is opened (`sync.outbox.observed_time`)."""
        database.conn.execute(_VERSION_4)
        database.conn.execute("PRAGMA user_version = 4")

    migrations.apply(Database(connection, execute_plugins=False))
