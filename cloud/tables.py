"""The tables of the projections: the content of opened blocks, in a form that the page can query.

This database holds plaintext and is separate from the store of sealed blocks. It can be lost without harm:
`pulsegate-cloud open --rebuild` rebuilds it. It also holds the cursors: one transaction writes a block's records and moves the
cursor past the block.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Column, Engine, Float, Index, Integer, LargeBinary, MetaData, String, Table, create_engine, event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DatabaseError, OperationalError

from config.files import make_private

_log: Final = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 3
"""Kept in SQLite's `user_version`. `_MIGRATIONS` lists the versions that are migrated; any other is rebuilt from the blocks."""
BUSY_TIMEOUT_S: Final = 10.0
"""How long the opener, the only writer, waits for `open --rebuild` beside a running clinic."""

_MIGRATIONS: Final[Mapping[int, tuple[str, ...]]] = {
    2: (
        "ALTER TABLE cursors RENAME COLUMN arrival TO block_id",
        "ALTER TABLE unopened RENAME COLUMN arrival TO block_id",
    ),
}
"""The statements that bring a database of this version to the next version, with its data kept."""

metadata: Final = MetaData()
cursors: Final = Table(
    "cursors", metadata, Column("name", String, primary_key=True), Column("block_id", Integer, nullable=False)
)
counters: Final = Table(
    "counters", metadata, Column("name", String, primary_key=True), Column("value", Integer, nullable=False)
)
unopened: Final = Table(
    "unopened",
    metadata,
    Column("block_id", Integer, primary_key=True),
    Column("hub", String, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("lane", String, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("reason", String, nullable=False),
    Column("detail", String, nullable=False),
)
alerts: Final = Table(
    "alerts",
    metadata,
    Column("hub", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("sensor", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("priority", String, nullable=False),
    Column("onset_us", Integer, nullable=False),
    Column("end_us", Integer),
    Column("decided_us", Integer, nullable=False),
    Column("updated_us", Integer, nullable=False),
    Column("source", String, nullable=False),
    Column("reasons", String, nullable=False),
    Column("probability", Float),
    Column("measured", String),
    Column("strip_start_us", Integer),
    Column("strip_rate_hz", Float),
    Column("strip_scale", Float),
    Column("strip_samples", LargeBinary),
    Column("strip_beats_us", String),
    Column("strip_labels", String),
    Index("alerts_by_revision", "revision"),
)
vitals: Final = Table(
    "vitals",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("hub", String, nullable=False),
    Column("sensor", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("at_us", Integer, nullable=False),
    Column("value", Float, nullable=False),
    Column("flags", String, nullable=False),
    Index("vitals_by_time", "sensor", "kind", "at_us"),
)
intervals: Final = Table(
    "intervals",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("hub", String, nullable=False),
    Column("sensor", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("at_us", Integer, nullable=False),
    Column("ticks", String, nullable=False),
    Index("intervals_by_time", "sensor", "at_us"),
)
waveforms: Final = Table(
    "waveforms",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("hub", String, nullable=False),
    Column("sensor", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("start_us", Integer, nullable=False),
    Column("end_us", Integer, nullable=False),
    Column("sensor_ns", Integer),
    Column("rate_hz", Float, nullable=False),
    Column("scale", Float, nullable=False),
    Column("n", Integer, nullable=False),
    Column("samples", LargeBinary, nullable=False),
    Index("waveforms_by_time", "sensor", "kind", "start_us"),
)
gaps: Final = Table(
    "gaps",
    metadata,
    Column("hub", String, primary_key=True),
    Column("sensor", String, primary_key=True),
    Column("kind", String, primary_key=True),
    Column("from_us", Integer, primary_key=True),
    Column("to_us", Integer),
    Column("missing", Integer),
    Column("reason", String, nullable=False),
    Column("from_sensor_ns", Integer),
    Column("to_sensor_ns", Integer),
)
findings: Final = Table(
    "findings",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("hub", String, nullable=False),
    Column("sensor", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("onset_us", Integer, nullable=False),
    Column("end_us", Integer),
    Column("source", String, nullable=False),
    Column("probability", Float),
    Column("inconclusive", String),
    Column("measured", String),
    Index("findings_by_time", "sensor", "onset_us"),
)
sensors: Final = Table(
    "sensors",
    metadata,
    Column("hub", String, primary_key=True),
    Column("sensor", String, primary_key=True),
    Column("last_data_us", Integer, nullable=False, default=0),
    Column("samples", Integer, nullable=False, default=0),
    Column("undecodable", Integer, nullable=False, default=0),
)
statuses: Final = Table(
    "statuses",
    metadata,
    Column("hub", String, primary_key=True),
    Column("sensor", String, primary_key=True),
    Column("kind", String, primary_key=True),
    Column("at_us", Integer, nullable=False),
    Column("value", String, nullable=False),
)


def open_projections(path: Path) -> Engine:
    """Open the projections in `path`, or create them.

    A database of a version in `_MIGRATIONS` is migrated. One of another version, or a damaged one, is emptied: the opener then
    rebuilds it from the blocks.

    Raises:
        OperationalError: the database is locked or cannot be written.
        OSError: the file cannot be created, or belongs to another user.
    """
    make_private(path)
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _configure_connection)
    event.listen(engine, "begin", _begin_transaction)
    try:
        if _migrate(engine) != SCHEMA_VERSION:
            reset_projections(engine)
    except OperationalError:
        raise
    except DatabaseError:
        _log.warning("%s is damaged: rebuilding it from the blocks", path)
        engine.dispose()
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return open_projections(path)
    return engine


def reset_projections(engine: Engine) -> None:
    """Recreate all tables empty, cursors included: the opener then starts with the first block."""
    with engine.begin() as connection:
        existing = MetaData()
        existing.reflect(connection)
        existing.drop_all(connection)
        metadata.create_all(connection)
        connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _migrate(engine: Engine) -> int:
    """Apply the migrations for the database's version in one transaction; returns the version after them."""
    with engine.begin() as connection:
        version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
        while version in _MIGRATIONS:
            for statement in _MIGRATIONS[version]:
                connection.exec_driver_sql(statement)
            version += 1
            connection.exec_driver_sql(f"PRAGMA user_version = {version}")
    return version


def _configure_connection(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # `_begin_transaction` begins: Python's sqlite3 would begin too late for a savepoint
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")  # a power cut that loses a transaction also loses its cursor move


def _begin_transaction(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
