"""What the store keeps of each hub besides its blocks: when it was last heard, its last status, and the alarms about it.

Times are of the clinic's clock, microseconds since 1970. Call the functions in a transaction of the store.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, and_, case, func, or_, select

from cloud.store.tables import hub_alarms, hub_states, insert
from sync.status import HubStatus
from sync.versions import FIRST_REVISION, REVISION

HUB_SILENT: Final = "hub_silent"
HUB_OUTDATED: Final = "hub_outdated"


@dataclass(frozen=True, slots=True)
class HubState:
    """A row of `hub_states`: see there."""

    hub: str
    subject: str | None
    since_us: int
    heard_us: int | None
    status_us: int | None
    status: bytes | None
    revision: int
    outdated_us: int | None

    @property
    def last_sign_us(self) -> int:
        """When the hub was last heard with its present subject, or when it got that one."""
        return self.since_us if self.heard_us is None else self.heard_us


@dataclass(frozen=True, slots=True)
class HubAlarm:
    """An alarm of the clinic about a hub, raised for what lasts since `since_us`; `ended_us` is None while it lasts."""

    hub: str
    kind: str
    since_us: int
    raised_us: int
    ended_us: int | None


def note_known(connection: Connection, hub: str, subject: str | None, now_us: int) -> None:
    """Note that a hub is registered, or for whom it seals from now on: it was not heard since."""
    statement = insert(connection, hub_states).values(hub=hub, subject=subject, since_us=now_us, revision=FIRST_REVISION)
    changed = {"subject": subject, "since_us": now_us, "heard_us": None}
    connection.execute(statement.on_conflict_do_update(index_elements=["hub"], set_=changed))


def note_heard(connection: Connection, hub: str, now_us: int) -> None:
    """Note that a hub has sent something new."""
    statement = insert(connection, hub_states).values(hub=hub, since_us=now_us, heard_us=now_us, revision=FIRST_REVISION)
    connection.execute(statement.on_conflict_do_update(index_elements=["hub"], set_={"heard_us": now_us}))


def note_status(connection: Connection, status: HubStatus, payload: bytes, now_us: int) -> bool:
    """Keep a status; returns false, and changes nothing, if it does not follow the last one: it was repeated or is late."""
    told = {
        "heard_us": now_us,
        "status_us": now_us,
        "status": payload,
        "epoch": status.epoch,
        "seq": status.seq,
        "revision": status.revision,
    }
    is_outdated = status.revision < REVISION
    statement = insert(connection, hub_states).values(
        hub=status.hub, since_us=now_us, outdated_us=now_us if is_outdated else None, **told
    )
    of, new = hub_states.c, statement.excluded
    statement = statement.on_conflict_do_update(
        index_elements=["hub"],
        set_=told | {"outdated_us": func.coalesce(of.outdated_us, now_us) if is_outdated else None},
        where=or_(of.epoch.is_(None), of.epoch < new.epoch, and_(of.epoch == new.epoch, of.seq < new.seq)),
    )
    return bool(connection.execute(statement).rowcount)


def read_version(connection: Connection, hub: str) -> tuple[int | None, int | None]:
    """Return the revision of a hub's agent, and since when it is outdated; None where that is not known."""
    row = connection.execute(select(hub_states.c.revision, hub_states.c.outdated_us).where(hub_states.c.hub == hub)).first()
    return (None, None) if row is None else (row.revision, row.outdated_us)


def is_last_status(connection: Connection, hub: str, payload: bytes) -> bool:
    """Return whether this is the last status of a hub, byte for byte."""
    of = hub_states.c
    return connection.execute(select(of.hub).where(of.hub == hub, of.status == payload)).first() is not None


def note_outdated(connection: Connection, hub: str, now_us: int) -> None:
    """Note that a hub is outdated, unless it is known already."""
    of = hub_states.c
    since = case((of.outdated_us.is_(None), now_us), else_=of.outdated_us)
    connection.execute(hub_states.update().where(of.hub == hub).values(outdated_us=since))


def list_states(connection: Connection) -> list[HubState]:
    """Return what is known of each hub, in the order of their names."""
    columns = [hub_states.c[name] for name in HubState.__slots__]
    return [HubState(*row) for row in connection.execute(select(*columns).order_by(hub_states.c.hub))]


def list_ongoing_alarms(connection: Connection) -> list[HubAlarm]:
    """Return the alarms that last, the first raised first."""
    columns = [hub_alarms.c[name] for name in HubAlarm.__slots__]
    query = select(*columns).where(hub_alarms.c.ended_us.is_(None)).order_by(hub_alarms.c.id)
    return [HubAlarm(*row) for row in connection.execute(query)]


def raise_alarm(connection: Connection, hub: str, kind: str, since_us: int, now_us: int) -> bool:
    """Raise an alarm, unless one of this kind lasts; returns whether it is new."""
    statement = insert(connection, hub_alarms).values(hub=hub, kind=kind, since_us=since_us, raised_us=now_us)
    return bool(connection.execute(statement.on_conflict_do_nothing()).rowcount)


def end_alarm(connection: Connection, alarm: HubAlarm, now_us: int) -> None:
    """End an alarm that lasts."""
    of = hub_alarms.c
    is_this = (of.hub == alarm.hub, of.kind == alarm.kind, of.ended_us.is_(None))
    connection.execute(hub_alarms.update().where(*is_this).values(ended_us=now_us))
