"""What the page asks the projections, as values ready for JSON. Times are microseconds since 1970, UTC."""

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
"""A sensor that streams sends every second or so; after ten seconds without data the page calls it silent."""
MOST_ALERTS: Final = 500
MOST_VITALS: Final = 25_000
"""Heart rate comes once a second: seven hours."""
LONGEST_ECG_US: Final = 600_000_000
MV_DECIMALS: Final = 3
"""1 microvolt: the finest step of our sensors."""

_STRIP: Final = tuple(column for column in tables.alerts.c if column.name.startswith("strip_"))
_SUMMARY: Final = tuple(column for column in tables.alerts.c if column not in set(_STRIP))


def alerts_after(engine: Engine, revision: int) -> Json:
    """Alerts that are new or changed since `revision`, latest change first, without strips; and the newest revision."""
    alerts = tables.alerts.c
    query = select(*_SUMMARY, alerts.strip_start_us).order_by(alerts.revision.desc()).limit(MOST_ALERTS)
    with engine.connect() as connection:
        newest = connection.execute(select(func.max(alerts.revision))).scalar() or 0
        rows = connection.execute(query.where(alerts.revision > revision)).mappings()
        return {"revision": newest, "alerts": [_alert(row) for row in rows]}


def alert(engine: Engine, id_: str, hub: str | None = None) -> Json | None:
    """One alert with its strip; None where there is none of that id."""
    query = select(tables.alerts).where(tables.alerts.c.id == id_)
    if hub is not None:
        query = query.where(tables.alerts.c.hub == hub)
    with engine.connect() as connection:
        row = connection.execute(query).mappings().first()
    return None if row is None else _alert(row) | {"strip": _strip(row)}


def sensors(engine: Engine) -> list[Json]:
    """Every sensor with what it last said of itself, its samples and its gaps."""
    with engine.connect() as connection:
        rows = connection.execute(select(tables.sensors).order_by(tables.sensors.c.sensor)).mappings().all()
        return [_sensor(connection, row) for row in rows]


def sensor(engine: Engine, hub: str, name: str) -> Json | None:
    """One sensor, as in `sensors`."""
    query = select(tables.sensors).where(and_(tables.sensors.c.hub == hub, tables.sensors.c.sensor == name))
    with engine.connect() as connection:
        row = connection.execute(query).mappings().first()
        return None if row is None else _sensor(connection, row)


def ecg(engine: Engine, name: str, from_us: int, to_us: int) -> list[Json]:
    """ECG of one sensor in at most ten minutes from `from_us` on: stored stretches that overlap, cut to whole samples."""
    to_us = min(to_us, from_us + LONGEST_ECG_US)
    waves = tables.waveforms.c
    overlapping = and_(waves.sensor == name, waves.kind == "ecg", waves.end_us > from_us, waves.start_us < to_us)
    with engine.connect() as connection:
        rows = connection.execute(select(tables.waveforms).where(overlapping).order_by(waves.start_us)).mappings().all()
    return [segment for row in rows if (segment := _cut(row, from_us, to_us))["mv"]]


def vitals(engine: Engine, name: str, kind: str, from_us: int) -> list[Json]:
    """Values of one kind since `from_us`, oldest first; the latest ones where there are more than `MOST_VITALS`."""
    columns = tables.vitals.c
    wanted = and_(columns.sensor == name, columns.kind == kind, columns.at_us >= from_us)
    query = select(columns.at_us, columns.value).where(wanted).order_by(columns.at_us.desc()).limit(MOST_VITALS)
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    return [{"at_us": at_us, "value": value} for at_us, value in reversed(rows)]


def counters(engine: Engine) -> Json:
    """Blocks opened and not readable, by reason; ECG samples, gaps and alerts."""
    with engine.connect() as connection:
        opened = connection.execute(_counter("opened")).scalar() or 0
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


def millivolts(samples: NDArray[np.int32], scale: float) -> list[float]:
    """Samples in mV."""
    return [round(value, MV_DECIMALS) for value in (samples * scale).tolist()]


def _counter(name: str) -> Select[tuple[int]]:
    return select(tables.counters.c.value).where(tables.counters.c.name == name)


def _alert(row: RowMapping) -> Json:
    summary = {column.name: row[column.name] for column in _SUMMARY}
    return summary | {
        "reasons": json.loads(row["reasons"]),
        "measured": json.loads(row["measured"] or "{}"),
        "has_strip": row["strip_start_us"] is not None,
    }


def _strip(row: RowMapping) -> Json | None:
    if row["strip_start_us"] is None:
        return None
    return {
        "start_us": row["strip_start_us"],
        "rate_hz": row["strip_rate_hz"],
        "mv": millivolts(unpack_samples(row["strip_samples"]), row["strip_scale"]),
        "beats_us": json.loads(row["strip_beats_us"]),
        "labels": row["strip_labels"],
    }


def _sensor(connection: Connection, row: RowMapping) -> Json:
    def of_this(table: Any) -> Any:
        return and_(table.c.hub == row["hub"], table.c.sensor == row["sensor"])

    statuses = _statuses(connection, of_this(tables.statuses))
    gaps = tables.gaps.c
    totals = select(func.count(), func.coalesce(func.sum(gaps.missing), 0)).where(of_this(tables.gaps))
    n_gaps, missing = connection.execute(totals).one()
    lasting = select(gaps.from_us, gaps.reason).where(of_this(tables.gaps), gaps.to_us.is_(None)).order_by(gaps.from_us.desc())
    gap = connection.execute(lasting).first()
    return dict(row) | {
        "gap_since_us": gap.from_us if gap else None,
        "gap_reason": gap.reason if gap else None,
        "gaps": n_gaps,
        "missing_samples": missing,
        "battery_percent": statuses.get("battery"),
        "skin_contact": statuses.get("skin_contact"),
        "model": statuses.get("model"),
    }


def _statuses(connection: Connection, condition: Any) -> Mapping[str, Any]:
    statuses = tables.statuses.c
    return {
        kind: json.loads(value) for kind, value in connection.execute(select(statuses.kind, statuses.value).where(condition))
    }


def _cut(row: RowMapping, from_us: int, to_us: int) -> Json:
    period_us = 1e6 / row["rate_hz"]
    first = max(0, int(np.ceil((from_us - row["start_us"]) / period_us)))
    last = min(row["n"], int(np.ceil((to_us - row["start_us"]) / period_us)))
    samples = unpack_samples(row["samples"])[first:last]
    start_us = row["start_us"] + round(first * period_us)
    return {"start_us": start_us, "rate_hz": row["rate_hz"], "mv": millivolts(samples, row["scale"])}
