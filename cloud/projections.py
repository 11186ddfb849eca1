"""From records to rows: the statements by which one opened block changes the projections."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Executable, Table, func, or_, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import Connection

from cloud import tables
from sync.records import (
    AlertRecord,
    FindingRecord,
    GapRecord,
    IntervalsRecord,
    QuarantinedRecord,
    Record,
    StatusRecord,
    Strip,
    VitalRecord,
    WaveformRecord,
    pack_samples,
)


def _upsert(table: Table, changed: Mapping[str, Any] | None = None, where: Any = None, keep: str = "\0") -> Executable:
    """Insert a row; where its primary key is taken, change that row to the new one, or only as `changed` says, if `where`.

    Columns whose name begins with `keep` stay. `_new(table)` is the row that was to be inserted.
    """
    statement = insert(table)
    key = list(table.primary_key.columns)
    others = {c.name: statement.excluded[c.name] for c in table.c if not (c.primary_key or c.name.startswith(keep))}
    return statement.on_conflict_do_update(index_elements=key, set_=dict(changed or others), where=where)


def _new(table: Table) -> Any:
    return insert(table).excluded


# Built once: to build a statement costs more than to execute it.
_MOVE_CURSOR: Final = _upsert(tables.cursors)
_COUNT: Final = _upsert(tables.counters, {"value": tables.counters.c.value + _new(tables.counters).value})
_SET_ASIDE: Final = _upsert(tables.unopened)
_ALERT: Final = _upsert(tables.alerts, keep="strip_")
_ALERT_WITH_STRIP: Final = _upsert(tables.alerts)
_STATUS: Final = _upsert(tables.statuses, where=tables.statuses.c.at_us <= _new(tables.statuses).at_us)
_GAP: Final = _upsert(tables.gaps, where=or_(tables.gaps.c.to_us.is_(None), _new(tables.gaps).to_us.is_not(None)))
_SEEN: Final = _upsert(
    tables.sensors,
    {
        "last_data_us": func.max(tables.sensors.c.last_data_us, _new(tables.sensors).last_data_us),
        "samples": tables.sensors.c.samples + _new(tables.sensors).samples,
        "undecodable": tables.sensors.c.undecodable + _new(tables.sensors).undecodable,
    },
)
_INSERT: Final = {table: table.insert() for table in (tables.waveforms, tables.vitals, tables.intervals, tables.findings)}


@dataclass(slots=True)
class Changes:
    """What a transaction altered, for those who watch live: `alerts` are (hub, id), `sensors` (hub, sensor), once each."""

    alerts: dict[tuple[str, str], None] = field(default_factory=dict)
    sensors: dict[tuple[str, str], None] = field(default_factory=dict)
    waves: list[WaveformRecord] = field(default_factory=list)
    vitals: list[VitalRecord] = field(default_factory=list)
    blocks: int = 0

    def add(self, other: "Changes") -> None:
        """Take in the changes of another block."""
        self.alerts |= other.alerts
        self.sensors |= other.sensors
        self.waves += other.waves
        self.vitals += other.vitals
        self.blocks += other.blocks


@dataclass(frozen=True, slots=True)
class Unopened:
    """A block that could not be read, and why: `no key`, `damaged` or `undecodable`. `arrival` is its id in the store."""

    arrival: int
    hub: str
    epoch: int
    lane: str
    seq: int
    reason: str
    detail: str


def cursor(connection: Connection, name: str) -> int:
    """The store's id of the last block that was read under this name, 0 before the first."""
    query = select(tables.cursors.c.arrival).where(tables.cursors.c.name == name)
    return connection.execute(query).scalar() or 0


def advance(connection: Connection, name: str, arrival: int) -> None:
    """Move a cursor."""
    connection.execute(_MOVE_CURSOR, {"name": name, "arrival": arrival})


def count(connection: Connection, name: str, more: int) -> None:
    """Add to a counter."""
    connection.execute(_COUNT, {"name": name, "value": more})


def set_aside(connection: Connection, block: Unopened) -> None:
    """Record a block that could not be read; the same block again only renews the reason."""
    connection.execute(_SET_ASIDE, {name: getattr(block, name) for name in Unopened.__slots__})


def take_back(connection: Connection, arrival: int) -> None:
    """A block that was set aside has been read after all."""
    connection.execute(tables.unopened.delete().where(tables.unopened.c.arrival == arrival))


def arrivals_set_aside(connection: Connection, reason: str) -> list[int]:
    """Ids in the store of the blocks set aside for `reason`, oldest first."""
    unopened = tables.unopened.c
    return list(connection.scalars(select(unopened.arrival).where(unopened.reason == reason).order_by(unopened.arrival)))


def project(connection: Connection, hub: str, records: Iterable[Record]) -> Changes:
    """Write what the records of one block say; returns what is new."""
    changes = Changes(blocks=1)
    for record in records:
        _write(connection, hub, record)
        match record:
            case AlertRecord():
                changes.alerts[hub, record.id] = None
            case FindingRecord():
                pass
            case _:
                changes.sensors[hub, record.sensor] = None
        match record:
            case WaveformRecord():
                changes.waves.append(record)
            case VitalRecord():
                changes.vitals.append(record)
            case _:
                pass
    return changes


def _write(connection: Connection, hub: str, record: Record) -> None:
    match record:
        case AlertRecord():
            _alert(connection, hub, record)
        case WaveformRecord():
            _waveform(connection, hub, record)
        case VitalRecord():
            _vital(connection, hub, record)
        case IntervalsRecord():
            _intervals(connection, hub, record)
        case StatusRecord():
            _status(connection, hub, record)
        case GapRecord():
            _gap(connection, hub, record)
        case FindingRecord():
            _finding(connection, hub, record)
        case QuarantinedRecord():
            _seen(connection, hub, record.sensor, 0, undecodable=1)


def _alert(connection: Connection, hub: str, record: AlertRecord) -> None:
    """The newest word on an alert counts, but it keeps the time of its first decision and a strip it once had."""
    alerts = tables.alerts
    this = (alerts.c.hub == hub) & (alerts.c.id == record.id)
    known = connection.execute(select(alerts.c.decided_us, alerts.c.updated_us).where(this)).first()
    if known and known.updated_us > record.decided_us:
        connection.execute(alerts.update().where(this).values(decided_us=min(known.decided_us, record.decided_us)))
        return
    newest = connection.execute(select(func.max(alerts.c.revision))).scalar() or 0
    columns = {
        "hub": hub,
        "id": record.id,
        "revision": newest + 1,
        "sensor": record.sensor,
        "kind": record.kind,
        "priority": record.priority,
        "onset_us": record.onset_us,
        "end_us": record.end_us,
        "decided_us": known.decided_us if known else record.decided_us,
        "updated_us": record.decided_us,
        "source": record.source,
        "reasons": json.dumps(record.reasons),
        "probability": record.probability,
        "measured": _json_or_none(record.measured),
    }
    if record.strip is None:
        connection.execute(_ALERT, columns)
    else:
        connection.execute(_ALERT_WITH_STRIP, columns | _strip_columns(record.strip))


def _strip_columns(strip: Strip) -> dict[str, Any]:
    return {
        "strip_start_us": strip.start_us,
        "strip_rate_hz": strip.rate_hz,
        "strip_scale": strip.scale,
        "strip_samples": pack_samples(strip.samples),
        "strip_beats_us": json.dumps(strip.beats_us),
        "strip_labels": strip.labels,
    }


def _waveform(connection: Connection, hub: str, record: WaveformRecord) -> None:
    end_us = record.times.at_us + round(len(record.samples) / record.rate_hz * 1e6)
    columns = {
        "hub": hub,
        "sensor": record.sensor,
        "kind": record.kind,
        "start_us": record.times.at_us,
        "end_us": end_us,
        "sensor_ns": record.times.sensor_ns,
        "rate_hz": record.rate_hz,
        "scale": record.scale,
        "n": len(record.samples),
        "samples": pack_samples(record.samples),
    }
    connection.execute(_INSERT[tables.waveforms], columns)
    _seen(connection, hub, record.sensor, end_us, samples=len(record.samples))


def _vital(connection: Connection, hub: str, record: VitalRecord) -> None:
    columns = {"at_us": record.times.at_us, "value": record.value, "flags": json.dumps(record.flags)}
    connection.execute(_INSERT[tables.vitals], {"hub": hub, "sensor": record.sensor, "kind": record.kind} | columns)
    _seen(connection, hub, record.sensor, record.times.at_us)


def _intervals(connection: Connection, hub: str, record: IntervalsRecord) -> None:
    columns = {"at_us": record.times.at_us, "ticks": json.dumps(record.ticks)}
    connection.execute(_INSERT[tables.intervals], {"hub": hub, "sensor": record.sensor, "kind": record.kind} | columns)
    _seen(connection, hub, record.sensor, record.times.at_us)


def _status(connection: Connection, hub: str, record: StatusRecord) -> None:
    columns = {"at_us": record.times.at_us, "value": json.dumps(record.value)}
    connection.execute(_STATUS, {"hub": hub, "sensor": record.sensor, "kind": record.kind} | columns)
    _seen(connection, hub, record.sensor, record.times.at_us)


def _gap(connection: Connection, hub: str, record: GapRecord) -> None:
    """A closing record replaces the opening one; an opening record that comes late does not open the gap again."""
    connection.execute(_GAP, {"hub": hub} | {name: getattr(record, name) for name in GapRecord.__slots__})
    _seen(connection, hub, record.sensor, 0)


def _finding(connection: Connection, hub: str, record: FindingRecord) -> None:
    columns = {name: getattr(record, name) for name in FindingRecord.__slots__}
    connection.execute(_INSERT[tables.findings], columns | {"hub": hub, "measured": _json_or_none(record.measured)})


def _seen(connection: Connection, hub: str, sensor: str, at_us: int, samples: int = 0, undecodable: int = 0) -> None:
    """Note that the sensor was heard of; `at_us` is 0 where that was no data."""
    counts = {"last_data_us": at_us, "samples": samples, "undecodable": undecodable}
    connection.execute(_SEEN, {"hub": hub, "sensor": sensor} | counts)


def _json_or_none(measured: Mapping[str, float] | None) -> str | None:
    return json.dumps(dict(measured)) if measured is not None else None
