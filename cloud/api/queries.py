"""Queries of the page against the projections; results are ready for JSON. Times are microseconds since 1970, UTC."""

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, Select, and_, func, select
from sqlalchemy.engine import Connection, RowMapping

from cloud import tables
from sync.records import unpack_samples

Json = dict[str, Any]

SILENT_AFTER_US: Final = 10_000_000
"""A streaming sensor sends about once a second; after ten seconds without data the page shows it as silent."""
MAX_ALERTS: Final = 500
MAX_VITALS: Final = 25_000
"""Heart rate comes once a second, so this is seven hours."""
MAX_ECG_US: Final = 600_000_000
MV_DECIMALS: Final = 3
"""1 microvolt: the finest step of the supported sensors."""

_STRIP_COLUMNS: Final = tuple(column for column in tables.alerts.c if column.name.startswith("strip_"))
_SUMMARY_COLUMNS: Final = tuple(column for column in tables.alerts.c if column not in set(_STRIP_COLUMNS))


def find_alerts_after(engine: Engine, revision: int) -> Json:
    """Return the alerts new or changed since `revision`, latest change first, without strips, and the newest revision."""
    alerts = tables.alerts.c
    query = select(*_SUMMARY_COLUMNS, alerts.strip_start_us).order_by(alerts.revision.desc()).limit(MAX_ALERTS)
    with engine.connect() as connection:
        newest = connection.execute(select(func.max(alerts.revision))).scalar() or 0
        rows = connection.execute(query.where(alerts.revision > revision)).mappings()
        return {"revision": newest, "alerts": [_alert_as_json(row) for row in rows]}


def find_alert(engine: Engine, id_: str, hub: str | None = None) -> Json | None:
    """Return one alert with its strip; None if no alert has this id."""
    query = select(tables.alerts).where(tables.alerts.c.id == id_)
    if hub is not None:
        query = query.where(tables.alerts.c.hub == hub)
    with engine.connect() as connection:
        row = connection.execute(query).mappings().first()
    return None if row is None else _alert_as_json(row) | {"strip": _strip_as_json(row)}


def list_sensors(engine: Engine) -> list[Json]:
    """Return every sensor with its latest status, its number of samples and its gaps."""
    with engine.connect() as connection:
        rows = connection.execute(select(tables.sensors).order_by(tables.sensors.c.sensor)).mappings().all()
        return [_sensor_as_json(connection, row) for row in rows]


def find_sensor(engine: Engine, hub: str, name: str) -> Json | None:
    """Return one sensor in the form of `list_sensors`; None if it is unknown."""
    query = select(tables.sensors).where(and_(tables.sensors.c.hub == hub, tables.sensors.c.sensor == name))
    with engine.connect() as connection:
        row = connection.execute(query).mappings().first()
        return None if row is None else _sensor_as_json(connection, row)


def read_ecg(engine: Engine, name: str, from_us: int, to_us: int) -> list[Json]:
    """Return the ECG segments of one sensor from `from_us` to `to_us`, at most ten minutes, cut to whole samples."""
    to_us = min(to_us, from_us + MAX_ECG_US)
    waves = tables.waveforms.c
    overlapping = and_(waves.sensor == name, waves.kind == "ecg", waves.end_us > from_us, waves.start_us < to_us)
    with engine.connect() as connection:
        rows = connection.execute(select(tables.waveforms).where(overlapping).order_by(waves.start_us)).mappings().all()
    return [segment for row in rows if (segment := _cut_segment(row, from_us, to_us))["mv"]]


def read_vitals(engine: Engine, name: str, kind: str, from_us: int) -> list[Json]:
    """Return the values of one kind since `from_us`, oldest first; only the latest `MAX_VITALS` if there are more."""
    columns = tables.vitals.c
    condition = and_(columns.sensor == name, columns.kind == kind, columns.at_us >= from_us)
    query = select(columns.at_us, columns.value).where(condition).order_by(columns.at_us.desc()).limit(MAX_VITALS)
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    return [{"at_us": at_us, "value": value} for at_us, value in reversed(rows)]


def read_counters(engine: Engine) -> Json:
    """Return the numbers of opened blocks, of unreadable blocks by reason, and of ECG samples, gaps and alerts."""
    with engine.connect() as connection:
        opened = connection.execute(_select_counter("opened")).scalar() or 0
        reasons = connection.execute(
            select(tables.unopened.c.reason, func.count().label("n")).group_by(tables.unopened.c.reason)
        ).all()
        samples = connection.execute(select(func.coalesce(func.sum(tables.sensors.c.samples), 0))).scalar_one()
        missing = connection.execute(select(func.coalesce(func.sum(tables.gaps.c.missing), 0))).scalar_one()
        gaps = connection.execute(select(func.count()).select_from(tables.gaps)).scalar_one()
        alerts = connection.execute(select(func.count()).select_from(tables.alerts)).scalar_one()
    by_reason = {row.reason: row.n for row in reasons}
    blocks = {"opened": opened, "unopened": sum(by_reason.values()), "unopened_reasons": by_reason}
    return {"blocks": blocks, "samples": samples, "missing_samples": missing, "gaps": gaps, "alerts": alerts}


def to_millivolts(samples: NDArray[np.int32], scale: float) -> list[float]:
    """Return the samples in mV."""
    return [round(value, MV_DECIMALS) for value in (samples * scale).tolist()]


def _select_counter(name: str) -> Select[tuple[int]]:
    return select(tables.counters.c.value).where(tables.counters.c.name == name)


def _alert_as_json(row: RowMapping) -> Json:
    summary = {column.name: row[column.name] for column in _SUMMARY_COLUMNS}
    return summary | {
        "reasons": json.loads(row["reasons"]),
        "measured": json.loads(row["measured"] or "{}"),
        "has_strip": row["strip_start_us"] is not None,
    }


def _strip_as_json(row: RowMapping) -> Json | None:
    if row["strip_start_us"] is None:
        return None
    return {
        "start_us": row["strip_start_us"],
        "rate_hz": row["strip_rate_hz"],
        "mv": to_millivolts(unpack_samples(row["strip_samples"]), row["strip_scale"]),
        "beats_us": json.loads(row["strip_beats_us"]),
        "labels": row["strip_labels"],
    }


def _sensor_as_json(connection: Connection, row: RowMapping) -> Json:
    def is_this_sensor(table: Any) -> Any:
        return and_(table.c.hub == row["hub"], table.c.sensor == row["sensor"])

    statuses = _read_statuses(connection, is_this_sensor(tables.statuses))
    gaps = tables.gaps.c
    totals = select(func.count(), func.coalesce(func.sum(gaps.missing), 0)).where(is_this_sensor(tables.gaps))
    n_gaps, missing = connection.execute(totals).one()
    open_gaps = (
        select(gaps.from_us, gaps.reason).where(is_this_sensor(tables.gaps), gaps.to_us.is_(None)).order_by(gaps.from_us.desc())
    )
    gap = connection.execute(open_gaps).first()
    return dict(row) | {
        "gap_since_us": gap.from_us if gap else None,
        "gap_reason": gap.reason if gap else None,
        "gaps": n_gaps,
        "missing_samples": missing,
        "battery_percent": statuses.get("battery"),
        "skin_contact": statuses.get("skin_contact"),
        "model": statuses.get("model"),
    }


def _read_statuses(connection: Connection, condition: Any) -> Mapping[str, Any]:
    statuses = tables.statuses.c
    return {
        kind: json.loads(value) for kind, value in connection.execute(select(statuses.kind, statuses.value).where(condition))
    }


def _cut_segment(row: RowMapping, from_us: int, to_us: int) -> Json:
    period_us = 1e6 / row["rate_hz"]
    first = max(0, int(np.ceil((from_us - row["start_us"]) / period_us)))
    last = min(row["n"], int(np.ceil((to_us - row["start_us"]) / period_us)))
    samples = unpack_samples(row["samples"])[first:last]
    start_us = row["start_us"] + round(first * period_us)
    return {"start_us": start_us, "rate_hz": row["rate_hz"], "mv": to_millivolts(samples, row["scale"])}
