"""Requests from the page to close an alert or mark it as false, and the signer that makes commands of them.

    page ──▶ row in the projections ──▶ signer ──▶ command in the store ──▶ sender ──▶ hub

The page, which the network reaches, has no key: it writes what a person asked for, after the audit log has their name. The
signer runs beside the opener. It signs these two kinds only, for alerts that the projections hold, and each request once. The
rows are in the projections, not in the store: an alert's id tells its kind to whoever tries all kinds and times.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from sqlalchemy import Connection, Engine, select

from cloud import tables
from cloud.audit_actors import asking_reader
from cloud.commands import LOOK_S, send_command
from cloud.database_errors import translating_errors
from cloud.errors import ClinicError
from cloud.registry import Registry
from cloud.store import Store
from sync.commands import CommandKind, Refusal
from sync.errors import TransientError
from sync.signing import SigningKey
from sync.transport import WorkerCall

KINDS: Final = frozenset({CommandKind.CLOSE_ALERT, CommandKind.MARK_FALSE})
"""What can be asked for from the page."""
WAITING: Final = "waiting"
MADE: Final = "made"
NOT_MADE: Final = "not_made"
WAIT_LIMIT_S: Final = 600
"""A request that no signer took for so long expires: who asked has looked again by then."""
NO_COMMAND_KEY: Final = "hub"
"""Why no command was made, beside those of `sync.commands.Refusal`: the hub takes none, or is not registered any more."""
_BATCH: Final = 50
_US_PER_S: Final = 1_000_000
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AlertRequest:
    """A row of `alert_requests`. `id` is random; `refusal` is why no command was made of it."""

    id: str
    subject: str
    hub: str
    alert: str
    kind: str
    reader: str
    role: str
    asked_us: int
    state: str = WAITING
    refusal: str | None = None

    def is_expired(self, now_us: int) -> bool:
        """Whether no command may be made of it any more."""
        return self.state == WAITING and now_us - self.asked_us > WAIT_LIMIT_S * _US_PER_S


def add_request(connection: Connection, request: AlertRequest) -> None:
    """Keep a request for the signer."""
    connection.execute(tables.alert_requests.insert().values({name: getattr(request, name) for name in AlertRequest.__slots__}))


def list_requests(connection: Connection, subject: str, limit: int) -> list[AlertRequest]:
    """Return the newest requests about a subject, newest first."""
    requests = tables.alert_requests.c
    query = select(*_COLUMNS).where(requests.subject == subject).order_by(requests.asked_us.desc(), requests.id).limit(limit)
    return [AlertRequest(*row) for row in connection.execute(query)]


class CommandSigner:
    """Makes commands of requests. Several may run; one thread at a time may call `sign_waiting`."""

    def __init__(self, store: Store, engine: Engine, registry: Registry, key: SigningKey, now_us: Callable[[], int]) -> None:
        self._store = store
        self._engine = engine
        self._registry = registry
        self._key = key
        self._now_us = now_us

    async def run(self, call: WorkerCall = asyncio.to_thread) -> NoReturn:
        """Sign requests until cancelled."""
        while True:
            try:
                await call(self.sign_waiting)
            except TransientError as error:
                _log.warning("cannot make commands of requests now, will try again: %s", error)
            await asyncio.sleep(LOOK_S)

    def sign_waiting(self) -> None:
        """Make a command of each request that waits.

        Raises:
            TransientError, PermanentError: a database failed; the next call makes up for it.
        """
        for request in self._list_waiting():
            refusal = self._sign(request)
            state = MADE if refusal is None else NOT_MADE
            requests = tables.alert_requests
            with translating_errors("the projections"), self._engine.begin() as connection:
                this = requests.update().where(requests.c.id == request.id)
                connection.execute(this.values(state=state, refusal=refusal))

    def _list_waiting(self) -> Sequence[AlertRequest]:
        requests = tables.alert_requests.c
        query = select(*_COLUMNS).where(requests.state == WAITING).order_by(requests.asked_us, requests.id).limit(_BATCH)
        with translating_errors("the projections"), self._engine.connect() as connection:
            return [AlertRequest(*row) for row in connection.execute(query)]

    def _sign(self, request: AlertRequest) -> str | None:
        """Make the command; returns why it was not made."""
        now_us = self._now_us()
        if request.is_expired(now_us):
            return Refusal.EXPIRED
        if request.kind not in KINDS or not self._has_alert(request):
            return Refusal.ALERT
        hub = self._registry.find(request.hub)
        if hub is None:
            return NO_COMMAND_KEY
        last = hub.assignments[-1] if hub.assignments else None
        if last is None or last.to_s is not None or last.subject != request.subject:
            return Refusal.SUBJECT
        kind, reader = CommandKind(request.kind), asking_reader(request.reader, request.role)
        try:
            send_command(self._store, self._key, hub, kind, {"alert": request.alert}, reader, now_us, request.id)
        except ClinicError as error:
            _log.warning("cannot make the command that was asked for: %s", error)
            return NO_COMMAND_KEY
        return None

    def _has_alert(self, request: AlertRequest) -> bool:
        alerts = tables.alerts.c
        this = (alerts.subject == request.subject, alerts.hub == request.hub, alerts.id == request.alert)
        with translating_errors("the projections"), self._engine.connect() as connection:
            return connection.execute(select(alerts.id).where(*this)).first() is not None


_COLUMNS: Final = tuple(tables.alert_requests.c[name] for name in AlertRequest.__slots__)
