"""Queries about sensors and their data against the projections; results are ready for JSON.

Times are microseconds since 1970, UTC. Every query about data names the sensor by patient, hub and name. No query slows down
as history grows: totals are kept in the sensor's row, and everything else is found by an index.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from sqlalchemy import ColumnElement, Double, Engine, Select, Table, and_, cast, func, select
from sqlalchemy.engine import Connection, RowMapping

from cloud import tables
from cloud.api.numbers import Json, to_millivolts
from cloud.changes import SensorKey
from cloud.projection_statements import MAX_TOTAL
from cloud.validate import MAX_WAVEFORM_US
from sync.packing import unpack_samples

SILENT_AFTER_US: Final = 10_000_000
"""A streaming sensor sends about once a second; after ten seconds without data the page shows it as silent."""
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


def list_sensors(engine: Engine) -> list[Json]:
    """Return every sensor with its latest status, its totals and its open gap."""
    sensors = tables.sensors.c
    with engine.connect() as connection:
        query = select(tables.sensors).order_by(sensors.subject, sensors.hub, sensors.sensor)
        return [_sensor_as_json(connection, row) for row in connection.execute(query).mappings().all()]


def find_sensor(engine: Engine, key: SensorKey) -> Json | None:
    """Return one sensor in the form of `list_sensors`; None if it is unknown."""
    with engine.connect() as connection:
        row = connection.execute(select(tables.sensors).where(_is_of(tables.sensors, key))).mappings().first()
        return None if row is None else _sensor_as_json(connection, row)


def read_ecg(engine: Engine, key: SensorKey, from_us: int, to_us: int) -> list[Json]:
    """Return the ECG segments of one sensor from `from_us` to `to_us`, cut to whole samples.

    At most the first ten minutes, `MAX_ECG_SAMPLES` samples and `MAX_ECG_ROWS` segments.
    """
    to_us = min(to_us, from_us + MAX_ECG_US)
    waves = tables.waveforms.c
    is_ecg = _is_of(tables.waveforms, key) & (waves.kind == "ecg")
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


def read_vitals(engine: Engine, key: SensorKey, kind: str, from_us: int, to_us: int) -> Json:
    """Return the values of one kind from `from_us` to `to_us`, oldest first (only the last `MAX_VITALS`), and the latest value.

    The latest value is the last one in the hub's sequence; its time need not be the highest if the hub's clock was set back.
    """
    columns = tables.vitals.c
    condition = and_(_is_of(tables.vitals, key), columns.kind == kind, columns.at_us.between(from_us, to_us))
    query = select(columns.at_us, columns.value).where(condition).order_by(columns.at_us.desc()).limit(MAX_VITALS)
    with engine.connect() as connection:
        rows = connection.execute(query).all()
        latest = _read_latest_vital(connection, key, kind)
    return {"vitals": [{"at_us": at_us, "value": value} for at_us, value in reversed(rows)], "latest": latest}


def read_counters(engine: Engine) -> Json:
    """Return how many blocks were opened or not, by reason, and the ECG samples, gaps, alerts and records of unknown types."""
    sensors = tables.sensors.c
    with engine.connect() as connection:
        opened = connection.execute(_select_counter("opened")).scalar() or 0
        alerts = connection.execute(_select_counter("alerts")).scalar() or 0
        unknown = connection.execute(_select_counter("unknown_records")).scalar() or 0
        reasons = connection.execute(
            select(tables.unopened.c.reason, func.count().label("n")).group_by(tables.unopened.c.reason)
        ).all()
        # A float, because a sum of integers that overflows would be an error.
        totals = (func.sum(cast(sensors[name], Double)) for name in ("samples", "missing_samples", "gaps"))
        sums = connection.execute(select(*totals)).one()
    samples, missing, gaps = (min(int(total or 0), MAX_TOTAL) for total in sums)
    by_reason = {row.reason: row.n for row in reasons}
    blocks = {"opened": opened, "unopened": sum(by_reason.values()), "unopened_reasons": by_reason}
    counted = {"samples": samples, "missing_samples": missing, "gaps": gaps, "alerts": alerts}
    return {"blocks": blocks, **counted, "unknown_records": unknown}


def _select_counter(name: str) -> Select[tuple[int]]:
    return select(tables.counters.c.value).where(tables.counters.c.name == name)


def _is_of(table: Table, key: SensorKey) -> ColumnElement[bool]:
    return and_(*(table.c[name] == value for name, value in key._asdict().items()))


def _sensor_as_json(connection: Connection, row: RowMapping) -> Json:
    key = SensorKey(row["subject"], row["hub"], row["sensor"])
    statuses = _read_statuses(connection, key)
    gaps = tables.gaps.c
    open_gaps = (
        select(gaps.from_us, gaps.reason)
        .where(_is_of(tables.gaps, key), gaps.to_us.is_(None))
        .order_by(gaps.epoch.desc(), gaps.seq.desc())
    )
    gap = connection.execute(open_gaps.limit(1)).first()
    return {
        **row,
        **_read_last_data(connection, key),
        "heart_rate": _read_latest_vital(connection, key, "heart_rate"),
        "gap_since_us": gap.from_us if gap else None,
        "gap_reason": gap.reason if gap else None,
        "battery_percent": statuses.get("battery"),
        "skin_contact": statuses.get("skin_contact"),
        "model": statuses.get("model"),
    }


def _read_last_data(connection: Connection, key: SensorKey) -> Json:
    """Return the times of the latest data, by the hub's clock and by the clinic's, and how the two disagree.

    `clock` is `ahead` if the hub's clock is ahead, `behind` if it is behind or the data was late (the clinic cannot tell
    which), else null; `clock_offset_us` is by how much the data's time was ahead of the clinic's clock at its receipt.
    """
    last = tables.last_data.c
    query = select(last.lane, last.data_us, last.received_us).where(_is_of(tables.last_data, key))
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


def _read_latest_vital(connection: Connection, key: SensorKey, kind: str) -> Json | None:
    latest = tables.latest_vitals.c
    columns = (latest.at_us, latest.received_us, latest.value, latest.epoch, latest.seq)
    query = select(*columns).where(_is_of(tables.latest_vitals, key), latest.kind == kind)
    row = connection.execute(query).first()
    if row is None:
        return None
    return {"at_us": row.at_us, "received_us": row.received_us, "value": row.value, "position": [row.epoch, row.seq]}


def _read_statuses(connection: Connection, key: SensorKey) -> Mapping[str, Any]:
    statuses = tables.statuses.c
    is_shown = statuses.kind.in_(("battery", "skin_contact", "model"))
    query = select(statuses.kind, statuses.value).where(_is_of(tables.statuses, key), is_shown)
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
