"""The tables of the projections: the content of opened blocks, in a form that the page can query.

This database holds plaintext and is separate from the store of sealed blocks. It can be lost without harm:
`pulsegate-cloud open --rebuild` rebuilds it. It also says which blocks it holds and which store they come from: one transaction
writes a block's records and notes the block.
"""

from typing import Any, Final

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)

from cloud.databases import BIG
from cloud.schemas import make_revision_table


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
"""`rank` orders the priorities, 0 first. `decided_us` is the hub's time at which the alert was last raised, which an older hub
does not state: then of its first record. `raised_us` is the same, but never later than the clinic received it. `received_us` is
when the clinic received the latest record. The position is that of the latest record, with `first_` that of the first, with
`strip_` that of the record whose strip is kept. `is_proven` is false if the origin of one of its records is not proven."""
Index(
    "alerts_ongoing",
    alerts.c.subject,
    alerts.c.rank,
    sqlite_where=alerts.c.end_us.is_(None),
    postgresql_where=alerts.c.end_us.is_(None),
)
alert_strips: Final = Table(
    "alert_strips",
    metadata,
    Column("subject", String, primary_key=True),
    Column("hub", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("part", String, primary_key=True),
    *_position(),
    Column("start_us", BIG, nullable=False),
    Column("rate_hz", Float, nullable=False),
    Column("scale", Float, nullable=False),
    Column("samples", LargeBinary, nullable=False),
    Column("beats_us", String, nullable=False),
    Column("labels", String, nullable=False),
    Column("mark_from_us", BIG),
    Column("mark_to_us", BIG),
    Column("episode", BIG),
    Column("episode_s", Float),
)
"""The strips of an alert's latest and of its longest episode by the part that they show: see `cloud.alert_strips`. `episode` is
the number of the episode in the alert, and `episode_s` for how long it had lasted. Rows of revision 12 have neither."""
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
beats: Final = Table(
    "beats",
    metadata,
    Column("id", BIG, primary_key=True),
    *_sensor_key(),
    Column("kind", String, nullable=False),
    Column("from_us", BIG, nullable=False),
    Column("to_us", BIG, nullable=False),
    Column("beats_ms", LargeBinary, nullable=False),
    Column("classes", LargeBinary, nullable=False),
    Index("beats_by_time", "subject", "hub", "sensor", "from_us"),
)
"""The beats found in stretches of an ECG, packed (`sync.packing`)."""
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
