"""Legal holds: whose data are kept although their retention ends or their erasure is asked for, with reason and date.

Call the functions with a connection in a transaction of the store.
"""

from typing import NamedTuple

from sqlalchemy import Connection, select

from cloud.audit_actors import ORIGIN
from cloud.errors import ClinicError
from cloud.store.audit import append_to_log
from cloud.store.store import Store
from cloud.store.tables import holds, insert
from sync.audit import Action, Actor, AuditEvent, Category, Outcome, Purpose, object_id


class Hold(NamedTuple):
    """Why a subject's data are kept, who said so (an id of the audit log), and when."""

    subject: str
    reason: str
    actor: str
    at_us: int


def list_holds(connection: Connection) -> list[Hold]:
    """Return all holds, by subject."""
    return [Hold(*row) for row in connection.execute(select(*(holds.c[name] for name in Hold._fields)).order_by("subject"))]


def set_hold(connection: Connection, hold: Hold, actor: Actor) -> None:
    """Keep a subject's data from now on, and log it. A hold that lasts is replaced."""
    statement = insert(connection, holds).values(**hold._asdict())
    changed = {name: statement.excluded[name] for name in ("reason", "actor", "at_us")}
    connection.execute(statement.on_conflict_do_update(index_elements=["subject"], set_=changed))
    _log(connection, actor, Action.SET_HOLD, hold)


def lift_hold(connection: Connection, subject: str, actor: Actor, now_us: int) -> None:
    """End a subject's hold, and log it.

    Raises:
        ClinicError: there is none.
    """
    held = next((hold for hold in list_holds(connection) if hold.subject == subject), None)
    if held is None:
        raise ClinicError(f"{subject} has no hold: pulsegate-cloud hold list shows whose data are kept")
    connection.execute(holds.delete().where(holds.c.subject == subject))
    _log(connection, actor, Action.LIFT_HOLD, held._replace(at_us=now_us))


def refuse_held(store: Store, subject: str, actor: Actor, at_us: int) -> None:
    """Refuse to erase a subject under a hold. The audit log says so.

    Raises:
        ClinicError: the subject has a hold. Nothing was erased.
    """
    with store.transaction() as connection:
        held = next((hold for hold in list_holds(connection) if hold.subject == subject), None)
        if held is None:
            return
        event = AuditEvent(
            *(actor, Action.ERASE, Category.ALL_RECORDS, subject), purpose=Purpose.SUBJECT_REQUEST, outcome=Outcome.REFUSED
        )
        append_to_log(connection, ORIGIN, [event], at_us)
    raise ClinicError(
        f"the data of {subject} are under a legal hold ({held.reason}): tell the patient so (GDPR, Article 17(3)), and erase "
        "when it ends, after pulsegate-cloud hold lift"
    )


def _log(connection: Connection, actor: Actor, action: Action, hold: Hold) -> None:
    """The reason is free text, so that the log has its hash only."""
    objects = (object_id("reason", hold.reason),)
    append_to_log(connection, ORIGIN, [AuditEvent(actor, action, Category.ALL_RECORDS, hold.subject, objects)], hold.at_us)
