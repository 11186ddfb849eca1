"""Prepared statements on PostgreSQL: pg8000 alone parses and plans each statement anew, in three exchanges with the server.

A statement with the execution option `PREPARED` is prepared once for each connection and then takes one exchange. The server
keeps its plan, so that its text must not depend on the number of values.
"""

from functools import cache
from typing import Any, Final

from pg8000.converters import make_params
from pg8000.dbapi import convert_paramstyle
from sqlalchemy import Engine, Executable, event

PREPARED: Final = "is_prepared"
_INFO: Final = "prepared_statements"
_PLANNING: Final = ("enable_seqscan", "enable_hashjoin", "enable_mergejoin")
"""Ways to read a whole table. A plan is kept while a small table grows, so that it must use the keys from the first day."""


def prepared(statement: Executable) -> Executable:
    """Mark a statement whose text does not depend on the number of values."""
    return statement.execution_options(**{PREPARED: True})


def use_prepared_statements(engine: Engine) -> None:
    """Let an engine of pg8000 prepare the statements that are marked."""
    event.listen(engine, "do_execute", _execute_prepared)


def plan_by_keys(engine: Engine) -> None:
    """Let the connections of an engine read tables by their keys only."""
    event.listen(engine, "connect", _forbid_scans)


def _forbid_scans(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for name in _PLANNING:
        cursor.execute(f"SET {name} = off")
    connection.commit()


def _execute_prepared(cursor: Any, statement: str, parameters: Any, context: Any) -> bool | None:
    """Execute a marked statement in place of the driver, whose `PreparedStatement` has no cursor; None if it is not marked."""
    if not context.execution_options.get(PREPARED):
        return None
    connection = context.root_connection.connection
    driver, known = connection.driver_connection, connection.info.setdefault(_INFO, {})
    if not driver._in_transaction:
        driver.execute_simple("begin transaction")
    if statement not in known:
        known[statement] = driver.prepare_statement(_numbered(statement), ())
    name, columns, input_functions = known[statement]
    cursor._context = driver.execute_named(name, make_params(driver.py_types, parameters), columns, input_functions, statement)
    cursor._row_iter = iter(cursor._context.rows or ())
    return True


@cache
def _numbered(statement: str) -> str:
    """A statement with the server's names of parameters ($1) in place of the driver's (%s)."""
    text: str = convert_paramstyle("format", statement, ())[0]
    return text
