"""Writes records to the projections: the SQL statements that apply one opened block."""

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


def _upsert(table: Table, updates: Mapping[str, Any] | None = None, where: Any = None, keep: str = "\0") -> Executable:
    """Build an INSERT that updates the existing row if the primary key is taken and `where` holds.

    The update sets the columns in `updates`; by default it sets all columns to the new values, except those whose name begins
    with `keep` (none by default: no name begins with NUL). `_excluded(table)` is the row that could not be inserted.
    """
    statement = insert(table)
    key = list(table.primary_key.columns)
    others = {c.name: statement.excluded[c.name] for c in table.c if not (c.primary_key or c.name.startswith(keep))}
    return statement.on_conflict_do_update(index_elements=key, set_=dict(updates or others), where=where)


def _excluded(table: Table) -> Any:
    return insert(table).excluded


# Built once: building a statement costs more than executing it.
_MOVE_CURSOR: Final = _upsert(tables.cursors)
_INCREASE_COUNTER: Final = _upsert(tables.counters, {"value": tables.counters.c.value + _excluded(tables.counters).value})
_UPSERT_UNOPENED: Final = _upsert(tables.unopened)
_UPSERT_ALERT: Final = _upsert(tables.alerts, keep="strip_")
_UPSERT_ALERT_WITH_STRIP: Final = _upsert(tables.alerts)
_UPSERT_STATUS: Final = _upsert(tables.statuses, where=tables.statuses.c.at_us <= _excluded(tables.statuses).at_us)
_UPSERT_GAP: Final = _upsert(tables.gaps, where=or_(tables.gaps.c.to_us.is_(None), _excluded(tables.gaps).to_us.is_not(None)))
_UPSERT_SENSOR: Final = _upsert(
    tables.sensors,
    {
        "last_data_us": func.max(tables.sensors.c.last_data_us, _excluded(tables.sensors).last_data_us),
        "samples": tables.sensors.c.samples + _excluded(tables.sensors).samples,
        "undecodable": tables.sensors.c.undecodable + _excluded(tables.sensors).undecodable,
    },
)
_INSERT: Final = {table: table.insert() for table in (tables.waveforms, tables.vitals, tables.intervals, tables.findings)}


@dataclass(slots=True)
class Changes:
    """What a transaction changed, for live viewers.

    The keys of `alerts` are (hub, alert id) and those of `sensors` are (hub, sensor): each once, in the order of change.
    """

    alerts: dict[tuple[str, str], None] = field(default_factory=dict)
    sensors: dict[tuple[str, str], None] = field(default_factory=dict)
    waveforms: list[WaveformRecord] = field(default_factory=list)
    vitals: list[VitalRecord] = field(default_factory=list)
    blocks: int = 0

    def add(self, other: "Changes") -> None:
        """Add the changes of another block."""
        self.alerts |= other.alerts
        self.sensors |= other.sensors
        self.waveforms += other.waveforms
        self.vitals += other.vitals
        self.blocks += other.blocks


@dataclass(frozen=True, slots=True)
class UnopenedBlock:
    """A block that could not be read, and why: `no key`, `damaged` or `undecodable`. `block_id` is its id in the store."""

    block_id: int
    hub: str
    epoch: int
    lane: str
    seq: int
    reason: str
    detail: str


def read_cursor(connection: Connection, name: str) -> int:
    """Return the store's id of the last block that this cursor has passed, 0 before the first."""
    query = select(tables.cursors.c.block_id).where(tables.cursors.c.name == name)
    return connection.execute(query).scalar() or 0


def move_cursor(connection: Connection, name: str, block_id: int) -> None:
    """Set a cursor to the block that it has passed last."""
    connection.execute(_MOVE_CURSOR, {"name": name, "block_id": block_id})


def increase_counter(connection: Connection, name: str, amount: int) -> None:
    """Add to a counter."""
    connection.execute(_INCREASE_COUNTER, {"name": name, "value": amount})


def record_unopened(connection: Connection, block: UnopenedBlock) -> None:
    """Record a block that could not be read; if it is already recorded, update its reason."""
    connection.execute(_UPSERT_UNOPENED, {name: getattr(block, name) for name in UnopenedBlock.__slots__})


def delete_unopened(connection: Connection, block_id: int) -> None:
    """Delete the record of a block that could not be read before and now was."""
    connection.execute(tables.unopened.delete().where(tables.unopened.c.block_id == block_id))


def unopened_block_ids(connection: Connection, reason: str, after_id: int, limit: int) -> list[int]:
    """Return the store's ids, above `after_id`, of up to `limit` blocks that could not be read for `reason`, oldest first."""
    unopened = tables.unopened.c
    query = select(unopened.block_id).where(unopened.reason == reason, unopened.block_id > after_id)
    return list(connection.scalars(query.order_by(unopened.block_id).limit(limit)))


def project_records(connection: Connection, hub: str, records: Iterable[Record]) -> Changes:
    """Write the records of one block to the projections; returns what changed."""
    changes = Changes(blocks=1)
    for record in records:
        _write_record(connection, hub, record)
        match record:
            case AlertRecord():
                changes.alerts[hub, record.id] = None
            case FindingRecord():
                pass
            case _:
                changes.sensors[hub, record.sensor] = None
        match record:
            case WaveformRecord():
                changes.waveforms.append(record)
            case VitalRecord():
                changes.vitals.append(record)
            case _:
                pass
    return changes


def _write_record(connection: Connection, hub: str, record: Record) -> None:
    match record:
        case AlertRecord():
            _write_alert(connection, hub, record)
        case WaveformRecord():
            _write_waveform(connection, hub, record)
        case VitalRecord():
            _write_vital(connection, hub, record)
        case IntervalsRecord():
            _write_intervals(connection, hub, record)
        case StatusRecord():
            _write_status(connection, hub, record)
        case GapRecord():
            _write_gap(connection, hub, record)
        case FindingRecord():
            _write_finding(connection, hub, record)
        case QuarantinedRecord():
            _update_sensor(connection, hub, record.sensor, 0, undecodable=1)


def _write_alert(connection: Connection, hub: str, record: AlertRecord) -> None:
    """Keep the newest state of an alert, the time of its first decision, and a strip once received."""
    alerts = tables.alerts
    same_alert = (alerts.c.hub == hub) & (alerts.c.id == record.id)
    known = connection.execute(select(alerts.c.decided_us, alerts.c.updated_us).where(same_alert)).first()
    if known and known.updated_us > record.decided_us:
        connection.execute(alerts.update().where(same_alert).values(decided_us=min(known.decided_us, record.decided_us)))
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
        connection.execute(_UPSERT_ALERT, columns)
    else:
        connection.execute(_UPSERT_ALERT_WITH_STRIP, columns | _strip_columns(record.strip))


def _strip_columns(strip: Strip) -> dict[str, Any]:
    return {
        "strip_start_us": strip.start_us,
        "strip_rate_hz": strip.rate_hz,
        "strip_scale": strip.scale,
        "strip_samples": pack_samples(strip.samples),
        "strip_beats_us": json.dumps(strip.beats_us),
        "strip_labels": strip.labels,
    }


def _write_waveform(connection: Connection, hub: str, record: WaveformRecord) -> None:
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
    _update_sensor(connection, hub, record.sensor, end_us, samples=len(record.samples))


def _write_vital(connection: Connection, hub: str, record: VitalRecord) -> None:
    columns = {"at_us": record.times.at_us, "value": record.value, "flags": json.dumps(record.flags)}
    connection.execute(_INSERT[tables.vitals], {"hub": hub, "sensor": record.sensor, "kind": record.kind} | columns)
    _update_sensor(connection, hub, record.sensor, record.times.at_us)


def _write_intervals(connection: Connection, hub: str, record: IntervalsRecord) -> None:
    columns = {"at_us": record.times.at_us, "ticks": json.dumps(record.ticks)}
    connection.execute(_INSERT[tables.intervals], {"hub": hub, "sensor": record.sensor, "kind": record.kind} | columns)
    _update_sensor(connection, hub, record.sensor, record.times.at_us)


def _write_status(connection: Connection, hub: str, record: StatusRecord) -> None:
    columns = {"at_us": record.times.at_us, "value": json.dumps(record.value)}
    connection.execute(_UPSERT_STATUS, {"hub": hub, "sensor": record.sensor, "kind": record.kind} | columns)
    _update_sensor(connection, hub, record.sensor, record.times.at_us)


def _write_gap(connection: Connection, hub: str, record: GapRecord) -> None:
    """Let the record that closes a gap replace the one that opened it; a late opening record does not reopen the gap."""
    connection.execute(_UPSERT_GAP, {"hub": hub} | {name: getattr(record, name) for name in GapRecord.__slots__})
    _update_sensor(connection, hub, record.sensor, 0)


def _write_finding(connection: Connection, hub: str, record: FindingRecord) -> None:
    columns = {name: getattr(record, name) for name in FindingRecord.__slots__}
    connection.execute(_INSERT[tables.findings], columns | {"hub": hub, "measured": _json_or_none(record.measured)})


def _update_sensor(connection: Connection, hub: str, sensor: str, at_us: int, samples: int = 0, undecodable: int = 0) -> None:
    """Add to the sensor's row. `at_us` is the time of the data, or 0 if the record carries no data."""
    counts = {"last_data_us": at_us, "samples": samples, "undecodable": undecodable}
    connection.execute(_UPSERT_SENSOR, {"hub": hub, "sensor": sensor} | counts)


def _json_or_none(measured: Mapping[str, float] | None) -> str | None:
    return json.dumps(dict(measured)) if measured is not None else None
