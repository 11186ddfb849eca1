"""Counts refused messages, and writes them to the audit log once an hour: a flood must not fill the log."""

from typing import Final, NamedTuple

from sqlalchemy import Connection, select

from cloud.store import tables
from cloud.store.audit import append_to_log
from sync.audit import Action, Actor, AuditEvent, Category, Origin, Outcome, Purpose, Role, object_id

HOUR_US: Final = 3600 * 1_000_000


UNREGISTERED: Final = "unregistered"
"""Stands for every hub that is not registered: anybody on the broker can invent names."""


class Refusal(NamedTuple):
    """Whose message was refused, a registered hub or `UNREGISTERED`, and why: one of a few tokens."""

    hub: str
    reason: str


def count_refusal(connection: Connection, refusal: Refusal, now_us: int) -> None:
    """Count a refused message in the hour of `now_us`."""
    table = tables.audit_refusals
    statement = tables.insert(connection, table).values(**refusal._asdict(), hour=now_us // HOUR_US, n=1)
    more = {"n": table.c.n + 1}
    connection.execute(statement.on_conflict_do_update(index_elements=["hub", "reason", "hour"], set_=more))


def log_refusals(connection: Connection, site: Origin, now_us: int) -> None:
    """Write the counts of all hours but the present one to the audit log."""
    table = tables.audit_refusals
    is_over = table.c.hour != now_us // HOUR_US  # a clock that was set back must not hold counts for years
    if connection.execute(select(table.c.hub).where(is_over).limit(1)).first() is None:
        return
    append_to_log(connection, site, [], now_us)  # locks the log: two processes must not write the same counts
    found = connection.execute(table.delete().where(is_over).returning(*table.c)).all()
    actor = Actor("ingest", Role.SERVICE, site.name)
    events = [
        AuditEvent(
            actor,
            Action.REFUSE_MESSAGE,
            Category.MESSAGES,
            None,
            (object_id("hub", row.hub), object_id("reason", row.reason), object_id("hour", row.hour)),
            Purpose.SECURITY,
            Outcome.REFUSED,
            count=row.n,
        )
        for row in sorted(found, key=lambda row: (row.hour, row.hub, row.reason))
    ]
    append_to_log(connection, site, events, now_us)
