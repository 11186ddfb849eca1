"""The latest measurements of a sensor: results that a person measured on demand, and the latest continuous values.

A result is the values with one `group` (`sync.records.SpotOrigin`), as the pressures and the pulse of one blood pressure.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, select
from sqlalchemy.engine import Connection

from cloud import tables
from cloud.api.numbers import Json
from drivers.kinds import KINDS
from sync.records import UNCONFIRMED_FLAG

FAILED_KIND: Final = "failed_measurement"
FAILURE_REASON_KINDS: Final = ("cuff_status", "oximeter_status")
"""Kinds of the statuses that say why a measurement failed: names of flags, separated by commas."""
MAX_RESULT_VALUES: Final = 48
"""Values of the results of one sensor: some twelve blood pressures, or four weighings with body composition."""

Condition = ColumnElement[bool]


def read_results(connection: Connection, of_vitals: Condition, of_statuses: Condition) -> list[Json]:
    """Return the last results of a sensor, the last by their own time first, and its last failed measurement among them.

    The conditions select the sensor's rows in the two tables. A result has its time `at_us` and, from its origin,
    `time_source`, `clock`, `is_stored`, `local_us` and `user`; `is_confirmed` is false while it may be another person's;
    `values` are its values; `failed` names what could not be measured, else it is null, and `reasons` are flags that say why.
    """
    vitals = tables.vitals.c
    query = select(vitals.at_us, vitals.kind, vitals.value, vitals.flags, vitals.origin).where(of_vitals)
    query = query.where(vitals.origin.is_not(None)).order_by(vitals.at_us.desc(), vitals.id).limit(MAX_RESULT_VALUES)
    results: dict[int, Json] = {}
    rows = connection.execute(query).all()
    for row in rows:
        origin, flags = json.loads(row.origin), json.loads(row.flags)
        result = results.setdefault(origin["group"], _make_result(row.at_us, origin))
        result["is_confirmed"] &= UNCONFIRMED_FLAG not in flags
        told = [flag for flag in flags if flag != UNCONFIRMED_FLAG]
        result["values"].append(describe_kind(row.kind) | {"value": row.value, "flags": told})
    whole = list(results.values())
    if len(rows) == MAX_RESULT_VALUES and len(whole) > 1:
        whole.pop()  # some of its values may be missing
    found = [*whole, *_read_failure(connection, of_statuses)]
    return sorted(found, key=lambda result: -int(result["at_us"]))


def _make_result(at_us: int, origin: Json) -> Json:
    told = {name: origin.get(name) for name in ("group", "time_source", "clock", "is_stored", "local_us", "user")}
    return {"at_us": at_us, **told, "is_confirmed": True, "values": [], "failed": None, "reasons": []}


def _read_failure(connection: Connection, of_statuses: Condition) -> Sequence[Json]:
    statuses = tables.statuses.c
    kinds = statuses.kind.in_((FAILED_KIND, *FAILURE_REASON_KINDS))
    query = select(statuses.kind, statuses.at_us, statuses.value, statuses.origin)
    rows = connection.execute(query.where(of_statuses, kinds, statuses.origin.is_not(None))).all()
    failure: dict[str, Any] | None = None
    for row in rows:
        if row.kind == FAILED_KIND:
            failure = dict(_make_result(row.at_us, json.loads(row.origin))) | {"failed": json.loads(row.value)}
    if failure is None:
        return ()
    for row in rows:
        if row.kind != FAILED_KIND and json.loads(row.origin)["group"] == failure["group"]:
            failure["reasons"] = str(json.loads(row.value)).split(", ")
    return (failure,)


def read_latest(connection: Connection, of_latest: Condition) -> dict[str, Json]:
    """Return the latest value of each kind, by kind. `is_result` says that it was measured on demand."""
    latest = tables.latest_vitals.c
    columns = (latest.kind, latest.at_us, latest.received_us, latest.value, latest.epoch, latest.seq, latest.is_result)
    return {
        row.kind: describe_kind(row.kind)
        | {"at_us": row.at_us, "received_us": row.received_us, "value": row.value, "is_result": row.is_result}
        | {"position": [row.epoch, row.seq]}
        for row in connection.execute(select(*columns).where(of_latest).order_by(latest.kind))
    }


def describe_kind(kind: str) -> Json:
    """Return a kind with its title and its UCUM unit. A kind that a newer hub sends has neither."""
    known = KINDS.get(kind)
    return {"kind": kind, "title": known.title if known else None, "unit": known.ucum if known else None}
