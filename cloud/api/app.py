"""The clinic's HTTP and WebSocket interface: the page, its REST routes and its live feed."""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Final, NoReturn

from fastapi import FastAPI, HTTPException, Query, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from sqlalchemy import Engine

from cloud.api import alert_queries, queries
from cloud.api.access import CATEGORIES, AccessLog
from cloud.api.access_rules import check_rules
from cloud.api.alert_queries import CURRENT_US, CursorError, ListCursor
from cloud.api.command_routes import CommandRoutes
from cloud.api.counters import read_counters
from cloud.api.feed import Feed
from cloud.api.judged import read_judged
from cloud.api.numbers import Json
from cloud.api.queries import ON_DEMAND_SILENT_AFTER_US, SILENT_AFTER_US
from cloud.api.readers import Name, Reader, ViewerScope
from cloud.api.security import Access, LoopbackAccess, SecurityMiddleware
from cloud.api.watching import renew_watch
from cloud.audit_log import AuditLog
from cloud.changes import AlertKey, SensorKey
from cloud.clock import now_us
from cloud.hub_overview import hub_as_json, list_hubs
from cloud.scope import Scope
from cloud.store import Store
from cloud.validate import MAX_TIME_US
from reporting import assets
from sync.audit import Actor, Category
from sync.errors import SyncError

STATIC: Final = Path(__file__).parents[1] / "page" / "static"
CANNOT_LOG: Final = 1011
"""Close code (RFC 6455: internal error) of a live connection whose access cannot be logged. The page connects again."""
LANGUAGES: Final = ("en", "de", "fr", "es")

_log: Final = logging.getLogger(__name__)
TimeUs = Annotated[int, Query(ge=-2 * MAX_TIME_US, le=2 * MAX_TIME_US)]
Revision = Annotated[int, Query(ge=0, lt=2**53)]


def create_app(store: Store, engine: Engine, feed: Feed, access: Access | None = None) -> FastAPI:
    """Return the application that serves the sealed store, the projections and the live feed.

    `access` decides who may look; None for the demo on loopback.

    Raises:
        LookupError: a route has no access rule.
    """
    # FastAPI's documentation pages load scripts from other sites, so they are switched off.
    app = FastAPI(title="pulsegate clinic", docs_url=None, redoc_url=None, openapi_url=None)
    _add_page(app)
    audit = AuditLog(store, now_us)
    log = AccessLog(audit)
    _add_rest_routes(app, store, engine, log)
    CommandRoutes(store, engine, audit, log).add_to(app)
    _add_websocket(app, feed, log, lambda scope: renew_watch(store, engine, scope))
    check_rules(app.routes)
    app.add_exception_handler(SyncError, _refuse)
    app.add_middleware(SecurityMiddleware, access=access or LoopbackAccess())
    return app


def select_language(accept: str) -> str:
    """Return the page language that an Accept-Language header (RFC 9110, section 12.5.4) weights highest, else English."""
    ranked: list[tuple[float, str]] = []
    for part in accept.split(","):
        match = re.fullmatch(r"\s*([a-zA-Z]{1,8})(?:-[\w-]+)?\s*(?:;\s*q=([01](?:\.\d{0,3})?))?\s*", part)
        if match and match[1].lower() in LANGUAGES:
            ranked.append((float(match[2] or 1), match[1].lower()))
    best = max((weight for weight, _ in ranked), default=0.0)
    return next((language for weight, language in ranked if weight == best > 0), "en")


def _add_page(app: FastAPI) -> None:
    page = (STATIC / "index.html").read_text(encoding="utf-8")

    @app.get("/")
    async def index(request: Request) -> Response:
        language = select_language(request.headers.get("accept-language", ""))
        headers = {"cache-control": "no-cache", "vary": "accept-language"}
        return HTMLResponse(page.replace('<html lang="en">', f'<html lang="{language}">', 1), headers=headers)

    app.mount("/static/reporting", StaticFiles(directory=assets.SHARED), name="reporting")
    app.mount("/static", StaticFiles(directory=STATIC), name="static")


async def _refuse(_request: Request, error: Exception) -> Response:
    """Show nothing if the access could not be logged, or a database failed."""
    _log.error("refused a request: %s", error)
    return JSONResponse({"detail": "the clinic's database cannot be used now"}, 503)


def _add_rest_routes(app: FastAPI, store: Store, engine: Engine, access: AccessLog) -> None:
    """Add the REST routes. They are not coroutines: FastAPI runs them on worker threads, which may wait for the database."""
    _add_alert_routes(app, engine, access)
    _add_sensor_routes(app, engine, access)

    @app.get("/api/hubs")
    def hubs(scope: ViewerScope, reader: Reader) -> Json:
        at_us = now_us()
        found = list_hubs(store, scope, at_us)
        access.note(reader, Category.OVERVIEW, [hub.state.subject for hub in found if hub.state.subject is not None])
        return {"now_us": at_us, "hubs": [hub_as_json(hub) for hub in found]}

    @app.get("/api/counters")
    def counters(scope: ViewerScope) -> Json:
        return read_counters(store, engine, scope)


def _subjects(rows: Sequence[Json]) -> set[str]:
    return {row["subject"] for row in rows}


def _add_alert_routes(app: FastAPI, engine: Engine, access: AccessLog) -> None:
    @app.get("/api/patients")
    def patients(scope: ViewerScope, reader: Reader) -> Json:
        found = alert_queries.list_patients(engine, scope)
        access.note(reader, Category.OVERVIEW, _subjects(found))
        return {"patients": found}

    @app.get("/api/alerts")
    def alerts(
        scope: ViewerScope,
        reader: Reader,
        after_revision: Revision = 0,
        cursor: Annotated[str | None, Query(max_length=200)] = None,
    ) -> Json:
        if after_revision:
            found: Json = alert_queries.list_changed_alerts(engine, scope, after_revision)
        else:
            try:
                start = ListCursor.parse(cursor) if cursor else ListCursor(now_us() - CURRENT_US)
            except CursorError as error:
                raise HTTPException(422, str(error)) from error
            found = {"current_us": CURRENT_US} | alert_queries.list_alerts(engine, scope, start)
        access.note(reader, Category.ALERTS, _subjects(found["alerts"]))
        return found

    @app.get("/api/alerts/{id_:path}")
    def alert(scope: ViewerScope, reader: Reader, subject: Name, hub: Name, id_: str) -> Json:
        with engine.connect() as connection:
            found = alert_queries.find_alert(connection, scope, AlertKey(subject, hub, id_))
        if found is None:
            raise HTTPException(404, "this patient and hub have no alert with this id")
        access.note(reader, Category.ALERTS, [subject])
        return found


def _add_sensor_routes(app: FastAPI, engine: Engine, access: AccessLog) -> None:
    @app.get("/api/sensors")
    def sensors(scope: ViewerScope, reader: Reader) -> Json:
        limits = {"silent_after_us": SILENT_AFTER_US, "on_demand_silent_after_us": ON_DEMAND_SILENT_AFTER_US}
        found = queries.list_sensors(engine, scope)
        access.note(reader, Category.VITALS, _subjects(found))
        return {"now_us": now_us(), **limits, "sensors": found}

    @app.get("/api/ecg")
    def ecg(scope: ViewerScope, reader: Reader, subject: Name, hub: Name, sensor: Name, from_us: TimeUs, to_us: TimeUs) -> Json:
        key = SensorKey(subject, hub, sensor)
        segments = queries.read_ecg(engine, scope, key, from_us, to_us)
        if segments:  # else there is no such data: anybody can ask for any name
            access.note(reader, Category.WAVEFORMS, [subject])
        return key._asdict() | {"segments": segments}

    @app.get("/api/judged")
    def judged(
        scope: ViewerScope, reader: Reader, subject: Name, hub: Name, sensor: Name, from_us: TimeUs, to_us: TimeUs
    ) -> Json:
        key = SensorKey(subject, hub, sensor)
        found = read_judged(engine, scope, key, from_us, to_us)
        if found["analysed_us"]:
            access.note(reader, Category.VITALS, [subject])
        return key._asdict() | found

    @app.get("/api/vitals")
    def vitals(
        scope: ViewerScope,
        reader: Reader,
        subject: Name,
        hub: Name,
        sensor: Name,
        kind: Name,
        from_us: TimeUs = 0,
        to_us: TimeUs = MAX_TIME_US,
    ) -> Json:
        key = SensorKey(subject, hub, sensor)
        found = queries.read_vitals(engine, scope, key, kind, from_us, to_us)
        if found["vitals"] or found["latest"]:
            access.note(reader, Category.VITALS, [subject])
        return key._asdict() | {"kind": kind} | found


def _add_websocket(
    app: FastAPI, feed: Feed, access: AccessLog, watch: Callable[[Scope], Coroutine[None, None, NoReturn]]
) -> None:
    @app.websocket("/ws")
    async def live(socket: WebSocket, scope: ViewerScope, reader: Reader) -> None:
        async with feed.register_viewer(scope) as viewer:
            await socket.accept()
            async with asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(_send_messages(socket, lambda: feed.next_message(viewer), access, reader))
                watching = tasks.create_task(watch(scope))
                await _wait_closed(socket)
                sending.cancel()
                watching.cancel()


async def _send_messages(
    socket: WebSocket, next_message: Callable[[], Awaitable[Json]], access: AccessLog, reader: Actor
) -> None:
    try:
        while True:
            message = await next_message()
            category = CATEGORIES.get(message["type"])
            if category is not None and not access.is_noted(reader, category, message["subject"]):
                await asyncio.to_thread(access.note, reader, category, [message["subject"]])
            await socket.send_text(json.dumps(message, separators=(",", ":"), allow_nan=False))
    except SyncError as error:
        _log.error("closed a live connection whose access cannot be logged: %s", error)
        await socket.close(CANNOT_LOG)
    except (WebSocketDisconnect, RuntimeError):
        return  # the viewer has disconnected; `_wait_closed` returns too


async def _wait_closed(socket: WebSocket) -> None:
    """Return when the client disconnects; ignore all messages from it, since the page sends none."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass
