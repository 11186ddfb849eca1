"""Queries about sensors and their data against the projections; results are ready for JSON.

Times are microseconds since 1970, UTC. Every query about data names the sensor by patient, hub and name. What lies outside the
scope is not found. No query slows down as history grows: totals are kept in the rows of sensors and patients, and everything
else is found by an index.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from sqlalchemy import Column, ColumnElement, Double, Engine, Table, and_, cast, func, select
from sqlalchemy.engine import Connection, RowMapping

from cloud import tables
from cloud.api.numbers import Json, to_millivolts
from cloud.api.results import read_latest, read_results
from cloud.changes import SensorKey
from cloud.projection_statements import MAX_TOTAL
from cloud.scope import EVERY_SUBJECT, Scope
from cloud.validate import MAX_WAVEFORM_US
from sync.packing import unpack_samples

SILENT_AFTER_US: Final = 15_000_000
"""The page shows a sensor as silent after this time without data: hubs send every 10 s, or every second while somebody watches.
The other 5 s are for slow links."""
ON_DEMAND_SILENT_AFTER_US: Final = 120_000_000
"""The same for a sensor that is used on demand: while it sleeps, its hub searches for 30 s at a time and sends the state of the
link after each search, so that 2 minutes have two searches with the pauses between them, and their transmission."""
CLOCK_AHEAD_US: Final = 5_000_000
"""The hub's clock is ahead if data is this much later than its receipt. Clocks set by a time server agree within a second."""
LATE_US: Final = 30_000_000
"""Data that is older than this at its receipt is late. A hub sends within ten seconds, and a slow link needs some more."""
MAX_VITALS: Final = 25_000
"""Heart rate comes once a second, so this is seven hours."""
MAX_ECG_US: Final = 600_000_000
MAX_ECG_SAMPLES: Final = 300_000
"""Samples in one answer: ten minutes at 500 Hz, 2 MB."""
MAX_ECG_ROWS: Final = 10_000
"""Waveforms read for one answer: twice those of ten minutes of a sensor that sends eight times a second."""


def list_sensors(engine: Engine, scope: Scope) -> list[Json]:
    """Return every sensor of the scope with its latest status, values and results, its totals and its open gap.

    `is_on_demand` says that a person uses it now and then, so that it sends nothing for most of the time; `link` is the state
    of its connection as its hub last told it (docs/connections.md).
    """
    sensors = tables.sensors.c
    with engine.connect() as connection:
        query = select(tables.sensors).where(scope.allows(sensors.subject))
        query = query.order_by(sensors.subject, sensors.hub, sensors.sensor)
        return [_sensor_as_json(connection, scope, row) for row in connection.execute(query).mappings().all()]


def find_sensor(connection: Connection, scope: Scope, key: SensorKey) -> Json | None:
    """Return one sensor in the form of `list_sensors`; None if it is unknown."""
    query = select(tables.sensors).where(is_of(scope, tables.sensors, key))
    row = connection.execute(query).mappings().first()
    return None if row is None else _sensor_as_json(connection, scope, row)


def read_ecg(engine: Engine, scope: Scope, key: SensorKey, from_us: int, to_us: int) -> list[Json]:
    """Return the ECG segments of one sensor from `from_us` to `to_us`, cut to whole samples.

    At most the first ten minutes, `MAX_ECG_SAMPLES` samples and `MAX_ECG_ROWS` segments.
    """
    to_us = min(to_us, from_us + MAX_ECG_US)
    waves = tables.waveforms.c
    is_ecg = is_of(scope, tables.waveforms, key) & (waves.kind == "ecg")
    # No waveform is longer than MAX_WAVEFORM_US, so one that overlaps `from_us` begins shortly before it.
    overlaps = and_(waves.start_us > from_us - MAX_WAVEFORM_US, waves.start_us < to_us, waves.end_us > from_us)
    query = select(tables.waveforms).where(is_ecg, overlaps).order_by(waves.start_us).limit(MAX_ECG_ROWS)
    segments: list[Json] = []
    n_left = MAX_ECG_SAMPLES
    with engine.connect() as connection:
        for row in connection.execute(query).mappings():
            segment = _cut_segment(row, from_us, to_us, n_left)
            n_left -= len(segment["mv"])
            if segment["mv"]:
                segments.append(segment)
            if n_left == 0:
                break
    return segments


def read_vitals(engine: Engine, scope: Scope, key: SensorKey, kind: str, from_us: int, to_us: int) -> Json:
    """Return the values of one kind from `from_us` to `to_us`, oldest first (only the last `MAX_VITALS`), and the latest value.

    The latest value is the last one in the hub's sequence; its time need not be the highest if the hub's clock was set back. Of
    results measured on demand it is the last by its time, and never one that may be another person's. A number that is no
    measurement (`drivers.kinds.NOT_MEASURED`) is never the latest. A value has `flags` if there are any, and an `origin` if it
    was measured on demand (`sync.records.SpotOrigin`).
    """
    columns = tables.vitals.c
    condition = and_(is_of(scope, tables.vitals, key), columns.kind == kind, columns.at_us.between(from_us, to_us))
    shown = (columns.at_us, columns.value, columns.flags, columns.origin)
    query = select(*shown).where(condition).order_by(columns.at_us.desc()).limit(MAX_VITALS)
    with engine.connect() as connection:
        rows = connection.execute(query).all()
        latest = read_latest(connection, is_of(scope, tables.latest_vitals, key)).get(kind)
    return {"vitals": [_describe_vital(*row) for row in reversed(rows)], "latest": _value_of(latest)}


def _value_of(latest: Json | None) -> Json | None:
    return latest and {name: latest[name] for name in ("at_us", "received_us", "value", "position")}


def _describe_vital(at_us: int, value: float, flags: str, origin: str | None = None) -> Json:
    told = {"flags": json.loads(flags), "origin": json.loads(origin) if origin else None}
    return {"at_us": at_us, "value": value} | {name: one for name, one in told.items() if one}


def read_ecg_rows(connection: Connection, scope: Scope, rows: Sequence[int]) -> list[Json]:
    """Return the ECG waveforms with these row numbers, with the sensor of each, in the form of `read_ecg`."""
    waves = tables.waveforms.c
    query = select(tables.waveforms).where(waves.id.in_(rows), waves.kind == "ecg", scope.allows(waves.subject))
    found = connection.execute(query.order_by(waves.id)).mappings()
    return [
        {name: row[name] for name in SensorKey._fields} | _cut_segment(row, row["start_us"], row["end_us"], row["n"])
        for row in found
    ]


def read_vital_rows(connection: Connection, scope: Scope, rows: Sequence[int]) -> list[Json]:
    """Return the vital signs with these row numbers, with the sensor of each."""
    vitals = tables.vitals.c
    columns = (*(vitals[name] for name in SensorKey._fields), vitals.kind, vitals.at_us, vitals.value, vitals.flags)
    query = select(*columns, vitals.epoch, vitals.seq).where(vitals.id.in_(rows), scope.allows(vitals.subject))
    found: list[Json] = []
    for row in connection.execute(query.order_by(vitals.id)).mappings():
        shown = {name: row[name] for name in (*SensorKey._fields, "kind")}
        found.append(
            {"position": [row["epoch"], row["seq"]], **shown, **_describe_vital(row["at_us"], row["value"], row["flags"])}
        )
    return found


def read_counters(engine: Engine, scope: Scope) -> Json:
    """Return the numbers of opened blocks, ECG samples, gaps, alerts and records of unknown types.

    For every subject it returns also the numbers of unreadable blocks. Whom an unreadable block belongs to is not proven, so
    that such blocks are in no other scope.
    """
    patients, sensors = tables.patients.c, tables.sensors.c
    blocks: Json = {}
    with engine.connect() as connection:
        opened, alerts, unknown = _read_totals(connection, scope, patients.opened, patients.alerts, patients.unknown_records)
        samples, missing, gaps = _read_totals(connection, scope, sensors.samples, sensors.missing_samples, sensors.gaps)
        if scope == EVERY_SUBJECT:
            reasons = select(tables.unopened.c.reason, func.count().label("n")).group_by(tables.unopened.c.reason)
            by_reason = {row.reason: row.n for row in connection.execute(reasons)}
            blocks = {"unopened": sum(by_reason.values()), "unopened_reasons": by_reason}
    counted = {"samples": samples, "missing_samples": missing, "gaps": gaps, "alerts": alerts, "unknown_records": unknown}
    return {"blocks": {"opened": opened} | blocks, **counted}


def _read_totals(connection: Connection, scope: Scope, *columns: Column[int]) -> Sequence[int]:
    """Return the sum of each of these columns of one table over the scope."""
    # A float, because a sum of integers that overflows would be an error.
    query = select(*(func.sum(cast(column, Double)) for column in columns)).where(scope.allows(columns[0].table.c.subject))
    return [min(int(total or 0), MAX_TOTAL) for total in connection.execute(query).one()]


def is_of(scope: Scope, table: Table, key: SensorKey) -> ColumnElement[bool]:
    """Return the condition that a row is of this sensor, in the scope."""
    return and_(scope.allows(table.c.subject), *(table.c[name] == value for name, value in key._asdict().items()))


def _sensor_as_json(connection: Connection, scope: Scope, row: RowMapping) -> Json:
    key = SensorKey(row["subject"], row["hub"], row["sensor"])
    statuses = _read_statuses(connection, scope, key)
    gaps = tables.gaps.c
    open_gaps = (
        select(gaps.from_us, gaps.reason)
        .where(is_of(scope, tables.gaps, key), gaps.to_us.is_(None))
        .order_by(gaps.epoch.desc(), gaps.seq.desc())
    )
    gap = connection.execute(open_gaps.limit(1)).first()
    latest = read_latest(connection, is_of(scope, tables.latest_vitals, key))
    results = read_results(connection, is_of(scope, tables.vitals, key), is_of(scope, tables.statuses, key))
    return {
        **row,
        **_read_last_data(connection, scope, key),
        "heart_rate": _value_of(latest.get("heart_rate")),
        "values": [value for value in latest.values() if not value["is_result"]],
        "results": results,
        "is_on_demand": bool(results),
        "link": statuses.get("link"),
        "gap_since_us": gap.from_us if gap else None,
        "gap_reason": gap.reason if gap else None,
        "battery_percent": statuses.get("battery"),
        "skin_contact": statuses.get("skin_contact"),
        "model": statuses.get("model"),
    }


def _read_last_data(connection: Connection, scope: Scope, key: SensorKey) -> Json:
    """Return the times of the latest data, by the hub's clock and by the clinic's, and how the two disagree.

    `clock` is `ahead` if the hub's clock is ahead, `behind` if it is behind or the data was late (the clinic cannot tell
    which), else null; `clock_offset_us` is by how much the data's time was ahead of the clinic's clock at its receipt.
    """
    last = tables.last_data.c
    query = select(last.lane, last.data_us, last.received_us).where(is_of(scope, tables.last_data, key))
    rows = connection.execute(query.order_by(last.received_us.desc(), last.data_us.desc())).all()
    if not rows:
        times = {"last_data_us": None, "last_received_us": None, "last_waveform_us": None}
        return times | {"clock": None, "clock_offset_us": None}
    newest = rows[0]
    ahead_us = newest.data_us - newest.received_us
    return {
        "last_data_us": newest.data_us,
        "last_received_us": newest.received_us,
        "last_waveform_us": next((row.data_us for row in rows if row.lane == "wave"), None),
        "clock": "ahead" if ahead_us > CLOCK_AHEAD_US else "behind" if ahead_us < -LATE_US else None,
        "clock_offset_us": ahead_us,
    }


def _read_statuses(connection: Connection, scope: Scope, key: SensorKey) -> Mapping[str, Any]:
    statuses = tables.statuses.c
    is_shown = statuses.kind.in_(("battery", "link", "model", "skin_contact"))
    query = select(statuses.kind, statuses.value).where(is_of(scope, tables.statuses, key), is_shown)
    return {kind: json.loads(value) for kind, value in connection.execute(query)}


def _cut_segment(row: RowMapping, from_us: int, to_us: int, max_samples: int) -> Json:
    period_us = 1e6 / row["rate_hz"]
    first = max(0, int(np.ceil((from_us - row["start_us"]) / period_us)))
    last = min(row["n"], first + max_samples, int(np.ceil((to_us - row["start_us"]) / period_us)))
    samples = unpack_samples(row["samples"])[first:last]
    return {
        "start_us": row["start_us"] + round(first * period_us),
        "rate_hz": row["rate_hz"],
        "position": [row["epoch"], row["seq"]],
        "mv": to_millivolts(samples, row["scale"]),
    }
