"""Commands to hubs in the store: what was sent, and what the hub said of it.

Arguments are only in the payload, which is sealed for the hub. Call the functions in a transaction of the store.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, select

from cloud.store.tables import commands, hub_states

SENT: Final = "sent"
APPLIED: Final = "applied"
REFUSED: Final = "refused"
EXPIRED: Final = "expired"
"""Not stored: a command that the hub has not answered when it expires. The hub may still say later that it applied it."""


@dataclass(frozen=True, slots=True)
class StoredCommand:
    """A row of `commands`. Times are seconds since 1970; `answered_us` is when the hub carried it out or refused it.

    `refusal` is why it was refused (`sync.commands.Refusal`). `request` is the random id of the request from the page
    that it was made for; None for one of the operator.
    """

    hub: str
    number: int
    kind: str
    subject: str | None
    issued_s: int
    expires_s: int
    payload: bytes
    author: str
    state: str = SENT
    answered_us: int | None = None
    refusal: str | None = None
    request: str | None = None

    def state_at(self, now_s: int) -> str:
        """Return what is shown of it."""
        return EXPIRED if self.state == SENT and now_s >= self.expires_s else self.state


@dataclass(frozen=True, slots=True)
class CommandAnswer:
    """What a hub said of a command: why it refused it, or None, and when, by the hub's clock."""

    hub: str
    number: int
    refusal: str | None
    at_us: int


def next_number(connection: Connection, hub: str, now_s: int) -> int:
    """Return the number of the next command to a hub.

    It is at least the time, so that it also grows over a restore of the store from a backup. The caller has locked the audit
    log, so that no other command gets the number.
    """
    last = connection.execute(select(func.max(commands.c.number)).where(commands.c.hub == hub)).scalar_one()
    return max(now_s, (last or 0) + 1)


def add_command(connection: Connection, command: StoredCommand) -> None:
    """Keep a command, to be sent."""
    connection.execute(commands.insert().values({name: getattr(command, name) for name in StoredCommand.__slots__}))


def list_commands(connection: Connection, hub: str | None = None) -> list[StoredCommand]:
    """Return all commands, or those to one hub, in the order of hubs and numbers."""
    query = select(*_COLUMNS).order_by(commands.c.hub, commands.c.number)
    if hub is not None:
        query = query.where(commands.c.hub == hub)
    return [StoredCommand(*row) for row in connection.execute(query)]


def list_newest(connection: Connection, subject: str, limit: int) -> list[StoredCommand]:
    """Return the newest commands about a subject, newest first."""
    query = select(*_COLUMNS).where(commands.c.subject == subject)
    query = query.order_by(commands.c.issued_s.desc(), commands.c.hub, commands.c.number.desc()).limit(limit)
    return [StoredCommand(*row) for row in connection.execute(query)]


def find_requested(connection: Connection, request: str) -> StoredCommand | None:
    """Return the command that was made for a request."""
    row = connection.execute(select(*_COLUMNS).where(commands.c.request == request)).first()
    return None if row is None else StoredCommand(*row)


def list_due(connection: Connection, now_s: int, heard_since_us: int) -> list[StoredCommand]:
    """Return the first unanswered command of each hub that was heard since a time.

    The next one waits for the answer: a hub refuses a command that is older than its last one.
    """
    is_open = (commands.c.state == SENT) & (commands.c.expires_s > now_s)
    heard = select(hub_states.c.hub).where(hub_states.c.heard_us >= heard_since_us)
    first = select(commands.c.hub, func.min(commands.c.number).label("number")).where(is_open, commands.c.hub.in_(heard))
    found = first.group_by(commands.c.hub).subquery()
    query = select(*_COLUMNS).join(found, (commands.c.hub == found.c.hub) & (commands.c.number == found.c.number))
    return [StoredCommand(*row) for row in connection.execute(query)]


def note_answers(connection: Connection, answers: Iterable[CommandAnswer]) -> None:
    """Note what hubs said of their commands. The first answer counts; one about an unknown command changes nothing."""
    for answer in answers:
        is_this = (commands.c.hub == answer.hub, commands.c.number == answer.number, commands.c.state == SENT)
        state = APPLIED if answer.refusal is None else REFUSED
        values = {"state": state, "answered_us": answer.at_us, "refusal": answer.refusal}
        connection.execute(commands.update().where(*is_this).values(values))


_COLUMNS: Final = tuple(commands.c[name] for name in StoredCommand.__slots__)
