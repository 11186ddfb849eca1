"""The tables of the projections: the content of opened blocks, in a form that the page can query.

This database holds plaintext and is separate from the store of sealed blocks. It can be lost without harm:
`pulsegate-cloud open --rebuild` rebuilds it. It also holds the cursors: one transaction writes a block's records and moves the
cursor past the block.
"""

import logging
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Column, Engine, Float, Index, Integer, LargeBinary, MetaData, String, Table, create_engine, event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DatabaseError, OperationalError

from config.files import make_private

_log: Final = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 4
"""Kept in SQLite's `user_version`. A database of another version is rebuilt from the blocks."""
_EMPTY_DATABASE: Final = 0
"""SQLite's `user_version` of a new file."""
BUSY_TIMEOUT_S: Final = 10.0
"""How long the opener, the only writer, waits for `open --rebuild` beside a running clinic."""


def _sensor_key(*, is_primary: bool = False) -> tuple[Column[str], ...]:
    """The columns that say whose data a row holds: the patient's pseudonym, the hub, and the sensor's name on that hub."""
    return tuple(Column(name, String, primary_key=is_primary, nullable=False) for name in ("subject", "hub", "sensor"))


def _position(prefix: str = "", *, is_nullable: bool = False) -> tuple[Column[int], ...]:
    """The columns that order the records of one lane: a later one has the higher (epoch, seq), whatever the clock says."""
    return tuple(Column(prefix + name, Integer, nullable=is_nullable) for name in ("epoch", "seq"))


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
patients: Final = Table("patients", metadata, Column("subject", String, primary_key=True))
alerts: Final = Table(
    "alerts",
    metadata,
    Column("subject", String, primary_key=True),
    Column("hub", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("sensor", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("priority", String, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("onset_us", Integer, nullable=False),
    Column("end_us", Integer),
    Column("decided_us", Integer, nullable=False),
    Column("raised_us", Integer, nullable=False),
    Column("received_us", Integer, nullable=False),
    Column("source", String, nullable=False),
    Column("reasons", String, nullable=False),
    Column("probability", Float),
    Column("measured", String),
    *_position(),
    *_position("first_"),
    Column("strip_start_us", Integer),
    Column("strip_rate_hz", Float),
    Column("strip_scale", Float),
    Column("strip_samples", LargeBinary),
    Column("strip_beats_us", String),
    Column("strip_labels", String),
    *_position("strip_", is_nullable=True),
    Index("alerts_by_revision", "revision"),
    Index("alerts_by_receipt", "received_us"),
    Index("alerts_by_age", "raised_us", "revision"),
)
"""`rank` orders the priorities, 0 first. `decided_us` is the hub's time of the first decision; `raised_us` is the same, but
never later than the clinic received it. `received_us` is when the clinic received the latest record. The position is that of
the latest record, with `first_` that of the first, with `strip_` that of the record whose strip is kept."""
Index("alerts_ongoing", alerts.c.subject, alerts.c.rank, sqlite_where=alerts.c.end_us.is_(None))
vitals: Final = Table(
    "vitals",
    metadata,
    Column("id", Integer, primary_key=True),
    *_sensor_key(),
    Column("kind", String, nullable=False),
    Column("at_us", Integer, nullable=False),
    Column("value", Float, nullable=False),
    Column("flags", String, nullable=False),
    Index("vitals_by_time", "subject", "hub", "sensor", "kind", "at_us"),
)
latest_vitals: Final = Table(
    "latest_vitals",
    metadata,
    *_sensor_key(is_primary=True),
    Column("kind", String, primary_key=True),
    *_position(),
    Column("at_us", Integer, nullable=False),
    Column("received_us", Integer, nullable=False),
    Column("value", Float, nullable=False),
)
intervals: Final = Table(
    "intervals",
    metadata,
    Column("id", Integer, primary_key=True),
    *_sensor_key(),
    Column("kind", String, nullable=False),
    Column("at_us", Integer, nullable=False),
    Column("ticks", String, nullable=False),
    Index("intervals_by_time", "subject", "hub", "sensor", "at_us"),
)
waveforms: Final = Table(
    "waveforms",
    metadata,
    Column("id", Integer, primary_key=True),
    *_sensor_key(),
    Column("kind", String, nullable=False),
    *_position(),
    Column("start_us", Integer, nullable=False),
    Column("end_us", Integer, nullable=False),
    Column("sensor_ns", Integer),
    Column("rate_hz", Float, nullable=False),
    Column("scale", Float, nullable=False),
    Column("n", Integer, nullable=False),
    Column("samples", LargeBinary, nullable=False),
    Index("waveforms_by_time", "subject", "hub", "sensor", "kind", "start_us", "end_us"),
)
gaps: Final = Table(
    "gaps",
    metadata,
    *_sensor_key(is_primary=True),
    Column("kind", String, primary_key=True),
    Column("from_us", Integer, primary_key=True),
    *_position(),
    Column("to_us", Integer),
    Column("missing", Integer),
    Column("reason", String, nullable=False),
    Column("from_sensor_ns", Integer),
    Column("to_sensor_ns", Integer),
)
Index("gaps_open", gaps.c.subject, gaps.c.hub, gaps.c.sensor, sqlite_where=gaps.c.to_us.is_(None))
findings: Final = Table(
    "findings",
    metadata,
    Column("id", Integer, primary_key=True),
    *_sensor_key(),
    Column("kind", String, nullable=False),
    Column("onset_us", Integer, nullable=False),
    Column("end_us", Integer),
    Column("source", String, nullable=False),
    Column("probability", Float),
    Column("inconclusive", String),
    Column("measured", String),
    Index("findings_by_time", "subject", "hub", "sensor", "onset_us"),
)
sensors: Final = Table(
    "sensors",
    metadata,
    *_sensor_key(is_primary=True),
    Column("samples", Integer, nullable=False),
    Column("undecodable", Integer, nullable=False),
    Column("gaps", Integer, nullable=False),
    Column("missing_samples", Integer, nullable=False),
)
"""Totals, kept up to date with each block: a query must not count a sensor's history."""
last_data: Final = Table(
    "last_data",
    metadata,
    *_sensor_key(is_primary=True),
    Column("lane", String, primary_key=True),
    *_position(),
    Column("data_us", Integer, nullable=False),
    Column("received_us", Integer, nullable=False),
)
"""The latest data of a sensor in each lane: its end by the hub's clock, and when the clinic received it."""
statuses: Final = Table(
    "statuses",
    metadata,
    *_sensor_key(is_primary=True),
    Column("kind", String, primary_key=True),
    *_position(),
    Column("value", String, nullable=False),
)


def open_projections(path: Path) -> Engine:
    """Open the projections in `path`, or create them.

    A database of another version, or a damaged one, is emptied: the opener then rebuilds it from the blocks.

    Raises:
        OperationalError: the database is locked or cannot be written.
        OSError: the file cannot be created, or belongs to another user.
    """
    make_private(path)
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _configure_connection)
    event.listen(engine, "begin", _begin_transaction)
    try:
        version = _read_version(engine)
        if version != SCHEMA_VERSION:
            if version != _EMPTY_DATABASE:
                _log.warning("%s has schema %d, not %d: rebuilding it from the blocks", path, version, SCHEMA_VERSION)
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


def _read_version(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())


def _configure_connection(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # `_begin_transaction` begins: Python's sqlite3 would begin too late for a savepoint
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")  # a power cut that loses a transaction also loses its cursor move


def _begin_transaction(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
