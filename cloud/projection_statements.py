"""The statements that write to the projections, built once for each database: building one costs more than executing it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, Executable, Table, bindparam, case, func, or_, select, tuple_

from cloud import tables
from cloud.databases import insert_into
from cloud.prepared_statements import prepared
from cloud.row_sets import RowInsert
from cloud.store.stored_blocks import StoredBlockId

MAX_TOTAL: Final = 2**53 - 1
"""Totals stay at this value: the largest integer that JavaScript represents exactly."""
TOTALS: Final = ("samples", "undecodable", "gaps", "missing_samples")


def _insert_rows(table: Table) -> tuple[RowInsert, tuple[str, ...]]:
    """Return an INSERT of rows that returns their numbers, and the columns to give."""
    names = tuple(column.name for column in table.c if column.name != "id")
    return RowInsert(table, names, lambda new: new.returning(table.c.id)), names


INSERTS: Final = {
    table: _insert_rows(table) for table in (tables.waveforms, tables.vitals, tables.intervals, tables.beats, tables.findings)
}


def _are(table: Table, *names: str) -> list[Any]:
    """Conditions on columns, whose values are given by their names."""
    return [table.c[name] == bindparam(name) for name in names]


DELETE_UNOPENED: Final = prepared(tables.unopened.delete().where(*_are(tables.unopened, *StoredBlockId._fields)))
COUNT_SENSORS: Final = prepared(select(func.count()).select_from(tables.sensors).where(*_are(tables.sensors, "subject", "hub")))


@dataclass(frozen=True, slots=True)
class Statements:
    """INSERTs that say what happens to a row that is there already."""

    insert_opened: Executable
    next_revision: Executable
    upsert_unopened: Executable
    count_block: Executable
    upsert_status: Executable
    upsert_latest_vital: Executable
    upsert_latest_result: Executable
    upsert_last_data: Executable
    upsert_gap: Executable
    upsert_sensor: Executable


def statements(connection: Connection) -> Statements:
    """Return the statements for the database of a connection."""
    return _build(connection.dialect.name)


@cache
def _build(dialect: str) -> Statements:
    counter, new_gap = tables.counters.c.value, _excluded(tables.gaps, dialect)
    revision: Any = insert_into(tables.counters, dialect).values(name="revision", value=1)
    next_revision = revision.on_conflict_do_update(index_elements=["name"], set_={"value": counter + 1})
    may_replace_gap = or_(tables.gaps.c.to_us.is_(None), new_gap.to_us.is_not(None))
    return Statements(
        insert_opened=prepared(insert_into(tables.opened, dialect).on_conflict_do_nothing()),
        next_revision=prepared(next_revision.returning(counter)),
        upsert_unopened=_upsert(tables.unopened, dialect),
        count_block=_upsert(tables.patients, dialect, {"opened": tables.patients.c.opened + 1}),
        upsert_status=_upsert_latest(tables.statuses, dialect),
        upsert_latest_vital=_upsert_latest(tables.latest_vitals, dialect),
        upsert_latest_result=_upsert_latest_result(dialect),
        upsert_last_data=_upsert_latest(tables.last_data, dialect),
        upsert_gap=_upsert(tables.gaps, dialect, where=may_replace_gap),
        upsert_sensor=_upsert(
            tables.sensors,
            dialect,
            {name: _add_to_total(name, dialect) for name in TOTALS} | {"unproven_until_us": _later_unproven(dialect)},
        ),
    )


def _upsert(table: Table, dialect: str, updates: Mapping[str, Any] | None = None, where: Any = None) -> Executable:
    """Build an INSERT that updates the existing row if the primary key is taken and `where` holds.

    The update sets the columns in `updates`; by default it sets all columns to the new values. `_excluded(table)` is the row
    that could not be inserted.
    """
    statement = insert_into(table, dialect)
    key = list(table.primary_key.columns)
    others = {c.name: statement.excluded[c.name] for c in table.c if not c.primary_key}
    return prepared(statement.on_conflict_do_update(index_elements=key, set_=dict(updates or others), where=where))


def _excluded(table: Table, dialect: str) -> Any:
    return insert_into(table, dialect).excluded


def _upsert_latest(table: Table, dialect: str) -> Executable:
    """Build an INSERT that replaces the existing row unless that row's record comes later in its lane."""
    new = _excluded(table, dialect)
    return _upsert(table, dialect, where=tuple_(table.c.epoch, table.c.seq) <= tuple_(new.epoch, new.seq))


def _upsert_latest_result(dialect: str) -> Executable:
    """Build an INSERT that replaces the latest value unless the new one was measured before it, whenever it was sent.

    A latest value with a time in the clinic's future is replaced in any case: the hub's clock was wrong.
    """
    table, new = tables.latest_vitals, _excluded(tables.latest_vitals, dialect)
    is_later = tuple_(table.c.at_us, table.c.epoch, table.c.seq) <= tuple_(new.at_us, new.epoch, new.seq)
    return _upsert(table, dialect, where=or_(is_later, table.c.at_us > table.c.received_us))


def _add_to_total(name: str, dialect: str) -> Any:
    total = tables.sensors.c[name] + _excluded(tables.sensors, dialect)[name]
    return case((total > MAX_TOTAL, MAX_TOTAL), else_=total)


def _later_unproven(dialect: str) -> Any:
    known, new = tables.sensors.c.unproven_until_us, _excluded(tables.sensors, dialect).unproven_until_us
    return case((or_(known.is_(None), new > known), new), else_=known)
