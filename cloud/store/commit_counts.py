"""Counts the commits of the store. Each ends with it, because the one row that counts is locked from here to the commit."""

from typing import Final

from sqlalchemy import Connection, bindparam, select, update

from cloud.prepared_statements import PREPARED
from cloud.row_sets import RowQuery
from cloud.store import tables
from cloud.store.stored_blocks import StoreCounts
from sync.errors import TransientError

_STATE: Final = tables.state.c
_ADDED: Final = {name: _STATE[name] + bindparam(f"added_{name}", type_=_STATE[name].type) for name in StoreCounts._fields}
_COUNT: Final = update(tables.state).values({"commits": _STATE.commits + 1} | _ADDED).execution_options(**{PREPARED: True})
ERASED: Final = RowQuery([tables.erased.c.subject], lambda are_wanted: select(tables.erased.c.subject).where(are_wanted))
"""The erased ones of some subjects."""


def count_commit(connection: Connection, counts: StoreCounts) -> None:
    """Count a commit and what it added. The row is locked from here to the commit: call it last."""
    connection.execute(_COUNT, {f"added_{name}": value for name, value in counts._asdict().items()})


def check_not_erased(connection: Connection, subjects: set[str]) -> None:
    """Raise TransientError if one of these subjects was erased while a message was handled. Call it after `count_commit`.

    `count_commit` waits for an erasure under way, and an erasure begins with `count_commit`: none can be missed.
    """
    if ERASED.execute(connection, [(subject,) for subject in subjects]):
        raise TransientError("a subject of this message was erased just now")
