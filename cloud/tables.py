"""The tables of the projections: the content of opened blocks, in a form that the page can query.

This database holds plaintext and is separate from the store of sealed blocks. It can be lost without harm:
`pulsegate-cloud open --rebuild` rebuilds it. It also says which blocks it holds and which store they come from: one transaction
writes a block's records and notes the block.
"""

import logging
import secrets
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    Boolean,
    Column,
    Engine,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    event,
    select,
)
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from cloud.database_errors import is_transient, translating_errors
from cloud.databases import BIG, POSTGRESQL, DatabaseLocation, open_postgresql, open_sqlite
from cloud.prepared_statements import use_prepared_statements
from cloud.schemas import Schema, make_revision_table
from config.files import make_private
from sync.errors import PermanentError, TransientError

_log: Final = logging.getLogger(__name__)

ID_BYTES: Final = 16
BUSY_TIMEOUT_S: Final = 10.0
"""How long the opener, nearly the only writer, waits for `open --rebuild` beside a running clinic."""


def _sensor_key(*, is_primary: bool = False) -> tuple[Column[str], ...]:
    """The columns that say whose data a row holds: the patient's pseudonym, the hub, and the sensor's name on that hub."""
    return tuple(Column(name, String, primary_key=is_primary, nullable=False) for name in ("subject", "hub", "sensor"))


def _position(prefix: str = "", *, is_nullable: bool = False) -> tuple[Column[int], ...]:
    """The columns that order the records of one lane: a later one has the higher (epoch, seq), whatever the clock says."""
    return tuple(Column(prefix + name, BIG, nullable=is_nullable) for name in ("epoch", "seq"))


def _block_id() -> tuple[Column[Any], ...]:
    """The key that identifies a block of any hub."""
    kinds: dict[str, Any] = {"hub": String, "epoch": BIG, "lane": String, "seq": BIG}
    return tuple(Column(name, kind, primary_key=True, autoincrement=False) for name, kind in kinds.items())


metadata: Final = MetaData()
source: Final = Table(
    "source",
    metadata,
    Column("schema", Integer, nullable=False),
    Column("id", LargeBinary, nullable=False),
    Column("batches", BIG, nullable=False),
    Column("store_id", LargeBinary),
    Column("commits", BIG, nullable=False),
)
"""One row: the oldest program that can use the tables (`cloud.schemas`), the random id of these projections and the number of
batches written to them; then the store they come from (null: none yet) and the commits that it had counted."""
revisions: Final = make_revision_table("projections_revision", metadata)
opened: Final = Table("opened", metadata, *_block_id(), sqlite_with_rowid=False)
"""The blocks whose records are in the projections: a block that comes again changes nothing."""
changes: Final = Table(
    "changes",
    metadata,
    Column("batch", BIG, primary_key=True, autoincrement=False),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("kind", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("hub", String, nullable=False),
    Column("name", String, nullable=False),
    Column("row", BIG, nullable=False),
    Column("samples", Integer, nullable=False),
)
"""The change log: what each of the last batches changed (`cloud.change_log`), `n` counts the changes of a batch."""
counters: Final = Table("counters", metadata, Column("name", String, primary_key=True), Column("value", BIG, nullable=False))
"""`revision`: the highest revision of any alert."""
unopened: Final = Table(
    "unopened",
    metadata,
    *_block_id(),
    Column("reason", String, nullable=False),
    Column("detail", String, nullable=False),
)
patients: Final = Table(
    "patients",
    metadata,
    Column("subject", String, primary_key=True),
    Column("opened", BIG, nullable=False),
    Column("alerts", BIG, nullable=False),
    Column("revision", BIG, nullable=False),
    Column("unknown_records", BIG, nullable=False),
)
"""Each patient with the numbers of opened blocks, alerts and records of unknown types, and its alerts' newest revision or 0."""
alerts: Final = Table(
    "alerts",
    metadata,
    Column("subject", String, primary_key=True),
    Column("hub", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("revision", BIG, nullable=False),
    Column("sensor", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("priority", String, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("onset_us", BIG, nullable=False),
    Column("end_us", BIG),
    Column("decided_us", BIG, nullable=False),
    Column("raised_us", BIG, nullable=False),
    Column("received_us", BIG, nullable=False),
    Column("source", String, nullable=False),
    Column("reasons", String, nullable=False),
    Column("probability", Float),
    Column("measured", String),
    *_position(),
    *_position("first_"),
    Column("strip_start_us", BIG),
    Column("strip_rate_hz", Float),
    Column("strip_scale", Float),
    Column("strip_samples", LargeBinary),
    Column("strip_beats_us", String),
    Column("strip_labels", String),
    *_position("strip_", is_nullable=True),
    Column("is_proven", Boolean, nullable=False),
    Index("alerts_by_revision", "revision"),
    Index("alerts_by_receipt", "received_us"),
    Index("alerts_by_age", "raised_us", "revision"),
    Index("alerts_of_subject_by_revision", "subject", "revision"),
    Index("alerts_of_subject_by_age", "subject", "raised_us", "revision"),
)
"""`rank` orders the priorities, 0 first. `decided_us` is the hub's time of the first decision; `raised_us` is the same, but
never later than the clinic received it. `received_us` is when the clinic received the latest record. The position is that of
the latest record, with `first_` that of the first, with `strip_` that of the record whose strip is kept. `is_proven` is false
if the origin of one of its records is not proven."""
Index(
    "alerts_ongoing",
    alerts.c.subject,
    alerts.c.rank,
    sqlite_where=alerts.c.end_us.is_(None),
    postgresql_where=alerts.c.end_us.is_(None),
)
vitals: Final = Table(
    "vitals",
    metadata,
    Column("id", BIG, primary_key=True),
    *_sensor_key(),
    Column("kind", String, nullable=False),
    *_position(),
    Column("at_us", BIG, nullable=False),
    Column("value", Float, nullable=False),
    Column("flags", String, nullable=False),
    Column("origin", String),
    Index("vitals_by_time", "subject", "hub", "sensor", "kind", "at_us"),
)
Index(
    "results_by_time",
    *(vitals.c[name] for name in ("subject", "hub", "sensor", "at_us")),
    sqlite_where=vitals.c.origin.is_not(None),
    postgresql_where=vitals.c.origin.is_not(None),
)
latest_vitals: Final = Table(
    "latest_vitals",
    metadata,
    *_sensor_key(is_primary=True),
    Column("kind", String, primary_key=True),
    *_position(),
    Column("at_us", BIG, nullable=False),
    Column("received_us", BIG, nullable=False),
    Column("value", Float, nullable=False),
    Column("is_result", Boolean, nullable=False),
)
"""`is_result` says that the value was measured on demand."""
intervals: Final = Table(
    "intervals",
    metadata,
    Column("id", BIG, primary_key=True),
    *_sensor_key(),
    Column("kind", String, nullable=False),
    Column("at_us", BIG, nullable=False),
    Column("ticks", String, nullable=False),
    Index("intervals_by_time", "subject", "hub", "sensor", "at_us"),
)
waveforms: Final = Table(
    "waveforms",
    metadata,
    Column("id", BIG, primary_key=True),
    *_sensor_key(),
    Column("kind", String, nullable=False),
    *_position(),
    Column("start_us", BIG, nullable=False),
    Column("end_us", BIG, nullable=False),
    Column("sensor_ns", BIG),
    Column("rate_hz", Float, nullable=False),
    Column("scale", Float, nullable=False),
    Column("n", BIG, nullable=False),
    Column("samples", LargeBinary, nullable=False),
    Index("waveforms_by_time", "subject", "hub", "sensor", "kind", "start_us", "end_us"),
)
gaps: Final = Table(
    "gaps",
    metadata,
    *_sensor_key(is_primary=True),
    Column("kind", String, primary_key=True),
    Column("from_us", BIG, primary_key=True),
    *_position(),
    Column("to_us", BIG),
    Column("missing", BIG),
    Column("reason", String, nullable=False),
    Column("from_sensor_ns", BIG),
    Column("to_sensor_ns", BIG),
)
Index(
    "gaps_open",
    gaps.c.subject,
    gaps.c.hub,
    gaps.c.sensor,
    sqlite_where=gaps.c.to_us.is_(None),
    postgresql_where=gaps.c.to_us.is_(None),
)
findings: Final = Table(
    "findings",
    metadata,
    Column("id", BIG, primary_key=True),
    *_sensor_key(),
    Column("kind", String, nullable=False),
    Column("onset_us", BIG, nullable=False),
    Column("end_us", BIG),
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
    Column("samples", BIG, nullable=False),
    Column("undecodable", BIG, nullable=False),
    Column("gaps", BIG, nullable=False),
    Column("missing_samples", BIG, nullable=False),
    Column("unproven_until_us", BIG),
)
"""Totals, kept up to date with each block: a query must not count a sensor's history. The origin of data until
`unproven_until_us`, by the hub's clock, is not proven; null if that of all data is."""
last_data: Final = Table(
    "last_data",
    metadata,
    *_sensor_key(is_primary=True),
    Column("lane", String, primary_key=True),
    *_position(),
    Column("data_us", BIG, nullable=False),
    Column("received_us", BIG, nullable=False),
)
"""The latest data of a sensor in each lane: its end by the hub's clock, and when the clinic received it."""
statuses: Final = Table(
    "statuses",
    metadata,
    *_sensor_key(is_primary=True),
    Column("kind", String, primary_key=True),
    *_position(),
    Column("at_us", BIG, nullable=False),
    Column("value", String, nullable=False),
    Column("origin", String),
)
"""`origin` is set where a status is about a measurement on demand."""

alert_requests: Final = Table(
    "alert_requests",
    metadata,
    Column("id", String, primary_key=True),
    Column("subject", String, nullable=False),
    Column("hub", String, nullable=False),
    Column("alert", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("reader", String, nullable=False),
    Column("role", String, nullable=False),
    Column("asked_us", BIG, nullable=False),
    Column("state", String, nullable=False),
    Column("refusal", String),
    Index("alert_requests_by_subject", "subject", "asked_us"),
    Index("alert_requests_by_state", "state", "asked_us"),
)
"""Requests of readers to end an alert (`cloud.alert_requests`). They come from the page, not from blocks: a rebuild loses them,
and the commands that were made of them stay in the store."""


def create_empty_tables(connection: Connection) -> None:
    """Recreate all tables empty, also those of the first versions, which did not say their version."""
    existing = metadata
    if connection.dialect.name != POSTGRESQL:  # the file holds nothing else; a database of PostgreSQL may hold the store too
        existing = MetaData()
        existing.reflect(connection)
    existing.drop_all(connection)
    metadata.create_all(connection)
    SCHEMA.stamp(connection, SCHEMA.newest)
    insert_source(connection)


SCHEMA: Final = Schema(
    name="projections",
    folder=Path(__file__).parent / "migrations" / "projections",
    revisions=revisions,
    oldest_program=source.c.schema,
    create=create_empty_tables,
    first=9,
    newest=10,
    contracts=frozenset(),
)
"""The revisions that this program knows (`cloud.migrations`). Older projections are emptied: the opener fills them again."""


def open_projections(location: DatabaseLocation) -> Engine:
    """Open the projections, or create them. A damaged file of SQLite is emptied: the opener then rebuilds it from the blocks.

    Raises:
        OlderSchemaError: they must be migrated first (`cloud.migrations`).
        TransientError, PermanentError: the database is locked, cannot be reached or written, or was made by a newer version.
        OSError: the file cannot be created, or belongs to another user.
        ClinicError: other users may read the password file of PostgreSQL.
    """
    engine = _open_engine(location)
    try:
        SCHEMA.create_or_check(engine, location)
    except DBAPIError as error:
        engine.dispose()
        if is_transient(error) or not isinstance(location, Path):
            with translating_errors(f"the projections {location}"):
                raise
        _log.warning("%s is damaged: rebuilding it from the blocks", location)
        for suffix in ("", "-wal", "-shm"):
            location.with_name(location.name + suffix).unlink(missing_ok=True)
        return open_projections(location)
    except PermanentError:
        engine.dispose()
        raise
    return engine


def _open_engine(location: DatabaseLocation) -> Engine:
    if not isinstance(location, Path):
        engine = open_postgresql(location, BUSY_TIMEOUT_S)
        use_prepared_statements(engine)
        return engine
    make_private(location)
    engine = open_sqlite(location, BUSY_TIMEOUT_S)
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "begin", _begin_transaction)
    return engine


def reset_projections(engine: Engine) -> None:
    """Recreate all tables empty, in a transaction of their own: the opener then begins again."""
    with engine.begin() as connection:
        create_empty_tables(connection)


def empty_tables(connection: Connection) -> None:
    """Delete every row of data. Openers lock that of `source` first: dropping its table would wait for them in a ring."""
    others = [table for table in metadata.sorted_tables if table not in {source, revisions}]
    if connection.dialect.name == POSTGRESQL:
        connection.exec_driver_sql(f"TRUNCATE {', '.join(table.name for table in others)}")
        return
    for table in others:
        connection.execute(table.delete())


def erase_subject(engine: Engine, subject: str) -> None:
    """Delete all rows of a subject. On SQLite they are overwritten with zeros, also in the log of transactions.

    Raises:
        TransientError, PermanentError: the database failed, or a reader holds the log.
    """
    with translating_errors("the projections"), engine.begin() as connection:
        connection.execute(select(source).with_for_update())  # no opener is writing from here on
        for table in metadata.sorted_tables:
            if "subject" in table.c:
                connection.execute(table.delete().where(table.c.subject == subject))
    if engine.dialect.name != POSTGRESQL:
        with translating_errors("the projections"), engine.connect() as connection:
            driver: Any = connection.connection.driver_connection  # its own connection: a transaction would prevent it
            is_busy, _, _ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if is_busy:
            raise TransientError(
                f"the log of the projections, which still holds data of {subject}, is in use: repeat the command"
            )


def insert_source(connection: Connection) -> None:
    """Give empty projections an id. They come from no store yet."""
    connection.execute(
        source.insert().values(
            schema=SCHEMA.last_contract, id=secrets.token_bytes(ID_BYTES), batches=0, store_id=None, commits=0
        )
    )


def _set_up(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # `_begin_transaction` begins: Python's sqlite3 would begin too late for a savepoint
    connection.execute("PRAGMA secure_delete = ON")  # pages hold copies of rows that moved: `erase_subject` cannot find them


def _begin_transaction(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
