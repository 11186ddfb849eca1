"""The tables of the projections: what opened blocks say, in a form the page can ask.

This database holds plaintext and is apart from the store of sealed blocks: losing it loses nothing, since
`pulsegate-cloud open --rebuild` makes it again. The cursors live in it, so that a block's effects and the mark that it was
read are one transaction.
"""

import logging
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Column, Engine, Float, Index, Integer, LargeBinary, MetaData, String, Table, create_engine, event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DatabaseError, OperationalError

_log: Final = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 2
"""Kept in SQLite's `user_version`. Another version is not migrated but rebuilt from the blocks."""
BUSY_TIMEOUT_S: Final = 10.0
"""The opener is the only writer; only `open --rebuild` beside a running clinic makes it wait."""

metadata: Final = MetaData()
cursors: Final = Table(
    "cursors", metadata, Column("name", String, primary_key=True), Column("arrival", Integer, nullable=False)
)
counters: Final = Table(
    "counters", metadata, Column("name", String, primary_key=True), Column("value", Integer, nullable=False)
)
unopened: Final = Table(
    "unopened",
    metadata,
    Column("arrival", Integer, primary_key=True),
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
    """The projections in `path`, created if absent; those of another version, or damaged, are built again from the blocks."""
    path.touch(mode=0o600)
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "begin", _begin)
    try:
        with engine.connect() as connection:
            version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        if version != SCHEMA_VERSION:
            clear(engine)
    except OperationalError:
        raise
    except DatabaseError:
        _log.warning("%s is damaged: building it again from the blocks", path)
        engine.dispose()
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return open_projections(path)
    return engine


def clear(engine: Engine) -> None:
    """Forget everything that was opened, cursors too: the opener then begins with the first block."""
    with engine.begin() as connection:
        existing = MetaData()
        existing.reflect(connection)
        existing.drop_all(connection)
        metadata.create_all(connection)
        connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _set_up(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # `_begin` begins: Python's sqlite3 would begin too late for a savepoint
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")  # what a power cut takes back, the cursor takes back with it


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
