"""Messages whose origin is not proven: the newest are kept within a bound, all are counted, one a minute is logged."""

from typing import Final

from sqlalchemy import Connection, func, select, update

from cloud.store import tables
from config.terminal import escape_controls

MAX_MESSAGES: Final = 1000
MAX_BYTES: Final = 16 * 1024 * 1024
"""Bounds of what is kept. Anyone on the broker can fill this, so it must not fill the disk."""
LOG_INTERVAL_US: Final = 60 * 1_000_000


def keep_rejected_message(connection: Connection, hub: str, reason: str, payload: bytes, received_us: int) -> int | None:
    """Keep a message aside; returns the number of all rejected messages if it is time to log it, otherwise None."""
    state, table = tables.state.c, tables.rejected_messages
    connection.execute(update(tables.state).values(rejected_messages=state.rejected_messages + 1))  # locks it
    values = {"hub": hub, "reason": escape_controls(reason), "bytes": payload, "received_us": received_us}
    connection.execute(table.insert().values(values))
    _delete_oldest(connection)
    n, logged_us = connection.execute(select(state.rejected_messages, state.rejection_logged_us)).one()
    if abs(received_us - logged_us) < LOG_INTERVAL_US:
        return None
    connection.execute(update(tables.state).values(rejection_logged_us=received_us))
    return int(n)


def _delete_oldest(connection: Connection) -> None:
    table = tables.rejected_messages.c
    n_bytes = func.sum(func.length(table.bytes)).over(order_by=table.id.desc())
    n = func.row_number().over(order_by=table.id.desc())
    newest = select(table.id, n.label("n"), n_bytes.label("n_bytes")).subquery()
    beyond = select(newest.c.id).where((newest.c.n > MAX_MESSAGES) | (newest.c.n_bytes > MAX_BYTES))
    connection.execute(tables.rejected_messages.delete().where(table.id.in_(beyond)))
