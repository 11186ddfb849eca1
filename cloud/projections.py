"""Writes records to the projections: the SQL statements that apply one opened block.

Every row belongs to one patient: its key begins with the subject, which the block's authenticated header names. Where one
record replaces another, the later position in the lane wins, never the later time: the hub's clock can be set back.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from sqlalchemy import Executable, Table, select, tuple_
from sqlalchemy.engine import Connection

from cloud import tables
from cloud.alert_rows import POSITIONS_OF_ALERT, alert_columns
from cloud.alert_strips import write_strip
from cloud.changes import ALERT, SENSOR, VITAL, WAVEFORM, AlertKey, BlockOrigin, Change
from cloud.projection_statements import COUNT_SENSORS, DELETE_UNOPENED, INSERTS, TOTALS, statements
from cloud.store.stored_blocks import StoredBlockId
from drivers.kinds import NOT_MEASURED
from sync.commands import ANSWER_KINDS
from sync.packing import pack_integers, pack_samples
from sync.records import (
    CONFIRMED_KIND,
    UNCONFIRMED_FLAG,
    AlertRecord,
    BeatsRecord,
    FindingRecord,
    GapRecord,
    IntervalsRecord,
    QuarantinedRecord,
    Record,
    RecordError,
    SpotOrigin,
    StatusRecord,
    UnknownRecord,
    VitalRecord,
    WaveformRecord,
)

MAX_SENSORS: Final = 256
"""Sensors of one patient on one hub over the years. A hub serves some twenty at a time; more names than this are an error."""


@dataclass(frozen=True, slots=True)
class Source:
    """What projections say of themselves and of the store that they come from.

    `id` is random; `batches` counts the transactions of the opener. `store_id` is None before the first batch; `commits` is the
    highest number of commits that this store was seen to have.
    """

    id: bytes
    batches: int
    store_id: bytes | None
    commits: int


@dataclass(frozen=True, slots=True)
class UnopenedBlock:
    """A block that was not opened, and why: `reason` is one of `cloud.block_reader`'s constants."""

    hub: str
    epoch: int
    lane: str
    seq: int
    reason: str
    detail: str


def lock_source(connection: Connection) -> Source:
    """Return what the projections say of themselves. On PostgreSQL no other opener writes until the transaction ends."""
    query = select(*(tables.source.c[name] for name in Source.__slots__)).with_for_update()
    return Source(*connection.execute(query).one())


def write_source(connection: Connection, source: Source) -> None:
    """Replace what the projections say of themselves."""
    connection.execute(tables.source.update().values({name: getattr(source, name) for name in Source.__slots__}))


def note_opened(connection: Connection, block: StoredBlockId) -> bool:
    """Note that a block's records are in the projections; returns false if they are already."""
    if not connection.execute(statements(connection).insert_opened, block._asdict()).rowcount:
        return False
    connection.execute(DELETE_UNOPENED, block._asdict())
    return True


def record_unopened(connection: Connection, block: UnopenedBlock) -> None:
    """Record a block that could not be read; if it is already recorded, update its reason."""
    row = {name: getattr(block, name) for name in UnopenedBlock.__slots__}
    connection.execute(statements(connection).upsert_unopened, row)


def list_unopened(
    connection: Connection, reasons: Sequence[str], after: StoredBlockId | None, limit: int
) -> list[StoredBlockId]:
    """Return up to `limit` blocks, behind `after`, that were not opened for one of these reasons."""
    unopened = tables.unopened.c
    columns = [unopened[name] for name in StoredBlockId._fields]
    query = select(*columns).where(unopened.reason.in_(reasons)).order_by(*columns).limit(limit)
    if after is not None:
        query = query.where(tuple_(*columns) > tuple_(*after))
    return [StoredBlockId(*row) for row in connection.execute(query)]


def project_records(connection: Connection, origin: BlockOrigin, records: Iterable[Record]) -> list[Change]:
    """Write the records of one block to the projections; returns what changed, all of it of one subject.

    Raises:
        RecordError: the hub names more sensors than `MAX_SENSORS`.
    """
    patient = {"subject": origin.subject, "opened": 1, "alerts": 0, "revision": 0, "unknown_records": 0}
    connection.execute(statements(connection).count_block, patient)
    writer = _BlockWriter(connection, origin)
    for record in records:
        writer.write(record)
    writer.finish()
    return writer.changes


@dataclass(slots=True)
class _SensorTotals:
    """What one block adds to a sensor's row. `data_us` is the end of its last data by the hub's clock; None without data."""

    samples: int = 0
    undecodable: int = 0
    gaps: int = 0
    missing_samples: int = 0
    data_us: int | None = None


class _BlockWriter:
    """Writes the records of one block: of each table all rows at once, and of what is replaced by the next record the last."""

    def __init__(self, connection: Connection, origin: BlockOrigin) -> None:
        self._connection = connection
        self._statements = statements(connection)
        self._origin = origin
        self._position = origin.position._asdict()
        self._totals: dict[str, _SensorTotals] = defaultdict(_SensorTotals)
        self._rows: dict[Table, list[tuple[dict[str, Any], Change | None]]] = defaultdict(list)
        """Rows to insert, with the change that each one is; its number is added then."""
        self._latest: dict[tuple[Executable, str, str], dict[str, Any]] = {}
        """By statement, sensor and kind: the last row."""
        self.changes: list[Change] = []

    def write(self, record: Record) -> None:
        match record:
            case AlertRecord():
                self._write_alert(record)
            case WaveformRecord():
                self._write_waveform(record)
            case VitalRecord():
                self._write_vital(record)
            case IntervalsRecord() | BeatsRecord():
                self._write_series(record)
            case StatusRecord():
                self._write_status(record)
            case GapRecord():
                self._write_gap(record)
            case FindingRecord():
                columns = {name: getattr(record, name) for name in FindingRecord.__slots__}
                self._insert(tables.findings, record, columns | {"measured": _json_or_none(record.measured)})
            case QuarantinedRecord():
                self._totals[record.sensor].undecodable += 1
            case UnknownRecord():
                self._count_unknown(record)

    def finish(self) -> None:
        """Write what was gathered; add to the totals of the block's sensors, and keep their latest data."""
        self._write_rows()
        self._write_latest()
        for sensor, totals in self._totals.items():
            key = self._origin.sensor_key(sensor)
            self.changes.append(Change(SENSOR, *key))
            values = {name: getattr(totals, name) for name in TOTALS}
            unproven = {"unproven_until_us": None if self._origin.is_proven else totals.data_us}
            self._connection.execute(self._statements.upsert_sensor, key._asdict() | values | unproven)
            if totals.data_us is not None:
                received = {"data_us": totals.data_us, "received_us": self._origin.received_us}
                self._connection.execute(
                    self._statements.upsert_last_data, key._asdict() | {"lane": self._origin.lane} | self._position | received
                )
        if self._totals:
            self._check_number_of_sensors()

    def _check_number_of_sensors(self) -> None:
        mine = {"subject": self._origin.subject, "hub": self._origin.hub}
        n = self._connection.execute(COUNT_SENSORS, mine).scalar_one()
        if n > MAX_SENSORS:
            raise RecordError(f"its hub names more than {MAX_SENSORS} sensors of one patient")

    def _write_alert(self, record: AlertRecord) -> None:
        """Keep the latest state of an alert, the time of its first decision, and its latest strip."""
        alerts, origin = tables.alerts, self._origin
        key = AlertKey(origin.subject, origin.hub, record.id)
        this = (alerts.c.subject == key.subject) & (alerts.c.hub == key.hub) & (alerts.c.id == key.id)
        known = self._connection.execute(select(*POSITIONS_OF_ALERT).where(this)).first()
        if record.strip is not None:
            write_strip(self._connection, key, record, record.strip, origin)
        changed = alert_columns(record, origin, known)
        if not changed:
            return
        changed["revision"] = self._connection.execute(self._statements.next_revision).scalar_one()
        if known is None:
            self._connection.execute(alerts.insert(), key._asdict() | changed)
        else:
            self._connection.execute(alerts.update().where(this).values(changed))
        patients = tables.patients
        totals = {"revision": changed["revision"], "alerts": patients.c.alerts + int(known is None)}
        self._connection.execute(patients.update().where(patients.c.subject == key.subject).values(totals))
        self.changes.append(Change(ALERT, *key))

    def _write_waveform(self, record: WaveformRecord) -> None:
        end_us = record.times.at_us + round(len(record.samples) / record.rate_hz * 1e6)
        columns = {
            "start_us": record.times.at_us,
            "end_us": end_us,
            "sensor_ns": record.times.sensor_ns,
            "rate_hz": record.rate_hz,
            "scale": record.scale,
            "n": len(record.samples),
            "samples": pack_samples(record.samples),
        }
        change = Change(WAVEFORM, *self._origin.sensor_key(record.sensor), samples=len(record.samples))
        self._insert(tables.waveforms, record, columns | self._position, change)
        self._totals[record.sensor].samples += len(record.samples)
        self._add_data(record.sensor, end_us)

    def _write_vital(self, record: VitalRecord) -> None:
        times, origin = record.times, record.origin
        measured = {"at_us": times.at_us, "value": record.value}
        told = {"flags": json.dumps(record.flags), "origin": _origin_or_none(origin)}
        change = Change(VITAL, *self._origin.sensor_key(record.sensor))
        self._insert(tables.vitals, record, measured | self._position | told, change)
        known = {"received_us": self._origin.received_us, "is_result": origin is not None}
        latest = self._row(record) | self._position | measured | known
        if (NOT_MEASURED | {UNCONFIRMED_FLAG}).isdisjoint(record.flags):
            if origin:
                self._write_latest()  # in the order of the records: a result may replace a value, and the other way round
                self._connection.execute(self._statements.upsert_latest_result, latest)
            else:
                self._latest[self._statements.upsert_latest_vital, record.sensor, record.kind] = latest
        self._add_data(record.sensor, times.arrived_us if origin else times.at_us)

    def _write_series(self, record: IntervalsRecord | BeatsRecord) -> None:
        if isinstance(record, IntervalsRecord):
            self._insert(tables.intervals, record, {"at_us": record.times.at_us, "ticks": json.dumps(record.ticks)})
            self._add_data(record.sensor, record.times.at_us)
            return
        packed = {name: pack_integers(np.array(getattr(record, name), np.int64)) for name in ("beats_ms", "classes")}
        self._insert(tables.beats, record, {"from_us": record.from_us, "to_us": record.to_us, **packed})
        self._add_data(record.sensor, record.to_us)

    def _write_status(self, record: StatusRecord) -> None:
        if record.kind in ANSWER_KINDS:
            return  # about a command: the opener notes it in the store
        told = {"at_us": record.times.at_us, "value": json.dumps(record.value), "origin": _origin_or_none(record.origin)}
        self._latest[self._statements.upsert_status, record.sensor, record.kind] = self._row(record) | self._position | told
        self._add_data(record.sensor, record.times.arrived_us if record.origin else record.times.at_us)
        if record.kind == CONFIRMED_KIND and record.origin is not None:
            self._apply_answer(record.sensor, record.origin.group, is_patient=record.value is True)

    def _apply_answer(self, sensor: str, group: int, *, is_patient: bool) -> None:
        """Delete the values of a result that is another person's, or make them the patient's by removing their mark."""
        self._write_rows()
        self._write_latest()
        vitals, key = tables.vitals, self._origin.sensor_key(sensor)
        this = [vitals.c[name] == value for name, value in key._asdict().items()]
        this += [vitals.c.origin.startswith(f'{{"group": {group},'), vitals.c.flags.contains(f'"{UNCONFIRMED_FLAG}"')]
        if not is_patient:
            self._connection.execute(vitals.delete().where(*this))
            return
        for row in self._connection.execute(select(vitals).where(*this)).mappings().all():
            flags = [flag for flag in json.loads(row["flags"]) if flag != UNCONFIRMED_FLAG]
            self._connection.execute(vitals.update().where(vitals.c.id == row["id"]).values(flags=json.dumps(flags)))
            latest = {column.name: row[column.name] for column in tables.latest_vitals.c if column.name in row}
            known = {"received_us": self._origin.received_us, "is_result": True}
            if NOT_MEASURED.isdisjoint(flags):
                self._connection.execute(self._statements.upsert_latest_result, latest | known)
            self.changes.append(Change(VITAL, *key, row["id"]))

    def _count_unknown(self, record: UnknownRecord) -> None:
        patients = tables.patients
        mine = patients.c.subject == self._origin.subject
        self._connection.execute(patients.update().where(mine).values(unknown_records=patients.c.unknown_records + 1))
        if record.sensor is not None:
            self._totals[record.sensor].undecodable += 1

    def _write_gap(self, record: GapRecord) -> None:
        """Let the record that closes a gap replace the one that opened it; a late opening record does not reopen the gap."""
        gaps, row = tables.gaps, self._row(record) | {"from_us": record.from_us}
        this = [gaps.c[name] == value for name, value in row.items()]
        known = self._connection.execute(select(gaps.c.missing).where(*this)).first()
        values = {name: getattr(record, name) for name in GapRecord.__slots__}
        self._connection.execute(self._statements.upsert_gap, row | values | self._position)
        totals = self._totals[record.sensor]
        if known is None:
            totals.gaps += 1
        if known is None or record.to_us is not None:
            totals.missing_samples += (record.missing or 0) - (known.missing or 0 if known else 0)

    def _row(self, record: Any) -> dict[str, Any]:
        return {**self._origin.sensor_key(record.sensor)._asdict(), "kind": record.kind}

    def _insert(self, table: Table, record: Any, columns: Mapping[str, Any], change: Change | None = None) -> None:
        self._rows[table].append(({**columns, **self._row(record)}, change))

    def _write_rows(self) -> None:
        for table, rows in self._rows.items():
            insert, names = INSERTS[table]
            found = insert.execute(self._connection, [[row[name] for name in names] for row, _ in rows])
            ids = sorted(row.id for row in found)  # numbers are given in the order of the rows
            self.changes += [change._replace(row=id_) for id_, (_, change) in zip(ids, rows, strict=True) if change]
        self._rows.clear()

    def _write_latest(self) -> None:
        for (statement, _, _), row in self._latest.items():
            self._connection.execute(statement, row)
        self._latest.clear()

    def _add_data(self, sensor: str, end_us: int) -> None:
        self._totals[sensor].data_us = end_us


def _origin_or_none(origin: SpotOrigin | None) -> str | None:
    return json.dumps(asdict(origin)) if origin is not None else None


def _json_or_none(measured: Mapping[str, float] | None) -> str | None:
    return json.dumps(dict(measured)) if measured is not None else None
