"""Statements on many rows at once, the same for SQLite and PostgreSQL.

PostgreSQL gets one array for each column: the text of a statement stays the same for any number of rows, and its cost hardly
depends on the number. SQLite has no arrays and gets the values one by one. Statements are built once, because that takes
longer than to run one.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Executable,
    LargeBinary,
    String,
    Table,
    bindparam,
    column,
    func,
    select,
    tuple_,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine, UserDefinedType

from cloud.databases import POSTGRESQL, insert_into
from cloud.prepared_statements import prepared

_POSTGRESQL: Final[Dialect] = postgresql.dialect()  # type: ignore[no-untyped-call]
_PAGE: Final = 5000
"""Rows of a query on SQLite, which takes at most 32,766 values in one statement; no query here has more than six columns."""


class RowInsert:
    """An INSERT of rows into some columns of a table. `finish` adds what to do on a conflict, and what to return."""

    def __init__(self, table: Table, names: Sequence[str], finish: Callable[[Any], Any]) -> None:
        self._names = tuple(names)
        arrays = _unnest([table.c[name] for name in names])
        self._statements = {
            POSTGRESQL: prepared(finish(insert_into(table, POSTGRESQL).from_select(self._names, arrays))),
            "sqlite": finish(insert_into(table, "sqlite")),
        }

    def execute(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> list[Any]:
        """Insert the rows, in their order, and return what the statement returns. No row may conflict with an earlier one.

        Only `ON CONFLICT DO NOTHING` takes such rows.
        """
        if not rows:
            return []
        statement = self._statements[connection.dialect.name]
        if connection.dialect.name == POSTGRESQL:
            result = connection.execute(statement, _columns(rows))
        else:
            result = connection.execute(statement, [dict(zip(self._names, row, strict=True)) for row in rows])
        return list(result.all()) if result.returns_rows else []


class RowQuery:
    """A query about rows: `build` gets the condition that `columns` equal one of them."""

    def __init__(self, columns: Sequence[ColumnElement[Any]], build: Callable[[ColumnElement[bool]], Executable]) -> None:
        of_rows = columns[0] if len(columns) == 1 else tuple_(*columns)
        self._is_single = len(columns) == 1
        self._statements = {
            POSTGRESQL: prepared(build(of_rows.in_(_unnest(columns)))),
            "sqlite": build(of_rows.in_(bindparam("rows", expanding=True))),
        }

    def execute(self, connection: Connection, rows: Iterable[Sequence[Any]], **parameters: Any) -> list[Any]:
        """Return the results for these rows. On SQLite they come for some thousand rows at a time."""
        wanted, statement = list(rows), self._statements[connection.dialect.name]
        if not wanted:
            return []
        if connection.dialect.name == POSTGRESQL:
            return list(connection.execute(statement, _columns(wanted) | parameters).all())
        found: list[Any] = []
        values = [row[0] for row in wanted] if self._is_single else [tuple(row) for row in wanted]
        for start in range(0, len(values), _PAGE):
            found += connection.execute(statement, {"rows": values[start : start + _PAGE]} | parameters)
        return found


class _Processor(Protocol):
    def __call__(self, value: Any) -> str: ...


class _Array(UserDefinedType[Any]):
    """An array of PostgreSQL, which is sent as a literal: pg8000 takes half of ingest's time to make one."""

    cache_ok = True
    render_bind_cast = True

    def __init__(self, item: TypeEngine[Any]) -> None:
        self.item = item

    def get_col_spec(self, **_: Any) -> str:
        return f"{self.item.compile(dialect=_POSTGRESQL)}[]"

    def bind_processor(self, dialect: Dialect) -> _Processor:
        if isinstance(self.item, LargeBinary):
            return _literal_of_bytes
        return _literal_of_texts if isinstance(self.item, String) else _literal


def _literal(value: Iterable[int | None]) -> str:
    """The literal of an array of integers or booleans, where None is null."""
    return "{" + ",".join(map(str, value)).replace("None", "NULL") + "}"


def _literal_of_texts(value: Iterable[str | None]) -> str:
    return "{" + ",".join(["NULL" if item is None else _quote(item) for item in value]) + "}"


def _literal_of_bytes(value: Iterable[bytes]) -> str:
    return "{" + ",".join([f'"\\\\x{item.hex()}"' for item in value]) + "}"


def _quote(text: str) -> str:
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _unnest(columns: Sequence[ColumnElement[Any]]) -> Any:
    """The rows of the arrays of `_columns`, which have the types of these columns."""
    arrays: list[BindParameter[Any]] = [bindparam(f"rows_{i}", type_=_Array(of.type)) for i, of in enumerate(columns)]
    names = [column(f"c{i}", of.type) for i, of in enumerate(columns)]
    return select(func.unnest(*arrays).table_valued(*names).render_derived("rows"))


def _columns(rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    return {f"rows_{i}": values for i, values in enumerate(zip(*rows, strict=True))}
