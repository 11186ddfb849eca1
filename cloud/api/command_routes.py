"""Routes about commands: what was asked of a patient's hubs, and to close an alert or mark it as false."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Engine, select

from cloud import tables
from cloud.alert_requests import KINDS, MADE, WAITING, AlertRequest, add_request, list_requests
from cloud.api.access import AccessLog
from cloud.api.numbers import Json
from cloud.api.readers import Name, Reader, ViewerScope
from cloud.audit_log import AuditLog
from cloud.clock import now_us
from cloud.database_errors import translating_errors
from cloud.scope import Scope
from cloud.store import Store
from cloud.store.commands import EXPIRED, REFUSED, SENT, StoredCommand, list_newest
from cloud.validate import MAX_NAME_CHARS
from sync.audit import Action, AuditEvent, Category, Purpose, object_id
from sync.commands import Refusal
from sync.records import TECHNICAL_KINDS

SHOWN: Final = 50
"""The newest commands about a patient: a screen or two."""
_US_PER_S: Final = 1_000_000
_ID_BYTES: Final = 16
_Text = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS)]


class AskedCommand(BaseModel):
    """The body of a request to end an alert."""

    model_config = ConfigDict(extra="forbid", strict=True)
    subject: _Text
    hub: _Text
    alert: _Text
    kind: _Text


@dataclass(frozen=True, slots=True)
class CommandRoutes:
    """What the routes need."""

    store: Store
    engine: Engine
    log: AuditLog
    access: AccessLog

    def add_to(self, app: FastAPI) -> None:
        """Add the routes. They are not coroutines: FastAPI runs them on worker threads, which may wait for the database."""

        @app.get("/api/commands")
        def commands(scope: ViewerScope, reader: Reader, subject: Name) -> Json:
            at_us = now_us()
            shown = list_shown(self.store, self.engine, scope, subject, at_us)
            if shown:  # else there is no such data: anybody can ask for any name
                self.access.note(reader, Category.COMMANDS, [subject])
            return {"now_us": at_us, "commands": shown}

        @app.post("/api/commands", status_code=202)
        def ask(scope: ViewerScope, reader: Reader, asked: AskedCommand) -> Json:
            at_us = now_us()
            self._check(scope, asked, at_us)
            request = AlertRequest(
                secrets.token_hex(_ID_BYTES), asked.subject, asked.hub, asked.alert, asked.kind, reader.id, reader.role, at_us
            )
            objects = object_id("hub", asked.hub), object_id("command", asked.kind.replace("_", "-"))
            self.log.append(AuditEvent(reader, Action.ASK_COMMAND, Category.COMMANDS, asked.subject, objects, Purpose.CARE))
            with translating_errors("the projections"), self.engine.begin() as connection:
                add_request(connection, request)
            return _request_as_json(request, at_us)

    def _check(self, scope: Scope, asked: AskedCommand, at_us: int) -> None:
        """Check that the alert can be ended now.

        Raises:
            HTTPException: it cannot.
        """
        if asked.kind not in KINDS:
            raise HTTPException(422, f"kind must be one of {', '.join(sorted(KINDS))}")
        alerts = tables.alerts.c
        this = (alerts.subject == asked.subject, alerts.hub == asked.hub, alerts.id == asked.alert)
        with translating_errors("the projections"), self.engine.connect() as connection:
            query = select(alerts.end_us, alerts.kind).where(*this, scope.allows(alerts.subject))
            alert = connection.execute(query).first()
        if alert is None:
            raise HTTPException(404, "this patient and hub have no alert with this id")
        if alert.end_us is not None or alert.kind in TECHNICAL_KINDS:
            raise HTTPException(409, "the alert has ended, or ends with its technical cause")
        shown = list_shown(self.store, self.engine, scope, asked.subject, at_us)
        is_this = (one for one in shown if (one["hub"], one["alert"]) == (asked.hub, asked.alert))
        if any(one["state"] in {WAITING, SENT} for one in is_this):  # a second one would be refused by the hub
            raise HTTPException(409, "this was asked for already, and the hub has not answered yet")


def list_shown(store: Store, engine: Engine, scope: Scope, subject: str, at_us: int) -> Sequence[Json]:
    """Return the newest commands about a subject and the requests of which none was made, newest first."""
    if scope.subjects is not None and subject not in scope.subjects:
        return []
    with translating_errors("the projections"), engine.connect() as connection:
        requests = list_requests(connection, subject, SHOWN)
    with store.transaction() as connection:  # after the requests: a command that is made meanwhile is found
        commands = list_newest(connection, subject, SHOWN)
    alerts = {request.id: request.alert for request in requests}
    made = {command.request for command in commands}
    shown = [_command_as_json(command, alerts, at_us) for command in commands]
    shown += [_request_as_json(request, at_us) for request in requests if request.state != MADE and request.id not in made]
    return sorted(shown, key=lambda one: -one["asked_us"])[:SHOWN]


def _command_as_json(command: StoredCommand, alerts: dict[str, str], at_us: int) -> dict[str, Any]:
    return {
        "hub": command.hub,
        "number": command.number,
        "kind": command.kind,
        "alert": alerts.get(command.request or ""),
        "by": command.author,
        "asked_us": command.issued_s * _US_PER_S,
        "state": command.state_at(at_us // _US_PER_S),
        "answered_us": command.answered_us,
        "refusal": command.refusal,
    }


def _request_as_json(request: AlertRequest, at_us: int) -> dict[str, Any]:
    is_expired = request.is_expired(at_us) or request.refusal == Refusal.EXPIRED
    state = EXPIRED if is_expired else WAITING if request.refusal is None else REFUSED
    return {
        "hub": request.hub,
        "number": None,
        "kind": request.kind,
        "alert": request.alert,
        "by": request.reader,
        "asked_us": request.asked_us,
        "state": state,
        "answered_us": None,
        "refusal": request.refusal,
    }
